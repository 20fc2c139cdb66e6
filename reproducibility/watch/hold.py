"""Hold one thing fixed that varies from run to run, to see whether it is the cause.

The rule: one thing at a time, and nothing unless it is asked for.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import hashlib
import os
import sys
from typing import Any

HELD = ("entropy", "clock", "listing")  # and the salt of hash(), which is an environment variable

_HERE = os.path.dirname(__file__)


def hold(what: str) -> None:
    """Hold one thing, before the script begins."""
    {"entropy": _entropy, "clock": _clock, "listing": _listing}[what]()


def _entropy() -> None:
    import random

    drawn = [0]

    def urandom(size: int) -> bytes:
        drawn[0] += 1
        return hashlib.shake_256(f"held {drawn[0]}".encode()).digest(size)

    os.urandom = urandom
    if hasattr(random, "_urandom"):
        random._urandom = urandom
    seed: Any = random.Random.seed

    def seeded(self: Any, a: Any = None, version: int = 2) -> None:
        seed(self, int.from_bytes(urandom(8), "little") if a is None else a, version)

    random.Random.seed = seeded  # type: ignore[method-assign]
    random.seed(int.from_bytes(urandom(8), "little"))  # `random.seed` is bound to the original


def _clock() -> None:
    import datetime
    import time

    # A place in the source sees its own time pass: what others ask meanwhile does not count.
    ticks: dict[Any, int] = {}

    def now() -> float:
        frame: Any = sys._getframe(1)
        while frame.f_back and os.path.dirname(frame.f_code.co_filename) == _HERE:
            frame = frame.f_back
        place = (frame.f_code, frame.f_lasti)
        ticks[place] = ticks.get(place, 0) + 1
        return 1_000_000_000 + ticks[place] / 1024

    for name in ("time", "perf_counter", "monotonic"):
        setattr(time, name, lambda: now())
        setattr(time, f"{name}_ns", lambda: int(now() * 10**9))

    class Held(datetime.datetime):
        """A moment; that of now is the held one."""

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(now(), tz)

        @classmethod
        def today(cls) -> Any:
            return cls.fromtimestamp(now())

        @classmethod
        def utcnow(cls) -> Any:
            utc = datetime.timezone.utc  # noqa: UP017 (Python 3.10)
            return cls.fromtimestamp(now(), utc).replace(tzinfo=None)

    datetime.datetime = Held  # type: ignore[misc]


def _listing() -> None:
    listdir, scandir = os.listdir, os.scandir

    class Sorted:
        """The entries of a folder, in the order of their names."""

        def __init__(self, *arguments: Any) -> None:
            with scandir(*arguments) as entries:
                self._entries = iter(sorted(entries, key=lambda entry: entry.name))

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

    os.listdir = lambda *arguments: sorted(listdir(*arguments))  # type: ignore[assignment]
    os.scandir = Sorted  # type: ignore[assignment]
