"""What the script asks of the machine: entropy, the clock, listings, files; with the line.

The rule: what happens here explains a difference and never decides one. What is drawn and what the
clock says is not written down, only that it was asked for.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
import sys
import threading
from collections.abc import Callable
from typing import Any

from . import hook
from .calls import Calls
from .children import Children
from .source import is_asked_by_script, lines_of_source
from .wrap import replace_class_method, watch_function, watched
from .writing import Writing

ENOUGH = 200  # events of one kind from one place that are written; more are counted
SMALL_FILE = 1 << 16  # bytes of a file all of which are in its digest when it is read
_PARTS_OF_FILE, _SIZE_OF_PART = 16, 1 << 12  # of a larger one: as many parts, of as many bytes
CLOCKS = (
    *("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns"),
    *("process_time", "process_time_ns", "thread_time", "thread_time_ns"),
    *("clock_gettime", "clock_gettime_ns"),
)
# Those that ask the clock unless they are given a moment, and which argument that is.
CLOCKS_BY_DEFAULT = {"localtime": 0, "gmtime": 0, "ctime": 0, "asctime": 0, "strftime": 1}
MOMENTS = (("datetime", ("now", "utcnow", "today")), ("date", ("today",)))
MACHINE = (
    *(("os", "cpu_count"), ("os", "uname"), ("os", "getloadavg"), ("os", "getlogin")),
    *(("socket", "gethostname"), ("platform", "node")),
)
# Once they are imported.
WATCHED_LATE = ("uuid", "datetime", "socket", "platform", "threading", "subprocess")
RANDOM_FILES = ("/dev/urandom", "/dev/random", "/dev/hwrng")
TREES_OF_THE_MACHINE = ("/proc/", "/sys/", "/dev/")
LISTINGS = ("os.listdir", "os.scandir")
STARTS_A_COMMAND = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec")


class Host:
    """The events of a process."""

    def __init__(
        self, writing: Writing, calls: Calls, may_tell: Callable[[str], bool] = bool
    ) -> None:
        self._writing, self._calls, self._may_tell = writing, calls, may_tell
        self._times: dict[Any, int] = {}
        self._inside = threading.local()
        self._seeded: set[str] = set()
        self._children = Children(writing.problem)

    def watch_python(self) -> None:
        """Watch what Python itself offers: entropy, the clock, listings, `random`."""
        import random
        import time

        for owner, name in ((os, "urandom"), (os, "getrandom"), (random, "_urandom")):
            watch_function(owner, name, self._noting("entropy", "the system's entropy"))
        for name in CLOCKS:
            watch_function(time, name, self._noting("clock", f"time.{name}()"))
        for name, place in CLOCKS_BY_DEFAULT.items():
            watch_function(time, name, self._noting_now(name, place))
        self._watch_draws(random, "random", getattr(random.random, "__self__", random))
        self._watch_unseeded(random.Random)
        watch_function(os, "getpid", self._noting("process", "os.getpid()", by_script=True))
        watch_function(os, "getppid", self._noting("process", "os.getppid()", by_script=True))
        self._watch_environment()
        self._children.follow()
        for name in ("os", *WATCHED_LATE):
            if name in sys.modules:
                self.imported(name)
        sys.addaudithook(self._audit)

    def imported(self, name: str) -> None:
        """Watch a module that the script has imported."""
        module = sys.modules[name]
        for of, what in MACHINE:
            if of == name:
                note = self._noting("machine", f"{name}.{what}()", by_script=True)
                watch_function(module, what, note)
        if name == "uuid":
            watch_function(module, "uuid1", self._noting("entropy", "uuid.uuid1()"))
        elif name == "datetime":
            self._watch_moments(module)
        elif name == "subprocess":
            self._children.follow_subprocess(module)
        elif name == "threading":
            note = self._noting("process", "threading.get_ident()", by_script=True)
            watch_function(module, "get_ident", note)

    def watch_numpy(self) -> None:
        """Watch the generator that all of NumPy shares."""
        module = sys.modules["numpy.random"]
        self._watch_draws(module, "numpy.random", getattr(module.random, "__self__", module))

    def left(self, array: Any, frame: Any) -> None:
        """Note that the script reads an array: `THREAD:CALL.PLACE` says which.

        Calls of a thread are counted from 0; a place is that of a result, or -1 - that of an
        argument.
        """
        origin = self._calls.origin_of(array)
        if origin:
            self._note("leaves", origin, reader=frame)

    def _watch_draws(self, module: Any, name: str, shared: Any) -> None:
        """Watch every function of a module that draws from the generator that all share."""
        for each in list(vars(module)):
            function = getattr(module, each)
            if getattr(function, "__self__", None) is not shared or isinstance(function, type):
                continue
            if each in ("seed", "set_state", "setstate"):
                setattr(module, each, watched(function, self._seeding(name)))
            elif not each.startswith(("_", "get")) or each == "getrandbits":
                watch_function(module, each, self._drawing(name, each))

    def _seeding(self, name: str) -> Any:
        def seeding(arguments: Any, named: Any) -> None:
            given = [*arguments, *named.values()]
            if given and given[0] is not None:
                self._seeded.add(name)
            else:
                self._seeded.discard(name)
                self._note("entropy", f"{name}.seed()")

        return seeding

    def _drawing(self, name: str, each: str) -> Any:
        def drawing(arguments: Any, named: Any) -> None:
            if name not in self._seeded:
                self._note("draws", f"{name}.{each}()")

        return drawing

    def _watch_unseeded(self, generator: Any) -> None:
        def seeding(arguments: Any, named: Any) -> None:
            if not [each for each in (*arguments[1:2], *named.values()) if each is not None]:
                self._note("entropy", "random.Random()")

        watch_function(generator, "seed", seeding)

    def _watch_moments(self, module: Any) -> None:
        for of, names in MOMENTS:
            for name in names:
                note = self._noting("clock", f"datetime.{of}.{name}()")
                around = functools.partial(watched, before=note)
                replace_class_method(getattr(module, of), name, around)

    def _watch_environment(self) -> None:
        get = type(os.environ).__getitem__

        def reading(arguments: Any, named: Any) -> None:
            what = arguments[1] if len(arguments) > 1 else named.get("key")
            if isinstance(what, str):
                with contextlib.suppress(KeyError):
                    what += f"={get(os.environ, what)}" if self._may_tell(what) else ""
                self._note("environment", what, by_script=True)

        watch_function(type(os.environ), "__getitem__", reading)

    def _noting(self, kind: str, what: str, *, by_script: bool = False) -> Any:
        def before(arguments: Any, named: Any) -> None:
            self._note(kind, what, by_script=by_script)

        return before

    def _noting_now(self, name: str, place: int) -> Any:
        def before(arguments: Any, named: Any) -> None:
            if len(arguments) <= place or arguments[place] is None:
                self._note("clock", f"time.{name}()")

        return before

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in LISTINGS:
            folder = "." if arguments[0] is None else arguments[0]
            self._note("listing", f"{event}({folder!r})", of_folder=folder)
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            self._opened(os.fsdecode(arguments[0]), *arguments[1:])
        elif event == "os.remove" and isinstance(arguments[0], str):
            self._note("deletes", os.path.abspath(arguments[0]))
        elif event == "os.rename" and isinstance(arguments[1], str):
            self._note("writes", os.path.abspath(arguments[1]))
        elif event in STARTS_A_COMMAND:
            what = arguments[0] if isinstance(arguments[0], (str, bytes)) else "a command"
            words = os.fsdecode(what).split() or [""]
            self._note("process", f"{event}({os.path.basename(words[0])!r})")
            given = arguments[1] if len(arguments) > 1 else words
            self._children.started(given if isinstance(given, (list, tuple)) else words)

    def _opened(self, path: str, mode: Any, flags: Any) -> None:
        path = os.path.abspath(path)
        if path in RANDOM_FILES:
            self._note("entropy", path)
        elif path.startswith(TREES_OF_THE_MACHINE):
            self._note("machine", path)
        else:
            for kind in _what_open_does(mode, flags):
                self._note(kind, path, of_file=path if kind == "reads" else "")

    def _note(
        self,
        kind: str,
        what: str,
        *,
        by_script: bool = False,
        of_file: str = "",
        of_folder: Any = "",
        reader: Any = None,
    ) -> None:
        if getattr(self._inside, "now", False) or hook.is_unseen():
            return
        self._inside.now = True
        try:
            frame, place = _caller()
            key = (kind, *place) if reader else (kind, what, *place)
            times = self._times[key] = self._times.get(key, 0) + 1
            if times > ENOUGH and times & (times - 1):
                return
            if by_script and not is_asked_by_script(frame):
                return
            where = lines_of_source(reader or frame, of_host=reader is None)
            if where:
                lines = [[code.co_filename, line, code.co_name] for code, line in where]
                event = {"after": self._calls.number, "kind": kind, "what": what, "lines": lines}
                event.update({"times": times} if times > ENOUGH else {})
                event.update(_facts_of(of_file, of_folder))
                self._writing.line("host.txt", json.dumps(event))
        except Exception as error:
            self._writing.remark(f"cannot note {kind}: {type(error).__name__}: {error}")
        finally:
            self._inside.now = False


def _caller() -> tuple[Any, tuple[Any, ...]]:
    """Return the frame that asks, and its place in the code with that of its caller."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_globals.get("__package__") == __package__:
        frame = frame.f_back
    back = frame.f_back or frame
    return frame, (frame.f_code, frame.f_lasti, back.f_code, back.f_lasti)


