"""Calls become lines: which program, from where, with what, and what came of it.

The rule: an array is looked at once, when it appears; after that it is known by where it came from.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import hook, prints
from .source import lines_of_source
from .writing import Writing

FOR_A_DEVICE = 1 << 16  # bytes of a NumPy array that a device looks at faster


class Calls:
    """All calls of a process, thread by thread."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._prints = prints.Prints()
        self._known: dict[int, tuple[Any, _Source]] = {}
        self._threads: list[_Thread] = []
        self._local = threading.local()
        self._lock = threading.Lock()
        self._shared: dict[int, Any] = {}
        self.stopped = False

    @property
    def number(self) -> int:
        """How many calls this thread has made."""
        thread = getattr(self._local, "thread", None)
        return thread.number if thread else 0

    @property
    def most(self) -> int:
        """How many calls that thread has made that has made the most."""
        return max((thread.number for thread in self._threads), default=0)

    @property
    def thread(self) -> int:
        """The number of this thread's file."""
        return self._this_thread().index

    def describe(self, hlo: Any, name: str) -> hook.Compiled:
        """Return what is known of a program that is being compiled."""
        program = hook.Compiled(name)
        try:
            with hook.unseen():
                whole = hook.text_of(hlo) if hlo is not None else ""
            program.text = _text_digest(whole)
            program.constants = _text_digest(hook.without_constants(whole))
        except Exception as error:
            self._failed(f"the program {name}", error)
        return program

    def entered(self, arrays: Sequence[Any], arguments: Any) -> None:
        """Note arrays that were put on a device: those that share the host's memory may change."""
        try:
            with hook.unseen():
                for array in arrays:
                    self._note_shared(array, arguments)
        except Exception as error:
            self._failed("a transfer to the device", error)

    def __call__(
        self, program: hook.Compiled, execute: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Any:
        """Have a program executed, and write down the call."""
        if self.stopped:
            return execute(*arguments)
        if in_callback():
            self._writing.count("calls inside of host callbacks")
            return execute(*arguments)
        line = None
        try:
            with hook.unseen():
                line = self._before(program, arguments)
        except Exception as error:
            self._failed(f"the arguments of {program.name}", error)
        try:
            results = execute(*arguments)
        except BaseException as error:
            if line is not None:
                line.raised(self._writing, type(error).__name__)
            raise
        try:
            if line is not None:
                with hook.unseen():
                    self._after(line, results)
        except Exception as error:
            self._failed(f"the results of {program.name}", error)
        return results

    def _failed(self, what: str, error: Exception) -> None:
        self.stopped = True  # a record with a hole is none
        self._writing.problem(f"cannot look at {what}: {type(error).__name__}: {error}")

    def _before(self, program: hook.Compiled, arguments: tuple[Any, ...]) -> _Line:
        thread = self._this_thread()
        number = thread.number
        thread.number += 1
        site = thread.site(self._writing, lines_of_source(sys._getframe(3)))
        given = arguments if program.kept is None else [arguments[i] for i in program.kept]
        line = _Line(thread, number, program, site)
        fresh: list[Any] = []
        for place, argument in enumerate(given):
            line.take(self._input(argument, line, place, fresh))
        for mutable in program.mutable:
            fresh.append(_buffer(mutable))
            line.take(("m", None))
        line.fresh = (self._prints.of(fresh), len(fresh)) if fresh else (None, 0)
        return line

    def _input(self, argument: Any, line: _Line, place: int, fresh: list[Any]) -> tuple[str, Any]:
        """Return where an argument comes from, and what stands in the line for it."""
        if isinstance(argument, (bool, int, float, complex)) and not isinstance(
            argument, np.generic
        ):
            return "s", _python_number(argument)
        if isinstance(argument, (np.ndarray, np.generic)):
            if argument.nbytes < FOR_A_DEVICE:
                return "n", prints.of_host(argument)
            fresh.append(prints.on_device(argument))
            return "e", None
        base = _base(argument)
        if base is None:
            return "x", type(argument).__name__
        known = self._known.get(id(base))
        if known is not None and known[0]() is base and id(base) not in self._shared:
            return "", known[1]
        if base.is_deleted():
            return "x", "deleted"  # the call itself will say so
        fresh.append(base)
        self._remember(base, _Source(line.thread.index, line.number, "i", place))
        return "e", None

    def _after(self, line: _Line, results: Any) -> None:
        fresh = []
        for place, result in enumerate(results):
            base = _base(result)
            if base is None:
                raise TypeError(f"a result of type {type(result).__name__}")
            fresh.append(base)
            self._remember(base, _Source(line.thread.index, line.number, "r", place))
        found = (self._prints.of(fresh), len(fresh)) if fresh else (None, 0)
        line.write(self._writing, found)

    def _remember(self, base: Any, origin: _Source) -> None:
        name = id(base)

        def forget(_: Any, name: int = name, known: dict[int, Any] = self._known) -> None:
            known.pop(name, None)

        self._known[name] = (weakref.ref(base, forget), origin)

    def _note_shared(self, array: Any, arguments: Any) -> None:
        base = _base(array)
        if base is None or hook.devices_of(base) != 1:
            return
        try:
            pointer = base.unsafe_buffer_pointer()
        except Exception:
            return
        for source in _arrays_in(arguments):
            begin = source.__array_interface__["data"][0]
            if begin <= pointer < begin + max(source.nbytes, 1):
                name = id(base)

                def forget(_: Any, name: int = name) -> None:
                    self._shared.pop(name, None)

                self._shared[name] = weakref.ref(base, forget)

    def _this_thread(self) -> _Thread:
        thread: _Thread | None = getattr(self._local, "thread", None)
        if thread is None:
            with self._lock:
                self._local.thread = thread = _Thread(len(self._threads) + 1)
                self._threads.append(thread)
            self._writing.begin_thread(thread.file)
        return thread


class _Source:
    """Where an array came from: a result, or an argument, of a call."""

    __slots__ = ("kind", "number", "place", "thread")

    def __init__(self, thread: int, number: int, kind: str, place: int) -> None:
        self.thread, self.number, self.kind, self.place = thread, number, kind, place

    def same(self, other: Any) -> bool:
        """Whether it is the same array."""
        return isinstance(other, _Source) and (
            (self.thread, self.number, self.kind, self.place)
            == (other.thread, other.number, other.kind, other.place)
        )


class _Thread:
    """What the file of a thread has said so far."""

    def __init__(self, index: int) -> None:
        self.index, self.file, self.number = index, f"thread-{index}.txt", 0
        self.next = 0  # the call whose line comes next, if none began inside of another
        self._sites: dict[Any, int] = {}
        self._programs: dict[int, tuple[int, hook.Compiled]] = {}
        self._patterns: dict[Any, int] = {}
        self.last: dict[tuple[int, int], list[Any]] = {}

    def site(self, writing: Writing, where: tuple[Any, ...]) -> int:
        """Return the number of a place in the source."""
        found = self._sites.get(where)
        if found is None:
            found = self._sites[where] = len(self._sites) + 1
            texts = [[code.co_filename, line, code.co_name] for code, line in where]
            writing.line(self.file, f"site {found} {json.dumps(texts)}")
        return found

    def program(self, writing: Writing, program: hook.Compiled) -> int:
        """Return the number of a program."""
        found = self._programs.get(id(program))
        if found is None:
            found = self._programs[id(program)] = (len(self._programs) + 1, program)
            facts = {
                "name": program.name,
                "text": program.text,
                "constants": program.constants,
                "arguments": [program.arguments[i] for i in _named(program)],
                "results": list(program.results),
                "shapes": list(program.shapes),
                "where": program.where,
            }
            writing.line(self.file, f"program {found[0]} {json.dumps(facts, sort_keys=True)}")
        return found[0]

    def pattern(self, writing: Writing, program: int, site: int, references: str) -> int:
        """Return the number of a pattern."""
        key = (program, site, references)
        found = self._patterns.get(key)
        if found is None:
            found = self._patterns[key] = len(self._patterns) + 1
            writing.line(self.file, f"pattern {found} {program} {site} {references}")
        return found


class _Line:
    """A call that is being written down."""

    def __init__(self, thread: _Thread, number: int, program: hook.Compiled, site: int) -> None:
        self.thread, self.number, self.program, self.site = thread, number, program, site
        self._taken: list[tuple[str, Any]] = []
        self.fresh: tuple[Any, int] = (None, 0)

    def take(self, argument: tuple[str, Any]) -> None:
        """Add an argument."""
        self._taken.append(argument)

    def _text(self, writing: Writing) -> str:
        thread = self.thread
        program = thread.program(writing, self.program)
        key = (program, self.site)
        before, now, words, tokens = thread.last.get(key, []), [], [], []
        for place, (kind, what) in enumerate(self._taken):
            origin = what if kind == "" else None
            now.append(origin)
            if origin is None:
                words.append(kind)
                if what is not None:
                    tokens.append(str(what))
            elif place < len(before) and origin.same(before[place]):
                words.append("=")
            else:
                words.append(self._reference(origin))
        thread.last[key] = now
        pattern = thread.pattern(writing, program, self.site, ",".join(words))
        which = "" if thread.next == self.number else f"@{self.number} "
        thread.next = self.number + 1
        return f"{which}{pattern} {','.join(tokens)};"

    def _reference(self, origin: _Source) -> str:
        away = self.number - origin.number
        if origin.thread == self.thread.index:
            return f"{origin.kind}{away}.{origin.place}"
        kind = "t" if origin.kind == "r" else "u"
        return f"{kind}{origin.thread}:{away}.{origin.place}"

    def write(self, writing: Writing, found: tuple[Any, int]) -> None:
        """Add the line to its file."""
        writing.line(self.thread.file, self._text(writing), self.fresh, found)

    def raised(self, writing: Writing, error: str) -> None:
        """Add a line that says that the call failed."""
        writing.line(self.thread.file, self._text(writing), self.fresh, error=error)


def _named(program: hook.Compiled) -> list[int]:
    """Return which names belong to the arguments that the program kept."""
    names = range(len(program.arguments))
    return [i for i in names if program.kept is None or i in program.kept]


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _python_number(value: Any) -> str:
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, complex):
        return f"{value.real.hex()}+{value.imag.hex()}j"
    return str(int(value)) if not isinstance(value, bool) else str(value)


def _base(value: Any) -> Any:
    """Return the array of numbers behind a JAX array or a typed key; None if it is neither."""
    base = getattr(value, "_base_array", value)
    kind = type(base)  # of an array that was deleted, the shards themselves raise an error
    return base if hasattr(kind, "sharding") and hasattr(kind, "addressable_shards") else None


def _buffer(mutable: Any) -> Any:
    """Return the array that a mutable array holds now."""
    for name in ("_buf", "_refs", "_obj"):
        inner = getattr(mutable, name, None)
        if inner is not None:
            base = _base(inner)
            return base if base is not None else _buffer(inner)
    base = _base(mutable)
    if base is None:
        raise TypeError(f"a mutable array of type {type(mutable).__name__}")
    return base


def _arrays_in(tree: Any) -> list[np.ndarray]:
    if isinstance(tree, np.ndarray):
        return [tree]
    if isinstance(tree, (list, tuple)):
        return [array for part in tree for array in _arrays_in(part)]
    return []


def in_callback() -> bool:
    """Whether this is a thread that XLA started: it runs a callback of a program at work."""
    return isinstance(threading.current_thread(), threading._DummyThread)
