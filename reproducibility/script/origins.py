"""Where each argument of a call comes from, followed from call to call.

The rule: a record says it relative to the call, and says nothing where it is as before; here it is
the number of the call that made the array.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from typing import NamedTuple

from reproducibility.script.reading import Pattern


class CameFrom(NamedTuple):
    """Where an array came from: a result ("r") or an argument ("i") of a call."""

    thread: str
    call: int
    kind: str
    place: int


type Origins = list[CameFrom | None]  # of the arguments of a call; None if no recorded call made it


class Following:
    """The arguments of one thread's calls."""

    def __init__(self, name: str, names: dict[int, str]) -> None:
        self._name, self._names = name, names  # of this thread, and of those of the record
        self._steps: dict[
            int, tuple[ReferenceSteps, int]
        ] = {}  # of a pattern, and the place it is called
        self._places: dict[object, int] = {}
        # By place: the last pattern, its call, and what stood before where it says "as before".
        self._last: dict[int, tuple[Pattern, int, Origins]] = {}

    def skip(self, pattern: Pattern, number: int) -> None:
        """Note a call."""
        steps, place = self._known(pattern)
        before: Origins = []
        if AS_BEFORE in steps:
            last = self._last[place]
            before = last[2] if last[0] is pattern else self._resolve(*last)
        self._last[place] = pattern, number, before

    def of(self, pattern: Pattern, number: int) -> Origins:
        """Note a call, and return where its arguments come from."""
        self.skip(pattern, number)
        return self._resolve(*self._last[self._steps[pattern.number][1]])

    def _known(self, pattern: Pattern) -> tuple[ReferenceSteps, int]:
        known = self._steps.get(pattern.number)
        if known is None:
            where = (pattern.program, pattern.site)
            place = self._places.setdefault(where, len(self._places))
            steps = tuple(self._step(word) for word in pattern.references)
            known = self._steps[pattern.number] = steps, place
        return known

    def _step(self, word: str) -> ReferenceStep:
        if word == "=":
            return AS_BEFORE
        if word in ("e", "n", "s", "m", "x"):
            return None
        kind, (away, _, place) = word[0], word[1:].partition(".")
        name = self._name
        if kind in "tu":
            thread, _, away = away.partition(":")
            name, kind = self._names[int(thread)], "r" if kind == "t" else "i"
        return CameFrom(name, int(away), kind, int(place))

    def _resolve(self, pattern: Pattern, number: int, before: Origins) -> Origins:
        return [
            None
            if step is None
            else before[place]
            if step is AS_BEFORE
            else CameFrom(step[0], number - step[1], step[2], step[3])
            for place, step in enumerate(self._steps[pattern.number][0])
        ]


type ReferenceStep = CameFrom | None  # with the distance to the call instead of its number
type ReferenceSteps = tuple[ReferenceStep, ...]

AS_BEFORE = CameFrom("", 0, "=", 0)


class Differing:
    """Arrays that differ between two runs."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], dict[int, tuple[int, ...]]] = {}
        self._same: dict[tuple[int, ...], tuple[int, ...]] = {}  # each such tuple is kept once

    def add(self, thread: str, call: int, kind: str, places: list[int]) -> None:
        """Note results or arguments of a call."""
        if places:
            each = tuple(places)
            calls = self._places.setdefault((thread, kind), {})
            calls[call] = self._same.setdefault(each, each)

    def __bool__(self) -> bool:
        return bool(self._places)

    def __contains__(self, origin: CameFrom) -> bool:
        calls = self._places.get((origin[0], origin[2]))
        return calls is not None and origin[3] in calls.get(origin[1], ())
