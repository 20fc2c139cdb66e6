"""The parts of a run that was interrupted, each beside the run that was never stopped.

The rule: every process is compared with its counterpart, and what has none is said. A run whose
last part began from zero has resumed nothing.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reproducibility.script.pairs import pairs_of
from reproducibility.script.resumption import Before, Resumption, begins_like, compare_process
from reproducibility.script.steps import RunOfSteps, StepsOfRecord, called, of_one_name, steps_of

SHOWN = 4  # arguments that a sentence names

type Pair = tuple[RunOfSteps, RunOfSteps]


def compare_resumed(
    whole: str | Path,
    resumed: str | Path,
    *,
    interrupted: str | Path | None = None,
    step_function: str = "",
) -> Resumption:
    """Compare the record of a resumed run with that of a run that was never stopped.

    **Same bits:** everywhere: it reads what the runs wrote.

    Args:
        whole: a record of the run that was never stopped.
        resumed: that of the second start.
        interrupted: that of the part before; its steps must be those of the whole run.
        step_function: its name; it is found if this is empty.

    Raises:
        ConfigError: there is no function of that name.
        RecordError: a directory is no record.
        RecordDamagedError: a file of a record is not as it was written.
    """
    parts = [Path(each) for each in (interrupted, resumed) if each is not None]
    return compare_parts(Path(whole), parts, first=interrupted is not None, step=step_function)


def compare_parts(
    whole: Path, parts: Sequence[Path], *, first: bool = True, step: str = ""
) -> Resumption:
    """Compare the records of a run's parts, each with the whole run.

    Args:
        whole: a record of the run that was never stopped.
        parts: those of each start, in order.
        first: whether the first of them began from zero.
        step: the name of the step function; it is found if this is empty.
    """
    runs = steps_of(whole, "the whole run", step)
    found = Resumption(problems=["the whole run calls no compiled function"])
    if runs.runs and (problem := of_one_name(runs.runs[0])):
        return Resumption(called(runs.runs[0].step), problems=[problem])
    before: dict[Path, Before] = {}
    starts: list[int] = []
    for number, part in enumerate(parts if runs.runs else ()):
        cut = number < len(parts) - 1
        name = _name(number, len(parts))
        others = steps_of(part, name, runs.runs[0].step, like=runs.runs[0])
        pairs = _paired(runs, others)
        if cut and number and not pairs:
            continue  # it was ended in its first step, and nothing of it is on record
        if first and number == 0:
            found = _first_part(runs, pairs)
        else:
            found = _resumed(runs, others, pairs, before, cut=cut)
            found.start = number if first else 1
            found.interruptions = max(len(parts) - first, 1)
            starts.append(found.continues_at)
            found.starts = starts
        if found.problems or found.difference:
            break
        before = {
            run.process.path: _made(before.get(run.process.path), other) for run, other in pairs
        }
    return found


def _name(number: int, of: int) -> str:
    if number == of - 1:
        return "the resumed run"
    return f"start {number + 1}" if number else "the first part"


def _paired(runs: StepsOfRecord, others: StepsOfRecord) -> list[Pair]:
    """Put each process of the whole run together with its counterpart."""
    ones = {each.process.path: each for each in runs.runs}
    twos = {each.process.path: each for each in others.runs}
    pairs = pairs_of([each.process for each in runs.runs], [each.process for each in others.runs])
    found = [(ones[one.path], twos[other.path]) for one, other in pairs]
    return sorted(found, key=lambda pair: runs.runs.index(pair[0]))


def _made(before: Before | None, part: RunOfSteps) -> Before:
    """Return how many steps of the whole run are made, once a part of it has ended."""
    if part.process.end is None:  # what it made last may be lost
        return Before(0, part)
    return Before(max(before.steps if before else 0, part.last_step), part)


def _first_part(runs: StepsOfRecord, pairs: Sequence[Pair]) -> Resumption:
    """Compare what came before the first interruption: it must be as the whole run began."""
    found = Resumption(called(runs.runs[0].step), len(runs.runs[0].steps))
    if not pairs:
        found.problems.append(f"the first part makes no call of {found.step}")
    for run, part in pairs:
        part.last_step = len(part.steps)
        if differs := begins_like(run, part):
            found.problems.append(
                f"the first part is not the beginning of the whole run: {differs}"
            )
            break
    return found


def _resumed(
    runs: StepsOfRecord,
    others: StepsOfRecord,
    pairs: Sequence[Pair],
    before: dict[Path, Before],
    *,
    cut: bool,
) -> Resumption:
    """Compare what a start did that found what the parts before had left."""
    if not pairs:
        return _without_steps(runs.runs[0], others)
    compared = []
    for run, other in pairs:
        each = compare_process(run, other, before.get(run.process.path, Before()), cut=cut)
        other.last_step = max(each.continues_at, 1) - 1 + len(other.steps)
        compared.append(each)
    found = next((each for each in compared if each.difference), compared[0])
    found.processes = len(compared)
    if not found.difference:
        found.compared = sum(each.compared for each in compared)
        told = [problem for each in compared for problem in each.problems]
        found.problems = list(dict.fromkeys(told))
    if not cut:
        if any(each.continues_at == 1 for each in compared):
            found.problems.insert(
                0,
                f"the second start began from zero: its first call of {found.step} has every "
                "input of call 1",
            )
        found.problems += [*runs.problems, *others.problems]
        if len(runs.runs) != len(pairs) or len(others.runs) != len(pairs):
            found.problems.append(
                f"{len(runs.runs)} processes of the whole run call {found.step}, and "
                f"{len(others.runs)} of the resumed run"
            )
    return found


def _without_steps(run: RunOfSteps, others: StepsOfRecord) -> Resumption:
    """Say what a resumed run does that makes no call of the step function as the whole run does."""
    found = Resumption(called(run.step), len(run.steps))
    if not others.alike:
        found.problems.append(f"the resumed run makes no call of {found.step}")
        return found
    found.call, found.beside = others.alike[0], run.steps[0]
    ours, theirs = (
        {each.program.argument(place) for place in range(len(each.values))}
        for each in (run.steps[0], others.alike[0])
    )
    only = [
        f"only the {which} has {', '.join(names[:SHOWN])}{', …' * (len(names) > SHOWN)}"
        for which, names in (
            ("whole run", sorted(ours - theirs)),
            ("resumed run", sorted(theirs - ours)),
        )
        if names
    ]
    counts = f"{run.step[1]:,} arrays in the whole run, {len(found.call.values):,} in the resumed"
    found.compared = 1
    found.difference = f"{found.step} takes {'; '.join([counts, *only])}."
    return found
