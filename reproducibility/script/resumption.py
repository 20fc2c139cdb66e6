"""A resumed run beside the run that was never stopped: what it took up, and where it differs.

The rule: every call after the first one of the resumed step is compared with its counterpart. A run
that began from zero, or of which nothing was compared, is never the same.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproducibility.errors import ConfigError, ExitCode
from reproducibility.script.align import RecordVerdict
from reproducibility.script.inputs import FoundInput, ValuesOfRun
from reproducibility.script.reading import Process, processes_of
from reproducibility.script.values import ValuedCall, step_functions, valued_calls

OFTEN = 8  # step functions that are listed where one is to be chosen


@dataclass
class RunOfSteps:
    """The calls of the process of a run that trains, and those of its step function."""

    process: Process
    calls: list[ValuedCall]
    steps: list[ValuedCall]
    problems: list[str]

    @property
    def step(self) -> tuple[str, int]:
        """What all calls of the step function have in common."""
        return self.steps[0].kind


@dataclass
class Resumption:
    """What came of comparing a resumed run with the whole one.

    `continues_at` is the call of the whole run with the inputs of the first resumed call, or 0.
    `inputs` are those of `call`, the first call that differs, looked up in the whole run; `beside`
    is its counterpart, if it is not the first one.
    """

    step: str = ""
    whole_steps: int = 0
    resumed_steps: int = 0
    continues_at: int = 0
    compared: int = 0
    inputs: list[FoundInput] = field(default_factory=list)
    call: ValuedCall | None = None
    beside: ValuedCall | None = None
    values: ValuesOfRun | None = None
    before: list[ValuedCall] = field(default_factory=list)  # calls of the resumed run before it
    difference: str = ""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> RecordVerdict:
        """What can be said of the resumed run."""
        if self.problems or not self.compared:
            return "cannot be told" if not self.difference else "different"
        return "different" if self.difference else "same"

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with."""
        return ExitCode.of(self.verdict)

    @property
    def reason(self) -> str:
        """The verdict in a sentence."""
        if self.difference:
            return self.difference
        if self.problems:
            return f"{self.problems[0][0].upper()}{self.problems[0][1:]}."
        if not self.compared:
            return "Nothing was compared."
        return (
            f"The resumed run continues at call {self.continues_at:,} of {self.step}, and its "
            f"{self.compared:,} calls of JAX from there on agree with the whole run."
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "step_function": self.step,
            "whole_steps": self.whole_steps,
            "resumed_steps": self.resumed_steps,
            "continues_at": self.continues_at or None,
            "calls": self.compared,
            "inputs": [each.to_json() for each in self.inputs],
            "lines": [str(line) for line in self.call.site] if self.call else [],
            "problems": self.problems,
            "notes": self.notes,
        }


def run_of_steps(record: Path, run: str, step: str | tuple[str, int] = "") -> RunOfSteps | None:
    """Read the process of a record that calls the step function; None if none does.

    Args:
        record: its directory.
        run: what the run is called in a sentence.
        step: the name of the step function, what its calls have in common, or "" to find it.

    Raises:
        ConfigError: the name is that of no function, or of several.
    """
    found: list[RunOfSteps] = []
    names: set[str] = set()
    problems: list[str] = []
    for process in processes_of(record):
        problems += [f"in {run}, {problem}" for problem in process.problems]
        counts = (process.end or {}).get("counts", {})
        problems += [
            f"in {run}, {count} {name} were not recorded" for name, count in counts.items()
        ]
        if process.called and process.end is None:
            problems.append(f"the record of {run} has no end: a process was killed")
        calls = valued_calls(process)
        kinds = step_functions(process, calls)
        names |= {_called(kind) for kind in kinds}
        if isinstance(step, tuple):
            kinds = [kind for kind in kinds if kind == step]
        elif step:
            kinds = [kind for kind in kinds if step == _called(kind)]
            if len(kinds) > 1:
                raise _choose(step, f"{len(kinds)} functions of that name", names)
        if kinds:
            steps = [each for each in calls if each.kind == kinds[0]]
            found.append(RunOfSteps(process, calls, steps, problems))
        elif process.called:
            problems.append(f"in {run}, a process that does not call the step function called JAX")
    if not found:
        if isinstance(step, str) and step:
            raise _choose(step, "none of that name", names)
        return None
    if len(found) > 1:
        problems.append(f"in {run}, {len(found)} processes call the step function")
    chosen = max(found, key=lambda each: len(each.steps))
    if len({each.thread for each in chosen.steps}) > 1:
        problems.append(f"in {run}, several threads call the step function")
    elif elsewhere := sum(each.thread != chosen.steps[0].thread for each in chosen.calls):
        problems.append(f"in {run}, {elsewhere} calls of JAX in other threads are not compared")
    return chosen


