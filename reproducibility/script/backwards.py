"""The calls before the first step of a resumed run, beside those of the whole run's same turn.

The rule: calls of one program and line are counterparts, found from the step backwards. A call of
the loop that has none, and that the whole run did not make, is said with its line.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from reproducibility.script.reading import SourceLine
from reproducibility.script.steps import RunOfSteps
from reproducibility.script.values import ValuedCall

type PlaceInLoop = tuple[str, tuple[SourceLine, ...]]  # a program, and the lines that call it


@dataclass
class BeforeStep:
    """Calls of both runs that belong together, in their order, and what has no counterpart.

    `left_out` are calls of the whole run at the head of the loop, which the resumed run lacks;
    `unknown` are calls that the resumed run makes in lines of the loop, and the whole one does not.
    """

    pairs: list[tuple[ValuedCall, ValuedCall]] = field(default_factory=list)
    left_out: list[ValuedCall] = field(default_factory=list)
    unknown: list[ValuedCall] = field(default_factory=list)


def calls_before(
    run: RunOfSteps, other: RunOfSteps, one: ValuedCall, two: ValuedCall
) -> BeforeStep:
    """Put the calls before two calls together, as far back as the turn of the loop goes.

    Args:
        run: the whole run.
        other: the resumed one.
        one: a step of the whole run, or a call of another thread that was taken first.
        two: its counterpart, the first one of the resumed run.
    """
    loop = _outside_libraries(two.site)[:1]
    steps = [each.number for each in run.steps if each.thread == one.thread]
    turn = max((number for number in steps if number < one.number), default=0)
    own = [each for each in run.calls if each.thread == one.thread]
    ours = [each for each in own if turn < each.number < one.number] if turn else []
    warming = {(each.thread, each.number) for each in other.warming}
    theirs = [each for each in other.calls if _is_before(each, two)]
    theirs = [each for each in theirs if (each.thread, each.number) not in warming]
    found = BeforeStep()
    found.pairs, left, rest = _counterparts(ours, theirs, loop)
    head = {_place_in_loop(each, loop) for each in own if steps and each.number < steps[0]}
    found.left_out = [each for each in left if _place_in_loop(each, loop) in head]
    after = [each for each in own if not steps or each.number > steps[0]]
    places = {_place_in_loop(each, loop) for each in after}
    made = {each.content for each in run.calls}
    for each in rest:
        if _place_in_loop(each, loop) in places and not (each.is_known and each.content in made):
            found.unknown.append(each)
    return found


def line_of(call: ValuedCall) -> str:
    """Return the line of a call that is in no library.

    Args:
        call: one of a run.
    """
    own = _outside_libraries(call.site)
    if not own:
        return "whose line is not known"
    return f"{PurePath(own[0].file).name}:{own[0].line}, in {own[0].function}"


def _is_before(each: ValuedCall, call: ValuedCall) -> bool:
    return each.thread == call.thread and each.number < call.number


def _counterparts(
    ours: Sequence[ValuedCall], theirs: Sequence[ValuedCall], loop: Sequence[SourceLine]
) -> tuple[list[tuple[ValuedCall, ValuedCall]], list[ValuedCall], list[ValuedCall]]:
    """Return the pairs, and what is left of both, all in their order."""
    pairs, left = [], []
    rest = list(theirs)
    until = len(theirs)
    for one in reversed(ours):
        back = range(until - 1, -1, -1)
        at = next((i for i in back if _are_counterparts(one, theirs[i], loop)), None)
        if at is None:
            left.append(one)
            continue
        pairs.append((one, theirs[at]))
        rest.remove(theirs[at])
        until = at
    return pairs[::-1], left[::-1], rest


def _are_counterparts(one: ValuedCall, two: ValuedCall, loop: Sequence[SourceLine]) -> bool:
    same = (
        _place_in_loop(one, loop) == _place_in_loop(two, loop)
        and one.program.shapes == two.program.shapes
    )
    sizes = [(len(each.values), len(each.results), each.error) for each in (one, two)]
    return same and sizes[0] == sizes[1]


def _place_in_loop(call: ValuedCall, loop: Sequence[SourceLine]) -> PlaceInLoop:
    """Return the program and the lines of a call, outwards to the function that has the loop."""
    for number, line in enumerate(call.site if loop else ()):
        if (line.file, line.function) == (loop[0].file, loop[0].function):
            return call.program.name, call.site[: number + 1]
    return call.program.name, call.site


def _outside_libraries(site: Sequence[SourceLine]) -> Sequence[SourceLine]:
    """Return the lines from the first on that is in no library."""
    return [line for line in site if "site-packages" not in line.file]
