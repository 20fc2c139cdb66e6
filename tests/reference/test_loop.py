"""Promises of `reference.loop`: what is logged, saved and asked on the way, and how a run ends."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from reproducibility import (
    PLANNED,
    CheckpointStore,
    ConfigError,
    NotReproducedError,
    Plan,
    Programs,
    Recorder,
    ReplayError,
    Run,
    RunDamagedError,
    SetAsideWarning,
    TrainConfig,
    TrainState,
    read_result,
    replay,
    restore_state,
    train,
    tree_digest,
    write_result,
)
from tests.reference.test_resume import interrupted

Small = Callable[..., TrainConfig]


def test_checkpoints_are_what_was_trained(small: Small, tmp_path: Path) -> None:
    """A checkpoint holds the state of its step, though training goes on while it is written."""
    config = small(keep=12, checkpoint_every=1)
    train(config, run_dir=tmp_path / "run")
    for step in (1, 5, 12):
        short = train(small(steps=step))
        assert tree_digest(restore_state(Run.read(tmp_path / "run"), step=step)) == short.digest


def test_stop_is_asked_after_every_step(small: Small, tmp_path: Path) -> None:
    """When `stop` answers True, training ends there with a checkpoint, and resumes from it."""
    seen: list[int] = []
    done = train(
        small(),
        run_dir=tmp_path / "run",
        progress=lambda step, loss: seen.append(step),
        stop=lambda: len(seen) == 7,
    )
    assert (done.ended, int(done.state.step), seen) == ("interrupted", 7, list(range(1, 8)))
    assert done.result is None
    assert train(small(), run_dir=tmp_path / "run").digest == train(small()).digest


def test_result_says_what_the_run_came_to(small: Small, tmp_path: Path) -> None:
    """result.json holds the digests of the final state and the metrics of the held-out set."""
    done = train(small(steps=300, checkpoint_every=300), run_dir=tmp_path / "run")
    result = read_result(tmp_path / "run" / "result.json")
    assert result == done.result
    assert (result.run, result.steps) == (Run.read(tmp_path / "run").name, 300)
    assert result.digest == tree_digest(done.state)
    assert result.params_digest == tree_digest(done.state.params)
    assert result.accuracy > 0.3  # a tenth is chance
    assert 0 < result.loss < np.log(10)


def test_a_run_can_grow(small: Small, tmp_path: Path) -> None:
    """A finished run goes on when more steps are asked for, to the digest of the long run."""
    train(small(steps=5), run_dir=tmp_path / "run")
    assert train(small(), run_dir=tmp_path / "run").digest == train(small()).digest
    assert read_result(tmp_path / "run" / "result.json").steps == 12


def test_a_finished_run_is_not_altered(small: Small, tmp_path: Path) -> None:
    """Training a finished run again changes no byte of it and returns the same result."""
    first = train(small(), run_dir=tmp_path / "run")

    def contents() -> dict[str, str]:
        files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
        return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    before = contents()
    second = train(small(), run_dir=tmp_path / "run")
    assert contents() == before
    assert (second.digest, second.result, second.ended) == (first.digest, first.result, "finished")


def test_without_a_directory_nothing_is_written(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train(config)` leaves no file behind."""
    monkeypatch.chdir(tmp_path)
    assert train(small()).result is None
    assert list(tmp_path.iterdir()) == []


def test_attempts_are_logged(small: Small, tmp_path: Path) -> None:
    """Each stretch of work leaves a line when it starts and one when it ends."""
    interrupted(small(), tmp_path / "run", 5)
    lines = Run.read(tmp_path / "run").attempts()
    assert [line["event"] for line in lines] == ["start", "end", "start", "end"]
    assert [line.get("from_step") for line in lines[::2]] == [0, 5]
    assert [(line["ended"], line["to_step"]) for line in lines[1::2]] == [
        ("stopped", 5),
        ("finished", 12),
    ]
    assert lines[0]["programs"] == lines[2]["programs"]
    assert lines[0]["programs"].keys() == {"gradient", "update"}
    assert lines[0]["layout"] == {"devices": 1, "processes": 1}
    assert lines[0]["environment"]["version.jax"] == jax.__version__


def test_a_crash_is_logged_and_resumed(small: Small, tmp_path: Path) -> None:
    """A run that died of an exception says so, and goes on from its last checkpoint."""

    def crash(step: int, loss: jax.Array) -> None:
        if step == 6:
            raise RuntimeError("a bug in someone's callback")

    with pytest.raises(RuntimeError, match="callback"):
        train(small(), run_dir=tmp_path / "run", progress=crash)
    assert Run.read(tmp_path / "run").attempts()[-1]["ended"] == "failed"
    assert train(small(), run_dir=tmp_path / "run").digest == train(small()).digest


def failing(real: Callable[..., Any], when: Callable[[], bool]) -> Callable[..., Any]:
    """Return a function that raises instead of doing its work, at some moment."""

    @functools.wraps(real)
    def fail(*args: Any, **kwargs: Any) -> Any:
        if when():
            raise RuntimeError("on purpose")
        return real(*args, **kwargs)

    return fail


