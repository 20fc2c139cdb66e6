"""All that the command line changes in its own process, and why.

The rule: what is changed for a command is put back after it; only a process that is ours keeps it.
Chapter: docs/guide/using_the_project.md

| what | changed by | put back |
|---|---|---|
| loggers `absl` and `asyncio`, `sys.unraisablehook` | `quiet_orbax` | no: Orbax speaks at the end |
| filters of warnings, `warnings.showwarning` | `warnings_as_sentences` | after the command |
| what SIGINT and SIGTERM do | `stop_on_signal`, in `train` | after the training |
| what SIGTERM and SIGHUP do | `terminated_as_interrupted`, in `twice` | after the runs |
| `sys.stdout` and file descriptor 1 | `keep_stdout`, in `train` with several processes | no |

`main` also closes stderr when the reader of a pipe has gone: Python would complain there at its
end. Where `train` has several processes, `scale/start` wraps `sys.excepthook`. In a process that
`launch` started, `machine/child` takes stdin, to end with that one, and the environment variable
that says so. How many devices the CPU has is a setting of JAX: `scale/layout`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from reproducibility.cli.terminal import say_on_stderr
from reproducibility.errors import SetAsideWarning


def quiet_orbax() -> None:
    """Let one sentence of ours say what went wrong, not Orbax's tracebacks before it.

    It logs a failure before it raises it, once for each array; and what was still being read or
    written finds the event loop closed, which Python reports for each array.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    report = sys.unraisablehook

    def hook(found: sys.UnraisableHookArgs) -> None:
        if str(found.exc_value) != "Event loop is closed":
            report(found)

    sys.unraisablehook = hook


@contextlib.contextmanager
def warnings_as_sentences() -> Iterator[None]:
    """Print a warning of ours as the sentence it is, each time."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, SetAsideWarning):
                say_on_stderr(str(message))
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = say
        warnings.simplefilter("always", SetAsideWarning)
        yield


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop; the second ends at once.

    SIGTERM is what a scheduler sends before it takes the machine away.

    Yields a function that says whether it was asked for.
    """
    received: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)  # and no more: a handler may have cut into the middle of a print

    def stop() -> bool:
        if received:
            say_on_stderr(
                "Interrupted: saving a checkpoint. A second Ctrl-C or SIGTERM ends at once."
            )
        return bool(received)

    previous = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, and the end of the terminal, do what Ctrl-C does: what runs is ended with us."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous: dict[int, Any] = {}
    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) != signal.SIG_IGN:  # as nohup has it
            previous[each] = signal.signal(each, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def keep_stdout() -> None:
    """Let only this command print to stdout: Gloo, which connects processes on CPU, chats there."""
    kept = os.dup(1)
    sys.stdout.flush()
    sys.stdout = os.fdopen(kept, "w", encoding="utf-8")
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
