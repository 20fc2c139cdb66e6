"""Which environment each step of a run had, and what the step comes to in it.

The rule: a step belongs to the last attempt that computed it, and so does its environment.
Chapter: docs/guide/flight_recorder.md

XLA reads its flags and the size of its thread pool once in a process. So a step is computed in a
child process that is started with them. A step far from any checkpoint is reached in stretches, one
for each attempt that had an environment of its own.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from reproducibility.errors import CheckpointError, ReplayError
from reproducibility.explain import recompute
from reproducibility.explain.child import Say, in_environment
from reproducibility.explain.recompute import StretchAnswer, StretchTask, ledger_lines
from reproducibility.machine.environment import (
    CODE,
    DEVICE_COUNTS,
    Difference,
    Environment,
    environment_differences,
)
from reproducibility.recording.lines import Entry
from reproducibility.reference.run import ATTEMPTS, AttemptStart, Run, attempts_of
from reproducibility.storage.files import saved_steps


class Stretch(NamedTuple):
    """Steps of a run that were computed in one environment."""

    environment: Environment
    """What surrounded the process."""
    start: int
    """Updates that are complete when it begins."""
    end: int
    """And when it ends."""


@dataclasses.dataclass(frozen=True)
class Stretches:
    """What a child process, or several in a row, came back with."""

    start: int
    """The checkpoint that the first of them began with."""
    answer: StretchAnswer
    """What the last of them answered."""
    compared: int
    """Lines of the ledger that all of them compared."""
    entries: dict[int, Entry]
    """Fingerprints by step, of those that all of them kept."""
    environment: tuple[Difference, ...]
    """In what a process differed from the record, and may have had other bits for it."""


def compute(
    run: Run,
    step: int,
    folder: Path,
    *,
    since: int | None = None,
    module: str = recompute.__name__,
    progress: Say | None = None,
) -> Stretches:
    """Compute a run up to a step, each stretch in a process with its recorded environment.

    **Same bits:** those of the run, as far as its environment can be had.

    Args:
        run: the run.
        step: where to end.
        folder: where state and arrays are handed on.
        since: the step after which fingerprints are kept; by default the one before the last.
        module: whose function `work` does the last stretch.
        progress: called with what is being done.

    Raises:
        ReplayError: the step was never computed; or a process failed.
    """
    since = step - 1 if since is None else since
    stretches = stretches_of(run, step, since)
    compared, first = 0, stretches[0].start
    entries: dict[int, Entry] = {}
    other: list[Difference] = []
    for environment, start, end in stretches:
        last = end == step
        task = StretchTask(
            since=since,
            run=str(run.path.absolute()),
            folder=str(folder),
            start=start,
            end=end,
            first=start == first,
            last=last,
        )
        does = module if last else recompute.__name__
        answer = StretchAnswer.from_json(in_environment(environment, does, vars(task), progress))
        compared += answer.compared
        entries |= answer.entries
        other += relevant_differences(environment, answer.environment)
        if answer.problem:
            break
    return Stretches(first, answer, compared, entries, tuple(dict.fromkeys(other)))


def stretches_of(run: Run, step: int, since: int) -> list[Stretch]:
    """Say in which environments to compute what, from an intact checkpoint up to a step.

    **Same bits:** everywhere; it reads what was recorded.

    Args:
        run: the run.
        step: where to end.
        since: the checkpoint is the newest of those up to this step.

    Raises:
        ReplayError: the step was never computed, or nothing says in which environment.
    """
    attempts = _attempts(run)
    ends = [end for _, end in attempts if end is not None]
    done = max([0, *ends, *saved_steps(run.checkpoints)])
    if step > done:  # the process may have been killed
        done = max([done, *(line[0] for line in ledger_lines(run))])
    if not 0 <= step <= done:
        expected = f"a step from 0 to {done}, which are complete"
        raise _step_refusal(run, step, expected, step, "Name one of those.")
    begin = _checkpoint(run, since + 1)
    stretches: list[Stretch] = []
    while begin < step or not stretches:
        environment = _environment_of(run, attempts, min(begin + 1, step))
        bounds = [*(start.from_step for start, _ in attempts), *ends]
        end = min((bound for bound in bounds if begin < bound < step), default=step)
        if stretches and not relevant_differences(stretches[-1].environment, environment):
            stretches[-1] = Stretch(environment, stretches[-1].start, end)
        else:
            stretches.append(Stretch(environment, begin, end))
        begin = end
    return stretches


def _attempts(run: Run) -> list[tuple[AttemptStart, int | None]]:
    """Return the start of each attempt, and the step that it came to unless it was killed."""
    attempts: list[tuple[AttemptStart, int | None]] = []
    for line in attempts_of(run):
        if isinstance(line, AttemptStart):
            attempts.append((line, None))
        elif attempts and line.to_step is not None:
            attempts[-1] = (attempts[-1][0], line.to_step)
    return attempts


def _environment_of(
    run: Run, attempts: list[tuple[AttemptStart, int | None]], step: int
) -> Environment:
    """Return the environment of the last attempt that computed a step."""
    before = max(step - 1, 0)  # the first attempt computed step 0, too
    for start, end in reversed(attempts):
        if start.from_step <= before and (end is None or step <= end):
            return start.facts
    expected = f"a line in {ATTEMPTS} that says in which environment it was computed"
    raise _step_refusal(run, step, expected, "none", "Nothing can be told about it.")


def _step_refusal(run: Run, step: int, expected: str, got: object, do: str) -> ReplayError:
    return ReplayError(
        "compute", "a step again", path=run.path, step=step, expected=expected, got=got, do=do
    )


def _checkpoint(run: Run, step: int) -> int:
    """Return the newest intact checkpoint before a step; 0 is the start of the run."""
    before = [saved for saved in saved_steps(run.checkpoints) if saved < step]
    if not before:
        return 0
    from reproducibility.storage.checkpoint import CheckpointStore  # with Orbax: it takes its time

    with CheckpointStore(run.checkpoints, run=run.name) as store:
        for saved in reversed(before):
            with suppress(CheckpointError):
                store.verify(saved)
                return saved
    return 0


def relevant_differences(then: Environment, now: Environment) -> list[Difference]:
    """Return in what two environments differ that may explain other bits of a run's steps.

    **Same bits:** everywhere; it compares two dictionaries.

    Args:
        then: that of an attempt.
        now: that of a process which computes the same again.
    """
    # How many devices there are is not: no program of a run sees more than one. Nor is the script
    # that called `train`: what is computed again is the programs, which have digests of their own.
    found = [d for d in environment_differences(then, now) if d.name not in (*DEVICE_COUNTS, *CODE)]
    return [d for d in found if d.effect != "not known to change bits"]
