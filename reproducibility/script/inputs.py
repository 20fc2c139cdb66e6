"""Where the inputs of a call in one run come from in another: which of its calls had each value.

The rule: what is said is what the records hold. A value that never changes tells nothing about a
call, and one that repeats is named with all its calls.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reproducibility.script.values import NO_VALUE, ValuedCall, carried

type PlaceKind = Literal["every", "calls", "elsewhere", "unseen", "unknown"]
CALLS_SHOWN = 4  # calls that had a value; --json has all
_PARTS = re.compile(r"\.?\w+|\[[^\]]*\]|<[^>]*>|.")

_NUMBERED = re.compile(r"(states\[\d+\]|\['rest'\])\[\d+\]$")


@dataclass(frozen=True)
class FoundInput:
    """An input of a call, and where the whole run had its value.

    `kind` is "every" (all calls of the function had it), "calls" (those in `calls`, from 1),
    "elsewhere" (`other` has the name and the call), "unseen", or "unknown" (no value to compare).
    """

    name: str
    kind: PlaceKind
    place: int
    calls: tuple[int, ...] = ()
    other: tuple[str, str] = ("", "")
    shape: str = ""
    carried: bool = False  # whether it is what the call before returned

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "calls": list(self.calls),
            "other": "".join(self.other) or None,
            "shape": self.shape or None,
            "carried": self.carried,
        }

    @property
    def words(self) -> str:
        """Say where the whole run had the value."""
        if self.kind == "every":
            return "as in every call"
        if self.kind == "calls":
            return f"the value of {_calls_in_words(self.calls)}"
        if self.kind == "elsewhere":
            return f"the value of {''.join(self.other)}"
        if self.kind == "unknown":
            return "it has no value that can be compared"
        return "not seen in the whole run"


def _calls_in_words(calls: Sequence[int]) -> str:
    shown = [f"{each:,}" for each in calls[:CALLS_SHOWN]]
    more = f" and {len(calls) - CALLS_SHOWN:,} more" if len(calls) > CALLS_SHOWN else ""
    return f"call{'s' * (len(calls) > 1)} {', '.join(shown)}{more}"


class ValuesOfRun:
    """All that one function took in a run, and what any call took or returned."""

    def __init__(
        self,
        steps: Sequence[ValuedCall],
        calls: Sequence[ValuedCall],
        ended: ValuedCall | None = None,
    ) -> None:
        """Read the values.

        Args:
            steps: all calls of the function.
            calls: all calls of the run.
            ended: the last step before an interruption, in the run that was interrupted.
        """
        self.steps = steps
        self.carried = carried(steps)
        self._places: list[dict[str, list[int]]] = [{} for _ in steps[0].values]
        for number, step in enumerate(steps, 1):
            for known, value in zip(self._places, step.values, strict=True):
                known.setdefault(value, []).append(number)
        self._elsewhere = _named_values(steps, calls)
        for place, value in enumerate(ended.results if ended else ()):
            name = ended.program.result(place) if ended else ""
            self._elsewhere.setdefault(value, (name, " with which the part before ended"))

    def usual(self, inputs: Sequence[FoundInput]) -> int:
        """Return the call that most of these inputs are of, beside the first; 0 if no single one.

        Args:
            inputs: those of one call.
        """
        rows = [row for row in rows_of(inputs) if row.calls != (1,)]
        counts = Counter(call for row in rows for call in row.calls)
        best = counts.most_common(2)
        if not best or (len(best) == 2 and best[0][1] == best[1][1]):
            return 0
        return best[0][0]

    def inputs_of(self, call: ValuedCall) -> list[FoundInput]:
        """Look up each input of a call of that function.

        Args:
            call: one of another run.
        """
        return [self._input(call, place, value) for place, value in enumerate(call.values)]

    def _input(self, call: ValuedCall, place: int, value: str) -> FoundInput:
        name = self.steps[0].program.argument(place)
        known = self._places[place]
        kind: PlaceKind = "unseen"
        calls: tuple[int, ...] = ()
        other = ("", "")
        if value == NO_VALUE:
            kind = "unknown"
        elif value in known:
            calls = tuple(known[value])
            kind = "every" if len(known) == 1 and len(self.steps) > 1 else "calls"
        elif value in self._elsewhere and not _is_a_number(call, place):
            kind, other = "elsewhere", self._elsewhere[value]
        return FoundInput(
            name, kind, place, calls, other, _shape_of_argument(call, place), self.carried[place]
        )


def _named_values(
    steps: Sequence[ValuedCall], calls: Sequence[ValuedCall]
) -> dict[str, tuple[str, str]]:
    """Return what each value was first: an input of the function, else its result, else another."""
    found: dict[str, tuple[str, str]] = {}
    for number, step in enumerate(steps, 1):
        for place, value in enumerate(step.values):
            found.setdefault(value, (step.program.argument(place), f" of call {number:,}"))
    for number, step in enumerate(steps, 1):
        for place, value in enumerate(step.results):
            found.setdefault(value, (step.program.result(place), f" after call {number:,}"))
    for call in calls:
        name = call.program.called
        for place, value in enumerate(call.values):
            found.setdefault(value, (call.program.argument(place), f" of {name}"))
        for place, value in enumerate(call.results):
            found.setdefault(value, (call.program.result(place), f" that {name} returned"))
    found.pop(NO_VALUE, None)
    return found


def _is_a_number(call: ValuedCall, place: int) -> bool:
    """Whether it is one number, which other arguments have by chance."""
    shape = _shape_of_argument(call, place)
    return not shape or (shape.endswith("[]") and not shape.startswith("key"))


def _shape_of_argument(call: ValuedCall, place: int) -> str:
    """Return the type and shape of an argument, if they are known."""
    shapes = call.program.shapes  # some may be of arguments that the program drops
    return shapes[place] if len(shapes) == len(call.values) else ""


@dataclass(frozen=True)
class InputRow:
    """Inputs whose values one sentence describes, by the name that they have in common."""

    name: str
    inputs: tuple[FoundInput, ...]

    @property
    def calls(self) -> tuple[int, ...]:
        """The calls that had all of these values, without those that never change."""
        found = [set(each.calls) for each in self.inputs if each.kind == "calls"]
        return tuple(sorted(set.intersection(*found))) if found else ()

    @property
    def words(self) -> str:
        """Say where the whole run had the values."""
        if self.calls:
            return f"the value of {_calls_in_words(self.calls)}"
        if self.inputs[0].kind == "elsewhere":
            return f"the value of {''.join(self._others[0])}"
        return self.inputs[0].words

    @property
    def _others(self) -> list[tuple[str, str]]:
        """What else the inputs are, without what they have in common with their own names."""
        found = []
        for each in self.inputs:
            (other, rest), end = each.other, each.name[len(self.name) :]
            found.append((other.removesuffix(end) if other != end else other, rest))
        return found

    @property
    def title(self) -> str:
        """The name; with the shape where a library numbers its leaves (NNX, Equinox)."""
        numbered = len(self.inputs) == 1 and _NUMBERED.search(self.name)
        return f"{self.name} {self.inputs[0].shape}".strip() if numbered else self.name

    @property
    def is_one(self) -> bool:
        """Whether one sentence describes them all."""
        kinds = {each.kind for each in self.inputs}
        if kinds <= {"every", "calls"}:
            return kinds == {"every"} or bool(self.calls)
        return len(kinds) == 1 and len(set(self._others)) == 1


def rows_of(inputs: Sequence[FoundInput]) -> list[InputRow]:
    """Put inputs together as far as one sentence describes them, by their names.

    Args:
        inputs: those of a call, in their order.
    """
    return _rows(inputs, 0)


def _rows(inputs: Sequence[FoundInput], depth: int) -> list[InputRow]:
    groups: dict[str, list[FoundInput]] = {}
    for each in inputs:
        parts = _PARTS.findall(each.name)
        groups.setdefault("".join(parts[: depth + 1]), []).append(each)
    found = []
    for name, group in groups.items():
        row = InputRow(group[0].name if len(group) == 1 else name, tuple(group))
        if row.is_one or len({each.name for each in group}) == 1:
            found.append(row)
        else:
            found += _rows(group, depth + 1)
    return found
