"""Draws of a record that use one key twice: between two calls, or inside of one.

The rule: two draws count if they come from equal keys, whoever derived these and how; what is known
of a key only as "some key" is counted and not compared.
Chapter: docs/fundamentals/jax_prng_tutorial.md
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from reproducibility.script.reading import Process, SourceLine, processes_of
from reproducibility.script.report import line_and_text
from reproducibility.script.values import ValuedCall, valued_calls
from reproducibility.watch.consumed import KEYS
from reproducibility.watch.derived import OF_INTEGERS, SIGNED

PLACES_SHOWN = 4  # pairs of lines; --json has all
UNKNOWN_TURNS = 2  # what stands for the turns of a loop that may make any number
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_MASK = 0xFFFFFFFF


class DrawingLine(NamedTuple):
    """A draw: in which call, and on which line."""

    process: str
    thread: int
    call: int
    program: str
    line: SourceLine | None

    def __str__(self) -> str:
        return line_and_text(self.line) if self.line else f"{self.program}, which no line names"


@dataclass
class KeyReuse:
    """Two draws from one key, and how often these two lines do so."""

    first: DrawingLine
    then: DrawingLine
    turns: int = 1  # of a loop each of which draws from it
    times: int = 1

    @property
    def is_inside(self) -> bool:
        """Whether both are in one call."""
        return self.first[:3] == self.then[:3]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        sides = [
            {**each._asdict(), "line": str(each.line) if each.line else ""}
            for each in (self.first, self.then)
        ]
        return {"first": sides[0], "then": sides[1], "turns": self.turns, "times": self.times}

    def lines(self) -> list[str]:
        """Return what is to be said of it."""
        more = ", and once more" if self.times == 2 else ""
        more = f", and {self.times - 1:,} times more" if self.times > 2 else more
        then = f"call {self.then.call}, {self.then.program},"
        if self.turns > 1:
            turns = f"each of {self.turns:,} turns" if self.turns > UNKNOWN_TURNS else "each turn"
            return [f"{then} draws from one key in {turns} of a loop{more}:", f"    {self.then}"]
        if self.is_inside:
            head = f"{then} draws from one key twice{more}:"
        else:
            head = f"{then} draws from a key that call {self.first.call} drew from{more}:"
        lines = [f"    {self.then}", f"    {self.first}"]
        return [head, *(lines if lines[0] != lines[1] else [f"{lines[0]} (both)"])]


@dataclass
class DrawnKeys:
    """What a record says of the keys that calls draw from."""

    asked: bool = False
    draws: int = 0
    reused: list[KeyReuse] = field(default_factory=list)
    repeating: int = 0  # draws of calls that repeat an earlier call, and serve what that serves
    not_compared: int = 0  # draws from keys whose words are not known
    in_branches: int = 0  # of a key that another call draws from: calls that may draw, or not
    not_seen: Counter[str] = field(default_factory=Counter)  # calls of programs nobody looked into

    @property
    def exit_code(self) -> int:
        """0 if no key is drawn from twice, 1 if one is, 3 if nothing could be compared."""
        blind = (self.not_compared or self.not_seen) and not self.draws
        return 1 if self.reused else 3 if self.asked and (blind or self.in_branches) else 0

    @property
    def reason(self) -> str:
        """Why the exit code is not 0, in a sentence."""
        if self.in_branches and not self.reused:
            return "Calls may draw from a key twice: a condition decides, and nobody saw which way."
        if not self.reused:
            return "No key could be looked at: it cannot be told whether one is drawn from twice."
        first = self.reused[0]
        return f"Call {first.then.call}, {first.then.program}, draws from a key a second time."

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "asked": self.asked,
            "draws": self.draws,
            "reused": [each.to_json() for each in self.reused],
            "repeating": self.repeating,
            "not_compared": self.not_compared,
            "in_branches": self.in_branches,
            "not_seen": dict(self.not_seen),
        }

    def lines(self) -> list[str]:
        """Return what is to be said of it: nothing if it was not asked for."""
        if not self.asked:
            return []
        found = [f"no key is drawn from twice, in {_amount(self.draws, 'draw')}"]
        if self.reused:
            many = sum(each.times for each in self.reused)
            found = [f"keys are drawn from twice: {many:,} of {self.draws:,} draws repeat another"]
        for each in self.reused[:PLACES_SHOWN]:
            found += each.lines()
        if len(self.reused) > PLACES_SHOWN:
            found.append(f"and on {len(self.reused) - PLACES_SHOWN} more pairs of lines")
        if self.repeating:
            what = "of calls that repeat an earlier one, for the same use"
            found.append(f"not counted: {_amount(self.repeating, 'draw')} {what}")
        if self.not_compared:
            what = _amount(self.not_compared, "draw")
            found.append(f"not compared: {what} whose keys are not known")
        if self.in_branches:
            what = _amount(self.in_branches, "call")
            found.append(f"not known: {what} may draw from a key again, if a condition says so")
        if self.not_seen:
            what = _amount(sum(self.not_seen.values()), "call")
            found.append(f"not looked into: {what} of programs that were compiled before")
        return found


def _amount(many: int, what: str) -> str:
    return f"{many:,} {what}{'s' * (many != 1)}"


def drawn_keys(record: Path) -> DrawnKeys:
    """Read which keys the calls of a record draw from, and which twice.

    Args:
        record: the directory of a record.

    Raises:
        RecordError: it is none.
        RecordDamagedError: a file of it is not as it was written.
    """
    found = DrawnKeys()
    for process in processes_of(record):
        found.asked |= bool(process.start.get("keys"))
        found.not_seen.update((process.end or {}).get("keys not seen", {}))
        _Reading(process, found).read()
    return found


class _Drawing:
    """A program that draws."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.name = facts["name"].removeprefix("jit(").removesuffix(")")
        self.terms, self.unknown = facts["terms"], facts["unknown"]
        rows = [_Row(each[0], each[1], each[2], *each[3:]) for each in facts["draws"]]
        # What is computed again for its gradient draws what it drew before. Its line may be other:
        # that of the library that computes it again, or of the call of the layer.
        first: dict[tuple[int, str], int] = {}
        for row in rows:
            first[row.term, row.kind] = min(row.again, first.get((row.term, row.kind), row.again))
        self.rows = [row for row in rows if row.again == first[row.term, row.kind]]