def _facts_of(file: str, folder: Any) -> dict[str, Any]:
    """Return what tells two files, or two orders of a folder, apart."""
    try:
        if isinstance(folder, (str, bytes, os.PathLike)) and folder:
            names = [os.fsencode(name) for name in os.listdir(folder)]
            return {"order": _short_digest(b"\0".join(names))}
        found = os.stat(file) if file else None
        if found is None or not stat.S_ISREG(found.st_mode):
            return {}
        facts: dict[str, Any] = {"bytes": found.st_size, "changed": found.st_mtime_ns}
        facts["digest"] = _digest_of_parts(file, found.st_size)
        return facts
    except (OSError, TypeError, ValueError):
        return {}  # the script itself will be told


def _digest_of_parts(file: str, size: int) -> str:
    """Return the digest of a file; of a large one, that of parts of it, spread evenly."""
    with open(file, "rb") as opened:
        if size <= SMALL_FILE:
            return _short_digest(opened.read())
        parts = [b"%d" % size]
        for number in range(_PARTS_OF_FILE):
            opened.seek((size - _SIZE_OF_PART) * number // (_PARTS_OF_FILE - 1))
            parts.append(opened.read(_SIZE_OF_PART))
        return _short_digest(b"".join(parts))


def _short_digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _what_open_does(mode: Any, flags: Any) -> list[str]:
    """Return whether a file that is opened so is read, written, or both."""
    if not isinstance(mode, str):
        mode = {os.O_WRONLY: "w", os.O_RDWR: "r+"}.get(int(flags or 0) & 3, "r")
        mode = "a" if mode == "w" and int(flags or 0) & os.O_APPEND else mode
    kind = "appends" if "a" in mode else "writes"
    reads, writes = "r" in mode or "a+" in mode, bool(set(mode) & set("wax+"))
    return ["reads"] * reads + [kind] * writes
