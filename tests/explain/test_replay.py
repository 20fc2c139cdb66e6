"""Promises of `reproducibility.explain.replay`."""

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from reproducibility import (
    ReplayError,
    Run,
    RunError,
    TrainConfig,
    capture_environment,
    restore_state,
    train,
)
from reproducibility.explain import replay
from reproducibility.explain.recompute import recorded
from reproducibility.explain.stretches import stretches_of
from reproducibility.recording.lines import STAGES
from reproducibility.reference import step as reference_step
from reproducibility.same.leaves import named_leaves, path_string
from tests.conftest import SMALL
from tests.replaying import (
    NAME,
    VALUE,
    another,
    compute_here,
    rewrite_attempts,
    rewrite_ledger,
    train_otherwise,
)

CONFIG = TrainConfig(seed=7, steps=12, checkpoint_every=4, **SMALL)
Asked = list[tuple[dict[str, Any], dict[str, Any]]]


@contextlib.contextmanager
def folder(factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a new directory the current one: no commit is recorded, which may change meanwhile."""
    path = factory.mktemp("replay")
    with contextlib.chdir(path):
        yield path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with checkpoints at 4, 8 and 12."""
    with folder(tmp_path_factory) as path:
        train(CONFIG, run_dir=path / "run")
    return path / "run"


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two environments with other bits, one up to step 6 and one after it."""
    config = dataclasses.replace(CONFIG, keep=9)
    with folder(tmp_path_factory) as path:
        train_otherwise({path / "run": dataclasses.replace(config, stop_after=6)})
        train(config, run_dir=path / "run")
    return path / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run, for one test to change."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Compute in this process instead of in a child."""
    return compute_here(monkeypatch)


def leaves(tree: object) -> dict[str, np.ndarray]:
    """Return the arrays of a tree by name; of keys, their words."""
    named = {path_string(path): leaf for path, leaf in named_leaves(tree)}
    keys = jax.dtypes.prng_key
    return {
        name: np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, keys) else x)
        for name, x in named.items()
    }


# ---------------------------------------------------------------- what is confirmed
@pytest.mark.parametrize(("step", "start"), [(0, 0), (1, 0), (4, 0), (5, 4), (12, 8)])
def test_any_step_is_confirmed(run: Path, in_process: Asked, step: int, start: int) -> None:
    """Each step is computed from the checkpoint before it and has the recorded fingerprints."""
    found = replay.replay(run, step)
    assert (found.answer, found.step, found.start) == ("confirmed", step, start)
    assert found.entries == {step: recorded(Run.read(run), step)}
    assert list(found.values) == list(STAGES if step else STAGES[3:])
    assert found.environment == ()
    lines = max(step - start, 1) + (step > 0 == start)
    assert str(lines) in found.reason


def test_the_arrays_are_those_of_the_step(run: Path, in_process: Asked) -> None:
    """The arrays that come back are those of the run: the state after the step, bit for bit."""
    state = restore_state(Run.read(run), step=8)
    found = replay.replay(run, 8).values
    for stage in ("params", "opt_state"):
        saved = leaves(getattr(state, stage))
        assert saved.keys() == found[stage].keys()
        assert all(np.array_equal(saved[name], found[stage][name]) for name in saved)
    assert jax.dtypes.issubdtype(found["key"]["dropout"].dtype, jax.dtypes.prng_key)
    assert found["batch"]["x"].shape[0] == SMALL["batch_size"]


def test_a_run_past_one_plan_is_confirmed(small: Any, tmp_path: Path, in_process: Asked) -> None:
    """What is random is planned 64 steps ahead: a stretch that begins anywhere uses that plan."""
    train(small(steps=70, checkpoint_every=30), run_dir=tmp_path / "run")
    for step, start in ((64, 60), (65, 60), (70, 60)):
        found = replay.replay(tmp_path / "run", step)
        assert (found.answer, found.start) == ("confirmed", start)