class _Row(NamedTuple):
    term: int
    kind: str
    line: Sequence[Any] | None
    branches: Sequence[Sequence[int]]
    turns: int
    again: int


class _Reading:
    """Reads the keys of a process."""

    def __init__(self, process: Process, found: DrawnKeys) -> None:
        self._process, self._found = process, found
        self._calls: dict[tuple[int, int], ValuedCall] = {}
        self._repeating: set[tuple[int, int]] = set()
        self._seen: dict[Any, tuple[str, int, int, str, Any]] = {}
        self._groups: dict[Any, KeyReuse] = {}
        self._in_branches: Counter[Any] = Counter()  # calls that may draw from a key, by that

    def read(self) -> None:
        if next(self._process.lines(KEYS), None) is not None:
            calls = valued_calls(self._process)
            self._calls = {(each.thread, each.number): each for each in calls}
            self._repeating = _repeating(self._calls)
        programs: dict[int, _Drawing] = {}
        for text in self._process.lines(KEYS):
            if text.startswith("program "):
                _, number, facts = text.split(" ", 2)
                programs[int(number)] = _Drawing(json.loads(facts))
                continue
            head, _, words = text.partition(" ;>")
            place, _, number = head.partition(" ")
            thread, _, call = place.partition(":")
            program = programs[int(number)]
            self._call(program, int(thread), int(call), _Evaluated(program.terms, words))
        for drawn, count in self._in_branches.items():
            self._found.in_branches += count if drawn in self._seen else count - 1

    def _call(self, program: _Drawing, thread: int, call: int, values: _Evaluated) -> None:
        here: dict[Any, list[tuple[_Row, Any]]] = {}
        self._found.not_compared += program.unknown
        for row in program.rows:
            at = self._process.path.name, thread, call, program.name, row.line
            key = values.key(row.term)
            self._found.draws += 1
            if row.turns > 1:
                self._add(at, at, row.turns)
            if key is None:
                key = ("in this call", row.term)
                self._found.draws -= 1
                self._found.not_compared += 1
            for other, where in here.get((key, row.kind), ()):
                if not _exclude(row.branches, other.branches):
                    self._add(where, at, 1)
                    break
            here.setdefault((key, row.kind), []).append((row, at))
        for (key, kind), rows in here.items():
            if key[0] == "in this call":
                continue
            sure = next((at for row, at in rows if not row.branches), None)
            if sure is None and (thread, call) not in self._repeating:
                self._in_branches[key, kind] += 1
            before = self._seen.setdefault((key, kind), sure) if sure else sure
            if before is sure:
                continue
            if (thread, call) in self._repeating:
                self._found.repeating += 1
            else:
                self._add(before, sure, 1)

    def _add(self, first: Any, then: Any, turns: int) -> None:
        a, b = self._named(*first), self._named(*then)
        group = (a.line, b.line, a.program, b.program, turns, a[:3] == b[:3])
        known = self._groups.get(group)
        if known is None:
            self._groups[group] = KeyReuse(a, b, turns)
            self._found.reused.append(self._groups[group])
        else:
            known.times += 1

    def _named(self, process: str, thread: int, call: int, program: str, line: Any) -> DrawingLine:
        if line is not None:
            return DrawingLine(process, thread, call, program, SourceLine(*line))
        known = self._calls.get((thread, call))
        site = known.site if known else ()
        own = [each for each in site if "site-packages" not in each.file]
        return DrawingLine(process, thread, call, program, next(iter([*own, *site]), None))


