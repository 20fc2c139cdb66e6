"""Compute one call of N a second time, from the same inputs, and compare the results by bits.

The rule: the script has what the first computation gave, and everything else as without this. What
may change meanwhile is copied before: memory that NumPy can write to, and what is donated. What a
second computation would change, or could change, is computed once, and counted.
Chapter: docs/guide/any_script.md

    THREAD:CALL ;>[]                                      it came to the same a second time
    THREAD:CALL ;>[[RESULT,MANY,OF,STEPS,TYPE],...]       these results did not
    THREAD:CALL ;>"ERROR"                                 the second computation failed
"""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from . import execution
from .compiled import Compiled
from .late import np
from .settings import plain_settings
from .source import is_of_a_signal
from .ulps import Comparing
from .writing import Writing

SECOND = "second.txt"  # the file of a record with what came of it

# Tests put a function here that changes what was computed, as a device that does not repeat would.
_upset: Callable[[int, int, list[Any], list[Any]], tuple[list[Any], list[Any]]] | None = None


class Inputs:
    """What a call that is computed twice was given, as it was before the first time."""

    __slots__ = ("arrays", "copied", "turns")

    def __init__(self, arrays: list[Any], copied: set[int], turns: Turns) -> None:
        self.arrays, self.copied, self.turns = arrays, copied, turns


class Turns:
    """How often a function was called, what it donates, and why it is computed once, if it is."""

    __slots__ = ("called", "donated", "of", "why")

    def __init__(self, of: Any) -> None:
        self.of = (lambda: of) if isinstance(of, str) else weakref.ref(of)
        self.called = 0
        self.donated: set[int] | None = None  # until that is known, any argument may be
        self.why = ""


class Second:
    """Computes calls of a process a second time."""

    def __init__(self, every: int, writing: Writing, shared: dict[int, Any]) -> None:
        self._every, self._writing, self._shared = every, writing, shared
        self._turns: dict[Any, Turns] = {}  # of functions by identity, and of programs by digest
        self._comparing = Comparing()
        self.not_computed: dict[str, int] = {}  # how many calls were not, by reason

    def before(
        self, called: Any, arguments: Sequence[Any], is_turn: bool | None = None
    ) -> Inputs | None:
        """Return the inputs of a call if it is its turn: of N calls one, which one is drawn.

        Were it always the last one, a loop that makes N calls would have the same one computed.
        `is_turn` says whether it is, if the call that this one is a part of has decided that.
        """
        key = called if isinstance(called, str) else id(called)
        turns = self._turns.get(key)
        if turns is None or turns.of() != called:  # the identity may have been another's
            turns = self._turns[key] = Turns(called)
        if is_turn is None:
            block, place = divmod(turns.called, self._every)
            turns.called += 1
            is_turn = place == zlib.crc32(b"%d" % block) % self._every
        if not is_turn:
            return None
        if turns.why:
            self._not(turns.why)
            return None
        try:
            return self._inputs(turns, arguments)
        except Exception as error:
            if is_of_a_signal(error):
                raise
            self._not(f"their inputs cannot be copied ({type(error).__name__})")
            return None

    def _inputs(self, turns: Turns, arguments: Sequence[Any]) -> Inputs:
        arrays, copied = list(arguments), set()
        for place, each in enumerate(arguments):
            if isinstance(each, np.ndarray):
                arrays[place] = np.array(each)
                continue
            base = getattr(each, "_base_array", each)
            if not hasattr(type(base), "addressable_shards"):
                continue
            shared = id(base) in self._shared
            if shared or turns.donated is None or place in turns.donated:
                arrays[place] = _copy(each)
                copied.add(place)
                if shared:  # as soon as the script goes on, NumPy may overwrite it
                    arrays[place].block_until_ready()
        return Inputs(arrays, copied, turns)

    def after(
        self,
        inputs: Inputs,
        line: Any,
        arguments: Sequence[Any],
        results: Sequence[Any],
        constants: Sequence[Any] = (),
    ) -> None:
        """Compute a call again that has been executed, and begin to compare."""
        try:
            program = line.program
            why = self._why_not(inputs, program, arguments)
            if why:
                self._not(why)
                return
            with plain_settings(x64=None):
                again = program.execution(*constants, *inputs.arrays)
            self._compare(line.thread.index, line.number, results, again)
        except Exception as error:
            if is_of_a_signal(error):
                raise
            self._not(f"the second computation failed ({type(error).__name__})")

    def _why_not(self, inputs: Inputs, program: Compiled, arguments: Sequence[Any]) -> str:
        turns = inputs.turns
        gone = {i for i, each in enumerate(arguments) if _is_deleted(each)}
        turns.donated = gone if turns.donated is None else turns.donated | gone
        if not gone <= inputs.copied:
            return "their inputs were donated before they could be copied"
        turns.why = execution.why_not_twice(program)
        return turns.why

    def _compare(
        self, thread: int, number: int, results: Sequence[Any], again: Sequence[Any]
    ) -> None:
        pair = [[getattr(x, "_base_array", x) for x in part] for part in (results, again)]
        if len(pair[0]) != len(pair[1]):
            raise ValueError("another number of results")
        if _upset is not None:
            pair = list(_upset(thread, number, *pair))
        apart = self._comparing.begin(*pair)
        self._writing.call(SECOND, f"{thread}:{number} ", (), (), apart)

    def _not(self, why: str) -> None:
        self.not_computed[why] = self.not_computed.get(why, 0) + 1


def _copy(array: Any) -> Any:
    """Return a copy of a JAX array that lies as it does."""
    import jax

    with plain_settings(x64=None):
        return jax.device_put(array, array.sharding, may_alias=False)


def _is_deleted(value: Any) -> bool:
    asked = getattr(getattr(value, "_base_array", value), "is_deleted", None)
    return asked is not None and bool(asked())
