"""One step of a run, or of two, operation by operation, each in its recorded environment.

The rule: the same state and the same operations go in; so the first operation that comes out
different is where two runs diverge.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reproducibility.errors import ExitCode, ReplayError
from reproducibility.explain.child import Say, side_by_side
from reproducibility.explain.recompute import Steps, StretchAnswer, StretchTask, recorded
from reproducibility.explain.stretches import compute
from reproducibility.recording.lines import differing
from reproducibility.reference.run import Run

if TYPE_CHECKING:
    from jaxtyping import Array, PyTree

    from reproducibility.explain.aligned import TraceDivergence
    from reproducibility.explain.trace import Trace
    from reproducibility.reference.step import Plan, TrainState


@dataclasses.dataclass(frozen=True)
class Origin:
    """What `trace_steps` found.

    Same bits: it finds a place and verifies nothing: compiled, the operations are fused.
    """

    verdict: Literal["same", "different", "cannot be told"]
    """Whether every operation agrees, one differs, or what is recorded shows in no operation."""
    reason: str
    """The verdict in one sentence."""
    divergence: TraceDivergence | None
    """Where the traces diverge; None if there is only one."""
    traces: tuple[Trace, ...]
    """The traces themselves."""
    notes: tuple[str, ...]
    """What limits the answer: a state before the step that is not the recorded one."""

    @property
    def exit_code(self) -> int:
        """0 every operation agrees, 1 one differs, 3 cannot be told."""
        return ExitCode.of(self.verdict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values.

        Same bits: everywhere.
        """
        divergence = dataclasses.asdict(self.divergence) if self.divergence else None
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "parting": divergence,  # its name for those who read it
            "notes": list(self.notes),
            "traces": [each.to_json() for each in self.traces],
        }


def trace_steps(
    runs: Sequence[str | os.PathLike[str]], step: int, *, progress: Say | None = None
) -> Origin:
    """Trace one step of one run or of two, and find the operation where they diverge.

    **Same bits:** as `trace`; each run in a process with the environment that it recorded.

    Args:
        runs: one run directory, or two.
        step: the step, by completed updates after it; 0 is the initialisation.
        progress: called with what is being done.

    Returns:
        The operation, its source line, and the traces.

    Raises:
        RunError: there is no run.
        ReplayError: the step was never computed; or a child process failed.
    """
    opened = [Run.read(run) for run in runs]

    def one(run: Run) -> tuple[Trace, str | None]:
        with tempfile.TemporaryDirectory() as folder:
            answer = compute(run, step, Path(folder), module=__name__, progress=progress).answer
        if answer.trace is None:  # an earlier stretch did not come out as recorded
            raise ReplayError(
                "trace",
                "a step",
                path=run.path,
                step=step,
                got=answer.problem,
                expected="the steps before it to come out as they were recorded",
                do="See what `reproducibility compare` says about that step.",
            )
        from reproducibility.explain.trace import Trace

        return Trace.from_json(answer.trace), answer.problem

    sides = side_by_side(one, opened, load="reproducibility.explain.trace")
    traces = tuple(found for found, _ in sides)
    notes = tuple(
        f"{run.path}: computed again, {problem}; the trace is of what was computed now."
        for run, (_, problem) in zip(opened, sides, strict=True)
        if problem
    )
    if len(traces) == 1:
        reason = f"{len(traces[0].operations)} operations in step {step}."
        return Origin("same", reason, None, traces, notes)
    from reproducibility.explain.aligned import first_divergence

    divergence = first_divergence(*traces)
    return Origin(*_judge(divergence, opened, step), divergence, traces, notes)


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Compute a run up to a step, then trace that step, in this process.

    **Same bits:** as `replay` up to the step; as `trace` in it.

    Args:
        task: the fields of a `StretchTask`.

    Returns:
        The fields of a `StretchAnswer`, with a trace.
    """
    from reproducibility.explain.trace import trace
    from reproducibility.keys import root_key

    asked = StretchTask(**task)
    print(f"tracing step {asked.end}", flush=True)
    steps = Steps(dataclasses.replace(asked, end=max(0, asked.end - 1)))
    programs, data = steps.programs, steps.programs.data

    def step(state: TrainState, plan: Plan, x: Array, y: Array) -> PyTree:
        after, loss, _ = programs.step(state, plan, dataclasses.replace(data, x=x, y=y))
        return loss, after

    if asked.end == 0:
        key = root_key(programs.identity.seed)
        found = trace(lambda key: programs.initial(key)[1], key)
    else:
        deque(steps, maxlen=0)
        found = trace(step, steps.state, programs.plan(steps.state), data.x, data.y)
    answer = StretchAnswer(
        problem=steps.problem,
        compared=steps.compared,
        programs=programs.digests(),
        trace=found.to_json(),
    )
    return vars(answer)


def _judge(
    divergence: TraceDivergence, runs: Sequence[Run], step: int
) -> tuple[Literal["same", "different", "cannot be told"], str]:
    if divergence.kind != "none":
        return "different", divergence.reason
    lines = [recorded(run, step) for run in runs]
    if all(lines) and differing(*lines):  # type: ignore[arg-type]
        return "cannot be told", (
            f"The runs differ in step {step}, and no operation does on its own: the difference "
            "comes from how they are compiled together."
        )
    return "same", divergence.reason