# Where an exception is raised, after how many calls of the step, and what is complete then.
PLACES = {
    "the step": (Programs, "step", 5, 5),
    "the plan": (Programs, "plan", PLANNED, PLANNED),
    "the record": (Recorder, "record", 6, 6),
    "the progress": (None, "progress", 6, 6),
    "the question whether to stop": (None, "stop", 6, 6),
    "the save": (CheckpointStore, "save", 6, 6),
    "nowhere": (None, None, PLANNED + 2, PLANNED + 2),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_crash_is_logged_with_the_last_complete_update(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Wherever in a step an exception is raised, `to_step` is the last update with a new state.

    Nothing later is believed: `replay` refuses the step that was never computed. The run goes on
    to the digest of the uninterrupted one.
    """
    owner, name, calls, complete = PLACES[place]
    config = small(steps=PLANNED + 2, checkpoint_every=6)
    real, called = Programs.step, [0]

    def counted(self: Programs, *args: Any) -> Any:
        called[0] += 1
        return real(self, *args)

    callbacks = {}
    monkeypatch.setattr(Programs, "step", counted)
    if owner:
        broken = failing(getattr(owner, name), lambda: called[0] == calls)
        monkeypatch.setattr(owner, name, broken)
    elif name:
        callbacks[name] = failing(lambda *_: False, lambda: called[0] == calls)
    raised = pytest.raises(RuntimeError, match="purpose") if name else contextlib.nullcontext()
    with raised:
        train(config, run_dir=tmp_path / "run", **callbacks)
    monkeypatch.undo()
    assert called == [calls]
    end = Run.read(tmp_path / "run").attempts()[-1]
    assert (end["ended"], end["to_step"]) == ("failed" if name else "finished", complete)
    with pytest.raises(ReplayError, match=f"a step from 0 to {complete}, which are complete"):
        replay(tmp_path / "run", complete + 1)
    assert train(config, run_dir=tmp_path / "run").digest == train(config).digest


def test_a_computation_that_failed_is_no_complete_update(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the state itself cannot be had, no step is claimed: which one failed is not known.

    JAX reports such an error later than in the step that failed. The control: an exception beside
    a state that is there.
    """
    real, count = Programs.step, [0]

    def lost(self: Programs, state: TrainState, plan: Plan) -> Any:
        count[0] += 1
        state, loss, gradient = real(self, state, plan)
        if count[0] == 6:
            jax.tree.map(lambda leaf: leaf.delete(), state)  # as its error would leave it
        return state, loss, gradient

    def crash(step: int, loss: jax.Array) -> None:
        if step == 6:
            raise RuntimeError("on purpose")

    for name, step in {"whole": real, "lost": lost}.items():
        monkeypatch.setattr(Programs, "step", step)
        with pytest.raises(RuntimeError, match="on purpose"):
            train(small(record="off"), run_dir=tmp_path / name, progress=crash)
        end = Run.read(tmp_path / name).attempts()[-1]
        assert (end["ended"], end.get("to_step")) == ("failed", 6 if name == "whole" else None)
    monkeypatch.undo()
    with pytest.raises(ReplayError, match="a step from 0 to 4, which are complete"):
        replay(tmp_path / "lost", 6)
    assert train(small(), run_dir=tmp_path / "lost").digest == train(small()).digest


def test_settings_that_change_draws_stop_a_run(small: Small, tmp_path: Path) -> None:
    """A run does not start under a JAX setting that changes its draws."""
    with jax.threefry_partitionable(False), pytest.raises(ConfigError, match="partitionable"):
        train(small(), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_diverged_run_has_a_result(small: Small, tmp_path: Path) -> None:
    """A loss that is not finite is no number in JSON: the result says None, and can be read."""
    done = train(small(learning_rate=1e30, steps=4), run_dir=tmp_path / "run")
    assert done.result.loss is None
    assert read_result(tmp_path / "run" / "result.json") == done.result


@pytest.mark.parametrize("name", ["digest", "run"])
def test_a_result_of_another_state_is_refused(small: Small, tmp_path: Path, name: str) -> None:
    """A finished run whose result is not that of its own checkpoint is not reported as done."""
    done = train(small(), run_dir=tmp_path / "run").result
    write_result(tmp_path / "run/result.json", dataclasses.replace(done, **{name: "d" * 64}))
    with pytest.raises(RunDamagedError, match="as of the checkpoint"):
        train(small(), run_dir=tmp_path / "run")


def test_a_finished_run_that_lost_its_end_does_not_shrink(small: Small, tmp_path: Path) -> None:
    """The result counts as well: with its last checkpoint damaged a run still has its length."""
    train(small(), run_dir=tmp_path / "run")
    (tmp_path / "run/checkpoints/00000012/seal.json").write_text("")
    with pytest.warns(SetAsideWarning), pytest.raises(ConfigError, match="at least 12"):
        train(small(steps=10), run_dir=tmp_path / "run")


def test_a_run_that_does_not_reproduce_itself_says_so(small: Small, tmp_path: Path) -> None:
    """Computed again from a checkpoint to another digest, a finished run keeps its result."""
    done = train(small(), run_dir=tmp_path / "run").result
    (tmp_path / "run/checkpoints/00000012/seal.json").write_text("")
    other = dataclasses.replace(done, digest="d" * 64)
    write_result(tmp_path / "run/result.json", other)
    with pytest.warns(SetAsideWarning), pytest.raises(NotReproducedError, match=done.digest):
        train(small(), run_dir=tmp_path / "run")
    assert read_result(tmp_path / "run/result.json") == other


def test_a_damaged_result_is_made_again(small: Small, tmp_path: Path) -> None:
    """Without its result a finished run computes it anew from its checkpoint, the same one."""
    first = train(small(), run_dir=tmp_path / "run").result
    (tmp_path / "run" / "result.json").write_text("{")
    with pytest.warns(SetAsideWarning, match=r"damaged-result\.json"):
        second = train(small(), run_dir=tmp_path / "run").result
    assert dataclasses.replace(second, seconds=first.seconds) == first
