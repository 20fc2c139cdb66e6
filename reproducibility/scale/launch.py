"""Several processes of one run on this machine, to try out what a cluster does.

The rule: they end together, and none is left behind, however this one ends.
Chapter: docs/scale/scaling_out.md
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from reproducibility.errors import ExitCode
from reproducibility.machine.child import (
    end_python,
    kill_group,
    python,
    unused_port,
    watch_parent,
    with_package,
)

END_GRACE = 10.0  # seconds
WATCHED = "REPRODUCIBILITY_LAUNCHED"  # set in the processes that are started here
_PRINTING = threading.Lock()  # held for a line, so that lines stay whole

SayLine = Callable[[str], None]


def launch(
    command: Sequence[str],
    processes: int,
    *,
    program: Sequence[str] = (),
    devices: int = 1,
    say: SayLine = print,
    grace: float = END_GRACE,
) -> int:
    """Start the processes of a run here, with their output labelled, and wait for them.

    When one fails or dies, the others are ended. SIGINT and SIGTERM are handed on, so that the run
    ends with a checkpoint; the second time the processes are killed. They also end when this
    process is killed.

    Same bits: as one process, for `train`.

    Args:
        command: what `reproducibility` is to do, without the settings that say which process it
            is: those are added.
        processes: how many.
        program: what to run instead of this package's command line.
        devices: how many GPUs each process takes, if there are any: the next ones of the machine.
        say: called with a sentence on what became of a process.
        grace: seconds in which the others may end by themselves when one has failed.

    Returns:
        The exit code: 0 if all ended with 0, else that of the first that did not; 4 if it was
        killed.
    """
    variables = dict(os.environ) if program else with_package(os.environ)
    program = program or python("-m", "reproducibility")
    coordinator = f"127.0.0.1:{unused_port()}"
    pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    children: list[subprocess.Popen[str]] = []
    printing: list[threading.Thread] = []
    with _handing_on(children):
        try:
            for index in range(processes):
                ids = range(index * devices, (index + 1) * devices)
                chosen = {WATCHED: "1", "JAX_LOCAL_DEVICE_IDS": ",".join(map(str, ids))}
                which = ("--processes", str(processes), "--process-index", str(index))
                children.append(
                    subprocess.Popen(
                        [*program, *command, *which, "--coordinator", coordinator],
                        **pipes,
                        text=True,
                        errors="replace",
                        env=variables | chosen,
                        start_new_session=True,  # Ctrl-C reaches this process alone
                    )
                )
                printing += _print_labelled(index, children[-1])
            return _wait(children, say, grace)
        finally:
            for child in children:
                kill_group(child)
            for thread in printing:
                thread.join()
            for child in children:
                end_python(child)


def end_with_parent() -> None:
    """In a process that `launch` started: end when the one that started it has gone."""
    if os.environ.pop(WATCHED, ""):  # what it starts itself has another parent
        watch_parent()


def _wait(children: Sequence[subprocess.Popen[str]], say: SayLine, grace: float) -> int:
    """Wait for all; when one has failed, for the others no longer than the grace."""
    code, end = 0, float("inf")
    running = dict(enumerate(children))
    while running and time.monotonic() < end:
        time.sleep(0.05)
        for index, child in list(running.items()):
            found = child.poll()
            if found is None:
                continue
            del running[index]
            if found and not code:
                code, end = (found if found > 0 else ExitCode.FAILED), time.monotonic() + grace
            if found < 0:
                say(f"Process {index} was ended by {signal.Signals(-found).name}.")
    for index in running:
        say(f"Process {index} did not end within {grace:g} s of that, and is killed.")
    return code


@contextlib.contextmanager
def _handing_on(children: Sequence[subprocess.Popen[str]]) -> Iterator[None]:
    """Hand Ctrl-C and SIGTERM on: once as a request to save and stop, then as a kill."""
    asked: list[int] = []

    def hand_on(number: int, frame: object) -> None:
        for child in children:
            child.kill() if asked else child.terminate()
        asked.append(number)

    previous = {n: signal.signal(n, hand_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _print_labelled(index: int, child: subprocess.Popen[str]) -> list[threading.Thread]:
    """Print, in threads, the lines of a process with its number before them."""
    streams = ((child.stdout, sys.stdout), (child.stderr, sys.stderr))
    threads = [threading.Thread(target=_label, args=(index, *pair)) for pair in streams]
    for thread in threads:
        thread.start()
    return threads


def _label(index: int, source: IO[str], sink: IO[str]) -> None:
    for line in source:
        with _PRINTING, contextlib.suppress(BrokenPipeError):
            print(f"[{index}] {line.rstrip()}", file=sink, flush=True)
