"""What the script asks of the machine: entropy, the clock, listings, files; with the line.

The rule: what happens here explains a difference and never decides one. A value is not written
down, only that it was asked for.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from . import hook
from .calls import Calls
from .source import lines_of_source
from .writing import Writing

ENOUGH = 200  # events of one kind from one line that are written; more are counted
CLOCKS = ("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns")
# Of `random` and `numpy.random`: what draws from the generator that all share.
DRAWS = (
    *("random", "randint", "uniform", "choice", "choices", "shuffle", "sample", "gauss"),
    *("normalvariate", "randrange", "getrandbits", "betavariate", "expovariate"),
    *("rand", "randn", "random_sample", "normal", "permutation", "standard_normal", "bytes"),
)


class Host:
    """The events of a process."""

    def __init__(self, writing: Writing, calls: Calls) -> None:
        self._writing, self._calls = writing, calls
        self._times: dict[Any, int] = {}
        self._lock = threading.Lock()
        self._inside = threading.local()
        self._seeded: set[str] = set()

    def watch_python(self) -> None:
        """Watch what Python itself offers: entropy, the clock, listings, `random`."""
        import random
        import time

        for owner, name in ((os, "urandom"), (random, "_urandom")):
            if hasattr(owner, name):
                self._wrap(owner, name, "entropy", "the system's entropy")
        for name in CLOCKS:
            self._wrap(time, name, "clock", f"time.{name}()")
        self._wrap_draws(random, "random")
        sys.addaudithook(self._audit)

    def watch_numpy(self) -> None:
        """Watch the generator that all of NumPy shares."""
        self._wrap_draws(sys.modules["numpy.random"], "numpy.random")

    def _wrap_draws(self, module: Any, name: str) -> None:
        for seed in ("seed", "set_state", "setstate"):
            original = getattr(module, seed, None)
            if original is not None:
                setattr(module, seed, self._seeding(original, name))
        for draw in DRAWS:
            if hasattr(module, draw):
                self._wrap(module, draw, "draws", f"{name}.{draw}()", unless_seeded=name)

    def _seeding(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def seeding(*arguments: Any, **named: Any) -> Any:
            given = [*arguments, *named.values()]
            if given and given[0] is not None:
                self._seeded.add(name)
            else:
                self._seeded.discard(name)
            return original(*arguments, **named)

        return seeding

    def _wrap(
        self, owner: Any, name: str, kind: str, what: str, *, unless_seeded: str = ""
    ) -> None:
        original = getattr(owner, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            if not (unless_seeded in self._seeded and unless_seeded):
                self._note(kind, what)
            return original(*arguments, **named)

        for each in ("__name__", "__qualname__", "__doc__", "__module__"):
            if hasattr(original, each):
                with contextlib.suppress(AttributeError, TypeError):
                    setattr(watched, each, getattr(original, each))
        setattr(owner, name, watched)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.listdir", "os.scandir"):
            self._note("listing", f"{event}({arguments[0]!r})")
        elif event == "open" and isinstance(arguments[0], str):
            path, mode, flags = arguments
            for kind in _what_open_does(mode, flags):
                self._note(kind, os.path.abspath(path))
        elif event == "os.rename" and isinstance(arguments[1], str):
            self._note("writes", os.path.abspath(arguments[1]))

    def _note(self, kind: str, what: str) -> None:
        if hook.is_unseen() or getattr(self._inside, "now", False):
            return
        self._inside.now = True
        try:
            where = lines_of_source(sys._getframe(1), of_host=True)
            if not where:
                return
            key = (kind, what, where)
            with self._lock:
                times = self._times[key] = self._times.get(key, 0) + 1
            if times <= ENOUGH:
                lines = [[code.co_filename, line, code.co_name] for code, line in where]
                event = {"after": self._calls.number, "kind": kind, "what": what, "lines": lines}
                self._writing.line("host.txt", json.dumps(event))
        except Exception as error:
            self._writing.remark(f"cannot note {kind}: {type(error).__name__}: {error}")
        finally:
            self._inside.now = False


def _what_open_does(mode: Any, flags: Any) -> list[str]:
    """Return whether a file that is opened so is read, written, or both."""
    if not isinstance(mode, str):
        mode = {os.O_WRONLY: "w", os.O_RDWR: "r+"}.get(int(flags or 0) & 3, "r")
    reads, writes = "r" in mode or "a+" in mode, bool(set(mode) & set("wax+"))
    return ["reads"] * reads + ["writes"] * writes