def _called(kind: tuple[str, int]) -> str:
    return kind[0].removeprefix("jit(").removesuffix(")")


def _choose(step: str, got: str, names: set[str]) -> ConfigError:
    listed = ", ".join(sorted(names)[:OFTEN]) or "none"
    do = f"Choose one of those that were called: {listed}."
    return ConfigError("use", "--step-function", expected=repr(step), got=got, do=do)


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
    found = Resumption()
    run = run_of_steps(Path(whole), "the whole run", step_function)
    if run is None:
        found.problems.append("the whole run calls no compiled function")
        return found
    found.step, found.whole_steps = run.steps[0].program.called, len(run.steps)
    other = run_of_steps(Path(resumed), "the resumed run", run.step)
    if other is None:
        found.problems.append(f"the second start makes no call of {found.step}")
        return found
    found.resumed_steps = len(other.steps)
    found.problems += [*run.problems, *other.problems]
    last = 0
    if interrupted is not None:
        last = _compare_first_part(found, run, Path(interrupted))
        if last < 0:
            return found
    _look_up(found, run, other, last)
    return found


def _compare_first_part(found: Resumption, run: RunOfSteps, interrupted: Path) -> int:
    """Return how many steps the first part made, all as the whole run; -1 if they differ."""
    part = run_of_steps(interrupted, "the first part", run.step)
    if part is None:
        found.problems.append(f"the first part makes no call of {found.step}")
        return -1
    for number, (one, other) in enumerate(zip(run.steps, part.steps, strict=False), 1):
        differing = _differing(one, other)
        if differing or one.results != other.results:
            what = differing[0] if differing else "its results"
            found.problems.insert(
                0,
                f"the first part is not the beginning of the whole run: call {number:,} of "
                f"{found.step} differs in {what}; ask twice whether the script repeats",
            )
            return -1
    return len(part.steps) if part.process.end else 0  # 0: what it made last may be lost


def _differing(one: ValuedCall, other: ValuedCall) -> list[str]:
    """Return the names of arguments whose values differ or are unknown."""
    pairs = zip(one.values, other.values, strict=True)
    places = [place for place, (a, b) in enumerate(pairs) if a != b or not a]
    return [one.program.argument(place) for place in places]


def _look_up(found: Resumption, run: RunOfSteps, other: RunOfSteps, last: int) -> None:
    """Find the call of the whole run at which the resumed one continues, and go on from there."""
    first = other.steps[0]
    values = ValuesOfRun(run.steps, run.calls)
    inputs = values.inputs_of(first)
    at = _continues_at(inputs, len(run.steps), len(other.steps), last)
    _what_it_came_to(found, run, other)
    if at == 0:
        found.difference = f"The first resumed call of {found.step} is no call of the whole run."
        found.compared = 1
        _note_call(found, inputs, first, values, other)
        return
    found.continues_at = at
    if at == 1:
        found.problems.insert(
            0,
            f"the second start began from zero: its first call of {found.step} has every input "
            "of call 1",
        )
        return
    if last and at > last + 1:
        found.problems.insert(
            0,
            f"the second start continues at call {at:,} of {found.step}, and the first part made "
            f"{last:,}: it reads what the whole run wrote",
        )
        return
    _compare_from(found, run, other, at)


