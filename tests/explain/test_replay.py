"""Promises of `reproducibility.explain.replay`."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
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
from reproducibility.explain import child as children_of_replay
from reproducibility.explain import replay
from reproducibility.recording.lines import STAGES
from reproducibility.reference import step as the_step
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
def here(monkeypatch: pytest.MonkeyPatch) -> Asked:
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
def test_any_step_is_confirmed(run: Path, here: Asked, step: int, start: int) -> None:
    """Each step is computed from the checkpoint before it and has the recorded fingerprints."""
    found = replay.replay(run, step)
    assert (found.answer, found.step, found.start) == ("confirmed", step, start)
    assert found.entries == {step: replay.recorded(Run.read(run), step)}
    assert list(found.values) == list(STAGES if step else STAGES[3:])
    assert found.environment == ()
    lines = max(step - start, 1) + (step > 0 == start)
    assert str(lines) in found.reason


def test_the_arrays_are_those_of_the_step(run: Path, here: Asked) -> None:
    """The arrays that come back are those of the run: the state after the step, bit for bit."""
    state = restore_state(Run.read(run), step=8)
    found = replay.replay(run, 8).values
    for stage in ("params", "opt_state"):
        saved = leaves(getattr(state, stage))
        assert saved.keys() == found[stage].keys()
        assert all(np.array_equal(saved[name], found[stage][name]) for name in saved)
    assert jax.dtypes.issubdtype(found["key"]["dropout"].dtype, jax.dtypes.prng_key)
    assert found["batch"]["x"].shape[0] == SMALL["batch_size"]


def test_a_run_past_one_plan_is_confirmed(small: Any, tmp_path: Path, here: Asked) -> None:
    """What is random is planned 64 steps ahead: a stretch that begins anywhere uses that plan."""
    train(small(steps=70, checkpoint_every=30), run_dir=tmp_path / "run")
    for step, start in ((64, 60), (65, 60), (70, 60)):
        found = replay.replay(tmp_path / "run", step)
        assert (found.answer, found.start) == ("confirmed", start)


def test_damaged_and_foreign_checkpoints_are_passed_over(
    run: Path, small: Any, here: Asked
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


def test_earlier_steps_are_kept_if_asked_for(run: Path, here: Asked) -> None:
    """`since` moves the start to a checkpoint before it, so that no step after it is missed."""
    for since, start in ((7, 4), (8, 8), (4, 4), (3, 0), (-1, 0), (10, 8)):
        found = replay.replay(run, 10, since=since)
        assert found.start == start
        assert sorted(found.entries) == list(range(min(since, 9) + 1, 11))


# ---------------------------------------------------------------- what the ledger does not tell
@pytest.mark.parametrize("content", [None, b"", b"{}\n", b'{"format":1,"leaves":{}}\n'])
def test_without_a_ledger_nothing_is_confirmed(
    run: Path, here: Asked, content: bytes | None
) -> None:
    """Where there is no line to compare with, the step is computed and cannot be told."""
    (run / "ledger.jsonl").unlink()
    if content is not None:
        (run / "ledger.jsonl").write_bytes(content)
    found = replay.replay(run, 6)
    assert (found.answer, found.reason) == ("cannot be told", "The ledger has no line of step 6.")
    assert found.values
    assert replay.recorded(Run.read(run), 6) is None


def test_a_damaged_ledger_tells_of_the_steps_before(run: Path, here: Asked) -> None:
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


def test_only_a_recorded_step_is_confirmed(small: Any, tmp_path: Path, here: Asked) -> None:
    """Where not every step is recorded, one between two lines is confirmed by neither."""
    train(small(record_every=3), run_dir=tmp_path / "run")
    found = replay.replay(tmp_path / "run", 6, since=3)
    assert (found.answer, sorted(found.entries)) == ("confirmed", [4, 5, 6])
    assert found.reason == "It has the recorded fingerprints; 3 of its lines were compared."
    found = replay.replay(tmp_path / "run", 7)
    assert found.answer == "cannot be told"
    assert found.reason.endswith("; 1 of its lines was compared, and agreed.")


@pytest.mark.parametrize("step", [13, 99, -1])
def test_a_step_that_was_never_computed_is_refused(run: Path, here: Asked, step: int) -> None:
    """A step beyond the end, or before the start, is refused with those that there are."""
    with pytest.raises(ReplayError, match="a step from 0 to 12, which are complete") as caught:
        replay.replay(run, step)
    assert (caught.value.exit_code, caught.value.step) == (3, step)
    assert here == []


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    """A directory without a run is refused as everywhere."""
    with pytest.raises(RunError, match=r"a run directory with run\.json"):
        replay.replay(tmp_path, 1)


def test_a_killed_run_goes_as_far_as_its_ledger(run: Path, here: Asked) -> None:
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


def test_an_attempt_without_a_record_cannot_be_told(run: Path, here: Asked) -> None:
    """Where no line says in which environment a step was computed, none is assumed."""
    rewrite_attempts(run, lambda lines: lines[1].update(to_step=6))
    assert replay.replay(run, 6).answer == "confirmed"
    with pytest.raises(ReplayError, match=r"step 9: expected a line in attempts\.jsonl that says"):
        replay.replay(run, 10)
    (run / "attempts.jsonl").unlink()
    with pytest.raises(ReplayError, match=r"step 5: expected a line in attempts\.jsonl"):
        replay.replay(run, 5)


def test_another_program_is_refused(
    run: Path, here: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this package makes other data of the same settings, it is said, not computed."""
    settings = the_step.settings_of
    monkeypatch.setattr(
        the_step, "settings_of", lambda programs: {**settings(programs), "data_digest": "other"}
    )
    with pytest.raises(ReplayError, match=r"expected data_digest='[0-9a-f]{64}', got 'other'"):
        replay.replay(run, 5)


