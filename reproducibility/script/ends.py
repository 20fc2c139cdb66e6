"""A loop that the resumed run cuts elsewhere: its calls have no counterpart, its end has one.

The rule: what the last calls return is compared by place; only results of another type, such as one
loss for each step, may differ.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

import re

from reproducibility.script.programs import ProgramsOfProcess
from reproducibility.script.steps import RunOfSteps
from reproducibility.script.values import ValuedCall

_RESULTS = re.compile(r"func\.func public @main\(.*?\) -> \(?(.*)\)? \{", re.DOTALL)
_TYPE = re.compile(r"tensor<([^>]*)>")


def is_cut_elsewhere(run: RunOfSteps, other: RunOfSteps) -> bool:
    """Whether the whole loop is one call, and the first resumed call takes arrays of other shapes.

    Where the whole run makes many steps, one with other shapes is another step.

    Args:
        run: the whole run.
        other: the resumed one.
    """
    one, two = run.steps[0], other.steps[0]
    return len(run.steps) == 1 and one.program.shapes != two.program.shapes


def compare_ends(run: RunOfSteps, other: RunOfSteps) -> tuple[int, list[str]] | None:
    """Return how many results of the last calls agree, and the names of those that do not.

    None if that cannot be told: the texts of the programs are not known, or other calls follow.

    Args:
        run: the whole run.
        other: the resumed one.
    """
    sides = (run, other)
    if any(_follows(side) for side in sides):
        return None
    last = [side.steps[-1] for side in sides]
    types = [_types_of_results(side, call) for side, call in zip(sides, last, strict=True)]
    if not types[0] or [len(each) for each in types] != [len(each.results) for each in last]:
        return None
    if len(types[0]) != len(types[1]):
        return None
    agree, differ = 0, []
    for place, (a, b) in enumerate(zip(*types, strict=True)):
        if a == b and last[0].results[place] == last[1].results[place]:
            agree += 1
        elif a == b:
            differ.append(last[1].program.result(place))
    return agree, differ


def _follows(side: RunOfSteps) -> bool:
    """Whether the run goes on after its last step, or computes something in another thread."""
    last = side.steps[-1]
    return any(each.thread != last.thread or each.number > last.number for each in side.calls)


def _types_of_results(side: RunOfSteps, call: ValuedCall) -> list[str]:
    """Return the types of what a program returns; none if its text is not known."""
    text = ProgramsOfProcess(side.process).text(call.program)
    whole = "\n".join(each.text for each in text.statements) if text else ""
    head = next((line for line in whole.splitlines() if "func.func public @main(" in line), "")
    found = _RESULTS.search(head)
    return _TYPE.findall(found[1]) if found else []
