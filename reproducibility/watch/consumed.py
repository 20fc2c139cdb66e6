"""The keys that each call draws from: what its program makes of them is said once, then words.

The rule: a key is read before the call that may donate it, and nothing waits for it but the thread
that writes.
Chapter: docs/fundamentals/jax_prng_tutorial.md

    program ID JSON              a program that draws: from which keys, made of which arguments
    THREAD:CALL ID ;>PLACE=SIZE:HEX,...      it was called: the bytes of those arguments, and of
                                 how many each number has; `?` if they were gone
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from . import hook
from .compiled import Compiled
from .draws import Draws
from .late import np
from .settings import plain_settings
from .source import is_of_a_signal
from .writing import Writing

KEYS = "keys.txt"  # the file of a record with the keys that calls draw from


class Needed:
    """Which arguments of a function hold keys, as far as that is known."""

    __slots__ = ("of", "places")

    def __init__(self, function: Any) -> None:
        self.of = weakref.ref(function)
        self.places: set[int] = set()


class Taken:
    """Keys that were read before a call."""

    __slots__ = ("needed", "words")

    def __init__(self, needed: Needed | None, words: dict[int, Any]) -> None:
        self.needed, self.words = needed, words


class _LateWords:
    """The line of a call, once the words of its keys are there."""

    count = 1

    def __init__(self, words: dict[int, Any]) -> None:
        self._words = words

    def small(self) -> list[Any]:
        """Nothing of it is mixed."""
        return []

    def finish(self, sums: Any) -> list[str]:
        """Wait for what is still being computed, and return the line."""
        return [",".join(f"{place}={_text(each)}" for place, each in sorted(self._words.items()))]


class Consumed:
    """Writes down the keys of a process."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._needed: dict[int, Needed] = {}
        self._programs: dict[int, tuple[Draws, int, list[int]]] = {}  # by identity
        self.not_seen: dict[str, int] = {}  # programs that were not looked into, by reason

    def lowering(self, lower: Callable[..., Any]) -> Callable[..., Any]:
        """Return what lowers a program and looks into it."""

        def lowered(jaxpr: Any, *arguments: Any, **named: Any) -> Any:
            found = lower(jaxpr, *arguments, **named)
            try:
                if not hook.is_unseen():
                    with hook.unseen():
                        found.recorded_draws = Draws(jaxpr)
            except Exception as error:  # it is counted when it is called
                self._writing.remark(f"cannot look for keys: {type(error).__name__}: {error}")
            return found

        return lowered

    def before(self, function: Any, arguments: Sequence[Any]) -> Taken:
        """Read the keys among the arguments of a function that may be executed."""
        needed = self._needed.get(id(function))
        if needed is None or needed.of() is not function:
            needed = self._needed[id(function)] = Needed(function)
        places = [place for place in needed.places if place < len(arguments)]
        return Taken(needed, {place: _taken(arguments[place]) for place in places})

    def of_program(self, program: Compiled, arguments: Sequence[Any]) -> Taken | None:
        """Read the keys among the arguments of a program."""
        if program.draws is None:
            return Taken(None, {})
        first = len(arguments) - program.draws.arguments
        places = self._known(program)[2]
        return Taken(None, {place: _taken(arguments[first + place]) for place in places})

    def after(self, taken: Taken, line: Any, arguments: Sequence[Any]) -> None:
        """Write down what a call has drawn from."""
        try:
            program = line.program
            if program.draws is None:
                self.not_seen[program.name] = self.not_seen.get(program.name, 0) + 1
                return
            _, number, places = self._known(program)
            if taken.needed is not None:
                taken.needed.places.update(places)
            if not number:
                return
            words = {}
            for place in places:
                known = taken.words.get(place)
                words[place] = _taken(arguments[place]) if known is None else known
            text = f"{line.thread.index}:{line.number} {number} "
            self._writing.call(KEYS, text, (), (), _LateWords(words))
        except Exception as error:
            if is_of_a_signal(error):
                raise
            self.not_seen[line.program.name] = self.not_seen.get(line.program.name, 0) + 1

    def _known(self, program: Compiled) -> tuple[Draws, int, list[int]]:
        """Return the number of a program that draws, and which arguments that takes; say it once.

        The number is 0 if it draws nothing.
        """
        draws = program.draws
        found = self._programs.get(id(draws))
        if found is None:
            number = len(self._programs) + 1 if draws.found or draws.unknown else 0
            terms, where = draws.derived.to_json([each.key for each in draws.found])
            places = sorted({term[2] for term in terms if term[0] == "input"})
            found = self._programs[id(draws)] = (draws, number, places)
            if number:
                rows = [[where[each.key], *each[1:]] for each in draws.found]
                facts = {"name": program.name, "unknown": draws.unknown}
                text = json.dumps({**facts, "terms": terms, "draws": rows})
                self._writing.line(KEYS, f"program {number} {text}")
        return found


def _taken(value: Any) -> Any:
    """Return the bytes of a small array and of how many each number has, or what will have them."""
    base = getattr(value, "_base_array", value)
    if isinstance(base, (bool, int)):
        return (8, (int(base) % 2**64).to_bytes(8, "little"))
    if isinstance(base, (np.ndarray, np.generic)):
        return (base.dtype.itemsize, base.tobytes())
    if not hasattr(base, "sharding") or base.is_deleted():
        return None
    devices = base.sharding.device_set
    if len(devices) == 1 and next(iter(devices)).platform == "cpu" and base.is_ready():
        return (base.dtype.itemsize, b"".join([base]))
    if not base.is_fully_addressable:
        return None
    import jax

    with plain_settings(x64=None):
        return jax.device_put(base, base.sharding, may_alias=False)


def _text(value: Any) -> str:
    try:
        if value is None:
            return "?"
        if not isinstance(value, tuple):
            array = np.asarray(value)
            value = (array.dtype.itemsize, array.tobytes())
        return f"{value[0]}:{value[1].hex()}"
    except Exception:  # what made it has failed, and its own call says so
        return "?"
