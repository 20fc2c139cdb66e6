"""Any step of a run, computed again in the environment that the run recorded for it.

The rule: what was computed again is compared with the ledger. Without that it would only be
another run; where the environment cannot be had, the answer is "cannot be told".
Chapter: docs/guide/flight_recorder.md

`stretches` finds the environment that a step had; `child` starts processes that have it, and they
do what is in `recompute`.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from reproducibility.explain.child import Say
from reproducibility.explain.recompute import load_arrays
from reproducibility.explain.stretches import Stretches, compute
from reproducibility.machine.environment import Difference
from reproducibility.recording.lines import Entry
from reproducibility.reference.run import Run

type Answer = Literal["confirmed", "refuted", "cannot be told"]


@dataclasses.dataclass(frozen=True)
class Replay:
    """What `replay` found.

    Same bits: "confirmed" means that what was computed again has the recorded fingerprints.
    """

    step: int
    """Completed updates after the step that was computed."""
    start: int
    """The checkpoint that it began with; 0 is the start of the run."""
    answer: Answer
    """ "confirmed", "refuted" (same environment, other bits) or "cannot be told"."""
    reason: str
    """The answer in one sentence."""
    entries: dict[int, Entry]
    """Fingerprints by step, stage and leaf, as they were computed now."""
    values: dict[str, dict[str, Any]]
    """Arrays of the step by stage and leaf; none where an earlier step came out different."""
    environment: tuple[Difference, ...]
    """In what the child process differed from the record, and may have had other bits for it."""


def replay(
    run: str | os.PathLike[str], step: int, *, since: int | None = None, progress: Say | None = None
) -> Replay:
    """Compute a step of a run again, in the environment that was recorded, and check it.

    **Same bits:** those of the recorded step, if the answer is "confirmed".

    Args:
        run: a run directory of `train`.
        step: which step, by completed updates after it; 0 is the state before the first.
        since: keep the fingerprints of all steps after this one; by default only of the last.
        progress: called with what is being done.

    Returns:
        The answer, and the arrays of the step.

    Raises:
        RunError: there is no run.
        ReplayError: the step was never computed; or the child process failed.

    Examples:
        >>> import tempfile
        >>> from reproducibility import TrainConfig, train
        >>> folder = Path(tempfile.mkdtemp()) / "run"
        >>> _ = train(TrainConfig(seed=7, steps=3, shards=1), run_dir=folder)
        >>> replay(folder, 2).answer
        'confirmed'
    """
    since = step - 1 if since is None else min(since, step - 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done = compute(Run.read(run), step, folder, since=since, progress=progress)
        reached = step in done.entries
        values = load_arrays(folder, done.answer.names) if reached else {}
    return Replay(
        step, done.start, *_judge_replay(done, step), done.entries, values, done.environment
    )


def _judge_replay(done: Stretches, step: int) -> tuple[Answer, str]:
    answer, lines = done.answer, f"{done.compared} of its lines were"
    if done.compared == 1:
        lines = "1 of its lines was"
    if not answer.problem and answer.last == step:
        return "confirmed", f"It has the recorded fingerprints; {lines} compared."
    if not answer.problem:
        so_far = f"; {lines} compared, and agreed" if done.compared else ""
        of_it = f" with its {answer.lacking}" if answer.lacking else ""
        return "cannot be told", f"The ledger has no line of step {step}{of_it}{so_far}."
    if done.environment:
        first = done.environment[0]
        had = f"{first.name} was {first.a} then and is {first.b} here"
        return "cannot be told", f"Computed again, {answer.problem}; but {had}."
    return "refuted", f"Computed again in the recorded environment, {answer.problem}."
