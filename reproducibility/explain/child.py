"""Processes that compute a stretch of a run again, each in the environment that it is given.

The rule: only what is known is set; a child is asked in lines, and ends with whoever started it.
Chapter: docs/guide/flight_recorder.md

Runs with equal environments are computed one after the other in one child: it imports JAX once, and
compiles once what the runs share.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

from reproducibility.errors import ReplayError
from reproducibility.machine.children import last_words, python, with_package
from reproducibility.machine.environment import (
    KNOWN_FACTS,
    Environment,
    capture_environment,
    facts_of,
    variables_of,
)

type Say = Callable[[str], None]
_RECORDED_FACTS = [name.partition(".") for facts in KNOWN_FACTS.values() for name in facts]
_CACHE = "JAX_COMPILATION_CACHE_DIR"  # changes no bit, and saves time
# The variables through which an environment is chosen.
_CHOSEN = {
    *("XLA_FLAGS", "NPROC"),
    *(name for group, _, name in _RECORDED_FACTS if group == "env"),
    *(name.upper() for group, _, name in _RECORDED_FACTS if group == "config"),
}


def serve() -> None:
    """Do in a child process what it is asked for, a task a line of stdin, until that ends.

    Same bits: as `work` of each task's module; no task leaves anything for the next but what is
    compiled.
    """
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen_to_parent, args=(asked,), daemon=True).start()
    while True:
        module, path, task = json.loads(asked.get())
        answer_task(importlib.import_module(module).work, path, task)
        print(f"\n{path}", flush=True)


def answer_task(
    do: Callable[[dict[str, Any]], dict[str, Any]], path: str, task: dict[str, Any]
) -> None:
    """Do one task, and leave what came of it in a file. Same bits: as `do`.

    Args:
        do: what to do.
        path: where its answer goes.
        task: what it takes, JSON values.
    """
    found = do(task)
    facts = facts_of({**found, "environment": capture_environment()})
    Path(path).write_text(json.dumps({**found, "environment": facts}))


class _Child:
    """A process in one environment, which does one task at a time; it starts with the first."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables, self._turn, self._guard = variables, threading.Lock(), threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory()
        self._errors = Path(self._folder.name, "errors")
        self._count, self._ended = 0, False

    def do(self, module: str, task: Mapping[str, Any], progress: Say | None) -> dict[str, Any]:
        with self._turn:
            found = self._ask(module, task, progress) if self._process else None
            if found is None:  # what an earlier task did to the process must not be this one's fate
                self._start()
                found = self._ask(module, task, progress)
            if found is None:
                raise self._failure(task)
            return found

    def end(self) -> None:
        with self._guard:
            self._ended = True
            if self._process:
                self._process.kill()

    def close(self) -> None:
        self.end()
        self._reap()
        self._folder.cleanup()

    def _start(self) -> None:
        self._reap()
        command = python("-c", f"from {__name__} import serve; serve()")
        with self._guard, open(self._errors, "wb") as errors:
            self._process = subprocess.Popen(
                command,
                env=self._variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            if self._ended:  # while it was being started
                self._process.kill()

    def _ask(
        self, module: str, task: Mapping[str, Any], progress: Say | None
    ) -> dict[str, Any] | None:
        """Have a task done; None if the process ends before it says that it is."""
        process: Any = self._process
        self._count += 1
        path = Path(self._folder.name, f"{self._count}.json")
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps([module, str(path), task]) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            if str(path) in line:
                found: dict[str, Any] = json.loads(path.read_text())
                return found
            if progress and line.strip():
                progress(f"{task['run']}: {line.rstrip()}")
        process.wait()
        return None

    def _reap(self) -> None:
        if self._process:
            self._process.kill()
            with suppress(BrokenPipeError), self._process:
                pass

    def _failure(self, task: Mapping[str, Any]) -> ReplayError:
        code = self._process.returncode if self._process else None
        said = last_words(self._errors.read_text(errors="replace"))
        return ReplayError(
            "compute",
            "a step again",
            path=task["run"],
            step=task["end"],
            expected="a process in the recorded environment to do it",
            got=f"exit code {code} and {said}",
            do="See which recorded setting this machine does not know.",
        )


class _Children:
    """The processes that one call of `side_by_side` has at work; of other calls it knows none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[str, _Child] = {}
        self._ambient = dict(os.environ)  # as it is now: JAX sets some when it is imported
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for child in self._children.values():
            child.close()

    def of(self, environment: Environment) -> _Child:
        """Return the process with an environment; two that ask for the same variables share it."""
        variables = _variables_for(environment, self._ambient)
        with self._lock:
            name = json.dumps(variables, sort_keys=True)
            if name not in self._children:
                self._children[name] = _Child(variables)
            if self._ended:
                self._children[name].end()
            return self._children[name]

    def end(self) -> None:
        with self._lock:
            self._ended = True
            for child in self._children.values():
                child.end()


# The children of the call that this thread works for; a thread on its own has its own.
_OWN: ContextVar[_Children] = ContextVar("_OWN")


def side_by_side[T, R](
    do: Callable[[T], R], items: Sequence[T], *, load: str | None = None
) -> list[R]:
    """Do something with each of a few items at a time; if one fails, end what the others started.

    Only that: what another thread computes again at the same time goes on.

    Args:
        do: what to do.
        items: with what.
        load: a module to import meanwhile, while this process waits.

    Returns:
        What it returned, in the order of the items.
    """
    with (
        _Children() as children,
        ThreadPoolExecutor(
            max(1, len(items)), initializer=_OWN.set, initargs=(children,)
        ) as threads,
    ):
        try:
            # After `_Children`, which looks at the variables: JAX sets some when it is imported.
            if load:
                threading.Thread(target=importlib.import_module, args=(load,), daemon=True).start()
            futures = [threads.submit(do, item) for item in items]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()  # raises what went wrong, if something did
            return [future.result() for future in futures]
        except BaseException:  # Ctrl-C reaches this thread, not those that wait
            children.end()
            raise


def _listen_to_parent(asked: queue.SimpleQueue[str]) -> None:
    """Hand on what comes; end this process when the one that started it has gone, however."""
    for line in sys.stdin:
        asked.put(line)
    os._exit(1)


def in_environment(
    environment: Environment, module: str, task: Mapping[str, Any], progress: Say | None
) -> dict[str, Any]:
    """Run `work` of a module in a process with another environment."""
    children = _OWN.get(None)
    if children:
        return children.of(environment).do(module, task, progress)
    with _Children() as own:
        return own.of(environment).do(module, task, progress)


def _variables_for(environment: Environment, ambient: Mapping[str, str]) -> dict[str, str]:
    """Return the ambient variables, those that matter as an environment has them."""

    def stays(name: str) -> bool:
        unknown = name.startswith("JAX_") and not environment.get(f"env.{name}")
        return name == _CACHE or not (name in _CHOSEN or unknown)

    kept = {name: value for name, value in ambient.items() if stays(name)}
    return with_package({**kept, **variables_of(environment)})
