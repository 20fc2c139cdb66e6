"""What a run directory has to say before training begins or goes on in it.

The rule: a run goes on from its newest intact checkpoint or refuses; it never guesses, and it
overwrites nothing.
Chapter: docs/components/checkpoint_explained.md
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

from reproducibility.errors import CheckpointMismatchError, ConfigError, RunError
from reproducibility.reference.config import TrainConfig, identity_of
from reproducibility.reference.run import Run
from reproducibility.reference.step import TrainState, programs_of
from reproducibility.same.hashing import tree_digest
from reproducibility.scale.agree import assert_same_facts, on_first
from reproducibility.storage.checkpoint import CheckpointStore

SHARED = "Give all processes one --run-dir, which all of them see."


def open_run(stack: ExitStack, path: str | os.PathLike[str], settings: dict[str, Any]) -> Run:
    """Begin work on a run directory in process 0; the others read it when that is done."""
    opened: list[Run] = []
    on_first(lambda: opened.append(stack.enter_context(Run.work(path, settings))))
    try:
        return opened[0] if opened else Run.read(path)
    except RunError as error:
        raise RunError(
            "read",
            "the run of process 0",
            path=error.path,
            expected="the directory it made",
            got=error.got,
            do=SHARED,
        ) from error


def restore_state(run: Run, *, step: int | None = None) -> TrainState:
    """Read the state of a run from one of its checkpoints, without training.

    **Same bits:** the state that was saved, everywhere.

    Args:
        run: a run directory, opened with `Run.read`.
        step: which checkpoint; by default the newest.

    Returns:
        The state.

    Raises:
        CheckpointError: there is no such checkpoint, or it does not match the run's identity.
        CheckpointDamagedError: its bytes are not those that were sealed.
    """
    start = programs_of(identity_of(run.identity)).start
    with store_of(run) as store:
        state: TrainState = store.restore(start, step=step)
        _check_state(state, start, run, store.steps()[-1] if step is None else step)
    return state


def resume_run(
    config: TrainConfig, run: Run, store: CheckpointStore, start: TrainState
) -> TrainState:
    """Return the newest saved state, or the start; as `config.resume` allows."""
    steps = store.steps()
    assert_same_facts({"checkpoints": steps}, thing="the run directory", do=SHARED)
    if config.resume == "require" and not steps:
        raise RunError(
            "resume",
            "the run",
            path=run.path,
            expected="a checkpoint",
            got="none",
            do="Use --resume auto to start from the beginning.",
        )
    if config.resume == "never" and steps:
        raise RunError(
            "start the run anew",
            "here",
            path=run.path,
            expected="no checkpoints",
            got=f"one of step {steps[-1]}",
            do="Choose another --run-dir, or --resume auto; nothing was overwritten.",
        )
    state: TrainState = store.resume(start)
    if steps:
        _check_state(state, start, run, store.steps()[-1])
    done = max(int(state.step), result.steps if (result := run.result()) else 0)
    if done > config.steps:
        raise ConfigError(
            "use",
            "steps",
            expected=f"at least {done}, which are complete",
            got=config.steps,
            do="A run can grow, not shrink.",
        )
    return state


def _check_state(state: TrainState, start: TrainState, run: Run, step: int) -> None:
    """Refuse a checkpoint that is intact but cannot be one of this run."""
    seed, keys = run.identity["seed"], (tree_digest(start.key), tree_digest(state.key))
    facts = {
        "step": (f"{step}, as the directory is named", step, int(state.step)),
        "key": (f"the root key of seed {seed}, with digest {keys[0]}", *keys),
    }
    for name, (expected, wanted, got) in facts.items():
        if got != wanted:
            raise CheckpointMismatchError(
                "use",
                f"leaf {name}",
                path=run.checkpoints,
                step=step,
                expected=expected,
                got=got,
                do="Something other than `train` wrote it: take an intact copy.",
            )


def store_of(run: Run, keep: int = 3) -> CheckpointStore:
    """Return the store of a run's checkpoints."""
    return CheckpointStore(run.checkpoints, keep=keep, run=run.name)
