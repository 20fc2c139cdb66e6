"""A resumed run beside the run that was never stopped: what it took up, and where it differs.

The rule: every call after the first one of the resumed step is compared with its counterpart. A run
that began from zero, or of which nothing was compared, is never the same.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reproducibility.errors import ExitCode
from reproducibility.script.backwards import calls_before, line_of
from reproducibility.script.diverging import RecordVerdict
from reproducibility.script.ends import compare_ends, is_cut_elsewhere
from reproducibility.script.inputs import FoundInput, ValuesOfRun
from reproducibility.script.onwards import Divergence, compare_onwards, places_that_differ
from reproducibility.script.programs import (
    ProgramDifference,
    ProgramsOfProcess,
    difference_of_programs,
)
from reproducibility.script.steps import RunOfSteps
from reproducibility.script.values import ValuedCall

SAID = 3  # calls without a counterpart
ANOTHER_PROGRAM = "the resumed run compiled another program for {}"
# A restored array may state a sharding or a layout that one of the whole run leaves open.
AND_AGREES = ", as for arrays that state where they lie; all of its results agree"


@dataclass
class Resumption:
    """What came of comparing a resumed run with the whole one.

    `continues_at` is the call of the whole run with the inputs of the first resumed call, or 0.
    `inputs` are those of `call`, the first call that differs, looked up in the whole run; `beside`
    is its counterpart, if it is not the first one. `start` says after which interruption; `roots`
    are all places where something begins to differ, `passed_on` counts the calls that only pass it
    on, and `why` says what differs in a program.
    """

    step: str = ""
    whole_steps: int = 0
    resumed_steps: int = 0
    continues_at: int = 0
    compared: int = 0
    processes: int = 1
    start: int = 1
    interruptions: int = 1
    starts: list[int] = field(default_factory=list)  # where each start continues, or 0
    coverage: str = ""  # at which checkpoints the starts resumed, in sentences
    inputs: list[FoundInput] = field(default_factory=list)
    call: ValuedCall | None = None
    beside: ValuedCall | None = None
    values: ValuesOfRun | None = None
    before: list[ValuedCall] = field(default_factory=list)  # calls of the resumed run before it
    after: list[ValuedCall] = field(default_factory=list)  # its steps after it, if it is the first
    roots: list[Divergence] = field(default_factory=list)
    passed_on: int = 0
    why: ProgramDifference | None = None
    difference: str = ""
    agreement: str = ""  # where only the ends were compared
    remark: str = ""  # what the runs print or write otherwise
    of_processes: tuple[str, str] = ("", "")  # their folders in the two records
    rounded: list[str] = field(default_factory=list)  # how values follow from those that belonged
    follows: list[str] = field(default_factory=list)  # from the inputs, for certain, in sentences
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
        if self.agreement:
            return self.agreement
        each = f" in each of {self.processes} processes" if self.processes > 1 else ""
        agrees = (
            f"The resumed run continues at call {self.continues_at:,} of {self.step}{each}, and "
            f"its {self.compared:,} calls of JAX from there on agree with the whole run."
        )
        return " ".join(filter(None, (agrees, self.coverage)))

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
            "processes": self.processes,
            "after_interruption": self.start,
            "interruptions": self.interruptions,
            "starts_continue_at": [each or None for each in self.starts],
            "inputs": [each.to_json() for each in self.inputs],
            "lines": [str(line) for line in self.call.site] if self.call else [],
            "roots": [_root_to_json(each) for each in self.roots],
            "passed_on": self.passed_on,
            "program_differs": self.why and self.why.to_json(),
            "rounded": self.rounded,
            "follows": self.follows,
            "remark": self.remark or None,
            "problems": self.problems,
            "notes": self.notes,
        }


def _root_to_json(root: Divergence) -> dict[str, Any]:
    call = root.two or root.one
    assert call is not None
    name = call.program.result if root.kind == "results" else call.program.argument
    return {
        "kind": root.kind,
        "program": call.program.called,
        "names": [name(place) for place in root.places],
        "lines": [str(line) for line in call.site],
    }


@dataclass(frozen=True)
class Before:
    """What is known of the starts before: how many steps they came to, and the last of these."""

    steps: int = 0  # 0 if that is not known
    part: RunOfSteps | None = None


def compare_process(
    run: RunOfSteps, other: RunOfSteps, before: Before, *, cut: bool = False
) -> Resumption:
    """Compare a process of a resumed run with the same process of the whole run.

    Args:
        run: the whole run.
        other: the resumed one.
        before: the starts before it.
        cut: whether it was ended before its end, to be started once more.
    """
    found = Resumption(run.steps[0].program.called, len(run.steps), len(other.steps))
    found.of_processes = run.process.path.name, other.process.path.name
    first = other.steps[0]
    ended = before.part.steps[-1] if before.part else None
    values = ValuesOfRun(run.steps, run.calls, ended)
    inputs = values.inputs_of(first)
    at = _continues_at(inputs, len(run.steps), 0 if cut else len(other.steps), before.steps)
    _what_it_came_to(found, run, other)
    found.continues_at = at
    if at == 0 and is_cut_elsewhere(run, other):
        _note_call(found, inputs, first, values, other)
        _compare_ends_of(found, run, other, cut=cut)
    elif at == 0:
        found.difference = f"The first resumed call of {found.step} is no call of the whole run."
        found.compared = 1
        _note_call(found, inputs, first, values, other)
        _note_before(found, run, other, values.usual(inputs))
        if len(other.steps) > len(run.steps):
            found.notes.append("it makes more steps than the whole run: are the two swapped?")
    elif before.steps and at > before.steps + 1:
        found.problems.append(
            f"the second start continues at call {at:,} of {found.step}, and the first part made "
            f"{before.steps:,}: it reads what the whole run wrote"
        )
    elif at > 1 or cut:
        _compare_from(found, run, other, at, cut=cut)
    if found.verdict == "same":
        another = ANOTHER_PROGRAM.format(found.step)
        found.notes = [f"{each}{AND_AGREES}" if each == another else each for each in found.notes]
    return found


def _compare_ends_of(found: Resumption, run: RunOfSteps, other: RunOfSteps, *, cut: bool) -> None:
    """Compare what both runs come to, where their calls have no counterparts."""
    ends = None if cut else compare_ends(run, other)
    elsewhere = f"the resumed run calls {found.step} with other shapes than the whole run"
    if ends is None or ends == (0, []):
        found.problems.append(f"{elsewhere}, so its calls have no counterparts")
        return
    agree, differ = ends
    found.compared = 1
    if differ:
        names = ", ".join(differ[:3]) + ", …" * (len(differ) > 3)
        found.difference = f"{elsewhere[0].upper()}{elsewhere[1:]}, and ends otherwise: {names}."
    else:
        found.agreement = (
            f"{elsewhere[0].upper()}{elsewhere[1:]}: its calls have no counterparts, and only the "
            f"ends are compared. All {agree:,} results of the same type agree."
        )


def begins_like(run: RunOfSteps, part: RunOfSteps) -> str:
    """Return what of a first part is not as in the whole run; "" if it is its beginning.

    Args:
        run: the whole run.
        part: a run that was interrupted.
    """
    found = compare_onwards(run, part, 1, cut=True)
    if not found.roots:
        return ""
    root = found.roots[0]
    call = root.one or root.two
    assert call is not None
    if any(each.function for side in (run, part) for each in side.process.threads):
        return "it calls JAX in functions of the host, which programs call when they like"
    name = call.program.called
    steps = sum(each.number <= call.number for each in run.steps if each.thread == call.thread)
    differs = f"call {steps:,} of {name}" if call.kind == run.step else f"{name}, step {steps:,},"
    names = [call.program.argument(place) for place in root.places]
    if root.kind == "inputs" and not all(call.values[place] for place in root.places):
        return f"{differs} takes {names[0]}, whose value is not known, as of a mutable array"
    what = names[0] if root.kind == "inputs" else "its results"
    return f"{differs} differs in {what}; ask twice whether the script repeats"


def continues_at(run: RunOfSteps, first: ValuedCall, last: int) -> int:
    """Return at which call of the whole run a start continues; 0 if at none.

    Args:
        run: the whole run.
        first: the first step of the start.
        last: how many steps the starts before have made.
    """
    values = ValuesOfRun(run.steps, run.calls)
    return _continues_at(values.inputs_of(first), len(run.steps), 0, last)


def _continues_at(inputs: Sequence[FoundInput], of: int, made: int, last: int) -> int:
    """Return the call with all of these inputs; 0 if there is none."""
    if any(each.kind not in ("every", "calls") for each in inputs):
        return 0
    sets = [set(each.calls) for each in inputs if each.kind == "calls"]
    calls = set.intersection(*sets) if sets else set(range(1, of + 1))
    if made and of - made + 1 in calls:  # it ends with the last one then
        return of - made + 1
    before = [each for each in calls if not last or each <= last + 1]
    return max(before or calls, default=0)


def _what_it_came_to(found: Resumption, run: RunOfSteps, other: RunOfSteps) -> None:
    """Note what explains a difference and is none."""
    one, two = run.steps[0].program, other.steps[0].program
    if one.text not in {each.program.text for each in other.steps} and one.text != two.text:
        found.notes.append(ANOTHER_PROGRAM.format(found.step))
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
    found.after = other.steps[1:] if call is other.steps[0] else []
    # Of other threads nobody knows which of their calls came before, but for those it takes from.
    found.before = [
        each for each in other.calls if each.thread != call.thread or each.number < call.number
    ]


def _compare_from(
    found: Resumption, run: RunOfSteps, other: RunOfSteps, at: int, *, cut: bool
) -> None:
    """Compare each call from there on with its counterpart."""
    onwards = compare_onwards(run, other, at, cut=cut)
    found.compared, found.roots = onwards.compared, onwards.roots
    found.passed_on = onwards.passed_on
    if onwards.roots:
        _note_difference(found, run, other)
    elif onwards.uncached:
        found.problems.append(
            f"{onwards.uncached:,} calls of the whole run were not made again, in the same "
            "process: JAX may have kept what it had traced; resume in a process of its own"
        )
    found.problems += list(dict.fromkeys(onwards.untold))[:SAID]
    if onwards.unpaired and not cut:
        found.problems.append(
            f"in other threads, {_calls_of_jax(onwards.unpaired)} could not be compared"
        )


def _note_before(found: Resumption, run: RunOfSteps, other: RunOfSteps, at: int) -> None:
    """Say which calls before the first step took something else than in the likeliest turn."""
    if at < 2:
        return
    for one, two in calls_before(run, other, run.steps[at - 1], other.steps[0]).pairs:
        places = places_that_differ(one.values, two.values)
        names = [two.program.argument(place) for place in places if two.values[place]]
        if names:
            what = f"{two.program.called}, {line_of(two)}, takes another {names[0]}"
            found.notes.append(f"before it, {what} than before call {at:,}")
            return


def _note_difference(found: Resumption, run: RunOfSteps, other: RunOfSteps) -> None:
    """Say how the first call that differs does, and look its inputs up."""
    root = found.roots[0]
    one, two = root.one, root.two
    found.call, found.beside = two or one, one
    if two is None or one is None:
        _note_end(found, root, run, other)
        return
    steps = sum(each.number <= two.number for each in other.steps if each.thread == two.thread)
    steps = max(steps, 1)  # what comes before the first one is in its turn of the loop
    where = f"{two.program.called}, at step {steps + found.continues_at - 1:,}"
    if root.kind == "path":
        in_line = f"{_as_called(one, two)}, {line_of(one)}"
        found.difference = f"The resumed run calls {_as_called(two, one)}, at step " + (
            f"{steps + found.continues_at - 1:,}, the whole run {in_line}."
        )
    elif root.kind == "inputs":
        found.difference = f"They diverge in {where}: its inputs differ."
        same = [each for each in run.calls if each.kind == one.kind]
        values = ValuesOfRun(same, run.calls)
        inputs = [each for each in values.inputs_of(two) if each.place in root.places]
        _note_call(found, inputs, two, values, other)
    else:
        found.difference = f"They diverge in {where}: equal inputs, other results."
        sides = ProgramsOfProcess(run.process), ProgramsOfProcess(other.process)
        found.why = difference_of_programs(sides[0], one.program, sides[1], two.program)


def _note_end(found: Resumption, root: Divergence, run: RunOfSteps, other: RunOfSteps) -> None:
    """Say by how much a resumed run ends too early or too late, in steps where it is steps."""
    call = root.one or root.two
    assert call is not None
    side = run if root.one else other
    steps = sum(each.thread == call.thread and each.number >= call.number for each in side.steps)
    much = _calls_of_jax(root.left)
    if steps:
        much = f"{steps:,} step{'s' * (steps != 1)} ({much})"
    if root.one:
        found.difference = f"The resumed run ends {much} before the whole run."
    else:
        found.difference = f"The resumed run makes {much} more than the whole run."
    if steps:
        left = len(run.steps) - found.continues_at + 1
        than = "behind" if root.one else "ahead of"
        found.notes.append(
            f"it continues at step {found.continues_at:,}, from where the whole run makes {left:,} "
            f"steps, and it makes {len(other.steps):,}: was it asked for as many, or is its state "
            f"{than} the number that it counts from?"
        )


def _calls_of_jax(count: int) -> str:
    return f"{count:,} call{'s' * (count != 1)} of JAX"


def _as_called(call: ValuedCall, beside: ValuedCall) -> str:
    """Name a call; with the type of the argument that differs, if the functions do not."""
    name = call.program.called
    pairs = enumerate(zip(call.program.shapes, beside.program.shapes, strict=False))
    place = next((place for place, (a, b) in pairs if a != b), None)
    if call.program.name != beside.program.name or place is None:
        return name
    named = len(call.program.shapes) == len(call.program.arguments)
    argument = call.program.argument(place) if named else f"argument {place}"
    return f"{name} with {argument} {call.program.shapes[place]}"
