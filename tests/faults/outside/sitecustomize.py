"""Change one thing outside of a plain script, which it takes in: OUTSIDE names it.

The rule: only what is named is changed, and by the standard library alone: the package has no part
in it, so that what it says of a script is held against something else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

# Seconds by which the clock is wrong: to another month, day and hour, unless days are given.
LATER = float(os.environ.get("OUTSIDE_DAYS", "100.37")) * 86_400


def listing() -> None:
    """List folders the other way round."""
    listdir, scandir = os.listdir, os.scandir

    class Reversed:
        def __init__(self, *path: Any) -> None:
            with scandir(*path) as entries:
                found = sorted(entries, key=lambda entry: entry.name, reverse=True)
            self.entries = iter(found)

        def __iter__(self) -> Any:
            return self.entries

        def __next__(self) -> Any:
            return next(self.entries)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def close(self) -> None:
            pass

    os.listdir = lambda *path: sorted(listdir(*path), reverse=True)  # type: ignore
    os.scandir = Reversed  # type: ignore


def clock() -> None:
    """Let it be another month, day and hour."""
    import datetime

    now, local, utc, text = time.time, time.localtime, time.gmtime, time.strftime
    time.time = lambda: now() + LATER
    time.time_ns = lambda: int(time.time() * 1e9)
    time.localtime = lambda at=None: local(time.time() if at is None else at)
    time.gmtime = lambda at=None: utc(time.time() if at is None else at)
    time.strftime = lambda form, at=None: text(form, time.localtime() if at is None else at)

    class Date(datetime.date):
        @classmethod
        def today(cls) -> Any:
            return datetime.date.fromtimestamp(time.time())

    class Moment(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime.fromtimestamp(time.time(), tz)

        today = utcnow = now

    datetime.date, datetime.datetime = Date, Moment  # type: ignore


def host() -> None:
    """Let the machine have another name."""
    import platform
    import socket

    socket.gethostname = platform.node = lambda: "elsewhere"


def user() -> None:
    """Let the user be somebody else."""
    import getpass

    getpass.getuser = lambda: "somebody"
    os.getuid = lambda: 1


def processors() -> None:
    """Let there be five processors."""
    os.cpu_count = lambda: 5  # type: ignore
    os.process_cpu_count = lambda: 5  # type: ignore
    os.sched_getaffinity = lambda pid: set(range(5))


def workers() -> None:
    """Let the last worker be done first."""
    import threading

    run, order = threading.Thread.run, [0.6]

    def late(self: threading.Thread) -> None:
        order[0] = max(0.0, order[0] - 0.1)
        time.sleep(order[0])
        run(self)

    threading.Thread.run = late  # type: ignore


CHANGES: tuple[Callable[[], None], ...] = (listing, clock, host, user, processors, workers)
for change in CHANGES:
    if os.environ.get("OUTSIDE") == change.__name__:
        change()
