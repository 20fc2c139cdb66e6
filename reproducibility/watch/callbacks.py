"""What the host's functions return that a program calls while it runs.

The rule: only NumPy looks at what they are given and return, for JAX may wait for them.
Chapter: docs/guide/any_script.md

    callback ID JSON             a function that a program calls: which, and of which program
    ID ARGUMENTS RESULTS         it was called: a digest of what it got, one of what it gave
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from . import hook
from .late import np
from .writing import Writing

UNKNOWN = "-"
CALLBACKS = "callbacks.txt"  # the file of a record with what they returned


class Callbacks:
    """The callbacks of all programs of a process."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._number = 0

    def heard(self, program: str, functions: Iterable[Callable[..., Any]]) -> list[Any]:
        """Return functions that do what those of a program do, and are heard."""
        found = []
        for place, function in enumerate(functions):
            self._number += 1
            facts = {"text": program, "place": place, **_whose(function)}
            self._writing.line(CALLBACKS, f"callback {self._number} {json.dumps(facts)}")
            found.append(_Heard(function, self._number, self._returned))
        return found

    def _returned(self, number: int, given: str, results: Any) -> None:
        if hook.is_installed():
            self._writing.line(CALLBACKS, f"{number} {given} {_digest_of_arrays(results)}")


class _Heard:
    """A callback, and who is told what it returned."""

    def __init__(
        self, function: Callable[..., Any], number: int, tell: Callable[..., None]
    ) -> None:
        self._function, self._number, self._tell = function, number, tell

    def __call__(self, *arguments: Any) -> Any:
        given = _digest_of_arrays(arguments)  # now: a result may lie in the same memory
        results = self._function(*arguments)
        self._tell(self._number, given, results)
        return results

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Heard) and self._function == other._function

    def __hash__(self) -> int:
        return hash(self._function)


def _digest_of_arrays(arrays: Any) -> str:
    """Return one word for arrays of NumPy; anything else, such as a token, counts as nothing."""
    try:
        kept = [each for each in arrays if isinstance(each, (np.ndarray, np.generic))]
        digest = hashlib.blake2b(digest_size=8)
        for each in kept:
            digest.update(f"{each.dtype} {each.shape} ".encode() + each.tobytes())
        return digest.hexdigest()
    except Exception:  # it explains a difference; without it there is less to say
        return UNKNOWN


def _whose(function: Any) -> dict[str, Any]:
    """Return the name and the line of the user's function behind a callback of JAX."""
    seen: list[Any] = [function]
    for each in seen:  # grows meanwhile
        if len(seen) > 200:
            break
        theirs = getattr(each, "callback_func", None)
        if theirs is not None:
            code = getattr(_unwrapped(theirs), "__code__", None)
            if code is not None:
                return {"line": [code.co_filename, code.co_firstlineno, code.co_name]}
        inner = [cell.cell_contents for cell in getattr(each, "__closure__", None) or ()]
        inner += [getattr(each, "func", None), *(getattr(each, "keywords", None) or {}).values()]
        inner += list(getattr(each, "args", None) or ())
        seen += [one for one in inner if one is not None and not any(one is old for old in seen)]
    return {}


def _unwrapped(function: Any) -> Any:
    """Return what `functools.partial` and decorators stand around."""
    for _ in range(20):
        inner = getattr(function, "func", None) or getattr(function, "__wrapped__", None)
        if inner is None:
            break
        function = inner
    return function
