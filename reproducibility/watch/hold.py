"""Hold something fixed that varies from run to run, to see whether it is the cause.

The rule: nothing is held unless it is asked for. Each thing can be held in several ways, which
differ: what comes out must depend on which, or holding it only disturbed the script.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import builtins
import functools
import gc
import hashlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from .host import CLOCKS, CLOCKS_BY_DEFAULT, MOMENTS, RANDOM_FILES
from .source import LIBRARY, SCRIPT, owner_of
from .wrap import in_place_of, put, replace_class_method

STREAM = 1 << 20  # bytes of a file of random numbers
# What a held clock says at first, in seconds: Monday 2001-01-01 01:46:40 UTC, then a Saturday in
# 2013, a Thursday in 2032 and a Tuesday in 2020. Two ways differ in year, month, day of the week,
# hour, minute and second; the second one is in the other half of the day, in every time zone.
MOMENTS_OF_CLOCK = (978_313_600, 1_371_304_061.125, 1_981_398_813.375, 1_605_000_902.625)
OTHER_BEGIN = 2_950_577.125  # between two ways above these
NO_PROCESS = (1 << 22) + 1  # above what Linux gives a process as its number
OTHER_PROCESS = 100_003  # between two ways: a prime, so that remainders differ too
SMALL_OBJECTS = 496  # bytes up to which Python keeps objects of one size together
NO_RANDOM_ADDRESSES = 0x0040000  # ADDR_NO_RANDOMIZE of personality(2)


def hold(what: str) -> None:
    """Hold `NAME=WAY`, before the script begins."""
    name, _, way = what.partition("=")
    {
        "entropy": _hold_entropy,
        "clock": _hold_clock,
        "listing": _hold_listing,
        "pid": _hold_pid,
        "threads": _hold_threads,
        "addresses": _hold_addresses,
    }[name](int(way or 0))


def _instead(owner: Any, name: str, make: Callable[[Any], Callable[..., Any]]) -> None:
    """Put what `make` returns for a function in its place, if there is one."""
    original = getattr(owner, name, None)
    if original is not None:
        put(owner, name, in_place_of(original, make(original)))


def _hold_entropy(way: int) -> None:
    import random
    import uuid

    drawn: dict[str, int] = {}

    def stream(size: int, flags: int = 0) -> bytes:
        # It draws while it is being imported, when it does not yet have its process.
        module: Any = sys.modules.get("multiprocessing.process")
        process = getattr(module, "_current_process", None)
        name = f"{_task_of_worker[0] or (process.name if process else '')}/{_name_of_thread()}"
        drawn[name] = drawn.get(name, 0) + 1
        return hashlib.shake_256(f"held {way} {name} {drawn[name]}".encode()).digest(size)

    def number() -> int:
        return int.from_bytes(stream(8), "little")

    def seeded(original: Any, place: int) -> Callable[..., Any]:
        def seed(*arguments: Any, **named: Any) -> Any:
            if not [each for each in (*arguments[place:], *named.values()) if each is not None]:
                arguments, named = (*arguments[:place], number()), {}
            return original(*arguments, **named)

        return seed

    for owner, name in ((os, "urandom"), (os, "getrandom"), (random, "_urandom")):
        _instead(owner, name, lambda original: stream)
    random.seed(number())
    _instead(random, "seed", functools.partial(seeded, place=0))
    _instead(random.Random, "seed", functools.partial(seeded, place=1))
    _instead(
        uuid, "uuid1", lambda original: lambda *_, **__: uuid.UUID(bytes=stream(16), version=1)
    )
    for opener in ((builtins, "open"), (io, "open"), (os, "open")):
        _instead(*opener, functools.partial(_opening_held, stream=stream))


_task_of_worker = [""]  # what a worker of a pool is at


def begin_task(number: int) -> None:
    """Say that this process, a worker of a pool, draws for this task from now on."""
    _task_of_worker[0] = f"task {number}"


def _name_of_thread() -> str:
    mine = getattr(threading, "_active", {}).get(threading.get_ident())
    return mine.name if mine is not None else "a thread"


def _opening_held(original: Any, stream: Callable[[int], bytes]) -> Callable[..., Any]:
    """Open a file that holds the stream where a file of random numbers is asked for."""

    def opening(*arguments: Any, **named: Any) -> Any:
        path = arguments[0] if arguments else None
        if not isinstance(path, (str, os.PathLike)) or os.fspath(path) not in RANDOM_FILES:
            return original(*arguments, **named)
        memory = os.memfd_create("random")
        try:
            os.write(memory, stream(STREAM))
            return original(f"/proc/self/fd/{memory}", *arguments[1:], **named)
        finally:
            os.close(memory)

    return opening


def begin_of_clock(way: int) -> float:
    """Return what a clock that is held in this way says at first, in seconds."""
    if way < len(MOMENTS_OF_CLOCK):
        return MOMENTS_OF_CLOCK[way]
    return MOMENTS_OF_CLOCK[0] + way * OTHER_BEGIN


class _Clock:
    """A clock that goes on a little whenever this thread of the script looks at it."""

    def __init__(self, way: int) -> None:
        self._begin, self._tick = begin_of_clock(way), (1 + way) / 1024
        self._local = threading.local()

    def now(self) -> float:
        """Look at it."""
        self.sleep(self._tick)
        return self._begin + float(self._local.passed)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._local.passed = getattr(self._local, "passed", 0.0) + seconds


def _hold_clock(way: int) -> None:
    import datetime
    import time

    clock = _Clock(way)

    def held(original: Any, *, place: int = 0, moment: bool = False) -> Callable[..., Any]:
        nanoseconds = original.__name__.endswith("_ns")

        def look(*arguments: Any, **named: Any) -> Any:
            # Python waits by the clock, and so does JAX: those are left alone.
            if not _is_asked_directly(sys._getframe(1)):
                return original(*arguments, **named)
            if not moment:
                now = clock.now()
                return int(now * 10**9) if nanoseconds else now
            if len(arguments) > place and arguments[place] is not None:
                return original(*arguments, **named)
            now_or_parts = clock.now()
            if place or original.__name__ == "asctime":
                return original(*arguments[:place], localtime(now_or_parts))
            return original(now_or_parts)

        return look

    def sleeping(original: Any) -> Callable[..., Any]:
        def sleep(*arguments: Any) -> None:
            original(*arguments)
            clock.sleep(float(arguments[0]))

        return sleep

    localtime = time.localtime
    for name in CLOCKS:
        _instead(time, name, held)
    for name, place in CLOCKS_BY_DEFAULT.items():
        _instead(time, name, functools.partial(held, place=place, moment=True))
    _instead(time, "sleep", sleeping)
    for of, names in MOMENTS:
        for name in names:
            replace_class_method(getattr(datetime, of), name, _moment_of(clock, name))


def _moment_of(clock: _Clock, name: str) -> Callable[[Any], Callable[..., Any]]:
    def replace(bound: Any) -> Callable[..., Any]:
        of = bound.__self__

        def moment(*arguments: Any, **named: Any) -> Any:
            zone = [*arguments, *named.values()]
            if name != "utcnow":
                return of.fromtimestamp(clock.now(), *zone)
            import datetime

            utc = datetime.timezone.utc  # noqa: UP017 (Python 3.10)
            return of.fromtimestamp(clock.now(), utc).replace(tzinfo=None)

        return moment

    return replace


def _is_asked_directly(frame: Any) -> bool:
    """Whether the script or a library asks, and neither Python nor JAX on its own behalf."""
    while frame is not None and frame.f_globals.get("__package__") == __package__:
        frame = frame.f_back
    return frame is not None and owner_of(frame.f_code) in (SCRIPT, LIBRARY)


def in_order(entries: Iterable[Any], way: int) -> list[Any]:
    """Return the entries of a folder sorted by name (0), or in another order.

    That is reversed (1), with the first one last (2), with neighbours swapped (3), or shuffled.
    """

    def name(entry: Any) -> bytes:
        return os.fsencode(getattr(entry, "name", entry))

    found = sorted(entries, key=name)
    if way == 1:
        return found[::-1]
    if way == 2:
        return found[1:] + found[:1]
    if way == 3:
        pairs = [found[place : place + 2][::-1] for place in range(0, len(found), 2)]
        return [each for pair in pairs for each in pair]
    if way:
        found.sort(key=lambda each: hashlib.sha256(b"%d %s" % (way, name(each))).digest())
    return found


def _hold_listing(way: int) -> None:
    def listing(original: Any) -> Callable[..., Any]:
        return lambda *arguments, **named: in_order(original(*arguments, **named), way)

    def scanning(original: Any) -> Callable[..., Any]:
        return lambda *arguments, **named: _SortedEntries(original(*arguments, **named), way)

    for name, make in (("listdir", listing), ("scandir", scanning)):
        original = getattr(os, name)
        _instead(os, name, make)
        for kept in _kept_by_pathlib(original):
            kept(getattr(os, name))


def _kept_by_pathlib(original: Any) -> list[Callable[[Any], None]]:
    """Return what puts another function where `pathlib` and `glob` keep this one."""
    found: list[Callable[[Any], None]] = []
    for module in [m for n, m in sys.modules.items() if n.split(".")[0] in ("pathlib", "glob")]:
        for of in [each for each in vars(module).values() if isinstance(each, type)]:
            for name, value in list(vars(of).items()):
                if getattr(value, "__func__", value) is original:
                    found.append(lambda new, of=of, name=name: setattr(of, name, new))  # type: ignore[misc]
    return found


class _SortedEntries:
    """The entries of a folder, in an order of their names."""

    def __init__(self, scan: Any, way: int) -> None:
        with scan as entries:
            self._entries = iter(in_order(entries, way))

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self._entries)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())


def _hold_pid(way: int) -> None:
    held, real = [NO_PROCESS + OTHER_PROCESS * way], os.getpid

    def number(original: Any) -> Callable[..., Any]:
        less = int(original.__name__ == "getppid")
        return lambda: held[0] - less if _is_asked_directly(sys._getframe(1)) else original()

    def killing(original: Any) -> Callable[..., Any]:
        return lambda pid, signal: original(real() if pid == held[0] else pid, signal)

    def in_parent() -> None:
        children[0] += 1

    def in_child() -> None:
        held[0], children[0] = held[0] + 1 + children[0], 100 * (1 + children[0])

    children = [0]
    for name in ("getpid", "getppid"):
        _instead(os, name, number)
    _instead(os, "kill", killing)
    os.register_at_fork(after_in_parent=in_parent, after_in_child=in_child)


def _hold_threads(way: int) -> None:
    """Let only one processor be used; variables that say so to libraries are set from outside."""
    sys.setswitchinterval(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])


_in_the_way: list[Any] = []


def _hold_addresses(way: int) -> None:
    """Begin again where memory is laid out as it always is; another way is moved a little."""
    import ctypes

    personality = ctypes.CDLL(None).personality
    current = personality(0xFFFFFFFF)
    if not current & NO_RANDOM_ADDRESSES and personality(current | NO_RANDOM_ADDRESSES) != -1:
        os.execv(sys.executable, sys.orig_argv)
    _in_the_way.extend([object() for _ in range(257 * way)] + [bytearray(4097 * way)])
    # Small objects lie in rows with those of their size: each row begins further on.
    sizes = range(16, SMALL_OBJECTS, 16)
    _in_the_way.extend(bytes(size) for size in sizes for _ in range(way + size // 16 * way % 7))
    gc.collect()