# ---------------------------------------------------------------- what is refuted
@pytest.mark.parametrize("stage", STAGES)
def test_a_step_with_other_bits_is_refuted(run: Path, here: Asked, stage: str) -> None:
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
def test_all_that_a_line_holds_is_verified(run: Path, here: Asked, step: int) -> None:
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


def test_a_line_that_tells_less_confirms_less(run: Path, here: Asked) -> None:
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


def test_a_group_is_enough_to_refute(small: Any, tmp_path: Path, here: Asked) -> None:
    """With one fingerprint a stage the answer is the same, without the name of a leaf."""
    train(small(record="group"), run_dir=tmp_path / "run")
    assert replay.replay(tmp_path / "run", 6).answer == "confirmed"
    rewrite_ledger(tmp_path / "run", another(6, "gradients"))
    found = replay.replay(tmp_path / "run", 6)
    assert found.answer == "refuted"
    assert found.reason.endswith("step 6 came out different, first in gradients.")


def test_what_cannot_be_had_is_named_instead_of_blamed(run: Path, here: Asked) -> None:
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
    assert replay._stretches(run, step, step - 1) == expected


def two_environments(lines: list[dict[str, Any]]) -> None:
    """Write the log of a run whose first six steps had another version of jaxlib."""
    first, last = lines
    second = {**first, "from_step": 6, "environment": dict(first["environment"])}
    first["environment"]["version.jaxlib"] = "0.0.1"
    lines[:] = [first, {**last, "to_step": 6}, second, last]


def test_the_state_is_handed_on(run: Path, here: Asked) -> None:
    """Two stretches in a row come to the step of one, and keep the fingerprints of both."""
    rewrite_attempts(run, two_environments)
    shutil.rmtree(run / "checkpoints/00000008")
    found = replay.replay(run, 10, since=4)
    assert [(task["start"], task["end"]) for _, task in here] == [(4, 6), (6, 10)]
    assert [e["version.jaxlib"] == "0.0.1" for e, _ in here] == [True, False]
    assert (found.answer, found.start) == ("confirmed", 4)
    assert sorted(found.entries) == [5, 6, 7, 8, 9, 10]
    assert "6 of its lines were compared" in found.reason


