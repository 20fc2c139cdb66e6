"""Let the script find itself elsewhere: another user, another host, other processors, other timing.

The rule: what is changed here is the same in every run, so it is changed to see whether it matters.
Chapter: docs/guide/hidden_inputs.md
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

from .hold import begin_task
from .source import JAX, owner_of
from .wrap import in_place_of, put

WAIT = 0.05  # seconds by which a thread begins late, or its starter goes on late
WAIT_FOR_THREAD = 0.25  # seconds that its starter waits for it, where timing is held
LONGEST = 3.0  # seconds of all that in a process
TASKS = 4  # of so many tasks that are handed out one after the other, the last is done first
WAIT_FOR_TASK = 0.1  # seconds


def change(what: str) -> None:
    """Change `NAME=WAY`, before the script begins."""
    name, _, way = what.partition("=")
    CHANGES[name](int(way or 0))


def _instead_for_script(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Have a function return something else, unless JAX or the recorder asks."""
    original = getattr(owner, name, None)
    if original is None:
        return

    def asked(*arguments: Any, **named: Any) -> Any:
        found = original(*arguments, **named)
        return found if _is_asked_by_jax(sys._getframe(1)) else make(found)

    put(owner, name, in_place_of(original, asked))


def _is_asked_by_jax(frame: Any) -> bool:
    """Whether JAX asks, or the recorder on its own behalf."""
    while frame is not None and frame.f_globals.get("__name__", "").endswith(("wrap", __name__)):
        frame = frame.f_back
    return frame is None or owner_of(frame.f_code) == JAX


def _as_user(way: int) -> None:
    _instead_for_script(os, "getlogin", lambda _: "somebody")
    with contextlib.suppress(ImportError):  # of systems without it
        import pwd

        def named(of: Any) -> Any:
            return pwd.struct_passwd(("somebody", *of[1:]))

        _instead_for_script(pwd, "getpwuid", named)


def _on_other_hardware(way: int) -> None:
    import uuid

    _instead_for_script(uuid, "getnode", lambda _: 0x020000000001)


def _with_private_files(way: int) -> None:
    """Let nobody else read the files that the script makes."""
    now = os.umask(0o077)
    os.umask(0o022 if now == 0o077 else 0o077)


def _on_host(way: int) -> None:
    import platform
    import socket

    now = socket.gethostname()
    other = "localhost" if now != "localhost" else "localhost.localdomain"  # both can be found

    def named(of: os.uname_result) -> os.uname_result:
        return os.uname_result((of[0], other, *of[2:]))

    _instead_for_script(socket, "gethostname", lambda _: other)
    _instead_for_script(platform, "node", lambda _: other)
    _instead_for_script(os, "uname", named)


def _with_processors(number: int) -> None:
    for name in ("cpu_count", "process_cpu_count"):
        _instead_for_script(os, name, lambda _: number)
    _instead_for_script(os, "sched_getaffinity", lambda _: set(range(number)))


def _with_other_timing(way: int) -> None:
    """Let who starts a thread wait for it a while (0); let threads begin late (1) or at once (2).

    In the last case threads switch often, too.
    """
    if way:
        sys.setswitchinterval(0.1 if way == 1 else 1e-5)
    start = threading.Thread.start
    patience = [LONGEST]

    def wait(do: Callable[[float], object], seconds: float) -> None:
        if patience[0] > 0:
            began = monotonic()
            do(seconds)
            patience[0] -= monotonic() - began

    @functools.wraps(start)
    def started(self: threading.Thread) -> None:
        if way == 1:
            run = self.run

            def late() -> None:
                del self.run
                wait(sleep, WAIT)
                run()

            self.run = late  # type: ignore[method-assign]
        start(self)
        if way == 0:
            wait(self.join, WAIT_FOR_THREAD)
        elif way == 2:
            wait(sleep, WAIT)

    threading.Thread.start = started  # type: ignore[method-assign]


def _with_tasks_done_in_order(way: int) -> None:
    """Let the tasks of pools be done in the order in which they came (0), or backwards (1).

    Then the first of a few tasks take longer, too. What a task draws from the system's entropy does
    not depend on the worker that does it.
    """
    import concurrent.futures.process
    import concurrent.futures.thread
    import multiprocessing.pool

    _give_tasks_in_order(way)
    item: Any = concurrent.futures.thread._WorkItem
    run, given = item.run, [0]

    @functools.wraps(run)
    def run_late(self: Any, *arguments: Any) -> None:
        given[0] += 1
        _wait_for_task(given[0] - 1)
        run(self, *arguments)

    if way:
        item.run = run_late
    for module, name in (
        (concurrent.futures.process, "_process_worker"),
        (multiprocessing.pool, "worker"),
    ):
        _late_worker(module, name, late=bool(way))


def _give_tasks_in_order(way: int) -> None:
    """Have those in order that are else given as they are done."""
    import concurrent.futures
    import itertools
    import multiprocessing.pool

    base: Any = concurrent.futures._base
    made, init, count = base.Future, base.Future.__init__, itertools.count()

    @functools.wraps(init)
    def numbered(self: Any) -> None:
        init(self)
        self._place = next(count)

    @functools.wraps(base.as_completed)
    def as_completed(fs: Any, timeout: Any = None) -> Any:
        futures = sorted(set(fs), key=lambda each: each._place, reverse=bool(way))
        until = None if timeout is None else monotonic() + timeout
        for future in futures:
            rest = None if until is None else until - monotonic()
            if not base.wait([future], rest).done:
                raise TimeoutError(f"{len(futures)} (of {len(futures)}) futures unfinished")
            yield future

    made.__init__ = numbered
    base.as_completed = as_completed
    concurrent.futures.as_completed = as_completed
    pool: Any = multiprocessing.pool.Pool

    @functools.wraps(pool.imap_unordered)
    def imap_unordered(self: Any, *arguments: Any, **named: Any) -> Any:
        found = self.imap(*arguments, **named)
        return found if not way else iter(list(found)[::-1])

    pool.imap_unordered = imap_unordered


def _late_worker(module: Any, name: str, *, late: bool) -> None:
    work = getattr(module, name)

    @functools.wraps(work)
    def working(tasks: Any, *arguments: Any, **named: Any) -> Any:
        return work(_LateTasks(tasks, late), *arguments, **named)

    setattr(module, name, working)


class _LateTasks:
    """A queue of tasks, each of which may be given out late."""

    def __init__(self, tasks: Any, late: bool) -> None:
        self._tasks, self._late = tasks, late

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tasks, name)

    def get(self, *arguments: Any, **named: Any) -> Any:
        task = self._tasks.get(*arguments, **named)
        number = getattr(task, "work_id", task[1] if isinstance(task, tuple) else None)
        if isinstance(number, int):
            begin_task(number)
            if self._late:
                _wait_for_task(number)
        return task


_waited = [0.0]


def _wait_for_task(number: int) -> None:
    seconds = WAIT_FOR_TASK * (TASKS - 1 - number % TASKS)
    if _waited[0] < LONGEST:
        _waited[0] += seconds
        sleep(seconds)


CHANGES: dict[str, Callable[[int], None]] = {
    "user": _as_user,
    "host": _on_host,
    "hardware": _on_other_hardware,
    "umask": _with_private_files,
    "processors": _with_processors,
    "timing": _with_other_timing,
    "workers": _with_tasks_done_in_order,
}
