"""The step function of a run: which compiled function it is, and all of its calls.

The rule: a step takes what the step before returned. What is not a call of it, in another thread or
process, is said.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
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
WARMED_AT_MOST = 8  # calls that warm up; more of them are a training of its own

type StepKind = tuple[str, int]  # the name of its program, and how many inputs it has
type CallNumber = tuple[int, int]  # the thread of a call, and its number there

_READ_BY_HOST = re.compile(r"(\d+):(\d+)\.\d")  # a result of a call, as it leaves for the host


@dataclass
class RunOfSteps:
    """The calls of a process of a run that trains, and those of its step function."""

    process: Process
    calls: list[ValuedCall]
    steps: list[ValuedCall]
    warming: list[ValuedCall] = field(default_factory=list)  # its calls before its first step
    passed_on: list[int] = field(default_factory=list)  # arguments that a step before returned
    last_step: int = 0  # that of the whole run to which it came, once that is known

    @property
    def warmed(self) -> int:
        """How many calls of the function come before its first step: nobody takes their results."""
        return len(self.warming)

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


def steps_of(
    record: Path, run: str, step: str | StepKind = "", *, like: RunOfSteps | None = None
) -> StepsOfRecord:
    """Read the processes of a record that call the step function.

    Args:
        record: its directory.
        run: what the run is called in a sentence.
        step: the name of the step function, what its calls have in common, or "" to find it.
        like: the whole run, of which this is a part; it warms up as that does.

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
            found.runs.append(_without_warming(RunOfSteps(process, calls, steps), like))
        elif process.called and kind is not None:
            found.alike += [each for each in calls if each.program.name == kind[0]][:1]
            what = "a process that does not call the step function called JAX"
            found.problems.append(f"in {run}, {what}")
    found.runs.sort(key=lambda each: -len(each.steps))
    return found


def run_of_steps(
    record: Path, run: str, step: str | StepKind = "", *, like: RunOfSteps | None = None
) -> RunOfSteps | None:
    """Read the process with the most steps; None if none calls the step function.

    Args:
        record: its directory.
        run: what the run is called in a sentence.
        step: as for `steps_of`.
        like: as for `steps_of`.
    """
    return next(iter(steps_of(record, run, step, like=like).runs), None)


def warming_up(run: RunOfSteps, read: set[CallNumber], like: RunOfSteps | None = None) -> int:
    """Return how many first calls only warm up: nobody takes what they return.

    No later one takes it, or what is made of it, and the next one has another state. Either it
    begins with the state of the first of them, or the host does not read it, or it is what the
    whole run got.

    Args:
        run: with all calls of the function.
        read: of which calls the host reads a result.
        like: the whole run, if this is a part of it: it warms up as often then.
    """
    steps, warmed = run.steps, 0
    most = WARMED_AT_MOST if like is None else like.warmed
    taken: dict[CallNumber, list[CallNumber]] = {}
    for each in run.calls:
        for origin in each.origins:
            if origin is not None:
                taken.setdefault((origin.thread, origin.call), []).append(_call_number(each))
    later = {_call_number(each) for each in steps}
    for count in range(1, min(len(steps), WARMED_AT_MOST + 1)):
        first, following = steps[:count], steps[count]
        own = {_call_number(each) for each in first}
        known = _all_that_take(own, taken, later)
        if known is None or not _begins_otherwise(first, following, run):
            continue
        begins_again = _state_of_call(first[0], run) == _state_of_call(following, run)
        is_again = begins_again and (like is None or not own & taken.keys())
        as_in_whole = like is not None and _contents_of_calls(first) == _contents_of_calls(
            like.warming[:count]
        )
        if is_again or (count <= most and (as_in_whole or not known & read)):
            warmed = count
    return warmed


def _without_warming(run: RunOfSteps, like: RunOfSteps | None) -> RunOfSteps:
    """Set the calls that only warm up apart."""
    own = [place for place, each in enumerate(carried(run.steps)) if each]
    run.passed_on = like.passed_on if like else own
    warmed = warming_up(run, _read_by_host(run.process), like) if run.passed_on else 0
    run.warming, run.steps = run.steps[:warmed], run.steps[warmed:]
    return run


def _all_that_take(
    calls: set[CallNumber],
    taken: Mapping[CallNumber, Sequence[CallNumber]],
    steps: Collection[CallNumber],
) -> set[CallNumber] | None:
    """Return calls, with all that take what is made of them; None if a further step does."""
    found, left = set(calls), list(calls)
    while left:
        for each in taken.get(left.pop(), ()):
            if each in steps and each not in calls:
                return None
            left += [each] * (each not in found)
            found.add(each)
    return found


def _begins_otherwise(first: Sequence[ValuedCall], following: ValuedCall, run: RunOfSteps) -> bool:
    """Whether the state of a call is known, and none of it is what one of the first returned."""
    state = set(_state_of_call(following, run))
    known = all(NO_VALUE not in _state_of_call(each, run) for each in (*first, following))
    made = {value for each in first for value in each.results}
    return known and not state & made.difference(*(each.values for each in first))


def _state_of_call(call: ValuedCall, run: RunOfSteps) -> list[str]:
    return [call.values[place] for place in run.passed_on]


def _contents_of_calls(calls: Sequence[ValuedCall]) -> list[object]:
    return [each.content for each in calls]


def _call_number(call: ValuedCall) -> CallNumber:
    return call.thread, call.number


def _read_by_host(process: Process) -> set[CallNumber]:
    """Return the calls whose results the host reads."""
    found = (_READ_BY_HOST.match(each.what) for each in process.events() if each.kind == "leaves")
    return {(int(each[1]), int(each[2])) for each in found if each}


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