def test_one_stretch_that_cannot_be_had_is_enough(run: Path, here: Asked) -> None:
    """Other bits in the second stretch may come from the first: they refute nothing."""
    rewrite_attempts(run, two_environments)
    rewrite_ledger(run, another(7, "params"))
    shutil.rmtree(run / "checkpoints/00000008")
    found = replay.replay(run, 10)
    assert (found.answer, [d.name for d in found.environment]) == (
        "cannot be told",
        ["version.jaxlib"],
    )


def test_a_stretch_that_comes_out_different_is_the_last(run: Path, here: Asked) -> None:
    """What follows from another state is not computed, and there are no arrays of the step."""
    rewrite_attempts(run, two_environments)
    rewrite_ledger(run, another(5, "batch"))
    shutil.rmtree(run / "checkpoints/00000008")
    found = replay.replay(run, 10)
    assert [(task["start"], task["end"]) for _, task in here] == [(4, 6)]
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


# ---------------------------------------------------------------- the child process
# Imported in the child before anything else of the task, in the place of what it would compute.
PROBE = """
import json, os, sys
json.dump([dict(os.environ), sys.path], open(os.environ["PROBE"], "w"))
os._exit(5)
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Start the child process of a replay with a module of our own."""

    def start(content: str, environment: Any = {}, progress: Any = None) -> None:  # noqa: B006
        (tmp_path / "path").mkdir(exist_ok=True)
        (tmp_path / "path/ours.py").write_text(content)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
        replay.in_environment(environment, "ours", {"run": "R", "end": 3}, progress)

    return start


def variables(
    child: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: Any
) -> dict[str, str]:
    """Return the variables that a child process has for a recorded environment."""
    monkeypatch.setenv("PROBE", str(tmp_path / "probe.json"))
    with pytest.raises(ReplayError, match="got exit code 5 and 'nothing'"):
        child(PROBE, environment)
    found, path = json.loads((tmp_path / "probe.json").read_text())
    assert str(tmp_path) not in path
    assert "" not in path
    return found