def test_damaged_and_foreign_checkpoints_are_passed_over(
    run: Path, small: Any, in_process: Asked
) -> None:
    """The newest checkpoint that is intact and of this run is used; without one, the start."""
    train(small(seed=8, steps=4), run_dir=run.parent / "other")
    for step, start in ((8, 4), (4, 0)):
        assert replay.replay(run, 12).start == (8 if start == 4 else 4)
        checkpoint = run / f"checkpoints/{step:08d}"
        shutil.rmtree(checkpoint)
        if step == 8:
            checkpoint.mkdir()  # nothing in it: damaged
        else:
            shutil.copytree(run.parent / "other/checkpoints/00000004", checkpoint)
        found = replay.replay(run, 12)
        assert (found.answer, found.start) == ("confirmed", start)
    shutil.rmtree(run / "checkpoints")
    assert replay.replay(run, 12).answer == "confirmed"


def test_earlier_steps_are_kept_if_asked_for(run: Path, in_process: Asked) -> None:
    """`since` moves the start to a checkpoint before it, so that no step after it is missed."""
    for since, start in ((7, 4), (8, 8), (4, 4), (3, 0), (-1, 0), (10, 8)):
        found = replay.replay(run, 10, since=since)
        assert found.start == start
        assert sorted(found.entries) == list(range(min(since, 9) + 1, 11))


# ---------------------------------------------------------------- what the ledger does not tell
@pytest.mark.parametrize("content", [None, b"", b"{}\n", b'{"format":1,"leaves":{}}\n'])
def test_without_a_ledger_nothing_is_confirmed(
    run: Path, in_process: Asked, content: bytes | None
) -> None:
    """Where there is no line to compare with, the step is computed and cannot be told."""
    (run / "ledger.jsonl").unlink()
    if content is not None:
        (run / "ledger.jsonl").write_bytes(content)
    found = replay.replay(run, 6)
    assert (found.answer, found.reason) == ("cannot be told", "The ledger has no line of step 6.")
    assert found.values
    assert recorded(Run.read(run), 6) is None


def test_a_damaged_ledger_tells_of_the_steps_before(run: Path, in_process: Asked) -> None:
    """Lines before the damage confirm their steps; those after it confirm nothing."""
    lines = (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"step":7}' in line)
    (run / "ledger.jsonl").write_bytes(b"".join([*lines[:at], lines[at][:-20], *lines[at + 1 :]]))
    assert replay.replay(run, 6).answer == "confirmed"
    found = replay.replay(run, 7)
    assert found.answer == "cannot be told"
    assert found.reason == (
        "The ledger has no line of step 7; 2 of its lines were compared, and agreed."
    )


def test_only_a_recorded_step_is_confirmed(small: Any, tmp_path: Path, in_process: Asked) -> None:
    """Where not every step is recorded, one between two lines is confirmed by neither."""
    train(small(record_every=3), run_dir=tmp_path / "run")
    found = replay.replay(tmp_path / "run", 6, since=3)
    assert (found.answer, sorted(found.entries)) == ("confirmed", [4, 5, 6])
    assert found.reason == "It has the recorded fingerprints; 3 of its lines were compared."
    found = replay.replay(tmp_path / "run", 7)
    assert found.answer == "cannot be told"
    assert found.reason.endswith("; 1 of its lines was compared, and agreed.")


@pytest.mark.parametrize("step", [13, 99, -1])
def test_a_step_that_was_never_computed_is_refused(run: Path, in_process: Asked, step: int) -> None:
    """A step beyond the end, or before the start, is refused with those that there are."""
    with pytest.raises(ReplayError, match="a step from 0 to 12, which are complete") as caught:
        replay.replay(run, step)
    assert (caught.value.exit_code, caught.value.step) == (3, step)
    assert in_process == []


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    """A directory without a run is refused as everywhere."""
    with pytest.raises(RunError, match=r"a run directory with run\.json"):
        replay.replay(tmp_path, 1)


