"""Calls become lines: which program, from where, with what, and what came of it.

The rule: an array is looked at once, when it appears; after that it is known by where it came from.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

from . import hook, prints
from .asides import Asides
from .callbacks import Callbacks
from .compiled import Compiled, digest_of, effects_in, without_constants
from .keeping import Keeping
from .late import np
from .lines import ArrayOrigin, CallLine, Given
from .shared import SharedMemory, memory_of
from .source import is_of_a_signal
from .texts import PROGRAMS, line_of_text
from .threads import ThreadFiles
from .writing import Writing

UNKNOWN_THREAD = "calls in threads that Python has not started"
ORIGIN = "_recorded_as"  # the attribute of an array that says where it came from
FOR_A_DEVICE = 1 << 16  # bytes of a NumPy array that a device looks at faster


class Calls:
    """All calls of a process, thread by thread."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._prints = prints.Prints()
        self._files = ThreadFiles(writing)
        self._callbacks = Callbacks(writing, self._files)
        self._kept: set[str] = set()  # programs whose text is kept
        self._mine = object()  # of two records of one process, each knows its own
        self._kind: Any = None  # the class of JAX's arrays
        self.shared = SharedMemory(writing)
        self._shared = self.shared.arrays
        self.stopped = False
        self.keeping: Keeping | None = None
        self.asides: Asides | None = None

    @property
    def number(self) -> int:
        """How many calls this thread has made."""
        return self._files.number

    @property
    def most(self) -> int:
        """How many calls that thread has made that has made the most."""
        return self._files.most

    def origin_of(self, array: Any) -> str:
        """Return where an array came from, as thread:call.place; nothing if that is not known."""
        source = getattr(array, ORIGIN, None)
        if source is None or source[0] is not self._mine:
            return ""
        _, thread, number, place = source
        return f"{thread}:{number}.{place}"

    def describe(self, hlo: Any, name: str) -> Compiled:
        """Return what is known of a program that is being compiled."""
        program = Compiled(name)
        try:
            with hook.unseen():
                whole = hook.text_of(hlo) if hlo is not None else ""
            program.text = digest_of(whole)
            program.constants = digest_of(without_constants(whole))
            program.effects = effects_in(whole) if whole else None
            program.heard = functools.partial(self._callbacks.heard, program.text)
            if hlo is not None and program.text not in self._kept:
                self._kept.add(program.text)
                with hook.unseen():
                    line = line_of_text(program.text, whole, hlo)
                self._writing.line(PROGRAMS, line)
        except Exception as error:
            self._failed(f"the program {name}", error)
        return program

    def entered(self, arrays: Sequence[Any], arguments: Any) -> None:
        """Note arrays that were put on a device: those that share the host's memory may change."""
        try:
            sources = _arrays_in(arguments)
            for array in arrays if sources else ():
                self._note_shared(array, sources)
        except Exception as error:
            self._failed("a transfer to the device", error)

    def before(
        self,
        arguments: Sequence[Any],
        likely: bool,
        function: object = None,
        outer: Given | None = None,
    ) -> Given | None:
        """Look at arguments that JAX may give to some program, if that is likely.

        They may be donated to it, and NumPy may overwrite them afterwards.
        """
        if self.stopped or self._files.mine() is None:
            return None
        try:
            if not likely:
                return Given(arguments)
            given = self._look(arguments)
            if self.asides is not None:
                waited = self._files.is_of_function()
                given.aside = self.asides.before(function, arguments, outer, is_waited_for=waited)
            return given
        except Exception as error:  # they are traced, or not JAX's; else, `after` says so
            if is_of_a_signal(error):
                raise
            return None

    def after(self, given: Given | None, way: Any, results: Sequence[Any]) -> None:
        """Write down a call that JAX has executed by itself."""
        if self.stopped:
            return
        if self._files.mine() is None:
            self._writing.count(UNKNOWN_THREAD)
            return
        try:
            if given is None or len(given.arguments) + len(way.constants) != way.arguments:
                raise LookupError("JAX called it with arguments that were not seen")
            given = given if given.looked else self._look(given.arguments)
            aside, arguments = given.aside, given.arguments
            if way.constants:
                given = self._look(way.constants).followed_by(given)
            line = self._begin(way.program, given.only(way.program.kept), 2)
            self._end(line, results)
            if aside is not None:
                aside.after(line, arguments, results, way.constants)
        except Exception as error:
            self._failed(f"the call of {way.program.name}", error)

    def __call__(
        self, program: Compiled, execute: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Any:
        """Have a program executed, and write down the call."""
        if self.stopped:
            return execute(*arguments)
        if self._files.mine() is None:
            self._writing.count(UNKNOWN_THREAD)
            return execute(*arguments)
        line = aside = None
        try:
            with hook.unseen():
                taken = arguments if program.kept is None else [arguments[i] for i in program.kept]
                line = self._begin(program, self._look(taken, program.mutable), 2)
                if self.keeping is not None:
                    self.keeping.before(line, execute, arguments)
                if self.asides is not None:
                    around, waited = hook.given_now(), self._files.is_of_function()
                    aside = self.asides.before(program, arguments, around, is_waited_for=waited)
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
                    if self.keeping is not None:
                        self.keeping.after(line, results)
                    self._end(line, results)
                    if aside is not None:
                        aside.after(line, arguments, results)
        except Exception as error:
            self._failed(f"the results of {program.name}", error)
        return results

    def _failed(self, what: str, error: Exception) -> None:
        self.stopped = True  # a record with a hole is none
        self._writing.problem(f"cannot look at {what}: {type(error).__name__}: {error}")
        if is_of_a_signal(error):
            raise error  # it is the script's, which waits for it

    def _look(self, arguments: Sequence[Any], mutable: Sequence[Any] = ()) -> Given:
        """Find out where each argument comes from; begin to fingerprint those from elsewhere."""
        given, kind, mine = Given(arguments), self._kind, self._mine
        given.looked = True
        origins = given.origins
        for place, argument in enumerate(arguments):
            source = getattr(argument, ORIGIN, None) if type(argument) is kind else None
            if source is not None and source[0] is mine:
                origins.append(source)
            else:
                origins.append(self._origin(argument, place, given))
        for each in mutable:
            given.fresh.append((len(origins), _buffer(each)))
            origins.append("m")
        if given.fresh:
            given.pending = ((self._fingerprints([base for _, base in given.fresh]), None),)
        return given

    def _origin(self, argument: Any, place: int, given: Given) -> str | ArrayOrigin:
        """Return where an argument comes from that is no result of a call, or hides one."""
        if hook.is_traced(argument):
            raise TypeError("a traced array has no bits")
        if isinstance(argument, (bool, int, float, complex)) and not isinstance(
            argument, np.generic
        ):
            given.tokens[place] = _python_number(argument)
            return "s"
        if isinstance(argument, (np.ndarray, np.generic)):
            if argument.nbytes < FOR_A_DEVICE:
                given.tokens[place] = prints.OfHost(argument)
                return "n"
            given.fresh.append((place, prints.on_device(argument)))
            return "e"
        base = _base(argument)
        if base is None:
            given.tokens[place] = type(argument).__name__
            return "x"
        shared = self._shared.get(id(base))
        source: ArrayOrigin | None = getattr(base, ORIGIN, None)
        if source is not None and source[0] is self._mine:
            return source
        if base.is_deleted():
            if shared is not None and shared.origin is not None:
                origin: ArrayOrigin = shared.origin
                return origin
            given.tokens[place] = "deleted"  # the call itself will say so
            return "x"
        self.shared.used(base, *self._files.place())
        given.fresh.append((place, base))
        return "e"

    def _begin(self, program: Compiled, given: Given, depth: int) -> CallLine:
        """Begin the line of a call; from now on its arguments are known."""
        thread = self._files.mine()
        if thread is None:
            raise LookupError("its thread is not known any more")
        number = thread.number
        thread.number += 1
        for place, base in given.fresh:
            if given.origins[place] == "e":
                self._remember(base, thread.index, number, -1 - place)
        site = thread.site(self._writing, sys._getframe(depth))
        return CallLine(thread, number, program, site, given)

    def _end(self, line: CallLine, results: Sequence[Any]) -> None:
        """Begin to fingerprint what a call returned, and write its line."""
        thread, number, kind, mine = line.thread.index, line.number, self._kind, self._mine
        shared, found = self._shared, []
        for place, result in enumerate(results):
            if type(result) is kind and id(result) not in shared:
                setattr(result, ORIGIN, (mine, thread, number, place))
                found.append(result)
                continue
            base = _base(result)
            if base is None:
                raise TypeError(f"a result of type {type(result).__name__}")
            found.append(base)
            self._remember(base, thread, number, place)
        pending = None
        if found:
            plan = line.program.plan
            if plan is None:
                self._kind = type(found[0])
                plan = line.program.plan = self._prints.plan(found)
            pending = self._here(found) if line.thread.function else plan.take(found)
        line.write(self._writing, pending)

    def _fingerprints(self, arrays: Sequence[Any]) -> Any:
        """Begin to fingerprint arrays; the host does so by itself while a program waits for it."""
        return (self._here if self._files.is_of_function() else self._prints.of)(arrays)

    def _here(self, arrays: Sequence[Any]) -> Any:
        return prints.OfHosts(arrays) if prints.are_here(arrays) else self._prints.of(arrays)

    def _remember(self, base: Any, thread: int, number: int, place: int) -> None:
        """Note at the array where it came from; what may change in place is looked at again."""
        source, shared = (self._mine, thread, number, place), self._shared.get(id(base))
        if shared is None:
            setattr(base, ORIGIN, source)
        else:
            shared.origin = source

    def borrowed(self, array: Any, source: Any) -> None:
        """Note an array whose memory belongs to something else, which may write to it."""
        try:
            base = _base(array)
            if base is not None:
                owner = source if isinstance(source, np.ndarray) else None
                self.shared.note(base, memory_of(base), owner, self.number)
        except Exception as error:
            self._failed("an array from elsewhere", error)

    def _note_shared(self, array: Any, sources: Sequence[np.ndarray]) -> None:
        base = _base(array)
        try:
            memory = [] if base is None else memory_of(base)
        except Exception:
            return
        for source in sources:
            begin = source.__array_interface__["data"][0]
            end = begin + max(source.nbytes, 1)
            mine = [(pointer, size) for pointer, size in memory if begin <= pointer < end]
            if mine:
                self.shared.note(base, mine, source, self.number)


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
