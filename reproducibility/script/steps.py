"""The step function of a run: which compiled function it is, and all of its calls.

The rule: a step takes what the step before returned. What is not a call of it, in another thread or
process, is said.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from reproducibility.errors import ConfigError
from reproducibility.script.reading import Process, processes_of
from reproducibility.script.values import (
    NO_VALUE,
    ValuedCall,
    carried,
    step_functions,
    valued_calls,
)

OFTEN = 8  # step functions that are listed where one is to be chosen

type StepKind = tuple[str, int]  # the name of its program, and how many inputs it has


@dataclass
class RunOfSteps:
    """The calls of a process of a run that trains, and those of its step function."""

    process: Process
    calls: list[ValuedCall]
    steps: list[ValuedCall]
    warmed: int = 0  # calls of the function before its first step, whose results nobody takes
    last_step: int = 0  # that of the whole run to which it came, once that is known

    @property
    def step(self) -> StepKind:
        """What all calls of the step function have in common."""
        return self.steps[0].kind

    @property
    def thread(self) -> int:
        """The thread that calls it first."""
        return self.steps[0].thread

    @property
    def own(self) -> list[ValuedCall]:
        """All calls of that thread."""
        return [each for each in self.calls if each.thread == self.thread]

    @property
    def in_threads(self) -> bool:
        """Whether several threads call it."""
        return len({each.thread for each in self.steps}) > 1


@dataclass
class StepsOfRecord:
    """The processes of a record that call the step function, that with the most steps first.

    `alike` has first calls of a function of that name which takes another number of arrays.
    """

    runs: list[RunOfSteps] = field(default_factory=list)
    alike: list[ValuedCall] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def steps_of(record: Path, run: str, step: str | StepKind = "") -> StepsOfRecord:
    """Read the processes of a record that call the step function.

    Args:
        record: its directory.
        run: what the run is called in a sentence.
        step: the name of the step function, what its calls have in common, or "" to find it.

    Raises:
        ConfigError: the name is that of no function, or of several.
    """
    found = StepsOfRecord()
    read = [(each, valued_calls(each)) for each in processes_of(record)]
    read.sort(key=lambda each: -len(each[1]))  # the process that trains before its launcher
    kinds = {each.path: step_functions(each, calls) for each, calls in read}
    kind = step if isinstance(step, tuple) else _kind_of_step(step, list(kinds.values()))
    for process, calls in read:
        found.problems += _not_seen(process, run)
        if kind in kinds[process.path]:
            steps = [each for each in calls if each.kind == kind]
            warmed = warming_up(steps, calls)
            found.runs.append(RunOfSteps(process, calls, steps[warmed:], warmed))
        elif process.called and kind is not None:
            found.alike += [each for each in calls if each.program.name == kind[0]][:1]
            what = "a process that does not call the step function called JAX"
            found.problems.append(f"in {run}, {what}")
    found.runs.sort(key=lambda each: -len(each.steps))
    return found


def run_of_steps(record: Path, run: str, step: str | StepKind = "") -> RunOfSteps | None:
    """Read the process with the most steps; None if none calls the step function.

    Args:
        record: its directory.
        run: what the run is called in a sentence.
        step: as for `steps_of`.
    """
    return next(iter(steps_of(record, run, step).runs), None)


def warming_up(steps: Sequence[ValuedCall], calls: Sequence[ValuedCall]) -> int:
    """Return how many first calls only warm up: nobody takes what they return.

    The next call begins with the same state then.

    Args:
        steps: all calls of the function.
        calls: all calls of the run.
    """
    passed_on = [place for place, each in enumerate(carried(steps)) if each]
    taken = {(o.thread, o.call) for each in calls for o in each.origins if o is not None}
    for number, (one, two) in enumerate(pairwise(steps)):
        states = [[each.values[place] for place in passed_on] for each in (one, two)]
        is_taken = (one.thread, one.number) in taken
        if is_taken or not passed_on or NO_VALUE in states[0] or states[0] != states[1]:
            return number
    return 0


def of_one_name(run: RunOfSteps) -> str:
    """Say which functions have the name of the step function; "" if it is one.

    Args:
        run: one with its steps.
    """
    own = [each.program.where for each in run.steps if "site-packages" not in each.program.where]
    found = sorted({where.rpartition(" at ")[2] for where in own})
    if len(found) < 2:
        return ""
    name = called(run.step)
    listed = " and ".join(found[:2])
    return f"{len(found)} functions are called {name}, {listed}: give each a name of its own"


def _kind_of_step(step: str, kinds: list[list[StepKind]]) -> StepKind | None:
    """Return the step function of that name; without a name, the likeliest of some process."""
    if not step:
        return next((each[0] for each in kinds if each), None)
    known = dict.fromkeys(kind for each in kinds for kind in each)
    named = [kind for kind in known if called(kind) == step]
    if len(named) != 1:
        got = f"{len(named)} functions of that name" if named else "none of that name"
        listed = ", ".join(sorted({called(kind) for kind in known})[:OFTEN]) or "none"
        do = f"Choose one of those that were called: {listed}."
        raise ConfigError("use", "--step-function", expected=repr(step), got=got, do=do)
    return named[0]


def _not_seen(process: Process, run: str) -> list[str]:
    """Say what of a process is in no record."""
    found = [f"in {run}, {problem}" for problem in process.problems]
    counts = (process.end or {}).get("counts", {})
    found += [f"in {run}, {count} {name} were not recorded" for name, count in counts.items()]
    if process.called and process.end is None:
        found.append(f"the record of {run} has no end: a process was killed")
    return found


def called(kind: StepKind) -> str:
    """Return the name of the user's function.

    Args:
        kind: what its calls have in common.
    """
    return kind[0].removeprefix("jit(").removesuffix(")")
