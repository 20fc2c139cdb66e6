"""Fresh processes of Python: how one is started, watched, asked and ended.

The rule: it imports the package of this process, and nothing from the directory that one happens to
be in. It ends with the process that started it, however that ends, and what it died of is said.
Chapter: docs/guide/using_the_project.md
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reproducibility.errors import ExitCode

_PACKAGE = Path(__file__).parents[2]
_WATCHED = f"from {__name__} import watch_parent; watch_parent()\n"
_SERVING = f"from {__name__} import serve_tasks; serve_tasks()"


def python(*arguments: str) -> list[str]:
    """Return the command of a fresh Python, which does not look into its directory for modules.

    Args:
        arguments: those of Python, as in `"-m", "module"`.
    """
    return [sys.executable, "-P", *arguments]


def with_package(variables: Mapping[str, str]) -> dict[str, str]:
    """Add to environment variables where this package is, before all other places.

    Args:
        variables: by name.
    """
    paths = [str(_PACKAGE), *filter(None, [variables.get("PYTHONPATH")])]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths)}


def start_python(
    program: str, *arguments: str, variables: Mapping[str, str], **outputs: Any
) -> subprocess.Popen[str]:
    """Start a program in a fresh Python, which ends when this process does; see `end_python`.

    It is in a session of its own, so that Ctrl-C reaches this process alone, and its stdin is
    empty.

    Args:
        program: its text.
        arguments: what it finds in `sys.argv[1:]`.
        variables: its environment.
        outputs: `stdout` and `stderr` as for `subprocess.Popen`; by default those of this process.
    """
    return _start(_WATCHED + program, *arguments, variables=variables, **outputs)


def _start(
    program: str, *arguments: str, variables: Mapping[str, str], **outputs: Any
) -> subprocess.Popen[str]:
    process: subprocess.Popen[str] = subprocess.Popen(
        python("-c", program, *arguments),
        env=with_package(variables),
        stdin=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        **outputs,
    )
    return process


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process that leads a session, and all that it has started.

    Args:
        process: from `start_python`, or started with `start_new_session`.
    """
    # SIGKILL: jax.distributed ignores SIGTERM. On macOS a group of zombies may not be signalled.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def end_python(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it has started, wait for it, and close its pipes.

    Args:
        process: as for `kill_group`.
    """
    kill_group(process)
    with contextlib.suppress(BrokenPipeError), process:
        pass


def watch_parent(hear: Callable[[str], object] | None = None) -> None:
    """End this process, from now on, when the one that started it has gone.

    That one holds the other end of stdin. The system closes it, however that process ends.

    Args:
        hear: called in a thread with each line that comes through stdin.
    """
    lines = os.fdopen(os.dup(0))
    with open(os.devnull) as nothing:  # for whatever else reads stdin here
        os.dup2(nothing.fileno(), 0)

    def watch() -> None:
        for line in lines:
            if hear:
                hear(line)
        os._exit(ExitCode.FAILED)  # the main thread may be at work, and nobody waits for it

    threading.Thread(target=watch, daemon=True, name="parent").start()


def last_words(errors: str) -> str:
    """Pick what a process died of: the exception, or else the first thing that XLA complained.

    Same bits: everywhere.

    Args:
        errors: what it wrote to stderr.
    """
    lines = errors.strip().splitlines()
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
    line = (raised[-1:] or lines[:1] or ["nothing"])[0]
    return repr(re.sub(r"^[EFIW]\d{4} [^]]*\] ", "", line)[:300])


def unused_port() -> int:
    """Return a port of this machine at which nobody listens, for processes to find each other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def serve_tasks() -> None:
    """Do in a fresh Python what a `Worker` asks for, a task a line of stdin, until that ends.

    Same bits: as each task's function; no task leaves anything for the next but what is compiled.
    """
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()
    watch_parent(asked.put)
    while True:
        function, path, task = json.loads(asked.get())
        module, _, name = function.partition(":")
        answer = getattr(importlib.import_module(module), name)(task)
        Path(path).write_text(json.dumps(answer))
        print(f"\n{path}", flush=True)


class Worker:
    """A fresh Python that does one task at a time; it starts with the first.

    Same bits: as the functions that it calls, in its environment.

    Args:
        variables: its environment.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables, self._turn, self._guard = variables, threading.Lock(), threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory()
        self._errors = Path(self._folder.name, "errors")
        self._count, self._ended = 0, False

    def do(
        self, function: str, task: Mapping[str, Any], hear: Callable[[str], object]
    ) -> tuple[dict[str, Any] | None, str]:
        """Have a task done; any thread may ask, and each is answered in turn.

        Args:
            function: what does it, "module:function".
            task: what that takes, JSON values.
            hear: called with each line that it prints meanwhile.

        Returns:
            What the function returned; or None, and what the process died of.
        """
        with self._turn:
            found = self._ask(function, task, hear) if self._process else None
            if found is None:  # what an earlier task did to the process must not be this one's fate
                self._restart()
                found = self._ask(function, task, hear)
            return found, "" if found is not None else self._died_of()

    def end(self) -> None:
        """Kill the process, now or as soon as it is started; whoever waits for it is told."""
        with self._guard:
            self._ended = True
            if self._process:
                kill_group(self._process)

    def close(self) -> None:
        """End the process, and remove what it left."""
        self.end()
        if self._process:
            end_python(self._process)
        self._folder.cleanup()

    def _restart(self) -> None:
        if self._process:
            end_python(self._process)
        with self._guard, open(self._errors, "wb") as errors:
            self._process = _start(
                _SERVING, variables=self._variables, stdout=subprocess.PIPE, stderr=errors
            )
            if self._ended:  # while it was being started
                kill_group(self._process)

    def _ask(
        self, function: str, task: Mapping[str, Any], hear: Callable[[str], object]
    ) -> dict[str, Any] | None:
        """Have a task done; None if the process ends before it says that it is."""
        process: Any = self._process
        self._count += 1
        path = Path(self._folder.name, f"{self._count}.json")
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps([function, str(path), task]) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            if str(path) in line:
                found: dict[str, Any] = json.loads(path.read_text())
                return found
            if line.strip():
                hear(line.rstrip())
        process.wait()
        return None

    def _died_of(self) -> str:
        code = self._process.returncode if self._process else None
        return f"exit code {code} and {last_words(self._errors.read_text(errors='replace'))}"
