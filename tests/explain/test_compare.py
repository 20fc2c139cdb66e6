"""Promises of `reproducibility.explain.compare`."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import (
    Ledger,
    LedgerError,
    Recorder,
    Run,
    RunError,
    SetAsideWarning,
    TrainConfig,
    TrainState,
    compare,
    train,
)
from reproducibility.explain.comparison import loss_of
from reproducibility.reference.run import write_result
from reproducibility.storage.files import chained
from tests.conftest import SMALL
from tests.replaying import (
    NAME,
    ROOT,
    VALUE,
    another,
    compute_here,
    rewrite_attempts,
    rewrite_ledger,
    train_otherwise,
)
from tests.sabotage import reseal

Small = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def _outside_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record no commit: the tree may change while the tests run, and that would be reported."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two equal runs, "a" and "b", and one that parts from them after step 0, "fast"."""
    folder = tmp_path_factory.mktemp("compare")
    config = TrainConfig(seed=7, steps=12, checkpoint_every=4, **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(config, run_dir=folder / "a")
        train(dataclasses.replace(config, learning_rate=0.01), run_dir=folder / "fast")
    shutil.copytree(folder / "a", folder / "b")
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """Copies of them, for one test to change."""
    return shutil.copytree(trained, tmp_path / "runs")


def tear(path: Path, step: int) -> None:
    """Cut a ledger short in the line of a step."""
    content = (path / "ledger.jsonl").read_bytes()
    (path / "ledger.jsonl").write_bytes(content[: content.index(b'"step":%d}' % step)])


def spoil(path: Path, step: int) -> None:
    """Change one digit in the line of a step."""
    content = bytearray((path / "ledger.jsonl").read_bytes())
    content[content.index(b'"step":%d}' % step) - 9] ^= 1
    (path / "ledger.jsonl").write_bytes(content)


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
        assert (found.stage, found.leaves, found.notes) == (None, (), ())


def test_two_seeds_part_at_the_start(small: Small, tmp_path: Path) -> None:
    """Runs of two seeds are different from their initialisation on; the setting that explains it.

    Without ledgers it is seen in the first checkpoints that both have.
    """
    for seed in (7, 8):
        train(small(seed=seed), run_dir=tmp_path / str(seed))
    found = compare(tmp_path / "7", tmp_path / "8")
    assert (found.verdict, found.exit_code, found.step) == ("different", 1, 0)
    assert (found.stage, found.stages) == ("params", ("params",))
    assert found.leaves == ("layers.hidden_0.kernel", "layers.output.kernel")
    assert found.reason == (
        "They diverge at the start, first in params, layers.hidden_0.kernel and 1 more."
    )
    assert found.settings == {"seed": (7, 8)} or found.settings.keys() == {"data_digest", "seed"}
    for seed in (7, 8):
        (tmp_path / f"{seed}/ledger.jsonl").unlink()
    found = compare(tmp_path / "7", tmp_path / "8")
    assert (found.verdict, found.exit_code, found.step) == ("different", 1, 4)
    assert (found.stage, found.stages, found.losses) == (None, (), [])
    assert "key" in found.leaves
    assert "params.layers.output.kernel" in found.leaves
    assert "step" not in found.leaves
    assert found.distances["params.layers.output.kernel"].differing > 0
    nothing = "tells nothing: No such file or directory."
    assert found.notes == tuple(f"The ledger of {tmp_path / s} {nothing}" for s in ("7", "8"))


def test_runs_without_ledgers_are_no_more_the_same_than_their_results(
    trained: Path, tmp_path: Path
) -> None:
    """Where results differ, equal checkpoints before them are not the answer; where two runs went
    on and kept nothing common of it, nothing is told."""
    for name in "ab":
        shutil.copytree(trained / "a", tmp_path / name)
        (tmp_path / name / "ledger.jsonl").unlink()
    assert compare(tmp_path / "a", tmp_path / "b").verdict == "same"
    shutil.rmtree(tmp_path / "b/checkpoints/00000012")
    result = Run.read(tmp_path / "b").result()
    assert result
    (tmp_path / "b/result.json").unlink()
    found = compare(tmp_path / "a", tmp_path / "b")
    assert (found.verdict, found.exit_code, found.step) == ("cannot be told", 3, 8)
    assert "both went on to step 12, of which no common record tells." in found.reason
    write_result(tmp_path / "b/result.json", dataclasses.replace(result, digest="0" * 64))
    found = compare(tmp_path / "a", tmp_path / "b")
    assert (found.verdict, found.step, found.since) == ("different", 12, 8)
    assert found.reason == "The results differ after 12 updates; the states agree at 8."


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
    assert found.reason == (
        "The states differ after 4 updates, in params.layers.output.bias; "
        "their ledgers agree up to step 4."
    )
    assert found.distances == {"params.layers.output.bias": found.distances[found.leaves[0]]}
    assert (found.distances[found.leaves[0]].differing, found.stage) == (10, None)


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
    rewrite_attempts(
        tmp_path / "b", lambda lines: lines[0]["environment"].update({"threads.xla_cpu": 4096})
    )
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found.verdict == "same"
    assert [(d.name, d.b, d.effect) for d in found.environment] == [
        ("threads.xla_cpu", 4096, "changes bits")
    ]


def test_every_attempt_counts(small: Small, tmp_path: Path) -> None:
    """An environment that only the first of two attempts had is reported too."""
    train(small(), run_dir=tmp_path / "a")
    train(small(stop_after=4), run_dir=tmp_path / "b")
    rewrite_attempts(
        tmp_path / "b", lambda lines: lines[0]["environment"].update({"cpu.isa": "SSE4_2"})
    )
    train(small(), run_dir=tmp_path / "b")
    assert "cpu.isa" in {d.name for d in compare(tmp_path / "a", tmp_path / "b").environment}


@pytest.mark.parametrize("content", ["", "{}", '{"digest": "ab"', '{"hash": "x"}', "\n", "[]\n"])
def test_what_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    """Empty, truncated and foreign files are refused, also when both are the same."""
    for name in "ab":
        (tmp_path / name).write_text(content)
    with pytest.raises(
        RunError, match=r"Cannot compare \S+a: expected a run, .* got (a|an empty) file"
    ):
        compare(tmp_path / "a", tmp_path / "b")


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    """A directory that is no run is refused."""
    with pytest.raises(RunError, match="something with arrays in it, got an empty directory"):
        compare(tmp_path, tmp_path)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """What is no plain file is refused rather than waited for."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="got something that is not a plain file"):
        compare(tmp_path / "pipe", tmp_path / "pipe")


@pytest.mark.parametrize("replay", [False, True])
def test_a_comparison_is_json(runs: Path, monkeypatch: pytest.MonkeyPatch, *, replay: bool) -> None:
    """What `compare` returns can be written as JSON and read back, all of it."""
    compute_here(monkeypatch)
    found = compare(runs / "a", runs / "fast", replay=replay)
    read = json.loads(json.dumps(found.to_json()))
    assert read.keys() == {field.name for field in dataclasses.fields(found)}
    assert (read["verdict"], read["step"], read["stage"]) == ("different", 1, "params")
    assert read["losses"][0] == [0, None, None]
    assert [float.fromhex(text) > 0 for text in read["losses"][1][1:]] == [True, True]
    assert read["settings"] == {"learning_rate": [0.001, 0.01]}
    if replay:
        assert [side["answer"] for side in read["recomputed"]] == ["confirmed", "confirmed"]
        distance = read["distances"]["layers.output.bias"]
        assert (distance["dtype"], distance["elements"]) == ("float32", 10)
        assert distance["differing"] > 0 < distance["ulp"]
    else:
        assert (read["recomputed"], read["distances"]) == (None, {})


def test_a_loss_is_a_number() -> None:
    """Losses are kept exactly, as text; where there is none, it is not a number."""
    assert loss_of("0x1.8p+1") == 3.0
    assert math.isnan(loss_of(None))
    assert math.isnan(loss_of("nan"))


# ---------------------------------------------------------------- ledgers
@pytest.mark.parametrize("left", ["a", "a/ledger.jsonl", "alone"])
@pytest.mark.parametrize("right", ["fast", "fast/ledger.jsonl"])
def test_ledgers_are_compared_wherever_they_are(runs: Path, left: str, right: str) -> None:
    """A run, its ledger, and a directory with nothing else tell the same; only runs explain."""
    (runs / "alone").mkdir()
    shutil.copy(runs / "a/ledger.jsonl", runs / "alone")
    found = compare(runs / left, runs / right)
    assert (found.verdict, found.step, found.stage) == ("different", 1, "params")
    assert found.stages == ("params",)
    assert found.leaves[0] == "layers.hidden_0.bias"
    reason = "They diverge at step 1, first in params, layers.hidden_0.bias and 3 more."
    assert found.reason == reason
    both = (left, right) == ("a", "fast")
    assert found.settings == ({"learning_rate": (0.001, 0.01)} if both else {})
    assert [digest is None for digest in found.digests] == [left != "a", right != "fast"]
    assert compare(runs / left, runs / "b").verdict == "same"
    assert [step for step, *_ in found.losses[:3]] == [0, 1, 2]


def test_equal_ledgers_alone_are_the_same(runs: Path) -> None:
    """Where there is no state to compare, all that both recorded is what is compared."""
    found = compare(runs / "a/ledger.jsonl", runs / "b/ledger.jsonl")
    assert (found.verdict, found.step) == ("same", 12)
    assert found.reason == "All that both recorded agrees, up to step 12."


def test_a_result_and_a_ledger_have_nothing_in_common(runs: Path) -> None:
    """A digest is not compared with a fingerprint."""
    found = compare(runs / "a/result.json", runs / "b/ledger.jsonl")
    assert (found.verdict, found.step) == ("cannot be told", None)


def test_runs_of_other_length_agree_or_part(small: Small, runs: Path) -> None:
    """Of two lengths, what both have recorded is compared."""
    train(small(steps=6), run_dir=runs / "short")
    found = compare(runs / "a", runs / "short")
    assert (found.verdict, found.step) == ("same", 4)
    shutil.rmtree(runs / "short/checkpoints")
    found = compare(runs / "a", runs / "short")
    assert (found.verdict, found.step) == ("same", 6)
    assert found.reason == "All that both recorded agrees, up to step 6."
    assert compare(runs / "fast", runs / "short").step == 1


def test_other_models_part_in_the_leaves_that_one_lacks(
    small: Small, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where networks are not of one shape, that is where they part, and there is no distance."""
    compute_here(monkeypatch)
    for name, hidden in {"deep": (8, 8), "wide": (9,)}.items():
        train(small(hidden=hidden), run_dir=runs / name)
    found = compare(runs / "a", runs / "deep", replay=True)
    assert (found.step, found.stages) == (0, ("opt_state", "params"))
    assert (found.leaves, found.distances) == (("[0].mu", "[0].nu"), {})
    assert found.settings == {"hidden": ([8], [8, 8])}
    found = compare(runs / "a", runs / "wide", replay=True)
    assert (found.leaves, found.distances) == (("[0].mu", "[0].nu"), {})
    assert [side.answer for side in found.recomputed] == ["confirmed", "confirmed"]


def write(path: Path, *, steps: int = 12, other: int | None = None, **settings: Any) -> Path:
    """Write a ledger of two leaves, one of which is another from step `other` on."""
    with Recorder(path, **settings) as recorder:
        for step in range(steps + 1):
            w = step + (other is not None and step >= other)
            recorder.record(step, params={"v": np.float32(step), "w": np.float32(w)})
    return path


@pytest.mark.parametrize(
    ("left", "right", "step", "since", "leaves"),
    [
        ({}, {}, 5, 5, ("w",)),
        ({"level": "group"}, {}, 5, 5, ()),
        ({"level": "group"}, {"level": "group"}, 5, 5, ()),
        ({"every": 2}, {"every": 3}, 6, 1, ("w",)),
        ({"every": 4}, {"every": 4, "level": "group"}, 8, 5, ()),
        ({"every": 5}, {"every": 3}, None, None, ()),
    ],
)
def test_what_both_recorded_is_compared(
    tmp_path: Path, left: Any, right: Any, step: int | None, since: int | None, leaves: Any
) -> None:
    """Of other levels, groups are compared; of other intervals, the steps that both have."""
    a, b = write(tmp_path / "a", **left), write(tmp_path / "b", other=5, **right)
    found = compare(a, b)
    if step is None:
        assert (found.verdict, found.step) == ("cannot be told", 0)
        return
    assert (found.verdict, found.step, found.stage, found.leaves) == (
        "different",
        step,
        "params",
        leaves,
    )
    when = f"step {step}" if since == step else f"a step from {since} to {step}"
    assert found.reason == f"They diverge at {when}, first in params{', w' if leaves else ''}."
    assert compare(a, write(tmp_path / "c", **right)).verdict == "same"


def test_what_only_one_recorded_is_not_the_same(tmp_path: Path) -> None:
    """Ledgers without a stage in common cannot be told; a stage that one lacks is noted."""
    stages: dict[str, tuple[str, ...]] = {
        "some": ("params",),
        "others": ("batch", "gradients"),
        "all": ("batch", "key", "params"),
    }
    for name, recorded in stages.items():
        with Recorder(tmp_path / name) as recorder:
            recorder.record(1, **dict.fromkeys(recorded, np.zeros(3)))
    found = compare(tmp_path / "some", tmp_path / "others")
    assert (found.verdict, found.step) == ("cannot be told", None)
    assert found.reason == "The two ledgers have no stage in common."
    assert found.notes == ("Only one of the two ledgers has batch, gradients, params.",)
    found = compare(tmp_path / "some", tmp_path / "all")
    assert (found.verdict, found.step) == ("same", 1)
    assert found.notes == ("Only one of the two ledgers has batch, key.",)


def test_a_loss_that_alone_differs_is_a_difference(runs: Path) -> None:
    """Where all fingerprints agree and the loss does not, that is where the two part."""
    rewrite_ledger(runs / "b", lambda line: line.get("step") == 6 and line.update(loss="0x1p+0"))
    found = compare(runs / "a", runs / "b")
    assert (found.verdict, found.step, found.stage, found.leaves) == ("different", 6, "loss", ())
    assert found.reason == "They diverge at step 6, first in loss."


def test_a_forged_loss_is_refuted(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs that differ in a loss alone are not both confirmed: it is computed again as well."""
    compute_here(monkeypatch)
    rewrite_ledger(runs / "b", another(6, "loss"))
    found = compare(runs / "a", runs / "b", replay=True)
    assert (found.verdict, found.step, found.stage) == ("different", 6, "loss")
    assert [side.answer for side in found.recomputed] == ["confirmed", "refuted"]
    assert "step 6 came out different, first in loss" in found.recomputed[1].reason


# ---------------------------------------------------------------- ledgers that are not whole
def test_a_damaged_ledger_is_used_as_far_as_it_holds(runs: Path) -> None:
    """What stands before damage tells; the verdict comes from the results, and a note says it."""
    for spoiled, said in ((tear, "was cut short"), (spoil, "does not continue the chain")):
        shutil.copy(runs / "a/ledger.jsonl", runs / "b")
        spoiled(runs / "b", 7)
        found = compare(runs / "a", runs / "b")
        assert (found.verdict, found.step) == ("same", 12)
        assert found.notes == (
            f"The ledger of {runs / 'b'} was read up to step 6: line 10 {said}.",
        )
        found = compare(runs / "fast", runs / "b")
        assert (found.verdict, found.step) == ("different", 1)
        alone = compare(runs / "a/ledger.jsonl", runs / "b/ledger.jsonl")
        assert (alone.verdict, alone.exit_code, alone.step) == ("cannot be told", 3, 6)
        assert "A ledger is damaged; what both recorded before that agrees, to 6." in alone.reason
        shutil.copy(runs / "fast/ledger.jsonl", runs / "b")
        spoiled(runs / "b", 7)
        alone = compare(runs / "a/ledger.jsonl", runs / "b/ledger.jsonl")
        assert (alone.verdict, alone.step) == ("different", 1)
    shutil.copy(runs / "a/ledger.jsonl", runs / "b")
    spoil(runs / "b", 0)
    found = compare(runs / "a", runs / "b")
    assert (found.verdict, found.notes) == (
        "same",
        (f"The ledger of {runs / 'b'} was not read: line 2 does not continue the chain.",),
    )


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "a first line that is no header of one"),
        (b"what is this\n", "a first line that is no header of one"),
        (b"{}\n", "a first line that is no header of one"),
        (chained("r", {"format": 2, "run": "r"})[0], "format 2"),
    ],
)
def test_a_ledger_that_is_none_tells_nothing(runs: Path, content: bytes, got: str) -> None:
    """In a run it is noted, and the results tell; alone it is refused."""
    (runs / "b/ledger.jsonl").write_bytes(content)
    found = compare(runs / "a", runs / "b", replay=True)
    assert (found.verdict, found.step) == ("same", 12)
    assert found.notes == (f"The ledger of {runs / 'b'} tells nothing: {got}.",)
    with pytest.raises(LedgerError, match=f"got {got}") as caught:
        compare(runs / "a", runs / "b/ledger.jsonl")
    assert caught.value.exit_code == 2


def test_the_ledger_of_another_run_tells_nothing(runs: Path) -> None:
    """In a run directory, a ledger of another run is not read, intact as it is."""
    shutil.copy(runs / "fast/ledger.jsonl", runs / "b")
    found = compare(runs / "a", runs / "b")
    assert (found.verdict, found.step) == ("same", 12)
    name = Run.read(runs / "fast").name
    assert found.notes == (
        f"The ledger of {runs / 'b'} was not read: it is the ledger of run {name}.",
    )


# ---------------------------------------------------------------- computed again
def test_the_step_between_two_lines_is_found(
    small: Small, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every third step is recorded, computing the stretch again tells the step itself."""
    asked = compute_here(monkeypatch)
    for name, rate in {"c": 0.001, "d": 0.01}.items():
        train(small(record_every=3, learning_rate=rate), run_dir=runs / name)
    found = compare(runs / "c", runs / "d")
    assert (found.step, found.stage) == (3, "batch") or (found.step, found.stage) == (
        3,
        "gradients",
    )
    assert found.reason.startswith("They diverge at a step from 1 to 3, first in ")
    assert (asked, found.recomputed) == ([], None)
    found = compare(runs / "c", runs / "d", replay=True)
    assert (found.step, found.stage, found.stages) == (1, "params", ("params",))
    reason = "They diverge at step 1, first in params, layers.hidden_0.bias and"
    assert found.reason.startswith(reason)
    assert [side.answer for side in found.recomputed] == ["confirmed", "confirmed"]
    assert found.distances.keys() == set(found.leaves)
    every = compare(runs / "a", runs / "fast", replay=True)  # the same, with every step recorded
    assert (found.leaves, found.distances) == (every.leaves, every.distances)


def test_the_one_with_the_fault_is_refuted(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of two lines was never computed, computing both again tells which of the two."""
    compute_here(monkeypatch)
    rewrite_ledger(runs / "b", another(6, "gradients"))
    for left, right, answers in (
        ("a", "b", ["confirmed", "refuted"]),
        ("b", "a", ["refuted", "confirmed"]),
    ):
        found = compare(runs / left, runs / right, replay=True)
        assert (found.verdict, found.step, found.stage) == ("different", 6, "gradients")
        assert [side.answer for side in found.recomputed] == answers
        assert found.distances == {}
        assert len(found.leaves) == 1


def test_what_is_not_confirmed_is_not_measured(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledgers' answer stays where what was computed now is not what they recorded."""
    compute_here(monkeypatch)
    rewrite_ledger(runs / "fast", another(1, "batch"))
    found = compare(runs / "a", runs / "fast", replay=True)
    assert (found.step, found.stage, found.distances) == (1, "batch", {})
    assert [side.answer for side in found.recomputed] == ["confirmed", "refuted"]


def test_a_fault_between_two_lines_is_refuted(
    small: Small, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of other bits is behind the last line that agrees: no distance starts there."""
    compute_here(monkeypatch)
    train(small(record_every=3), run_dir=runs / "c")
    train(small(record_every=3, stop_after=4), run_dir=runs / "d")

    def nudge(state: TrainState) -> TrainState:
        layer = state.params["layers"]["output"]
        layer["bias"] = jnp.nextafter(layer["bias"], jnp.inf)
        return state

    reseal(runs / "d", nudge)
    train(small(record_every=3), run_dir=runs / "d")
    found = compare(runs / "c", runs / "d", replay=True)
    assert found.reason.startswith("They diverge at a step from 4 to 6, first in ")
    assert [side.answer for side in found.recomputed] == ["confirmed", "refuted"]


def test_what_cannot_be_computed_again_is_said(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger alone, or a run without its records, leaves the answer of the ledgers."""
    compute_here(monkeypatch)
    found = compare(runs / "a/ledger.jsonl", runs / "fast", replay=True)
    assert (found.verdict, found.step, found.stage) == ("different", 1, "params")
    told = {(side.answer, side.reason) for side in found.recomputed}
    assert told == {("cannot be told", "A ledger alone cannot be computed again.")}
    assert compare(runs / "fast", runs / "a/ledger.jsonl", replay=True).recomputed == (
        found.recomputed
    )
    (runs / "a/attempts.jsonl").unlink()
    found = compare(runs / "a", runs / "fast", replay=True)
    assert (found.verdict, found.step, found.distances) == ("different", 1, {})
    one, other = found.recomputed
    assert (one.answer, other.answer) == ("cannot be told", "confirmed")
    assert one.reason.startswith("Cannot compute a step again at ")


@pytest.mark.nightly
@pytest.mark.long
def test_two_environments_are_measured(
    small: Small, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Runs that part where the environment changed: each is computed again in its own.

    The step, the stage, its leaves, how many elements differ by how many ULP, and what explains
    it: in processes of their own, from "it differs" to the flag.
    """
    config = small(keep=9)
    runs = {tmp_path / "a": dataclasses.replace(config, stop_after=6), tmp_path / "b": config}
    train_otherwise(runs)
    train(config, run_dir=tmp_path / "a")
    said: list[str] = []
    found = compare(tmp_path / "a", tmp_path / "b", replay=True, progress=said.append)
    assert (found.verdict, found.step, found.stage) == ("different", 7, "gradients")
    assert [side.answer for side in found.recomputed] == ["confirmed", "confirmed"]
    assert found.leaves
    assert found.distances.keys() == set(found.leaves)
    for distance in found.distances.values():
        assert 0 < distance.differing <= distance.elements
        assert distance.ulp > 0
    assert (f"xla_flags.{NAME}", None, VALUE, "changes bits") in [
        (d.name, d.a, d.b, d.effect) for d in found.environment
    ]
    assert sorted(said) == [
        f"{tmp_path / run}: computing step 7 from {start}" for run, start in (("a", 6), ("b", 4))
    ]
    assert capfd.readouterr().out == ""


def record(path: Path, last: int, *, every: int = 1, first: int = 1, other: int = 999) -> None:
    """Write a ledger of a state that is another from a step on."""
    with Recorder(path, every=every) as recorder:
        for step in range(first, last + 1):
            recorder.record(step, params=jnp.uint32(step + 100 * (step >= other)))


def test_same_only_as_far_as_both_went(tmp_path: Path) -> None:
    """Ledgers that agree where both have lines tell nothing about the steps behind that."""
    record(tmp_path / "a", 30, every=3, other=25)
    record(tmp_path / "b", 30, every=20)
    found = compare(tmp_path / "a", tmp_path / "b")
    assert (found.verdict, found.exit_code) == ("cannot be told", 3)
    record(tmp_path / "c", 24)
    record(tmp_path / "d", 12)
    found = compare(tmp_path / "c", tmp_path / "d")
    assert (found.verdict, found.step) == ("same", 12)


def test_runs_that_went_on_unrecorded_cannot_be_told(small: Small, tmp_path: Path) -> None:
    """Two runs whose ledgers end before the runs do are not the same for what is recorded."""
    for name, rate in {"a": 0.001, "b": 0.5}.items():
        config = small(learning_rate=rate, record_every=1000, stop_after=6 if name == "a" else 7)
        train(config, run_dir=tmp_path / name)
        shutil.rmtree(tmp_path / name / "checkpoints" / "00000004")
    found = compare(tmp_path / "a", tmp_path / "b")
    assert (found.verdict, found.step) == ("cannot be told", 0)
    assert "both went on to step 6" in found.reason


def test_a_common_record_that_begins_late_names_a_range(tmp_path: Path) -> None:
    """Where the first line of both differs, they diverge at it or at any step before it."""
    record(tmp_path / "a", 12, first=9)
    record(tmp_path / "b", 12, other=2)
    found = compare(tmp_path / "a", tmp_path / "b")
    assert (found.verdict, found.step, found.since) == ("different", 9, -1)
    assert "a step from 1 to 9" in found.reason


def test_recording_that_stops_takes_its_lines_along(small: Small, tmp_path: Path) -> None:
    """Lines of steps that are computed again without a record are set aside, not believed."""
    train(small(), run_dir=tmp_path / "a")
    train(small(stop_after=6), run_dir=tmp_path / "b")
    rewrite_ledger(tmp_path / "b", another(6, "params"))
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "00000006")
    with pytest.warns(SetAsideWarning, match="the steps after 4 are computed again, and not"):
        train(small(record="off"), run_dir=tmp_path / "b")
    assert [step for step, _ in Ledger(tmp_path / "b" / "ledger.jsonl")] == [0, 1, 2, 3, 4]
    assert compare(tmp_path / "a", tmp_path / "b").verdict == "same"


LIGHT = """
import sys
from reproducibility.cli import main
try:
    main(["compare", *sys.argv[1:], "--no-replay"])
except SystemExit as end:
    print("code", end.code, *(name for name in ("jax", "orbax", "flax") if name in sys.modules))
"""


def test_records_are_compared_without_jax(trained: Path, small: Small, tmp_path: Path) -> None:
    """Where ledgers or results decide, JAX is not imported: the answer comes in a moment.

    The control: two states on disk, without ledgers and results, cannot be compared without it.
    """
    for name in ("one", "two"):
        train(small(record="off", stop_after=4), run_dir=tmp_path / name)

    def told(*names: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", LIGHT, *names],
            cwd=trained,
            text=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=120,
            check=True,
        )
        return done.stdout.splitlines()[-1]

    assert told("a", "b") == "code 0"
    assert told("a", "fast") == "code 1"
    assert told("a/ledger.jsonl", "fast/ledger.jsonl") == "code 1"
    assert told("a/result.json", "fast/result.json") == "code 1"
    assert told(str(tmp_path / "one"), str(tmp_path / "two")) == "code 0 jax orbax flax"


def test_a_replay_begins_without_jax(tmp_path: Path) -> None:
    """The process that starts a replay is ready before JAX is: its children import that."""
    modules = "reproducibility.explain.replay, reproducibility.explain.origin"
    code = f"import sys, {modules}; print('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=True,
    )
    assert done.stdout == "False\n"


def test_steps_that_have_nothing_in_common_are_not_the_same(tmp_path: Path) -> None:
    """Two ledgers agree only as far as both tell something of the same kind of a step.

    The control: with one stage in common the last step counts.
    """

    def record(name: str, *, common: bool, params: bool) -> Path:
        with Recorder(tmp_path / name) as recorder:
            recorder.record(0, params={"w": np.zeros(3)})
            for step in range(1, 6):
                parts: dict[str, Any] = {"batch": np.arange(step)} if common else {}
                w = np.full(3, float(step))
                parts |= {"params": {"w": w}} if params else {"loss": step * 7.0}
                recorder.record(step, **parts)
        return tmp_path / name

    a, b = (record(f"{params}", common=False, params=params) for params in (True, False))
    found = compare(a, b)
    assert (found.verdict, found.step) == ("cannot be told", 0)
    a, b = (record(f"common {params}", common=True, params=params) for params in (True, False))
    found = compare(a, b)
    assert (found.verdict, found.step) == ("same", 5)
