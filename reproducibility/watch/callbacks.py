"""What the host's functions return that a program calls while it runs.

The rule: only NumPy looks at what they are given and return, for JAX may wait for them. What they
call of JAX themselves is recorded as theirs, whichever thread XLA took for them.
Chapter: docs/guide/any_script.md

    callback ID JSON             a function that a program calls: which, and of which program
    ID ARGUMENTS RESULTS         it was called: a digest of what it got, one of what it gave
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable
from typing import Any

from . import hook
from .late import np
from .source import JAX, owner_of
from .threads import AtFunction, ThreadFiles
from .writing import Writing

UNKNOWN = "-"
CALLED_BACK = "the callback"
CALLBACKS = "callbacks.txt"  # the file of a record with what they returned


class Callbacks:
    """The callbacks of all programs of a process; the latest record is who listens."""

    listening: Callbacks | None = None

    def __init__(self, writing: Writing, files: ThreadFiles) -> None:
        self._writing, self._files = writing, files
        self._known: dict[int, tuple[_Heard, int]] = {}
        self._lock = threading.Lock()
        Callbacks.listening = self

    def heard(self, program: str, functions: Iterable[Callable[..., Any]]) -> list[Any]:
        """Return functions that do what those of a program do, and are heard."""
        found = [_Heard(each, program, place) for place, each in enumerate(functions)]
        for each in found:
            self.number_of(each)
        return found

    def number_of(self, heard: _Heard) -> int:
        """Return the number of a callback in this record; say which it is when it is new."""
        with self._lock:
            known = self._known.get(id(heard))
            if known is None:
                known = heard, len(self._known) + 1
                self._known[id(heard)] = known
                self._writing.line(CALLBACKS, f"callback {known[1]} {json.dumps(heard.facts)}")
        return known[1]

    def inside(self, heard: _Heard) -> AtFunction:
        """Take what this thread calls of JAX for what the callback does."""
        return AtFunction(self._files, heard.title)

    def returned(self, heard: _Heard, given: str, results: Any) -> None:
        """Write down a call of one."""
        if hook.is_installed():
            text = f"{self.number_of(heard)} {given} {_digest_of_arrays(results)}"
            self._writing.line(CALLBACKS, text)


class _Heard:
    """A callback that whoever records hears, also if it was compiled before that began."""

    def __init__(self, function: Callable[..., Any], program: str, place: int) -> None:
        self._function = function
        whose = _whose(function)
        self.facts = {"text": program, "place": place, **whose}
        self.title = f"{CALLED_BACK} {place} of {program[:12]}"
        if "line" in whose:
            file, line, name = whose["line"]
            self.title = f"{CALLED_BACK} {name} at {file}:{line}"

    def __call__(self, *arguments: Any) -> Any:
        listening = Callbacks.listening
        if listening is None or not hook.is_installed():
            return self._function(*arguments)
        given = _digest_of_arrays(arguments)  # now: a result may lie in the same memory
        with listening.inside(self):
            results = self._function(*arguments)
        listening.returned(self, given, results)
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
        cells = [cell.cell_contents for cell in getattr(each, "__closure__", None) or ()]
        names = getattr(getattr(each, "__code__", None), "co_freevars", ())
        for name, value in zip(names, cells):  # noqa: B905 (Python 3.10)
            code = getattr(_unwrapped(value), "__code__", None)
            if name == "callback" and code is not None and owner_of(code) != JAX:
                return {"line": [code.co_filename, code.co_firstlineno, code.co_name]}
        inner = list(cells)
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