def test_the_child_has_the_recorded_environment(
    child: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded settings are set, those of this process that were not recorded are gone.

    Nothing is imported from the directory that the command happens to be in.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    ours = {
        "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
        "NPROC": "7",
        "PJRT_NPROC": "7",
        "OMP_NUM_THREADS": "7",
        "JAX_ENABLE_X64": "1",
        "JAX_FOO": "1",
        "JAX_BAR": "1",
        "JAX_COMPILATION_CACHE_DIR": "cache",
        "JAX_PLATFORMS": "nonsense",
        "HOME": "home",
    }
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    recorded = {
        "threads.xla_cpu": 2,
        "xla_flags.xla_cpu_max_isa": "AVX",
        "env.JAX_FOO": "(set)",
        "env.HOME": None,
        "config.path": "x",
        "env.PATH": "/evil",
        "device.platform": "cpu",
        "config.jax_random_seed_offset": 0,
        "xla_flags.nobody_knows_it": "true",
        "env.PYTHONSTARTUP": "evil.py",
        "xla_flags.xla_dump_to": "here",
    }
    found = variables(child, tmp_path, monkeypatch, recorded)
    assert (found["XLA_FLAGS"], found["NPROC"]) == ("--xla_cpu_max_isa=AVX", "2")
    assert (found["JAX_PLATFORMS"], found["JAX_RANDOM_SEED_OFFSET"]) == ("cpu", "0")
    assert found["JAX_COMPILATION_CACHE_DIR"] == "cache"
    assert (found["JAX_FOO"], found["HOME"]) == ("1", "home")
    assert found["PATH"] == os.environ["PATH"]
    assert not found.keys() & {
        "PJRT_NPROC",
        "OMP_NUM_THREADS",
        "JAX_ENABLE_X64",
        "JAX_BAR",
        "PYTHONSTARTUP",
    }


def test_a_recorded_value_is_only_a_value(
    child: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a run holds is executed, opens a file, or smuggles in another flag."""
    evil = [
        "AVX --xla_dump_to=here",
        "$(touch here)",
        "`touch here`",
        "; touch here",
        "a'b",
        'a"b',
        "a\nb",
        "a\0b",
        "\ud800",
        "../here",
        "/here",
        "a\n",
        ["x"],
        {"a": 1},
        "é",
    ]
    monkeypatch.chdir(tmp_path)
    for name in ("OPENBLAS_CORETYPE", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    for value in evil:
        recorded = {
            "xla_flags.xla_cpu_max_isa": value,
            "env.OPENBLAS_CORETYPE": value,
            "threads.xla_cpu": value,
            "config.jax_default_prng_impl": value,
        }
        assert children_of_replay.variables_of(recorded) == {}
    found = variables(child, tmp_path, monkeypatch, recorded)
    assert not found.keys() & {"XLA_FLAGS", "NPROC", "OPENBLAS_CORETYPE", "JAX_DEFAULT_PRNG_IMPL"}
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        ("raise ValueError('no such thing')", 1, "ValueError: no such thing"),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, "nothing"),
        ("import no_such_module", 1, "ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "import sys; sys.exit('E0102 03:04:05.6  7 a.cc:8] no [x] flag\\nusage: …')",
            1,
            "no [x] flag",
        ),
        ("e = ValueError('first'); e.add_note('See a page'); raise e", 1, "ValueError: first"),
    ],
)
def test_a_child_that_fails_says_why(
    child: Callable[..., None], content: str, code: int, told: str
) -> None:
    """A process that comes back without an answer is one sentence, with what it died of."""
    with pytest.raises(ReplayError) as caught:
        child(content)
    error = caught.value
    assert (error.exit_code, error.path, error.step) == (3, "R", 3)
    assert error.got == f"exit code {code} and {told!r}"
    assert "\n" not in str(error)


def test_a_flag_that_the_compiler_refuses_is_named(run: Path) -> None:
    """A recorded flag that this XLA refuses is not a refutation: it is said, with the flag."""

    def refused(lines: list[dict[str, Any]]) -> None:
        lines[0]["environment"]["xla_flags.xla_cpu_enable_fast_math"] = "perhaps"

    rewrite_attempts(run, refused)
    with pytest.raises(ReplayError, match="xla_cpu_enable_fast_math") as caught:
        replay.replay(run, 6)
    assert "\n" not in str(caught.value)


def test_an_interrupt_takes_the_child_along(
    child: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever interrupts a replay does not wait for it, and leaves no process behind."""
    monkeypatch.setenv("PROBE", str(tmp_path / "pid"))
    content = "import os, pathlib, time; pathlib.Path(os.environ['PROBE']).write_text("
    content += "str(os.getpid())); print('begun', flush=True); time.sleep(600)"

    def interrupt(text: str) -> None:
        assert text == "R: begun"
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        child(content, progress=interrupt)
    assert time.monotonic() - began < 300
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_other_code_is_not_a_refutation(run: Path, here: Asked) -> None:
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


PIDS = """
import os, pathlib

def work(task):
    if task["dies"]:
        raise ValueError(task["run"])
    if task["waits"]:
        pathlib.Path(task["waits"]).touch()
        import time; time.sleep(600)
    return {"pid": os.getpid()}
"""


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Have a child of ours do a task; return which process did it."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path/pids.py").write_text(PIDS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))

    def start(run: str, *, dies: bool = False, waits: str = "", threads: int = 1) -> int:
        task = {"run": run, "end": 3, "dies": dies, "waits": waits}
        found = replay.in_environment({"threads.xla_cpu": threads}, "pids", task, None)
        return found["pid"]

    return start