def _repeating(calls: Mapping[tuple[int, int], ValuedCall]) -> set[tuple[int, int]]:
    """Return the calls that repeat an earlier one, and whose results go where its do.

    So does a training that is made a second time in one process, and one that is resumed, which may
    go on where the first one ended: one of the two has what the other has, and perhaps more.
    """
    numbers: dict[Any, int] = {}  # equal calls have the same one
    which = {place: numbers.setdefault(each.content, len(numbers)) for place, each in calls.items()}
    goes: dict[tuple[int, int], set[tuple[int, int, int]]] = {place: set() for place in calls}
    for place, each in calls.items():
        for argument, origin in enumerate(each.origins):
            if origin is not None and (origin.thread, origin.call) in goes:
                goes[origin.thread, origin.call].add((which[place], argument, origin.place))
    repeats, elsewhere = set(), []
    before: dict[int, set[tuple[int, int, int]]] = {}  # where the results of earlier ones go
    for place, each in calls.items():
        known = before.get(which[place])
        if known is None or not each.is_known:
            before.setdefault(which[place], set()).update(goes[place])
            continue
        repeats.add(place)
        if not (known <= goes[place] or goes[place] <= known):
            elsewhere.append(place)
        known |= goes[place]
    while elsewhere:  # so do the results of what they are made of
        place = elsewhere.pop()
        repeats.discard(place)
        origins = {(each.thread, each.call) for each in calls[place].origins if each is not None}
        elsewhere += origins & repeats
    return repeats


def _exclude(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> bool:
    """Whether two draws are in different branches of one condition."""
    return any(a == c and b != d for a, b in one for c, d in other)


class _Evaluated:
    """The terms of a program, with the words of a call's arguments."""

    def __init__(self, terms: Sequence[Sequence[Any]], words: str) -> None:
        self._terms, self._known = terms, list[Any]()
        self._words: dict[int, tuple[int, bytes]] = {}
        for part in filter(None, words.split(",")):
            place, _, text = part.partition("=")
            size, _, data = text.partition(":")
            if text != "?":
                self._words[int(place)] = int(size), bytes.fromhex(data)

    def key(self, number: int) -> Any:
        """Return what is known of a key: its words, or what it is derived from; else None."""
        while len(self._known) <= number:  # what a term is made of comes before it
            word, parts, *rest = self._terms[len(self._known)]
            values = [self._known[each] for each in parts]
            self._known.append(None if None in values else self._value(word, values, rest))
        return self._known[number]

    def _value(self, word: str, values: list[Any], rest: list[Any]) -> Any:
        if word == "constant":
            return rest[0]
        if word == "unknown":
            return None
        if word == "input":
            return self._input(*rest)
        if word == "key":
            return (rest[0], *values)
        if word == "seed" and rest[0] == "threefry2x32":
            seed = values[0] % 2 ** (rest[1] if rest[1:] else 64)  # of 32 bits, or of 64
            return ("threefry2x32", seed >> 32, seed & _MASK)
        if word == "fold" and values[0][0] == "threefry2x32" and len(values[0]) == 3:
            return ("threefry2x32", *threefry2x32(values[0][1:], (0, values[1] & _MASK)))
        if word == "word" and len(values[0]) > 1 + rest[0] and values[0][0] in _WORDS_OF_KEYS:
            return values[0][1 + rest[0]]
        if word == "pick":
            index, *row = values
            return row[min(max(index, 0), len(row) - 1)]
        if word in OF_INTEGERS:
            return OF_INTEGERS[word](*values)
        return (word, *values, *rest)

    def _input(self, place: int, element: int, kind: str) -> Any:
        if place not in self._words:
            return None
        size, data = self._words[place]
        if kind in ("", SIGNED):
            number = data[element * size : (element + 1) * size]
            return int.from_bytes(number, "little", signed=kind == SIGNED)
        many = _WORDS_OF_KEYS.get(kind)
        if many is None:
            return None
        begin = element * many * 4
        words = [data[begin + 4 * i : begin + 4 * i + 4] for i in range(many)]
        return (kind, *(int.from_bytes(each, "little") for each in words))


_WORDS_OF_KEYS = {  # how many words a key has
    **{"threefry2x32": 2, "philox2x32": 1, "threefry4x32": 4, "philox4x32": 2},
    **{"rbg": 4, "unsafe_rbg": 4},
}


def threefry2x32(key: Sequence[int], count: Sequence[int]) -> tuple[int, int]:
    """Return the two words that Threefry makes of a key and a count.

    Args:
        key: two words of 32 bits.
        count: two words of 32 bits.
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (count[0] + key[0]) & _MASK, (count[1] + key[1]) & _MASK
    for step in range(5):
        for rotation in _ROTATIONS[step % 2]:
            x = (x + y) & _MASK
            y = ((y << rotation | y >> (32 - rotation)) & _MASK) ^ x
        x = (x + schedule[(step + 1) % 3]) & _MASK
        y = (y + schedule[(step + 2) % 3] + step + 1) & _MASK
    return x, y
