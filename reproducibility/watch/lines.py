"""The lines of a thread's file: what repeats from call to call is said once.

The rule: what is written depends on nothing that differs between two equal runs: no address, no
identity, no time.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from . import prints
from .compiled import Compiled
from .source import lines_of_source, place_of
from .texts import what_xla_made
from .writing import Writing

# Where an array came from: who says so, thread, call, and result `place` of it or its argument
# -1 - `place`.
ArrayOrigin = tuple[object, int, int, int]


class Given:
    """The arguments of a call, as far as they were looked at."""

    __slots__ = ("arguments", "aside", "fresh", "looked", "origins", "pending", "tokens")

    def __init__(self, arguments: Sequence[Any]) -> None:
        self.arguments = arguments
        self.aside: Any = None  # what is done beside the record of the call
        self.looked = False
        self.origins: list[str | ArrayOrigin] = []  # or the kind of what no recorded call made
        self.tokens: dict[int, Any] = {}  # of numbers of Python and small arrays of NumPy
        self.fresh: list[tuple[int, Any]] = []  # arrays that are fingerprinted, in `pending`
        self.pending: tuple[tuple[prints.Pending, list[int] | None], ...] = ()

    def followed_by(self, other: Given) -> Given:
        """Return both, as the arguments of one call."""
        found, begin = Given([*self.arguments, *other.arguments]), len(self.arguments)
        found.origins = [*self.origins, *other.origins]
        found.tokens = {**self.tokens, **{begin + i: each for i, each in other.tokens.items()}}
        found.fresh = [*self.fresh, *((begin + i, each) for i, each in other.fresh)]
        found.pending = (*self.pending, *other.pending)
        return found

    def only(self, kept: Sequence[int] | None) -> Given:
        """Return them without those that the program drops."""
        if kept is None or len(kept) == len(self.arguments):
            return self
        places = {old: new for new, old in enumerate(kept)}
        found = Given([self.arguments[i] for i in kept])
        found.origins = [self.origins[i] for i in kept]
        found.tokens = {places[i]: each for i, each in self.tokens.items() if i in places}
        found.fresh = [(places[i], each) for i, each in self.fresh if i in places]
        begin, pending = 0, []
        for each, _ in self.pending:
            mine = self.fresh[begin : begin + each.count]
            pending.append((each, [n for n, (i, _) in enumerate(mine) if i in places]))
            begin += each.count
        found.pending = tuple(pending)
        return found


class ThreadFile:
    """What the file of a thread has said so far."""

    def __init__(self, index: int, function: str = "") -> None:
        self.index, self.file, self.number = index, f"thread-{index}.txt", 0
        self.function = function  # of the host, if it is the file of one
        self.next = 0  # the call whose line comes next, if none began inside of another
        self._sites: dict[Any, int] = {}
        self._programs: dict[int, tuple[int, Compiled]] = {}
        self._texts: dict[str, dict[str, int]] = {"site": {}, "program": {}}
        self._patterns: dict[Any, int] = {}
        self._last: dict[tuple[int, int], list[str | ArrayOrigin]] = {}

    def _number_of(self, writing: Writing, kind: str, text: str) -> int:
        """Return the number of what is said already, or say it."""
        numbers = self._texts[kind]
        found = numbers.get(text)
        if found is None:
            found = numbers[text] = len(numbers) + 1
            writing.line(self.file, f"{kind} {found} {text}")
        return found

    def site(self, writing: Writing, frame: Any) -> int:
        """Return the number of a place in the source."""
        where = place_of(frame)
        found = self._sites.get(where)
        if found is None:
            lines = lines_of_source(frame)
            texts = [[code.co_filename, line, code.co_name] for code, line in lines]
            found = self._sites[where] = self._number_of(writing, "site", json.dumps(texts))
        return found

    def program(self, writing: Writing, program: Compiled) -> int:
        """Return the number of a program."""
        known = self._programs.get(id(program))
        if known is not None:
            return known[0]
        facts = {
            "name": program.name,
            "text": program.text,
            "constants": program.constants,
            "arguments": [program.arguments[i] for i in _names_of(program)],
            "results": list(program.results),
            "shapes": list(program.shapes),
            "where": program.where,
            **what_xla_made(program.loaded),
        }
        found = self._number_of(writing, "program", json.dumps(facts, sort_keys=True))
        self._programs[id(program)] = found, program
        return found

    def pattern(
        self,
        writing: Writing,
        where: tuple[int, int],
        number: int,
        origins: list[str | ArrayOrigin],
    ) -> int:
        """Return the number of a pattern."""
        before: Sequence[Any] = self._last.get(where, ())
        known = len(before)
        words: list[str | tuple[int, int, int]] = []
        for place, origin in enumerate(origins):
            if isinstance(origin, str):
                words.append(origin)
            elif place < known and before[place] is origin:
                words.append("=")
            else:
                _, thread, call, which = origin
                words.append((number - call, which, thread))
        self._last[where] = origins
        key = (where, *words)
        found = self._patterns.get(key)
        if found is None:
            found = self._patterns[key] = len(self._patterns) + 1
            references = ",".join([self._reference(word) for word in words])
            writing.line(self.file, f"pattern {found} {where[0]} {where[1]} {references}")
        return found

    def _reference(self, word: str | tuple[int, int, int]) -> str:
        if isinstance(word, str):
            return word
        away, place, thread = word
        result = place >= 0
        place = place if result else -1 - place
        if thread == self.index:
            return f"{'r' if result else 'i'}{away}.{place}"
        return f"{'t' if result else 'u'}{thread}:{away}.{place}"


class CallLine:
    """A call that is being written down."""

    __slots__ = ("given", "number", "program", "site", "thread")

    def __init__(
        self, thread: ThreadFile, number: int, program: Compiled, site: int, given: Given
    ) -> None:
        self.thread, self.number, self.program, self.site = thread, number, program, site
        self.given = given

    def write(self, writing: Writing, results: Any, error: str = "") -> None:
        """Add the line to its file."""
        thread, number, given = self.thread, self.number, self.given
        where = (thread.program(writing, self.program), self.site)
        pattern = thread.pattern(writing, where, number, given.origins)
        which = f"{pattern} " if thread.next == number else f"@{number} {pattern} "
        thread.next = number + 1
        tokens = [*given.tokens.values()] if given.tokens else ()
        may_wait = not thread.function
        writing.call(thread.file, which, tokens, given.pending, results, error, may_wait=may_wait)

    def raised(self, writing: Writing, error: str) -> None:
        """Add a line that says that the call failed."""
        self.write(writing, None, error)


def _names_of(program: Compiled) -> list[int]:
    """Return which names belong to the arguments that the program kept."""
    names = range(len(program.arguments))
    return [i for i in names if program.kept is None or i in program.kept]