def test_a_killed_run_goes_as_far_as_its_ledger(run: Path, in_process: Asked) -> None:
    """A process that was killed said nothing at its end; its ledger says how far it came."""
    rewrite_attempts(run, lambda lines: lines.pop())
    for step in (8, 12):
        shutil.rmtree(run / f"checkpoints/{step:08d}")
    lines = (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"step":7}' in line)
    (run / "ledger.jsonl").write_bytes(b"".join(lines[: at + 1]))
    assert replay.replay(run, 7).answer == "confirmed"
    with pytest.raises(ReplayError, match="a step from 0 to 7, which are complete, got 8"):
        replay.replay(run, 8)


def test_an_attempt_without_a_record_cannot_be_told(run: Path, in_process: Asked) -> None:
    """Where no line says in which environment a step was computed, none is assumed."""
    rewrite_attempts(run, lambda lines: lines[1].update(to_step=6))
    assert replay.replay(run, 6).answer == "confirmed"
    with pytest.raises(ReplayError, match=r"step 9: expected a line in attempts\.jsonl that says"):
        replay.replay(run, 10)
    (run / "attempts.jsonl").unlink()
    with pytest.raises(ReplayError, match=r"step 5: expected a line in attempts\.jsonl"):
        replay.replay(run, 5)


def test_another_program_is_refused(
    run: Path, in_process: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this package makes other data of the same settings, it is said, not computed."""
    settings = reference_step.settings_of
    monkeypatch.setattr(
        reference_step,
        "settings_of",
        lambda programs: {**settings(programs), "data_digest": "other"},
    )
    with pytest.raises(ReplayError, match=r"expected data_digest='[0-9a-f]{64}', got 'other'"):
        replay.replay(run, 5)


# ---------------------------------------------------------------- what is refuted
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_with_other_bits_is_refuted(run: Path, in_process: Asked, stage: str) -> None:
    """In the same environment, other bits than those recorded refute the record, by name."""
    rewrite_ledger(run, another(6, stage))
    found = replay.replay(run, 6)
    assert found.answer == "refuted"
    said = rf"recorded environment, step 6 came out different, first in {stage}, in \S+\.$"
    assert re.search(said, found.reason)
    assert replay.replay(run, 5).answer == "confirmed"
    assert replay.replay(run, 7).answer == "refuted"  # it was reached by another step
    assert replay.replay(run, 9).answer == "confirmed"  # from checkpoint 8
    rewrite_ledger(run, another(7, "batch"))
    assert re.search(said, replay.replay(run, 7).reason)  # the first is named


@pytest.mark.parametrize("step", [0, 6])
def test_all_that_a_line_holds_is_verified(run: Path, in_process: Asked, step: int) -> None:
    """Whatever entry of a line is forged, the loss too, the step is refuted: none is believed.

    A new entry that `replay` does not compute again is found here. The controls: the line as it
    is; and in another environment it cannot be told.
    """
    before = (run / "ledger.jsonl").read_bytes()
    lines = [json.loads(line) for line in before.splitlines()]
    [line] = [line for line in lines if line.get("step") == step]
    entries = line.keys() - {"step", "chain"}
    assert entries == ({*STAGES, "loss"} if step else {"opt_state", "params"})
    assert replay.replay(run, step).answer == "confirmed"
    for name in sorted(entries):
        (run / "ledger.jsonl").write_bytes(before)
        rewrite_ledger(run, another(step, name))
        found = replay.replay(run, step)
        assert (name, found.answer) == (name, "refuted")
        assert f"step {step} came out different, first in {name}" in found.reason
    rewrite_attempts(run, lambda lines: lines[0]["environment"].update({"cpu.isa": "?"}))
    assert replay.replay(run, step).answer == "cannot be told"


def test_a_line_that_tells_less_confirms_less(run: Path, in_process: Asked) -> None:
    """A line from which an entry was taken away confirms nothing, and it is said which.

    An entry that the step does not have is refuted.
    """
    before = (run / "ledger.jsonl").read_bytes()
    for name in (*STAGES, "loss"):
        (run / "ledger.jsonl").write_bytes(before)
        rewrite_ledger(run, lambda line, n=name: line.get("step") == 6 and line.pop(n))
        found = replay.replay(run, 6)
        assert found.answer == "cannot be told"
        assert found.reason.startswith(f"The ledger has no line of step 6 with its {name}; 1 of")
    (run / "ledger.jsonl").write_bytes(before)
    rewrite_ledger(run, lambda line: line.get("step") == 0 and line.update(loss="0x1p+0"))
    found = replay.replay(run, 0)
    assert found.answer == "refuted"
    assert "step 0 came out without loss, which its line has" in found.reason


def test_a_group_is_enough_to_refute(small: Any, tmp_path: Path, in_process: Asked) -> None:
    """With one fingerprint a stage the answer is the same, without the name of a leaf."""
    train(small(record="group"), run_dir=tmp_path / "run")
    assert replay.replay(tmp_path / "run", 6).answer == "confirmed"
    rewrite_ledger(tmp_path / "run", another(6, "gradients"))
    found = replay.replay(tmp_path / "run", 6)
    assert found.answer == "refuted"
    assert found.reason.endswith("step 6 came out different, first in gradients.")


def test_what_cannot_be_had_is_named_instead_of_blamed(run: Path, in_process: Asked) -> None:
    """Other bits under another version refute nothing: what differs is said. The same confirm."""
    version = capture_environment()["version.jaxlib"]

    def older(lines: list[dict[str, Any]]) -> None:
        lines[0]["environment"]["version.jaxlib"] = "0.0.1"

    rewrite_attempts(run, older)
    found = replay.replay(run, 6)
    assert found.answer == "confirmed"
    assert [(d.name, d.a, d.b) for d in found.environment] == [("version.jaxlib", "0.0.1", version)]
    rewrite_ledger(run, another(6, "params"))
    found = replay.replay(run, 6)
    assert found.answer == "cannot be told"
    assert found.reason.endswith(f"; but version.jaxlib was 0.0.1 then and is {version} here.")


# ---------------------------------------------------------------- stretches
A, B = {"cpu.isa": "AVX"}, {"cpu.isa": "AVX2"}
ATTEMPTS: dict[str, tuple[list[Any], int, list[Any]]] = {
    "one": ([(0, 12, A)], 10, [(A, 0, 10)]),
    "the start": ([(0, 12, A)], 0, [(A, 0, 0)]),
    "two": ([(0, 6, A), (6, 12, B)], 10, [(A, 0, 6), (B, 6, 10)]),
    "the first of two": ([(0, 6, A), (6, 12, B)], 6, [(A, 0, 6)]),
    "alike": ([(0, 6, A), (6, 12, dict(A))], 10, [(A, 0, 10)]),
    "there and back": (
        [(0, 2, A), (2, 4, B), (4, 6, A)],
        6,
        [(A, 0, 2), (B, 2, 4), (A, 4, 6)],
    ),
    "killed": ([(0, None, A), (4, 12, B)], 6, [(A, 0, 4), (B, 4, 6)]),
    "killed twice": ([(0, None, A), (4, None, B), (4, 12, A)], 6, [(A, 0, 6)]),
    "in part again": ([(0, 12, A), (4, 6, B)], 10, [(A, 0, 4), (B, 4, 6), (A, 6, 10)]),
    "failed at once": ([(0, 0, A), (0, 12, B)], 0, [(B, 0, 0)]),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_each_stretch_has_the_environment_it_had(tmp_path: Path, name: str) -> None:
    """A step belongs to the last attempt that computed it; attempts that are alike are one."""
    attempts, step, expected = ATTEMPTS[name]
    with Run.work(tmp_path, {"seed": 7}) as run:
        for begin, end, environment in attempts:
            run.log(event="start", from_step=begin, environment=environment)
            if end is not None:
                run.log(event="end", to_step=end)
    assert stretches_of(run, step, step - 1) == expected


def two_environments(lines: list[dict[str, Any]]) -> None:
    """Write the log of a run whose first six steps had another version of jaxlib."""
    first, last = lines
    second = {**first, "from_step": 6, "environment": dict(first["environment"])}
    first["environment"]["version.jaxlib"] = "0.0.1"
    lines[:] = [first, {**last, "to_step": 6}, second, last]


def test_the_state_is_handed_on(run: Path, in_process: Asked) -> None:
    """Two stretches in a row come to the step of one, and keep the fingerprints of both."""
    rewrite_attempts(run, two_environments)
    shutil.rmtree(run / "checkpoints/00000008")
    found = replay.replay(run, 10, since=4)
    assert [(task["start"], task["end"]) for _, task in in_process] == [(4, 6), (6, 10)]
    assert [e["version.jaxlib"] == "0.0.1" for e, _ in in_process] == [True, False]
    assert (found.answer, found.start) == ("confirmed", 4)
    assert sorted(found.entries) == [5, 6, 7, 8, 9, 10]
    assert "6 of its lines were compared" in found.reason


def test_one_stretch_that_cannot_be_had_is_enough(run: Path, in_process: Asked) -> None:
    """Other bits in the second stretch may come from the first: they refute nothing."""
    rewrite_attempts(run, two_environments)
    rewrite_ledger(run, another(7, "params"))
    shutil.rmtree(run / "checkpoints/00000008")
    found = replay.replay(run, 10)
    assert (found.answer, [d.name for d in found.environment]) == (
        "cannot be told",
        ["version.jaxlib"],
    )


def test_a_stretch_that_comes_out_different_is_the_last(run: Path, in_process: Asked) -> None:
    """What follows from another state is not computed, and there are no arrays of the step."""
    rewrite_attempts(run, two_environments)
    rewrite_ledger(run, another(5, "batch"))
    shutil.rmtree(run / "checkpoints/00000008")
    found = replay.replay(run, 10)
    assert [(task["start"], task["end"]) for _, task in in_process] == [(4, 6)]
    assert "step 5 came out different, first in batch, in " in found.reason
    assert (found.entries, found.values) == ({}, {})


@pytest.mark.long
def test_each_stretch_is_computed_in_its_environment(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of a run that changed environments is confirmed, by a process for each of the two."""
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(moved, tmp_path / "run")
    for step in (6, 8, 12):
        shutil.rmtree(run / f"checkpoints/{step:08d}")
    with pytest.MonkeyPatch.context() as patch:
        compute_here(patch)  # which is not the environment of the first
        found = replay.replay(run, 6)
        assert found.answer == "cannot be told"
        assert (f"xla_flags.{NAME}", VALUE) in [(d.name, d.a) for d in found.environment]
        assert re.search(
            r" came out different, .*; but \S+ was .* then and is .* here", found.reason
        )
    found = replay.replay(run, 10)
    assert (found.answer, found.environment) == ("confirmed", ())
    assert found.reason == "It has the recorded fingerprints; 6 of its lines were compared."


# ---------------------------------------------------------------- other flags, other code
def test_a_flag_that_the_compiler_refuses_is_named(run: Path) -> None:
    """A recorded flag that this XLA refuses is not a refutation: it is said, with the flag."""

    def refused(lines: list[dict[str, Any]]) -> None:
        lines[0]["environment"]["xla_flags.xla_cpu_enable_fast_math"] = "perhaps"

    rewrite_attempts(run, refused)
    with pytest.raises(ReplayError, match="xla_cpu_enable_fast_math") as caught:
        replay.replay(run, 6)
    assert "\n" not in str(caught.value)


def test_other_code_is_not_a_refutation(run: Path, in_process: Asked) -> None:
    """Where the programs are others than those recorded, nothing is said against the machine."""

    def compiled_otherwise(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            line.get("programs", {}).update(update="0" * 64)

    rewrite_attempts(run, compiled_otherwise)
    assert replay.replay(run, 6).answer == "confirmed"
    rewrite_ledger(run, another(6, "params"))
    found = replay.replay(run, 6)
    assert found.answer == "cannot be told"
    assert f"program.update was {'0' * 64} then" in found.reason
