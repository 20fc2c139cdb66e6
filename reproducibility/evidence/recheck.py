"""What is computed again in the recorded environment: a stretch, or what the checkpoints hold.

The rule: what comes out is handed back with its digests; who asked for it compares.
Chapter: docs/guide/verification.md

JAX is imported in the functions that compute, as in `explain/recompute`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from reproducibility.errors import (
    CheckpointDamagedError,
    CheckpointMismatchError,
    ReplayError,
    ReproducibilityError,
)
from reproducibility.explain.recompute import (
    Steps,
    StretchTask,
    computed_entry,
    hand_on_state,
    ledger_lines,
    recorded_programs,
)
from reproducibility.recording.ledger import LEDGER, Ledger
from reproducibility.recording.lines import differing, read_entry
from reproducibility.reference.run import Run


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Compute in this process what an audit asks for.

    **Same bits:** as `train`, in this environment.

    Args:
        task: the fields of a `StretchTask`; or a run, and the steps of its checkpoints.

    Returns:
        What came out; or "refused" and why, where the run cannot be computed here; or "denied" and
        why, where a checkpoint is not what its seal says, or "mismatched", where it holds others.
    """
    from reproducibility.keys import check_ambient_settings

    try:
        check_ambient_settings()  # `train` would not begin otherwise
        _refuse_more_settings(Run.read(task["run"]))
        return _checkpoints(task) if "steps" in task else _stretch(StretchTask(**task))
    except CheckpointDamagedError as error:
        return {"denied": str(error).splitlines()[0], "programs": {}}
    except CheckpointMismatchError as error:  # also where a library has changed its state since
        return {"mismatched": str(error).splitlines()[0], "programs": {}}
    except ReproducibilityError as error:
        return {"refused": str(error).splitlines()[0], "programs": {}}


def _refuse_more_settings(run: Run) -> None:
    """Refuse a run.json that says more than what is computed: nothing would check that."""
    from reproducibility.reference.step import settings_of

    more = sorted(run.identity.keys() - settings_of(recorded_programs(run)).keys() - {"format"})
    if more:
        raise ReplayError(
            "audit",
            "the settings",
            path=run.path,
            expected="those of this version of the package",
            got=f"also {more[0]!r}",
            do="Use the version that made the run.",
        )


def _stretch(task: StretchTask) -> dict[str, Any]:
    """Compute a stretch again, up to the first line that comes out different."""
    from reproducibility.same.hashing import tree_digest

    steps, lacking, count, began = Steps(task), None, 0, time.monotonic()
    every = Ledger(Path(task.run) / LEDGER).header.every
    for step, _, _ in steps:
        if steps.lacking and not lacking:
            lacking = f"the line of step {step} does not have its {steps.lacking}"
        if not (steps.problem or lacking) and step % every == 0 and steps.last != step:
            lacking = f"there is no line of step {step}"
        count += 1
        if count == 2:  # what is compiled is compiled
            began = time.monotonic()
        if steps.problem:
            break
    if not steps.problem:
        hand_on_state(task, steps.state)
    return {
        "problem": steps.problem,
        "differs": steps.differs,
        "compared": steps.compared,
        "last": steps.last,
        "lacking": lacking,
        "digest": tree_digest(steps.state),
        "each": (time.monotonic() - began) / max(count - 2, 1),
        "programs": steps.programs.digests(),
    }


def _checkpoints(task: dict[str, Any]) -> dict[str, Any]:
    """Restore checkpoints, compute their digests, and compare them with the lines of their steps.

    Of the last one, the held-out examples are evaluated.
    """
    import jax.numpy as jnp

    from reproducibility.reference.resume import restore_state
    from reproducibility.same.hashing import tree_digest

    run = Run.read(task["run"])
    programs = recorded_programs(run)
    wanted = set(task["steps"])
    lines = {n: read_entry(body, head) for n, body, head in ledger_lines(run) if n in wanted}
    found: dict[str, Any] = {"digests": {}, "differs": None, "programs": programs.digests()}
    for step in task["steps"]:
        print(f"checking the state of step {step}", flush=True)
        state = restore_state(run, step=step)
        found["digests"][str(step)] = tree_digest(state)
        other = differing(lines.get(step, {}), computed_entry(programs.stages(state)))
        for stage, leaves in other.items():
            found["differs"] = found["differs"] or (step, stage, next(iter(leaves), ""))
    if task["steps"]:
        copies = programs.layout.copies((state.params, programs.data))[0]
        loss, accuracy = programs.evaluate(*copies)
        found["loss"] = float(loss) if jnp.isfinite(loss) else None
        found["accuracy"] = float(accuracy)
        found["params_digest"] = tree_digest(state.params)
    return found
