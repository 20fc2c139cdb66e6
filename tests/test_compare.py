"""Promises of `reproducibility.compare`."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import pytest

from reproducibility import TrainConfig, TrainState, compare, train
from reproducibility.errors import ResultError, RunError
from reproducibility.run import Run
from tests.sabotage import reseal

Small = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def _outside_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record no commit: the tree may change while the tests run, and that would be reported."""
    monkeypatch.chdir(tmp_path)


def rewrite(run: Run, lines: list[dict[str, object]]) -> None:
    """Write other lines into the log of a run, as another machine would have written them."""
    (run.path / "attempts.jsonl").unlink()
    for line in lines:
        del line["chain"]
        run.log(**line)


def test_two_equal_runs_are_the_same(small: Small, tmp_path: Path) -> None:
    """Two runs of one identity are the same, one of them interrupted, in any form of input."""
    train(small(), run_dir=tmp_path / "a")
    train(small(stop_after=5), run_dir=tmp_path / "b")
    train(small(), run_dir=tmp_path / "b")
    shutil.copy(tmp_path / "a" / "result.json", tmp_path / "a.json")
    for left in (tmp_path / "a", tmp_path / "a.json"):
        found = compare(left, tmp_path / "b")
        assert (found.verdict, found.exit_code, found.step) == ("same", 0, 12)
        assert found.digests[0] == found.digests[1]
        assert not found.settings
        assert not found.environment


def test_two_seeds_differ_and_the_settings_say_why(small: Small, tmp_path: Path) -> None:
    """Runs of two seeds are different; the leaves and the setting that explain it are named."""
    for seed in (7, 8):
        train(small(seed=seed), run_dir=tmp_path / str(seed))
    found = compare(tmp_path / "7", tmp_path / "8")
    assert (found.verdict, found.exit_code, found.step) == ("different", 1, 12)
    assert found.settings == {"seed": (7, 8)}
    assert "key" in found.leaves
    assert "params.layers.output.kernel" in found.leaves
    assert "step" not in found.leaves


def test_one_bit_is_found_and_named(small: Small, tmp_path: Path) -> None:
    """One changed number in one leaf of a checkpoint is a difference in that leaf alone."""
    for name in "ab":
        train(small(stop_after=4), run_dir=tmp_path / name)

    def nudge(state: TrainState) -> TrainState:
        layer = state.params["layers"]["output"]
        layer["bias"] = jnp.nextafter(layer["bias"], jnp.inf)
        return state

    reseal(tmp_path / "b", nudge)
    found = compare(tmp_path / "a", tmp_path / "b")
    assert (found.verdict, found.leaves) == ("different", ("params.layers.output.bias",))
    assert "in params.layers.output.bias" in found.reason


def test_unfinished_runs_are_compared_where_both_have_been(small: Small, tmp_path: Path) -> None:
    """Runs of different length are compared at the newest step of which both have a state."""
    train(small(), run_dir=tmp_path / "long")
    train(small(stop_after=8), run_dir=tmp_path / "short")
    found = compare(tmp_path / "long", tmp_path / "short")
    assert (found.verdict, found.step) == ("same", 8)


def test_no_common_step_cannot_be_told(small: Small, tmp_path: Path) -> None:
    """Where no state is known of both, the answer is that, not "same" and not "different"."""
    train(small(steps=12), run_dir=tmp_path / "a")
    train(small(steps=6), run_dir=tmp_path / "b")
    for name in "ab":
        shutil.copy(tmp_path / name / "result.json", tmp_path / f"{name}.json")
    found = compare(tmp_path / "a.json", tmp_path / "b.json")
    assert (found.verdict, found.exit_code, found.step) == ("cannot be told", 3, None)


def test_an_environment_explains_and_never_decides(small: Small, tmp_path: Path) -> None:
    """Runs with equal digests are the same, though another environment was recorded."""
    for name in "ab":
        train(small(), run_dir=tmp_path / name)
    run = Run.read(tmp_path / "b")
    lines = run.attempts()
    lines[0]["environment"]["threads.xla_cpu"] = 4096
    rewrite(run, lines)
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found.verdict == "same"
    assert [(d.name, d.b, d.effect) for d in found.environment] == [
        ("threads.xla_cpu", 4096, "changes bits")
    ]


def test_every_attempt_counts(small: Small, tmp_path: Path) -> None:
    """An environment that only the first of two attempts had is reported too."""
    train(small(), run_dir=tmp_path / "a")
    train(small(stop_after=4), run_dir=tmp_path / "b")
    run = Run.read(tmp_path / "b")
    first, *rest = run.attempts()
    first["environment"]["cpu.isa"] = "SSE4_2"
    rewrite(run, [first, *rest])
    train(small(), run_dir=tmp_path / "b")
    assert "cpu.isa" in {d.name for d in compare(tmp_path / "a", tmp_path / "b").environment}


@pytest.mark.parametrize("content", ["", "{}", '{"digest": "ab"', '{"hash": "x"}'])
def test_what_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    """Empty, truncated and foreign files are refused, also when both are the same."""
    for name in "ab":
        (tmp_path / name).write_text(content)
    with pytest.raises(ResultError, match=r"Cannot read a( result)? at"):
        compare(tmp_path / "a", tmp_path / "b")


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    """A directory that is no run is refused."""
    with pytest.raises(RunError, match=r"expected a run directory with run\.json"):
        compare(tmp_path, tmp_path)


def test_a_comparison_is_json(small: Small, tmp_path: Path) -> None:
    """What `compare` returns can be written as JSON and read back."""
    train(small(), run_dir=tmp_path / "a")
    found = compare(tmp_path / "a", tmp_path / "a")
    read = json.loads(json.dumps(found.to_json()))
    assert read["verdict"] == "same"
    assert read.keys() == {field.name for field in dataclasses.fields(found)}
