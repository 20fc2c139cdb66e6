"""Let the script find itself elsewhere: another user, another host, other processors, other timing.

The rule: what is changed here is the same in every run, so it is changed to see whether it matters.
Chapter: docs/guide/hidden_inputs.md
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from time import sleep
from typing import Any

from .source import JAX, owner_of
from .wrap import in_place_of, put

WAIT = 0.05  # seconds by which a thread begins late, or its starter goes on late
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
    """Let threads begin late (1), or let who starts one go on late and threads switch often (2)."""
    sys.setswitchinterval(0.1 if way == 1 else 1e-5)
    start = threading.Thread.start
    patience = [LONGEST]

    def wait() -> None:
        if patience[0] > 0:
            patience[0] -= WAIT
            sleep(WAIT)

    @functools.wraps(start)
    def started(self: threading.Thread) -> None:
        if way == 1:
            run = self.run

            def late() -> None:
                del self.run
                wait()
                run()

            self.run = late  # type: ignore[method-assign]
        start(self)
        if way != 1:
            wait()

    threading.Thread.start = started  # type: ignore[method-assign]


def _with_tasks_done_backwards(way: int) -> None:
    """Let the workers of pools take longer for the first of a few tasks than for the last."""
    import concurrent.futures.process
    import concurrent.futures.thread
    import multiprocessing.pool

    item: Any = concurrent.futures.thread._WorkItem
    run, given = item.run, [0]

    @functools.wraps(run)
    def run_late(self: Any, *arguments: Any) -> None:
        given[0] += 1
        _wait_for_task(given[0] - 1)
        run(self, *arguments)

    item.run = run_late
    for module, name in (
        (concurrent.futures.process, "_process_worker"),
        (multiprocessing.pool, "worker"),
    ):
        _late_worker(module, name)


def _late_worker(module: Any, name: str) -> None:
    work = getattr(module, name)

    @functools.wraps(work)
    def late(tasks: Any, *arguments: Any, **named: Any) -> Any:
        return work(_LateTasks(tasks), *arguments, **named)

    setattr(module, name, late)


class _LateTasks:
    """A queue of tasks, each of which is given out late."""

    def __init__(self, tasks: Any) -> None:
        self._tasks = tasks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tasks, name)

    def get(self, *arguments: Any, **named: Any) -> Any:
        task = self._tasks.get(*arguments, **named)
        number = getattr(task, "work_id", task[1] if isinstance(task, tuple) else None)
        if isinstance(number, int):
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
    "processors": _with_processors,
    "timing": _with_other_timing,
    "workers": _with_tasks_done_backwards,
}