def _continues_at(inputs: Sequence[FoundInput], of: int, made: int, last: int) -> int:
    """Return the call with all of these inputs; 0 if there is none."""
    if any(each.kind not in ("every", "calls") for each in inputs):
        return 0
    sets = [set(each.calls) for each in inputs if each.kind == "calls"]
    calls = set.intersection(*sets) if sets else set(range(1, of + 1))
    if of - made + 1 in calls:  # it ends with the last one then
        return of - made + 1
    before = [each for each in calls if not last or each <= last + 1]
    return max(before or calls, default=0)


def _what_it_came_to(found: Resumption, run: RunOfSteps, other: RunOfSteps) -> None:
    """Note what explains a difference and is none."""
    one, two = run.steps[0].program, other.steps[0].program
    if one.text not in {each.program.text for each in other.steps} and one.text != two.text:
        found.notes.append(f"the resumed run compiled another program for {found.step}")
    if one.arguments != two.arguments:
        pairs = zip(one.arguments, two.arguments, strict=False)
        names = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
        found.notes.append(f"an argument is {names[0]} in the whole run, {names[1]} in the resumed")


def _note_call(
    found: Resumption,
    inputs: list[FoundInput],
    call: ValuedCall,
    values: ValuesOfRun,
    other: RunOfSteps,
) -> None:
    found.inputs, found.call, found.values = inputs, call, values
    found.before = [
        each for each in other.calls if each.thread == call.thread and each.number < call.number
    ]


def _compare_from(found: Resumption, run: RunOfSteps, other: RunOfSteps, at: int) -> None:
    """Compare each call from there on with its counterpart."""
    ours = _from(run, run.steps[at - 1])
    theirs = _from(other, other.steps[0])
    known = {each.content for each in run.calls if each.is_known}
    place = 0
    for number, one in enumerate(ours):
        while place < len(theirs) and not _equal(one, theirs[place]):
            # What is called once in each run, such as at a first trace, comes later in this one.
            ahead = next((i for i, each in enumerate(theirs[place:]) if _equal(one, each)), 0)
            skipped = theirs[place : place + ahead]
            if not ahead or any(each.content not in known for each in skipped):
                _note_difference(found, run, other, one, theirs[place])
                return
            place += ahead
        if place == len(theirs):
            left = len(ours) - number
            found.difference = f"The resumed run ends {left:,} calls of JAX before the whole run."
            found.call = one
            return
        found.compared += 1
        place += 1
    extra = [each for each in theirs[place:] if each.content not in known]
    if extra:
        found.difference = f"The resumed run makes {len(extra):,} calls that the whole did not."
        found.call = extra[0]


def _from(run: RunOfSteps, first: ValuedCall) -> list[ValuedCall]:
    return [
        each for each in run.calls if each.thread == first.thread and each.number >= first.number
    ]


def _equal(one: ValuedCall, other: ValuedCall) -> bool:
    return one.is_known and one.content == other.content


def _note_difference(
    found: Resumption, run: RunOfSteps, other: RunOfSteps, one: ValuedCall, two: ValuedCall
) -> None:
    """Say how a call differs from its counterpart, and look its inputs up."""
    found.call, found.beside = two, one
    steps = sum(each.number <= two.number for each in other.steps if each.thread == two.thread)
    where = f"{two.program.called}, at step {steps + found.continues_at - 1:,}"
    if one.kind != two.kind:
        found.difference = f"The resumed run calls {where}, the whole run {one.program.called}."
    elif names := _differing(one, two):
        found.difference = f"They diverge in {where}: its inputs differ."
        same = [each for each in run.calls if each.kind == one.kind]
        values = ValuesOfRun(same, run.calls)
        inputs = [each for each in values.inputs_of(two) if each.name in names]
        _note_call(found, inputs, two, values, other)
    else:
        found.difference = f"They diverge in {where}: equal inputs, other results."