def test_equal_environments_share_a_process(ask: Callable[..., int]) -> None:
    """Two runs are computed by one process where the same variables are set, and else by two."""
    one, other = children_of_replay.side_by_side(ask, ("a", "b"))
    assert one == other
    one, other = children_of_replay.side_by_side(lambda n: ask("a", threads=n), (1, 2))
    assert one != other


def test_a_process_that_died_takes_no_other_run_along(ask: Callable[..., int]) -> None:
    """Of two runs that share a process, each is told what happened to it, whichever is first."""

    def one(run: str) -> int | str:
        try:
            return ask(run, dies=run.startswith("bad"))
        except ReplayError as error:
            return error.got

    for runs in (("bad 1", "good", "bad 2"), ("good", "bad 3", "good too")):
        for run, told in zip(runs, children_of_replay.side_by_side(one, runs), strict=True):
            if run.startswith("bad"):
                assert told == f"exit code 1 and 'ValueError: {run}'"
            else:
                assert isinstance(told, int)


def test_what_fails_on_one_side_ends_the_other(ask: Callable[..., int], tmp_path: Path) -> None:
    """Nobody waits for one side when the other one has failed already; other calls go on."""
    begun = tmp_path / "begun"

    def one(side: str) -> None:
        if side == "b":
            while not begun.exists():
                time.sleep(0.01)
            raise KeyError(side)
        ask(side, waits=str(begun))

    began = time.monotonic()
    with pytest.raises(KeyError):
        children_of_replay.side_by_side(one, ("a", "b"))
    assert time.monotonic() - began < 300
    assert children_of_replay.side_by_side(len, ("a", "bc")) == [1, 2]


def ready(folder: Path, count: int) -> list[Path]:
    """Wait until so many tasks are at work."""
    while len(found := list(folder.glob("ready *"))) < count:
        time.sleep(0.01)
    return found


def test_what_fails_ends_no_other_call(ask: Callable[..., int], tmp_path: Path) -> None:
    """Of two calls at a time in two threads, one that fails leaves the processes of the other.

    The same holds for a replay that no such call has started.
    """
    ended: list[str] = []

    def waiting(name: str) -> None:
        with pytest.raises(ReplayError, match="got exit code -9"):
            ask(name, waits=str(tmp_path / f"ready {name}"))
        ended.append(name)

    both = partial(children_of_replay.side_by_side, waiting, ("c",))
    others = [threading.Thread(target=each) for each in (both, partial(waiting, "alone"))]
    before = set(psutil.Process().children())
    for thread in others:
        thread.start()
    ready(tmp_path, 2)
    theirs = set(psutil.Process().children()) - before

    def one(side: str) -> None:
        if side == "b":
            ready(tmp_path, 3)
            raise KeyError(side)
        ask(side, waits=str(tmp_path / "ready a"))

    try:
        with pytest.raises(KeyError):
            children_of_replay.side_by_side(one, ("a", "b"))
        assert set(psutil.Process().children()) - before == theirs
        assert ended == []
    finally:
        for child in theirs:
            child.kill()
        for thread in others:
            thread.join()
    assert sorted(ended) == ["alone", "c"]


def test_a_child_that_comes_too_late_is_ended(
    ask: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that one side starts while the other has failed already is not waited for."""
    failed, before = threading.Event(), set(psutil.Process().children())
    end = children_of_replay._Children.end
    monkeypatch.setattr(children_of_replay._Children, "end", lambda self: (end(self), failed.set()))

    def one(side: str) -> None:
        if side == "b":
            raise KeyError(side)
        assert failed.wait(300)
        ask(side, waits="begun")

    with pytest.raises(KeyError):
        children_of_replay.side_by_side(one, ("a", "b"))
    assert set(psutil.Process().children()) - before == set()
