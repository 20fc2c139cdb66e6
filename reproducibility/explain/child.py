"""Processes that compute a stretch of a run again, each in the environment that it is given.

The rule: only what is known is set, and what fails on one side ends the other.
Chapter: docs/guide/flight_recorder.md

Runs with equal environments are computed one after the other in one child: it imports JAX once, and
compiles once what the runs share. Which processes those are is a context variable of the thread,
since `in_environment` is called deep inside of what `side_by_side` does.
"""

from __future__ import annotations

import importlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import ContextVar
from typing import Any, Self

from reproducibility.errors import ReplayError
from reproducibility.machine.child import Worker
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


def compute_task(request: Mapping[str, Any]) -> dict[str, Any]:
    """Do in a child what it is asked for, and say in which environment. Same bits: as `work`.

    Args:
        request: the "module" whose function `work` does it, and the "task" that this takes.
    """
    found = importlib.import_module(request["module"]).work(request["task"])
    return {**found, "environment": facts_of({**found, "environment": capture_environment()})}


class _Children:
    """The processes that one call of `side_by_side` has at work; of other calls it knows none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[str, Worker] = {}
        self._ambient = dict(os.environ)  # as it is now: JAX sets some when it is imported
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for child in self._children.values():
            child.close()

    def of(self, environment: Environment) -> Worker:
        """Return the process with an environment; two that ask for the same variables share it."""
        variables = _variables_for(environment, self._ambient)
        with self._lock:
            name = json.dumps(variables, sort_keys=True)
            if name not in self._children:
                self._children[name] = Worker(variables)
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


def in_environment(
    environment: Environment, module: str, task: Mapping[str, Any], progress: Say | None
) -> dict[str, Any]:
    """Run `work` of a module in a process with another environment."""
    children = _OWN.get(None)
    if children:
        return _computed_by(children.of(environment), module, task, progress)
    with _Children() as own:
        return _computed_by(own.of(environment), module, task, progress)


def _computed_by(
    child: Worker, module: str, task: Mapping[str, Any], progress: Say | None
) -> dict[str, Any]:
    def hear(line: str) -> None:
        if progress:
            progress(f"{task['run']}: {line}")

    found, died_of = child.do(f"{__name__}:compute_task", {"module": module, "task": task}, hear)
    if found is None:
        raise ReplayError(
            "compute",
            "a step again",
            path=task["run"],
            step=task["end"],
            expected="a process in the recorded environment to do it",
            got=died_of,
            do="See which recorded setting this machine does not know.",
        )
    return found


def _variables_for(environment: Environment, ambient: Mapping[str, str]) -> dict[str, str]:
    """Return the ambient variables, those that matter as an environment has them."""

    def stays(name: str) -> bool:
        unknown = name.startswith("JAX_") and not environment.get(f"env.{name}")
        return name == _CACHE or not (name in _CHOSEN or unknown)

    kept = {name: value for name, value in ambient.items() if stays(name)}
    return {**kept, **variables_of(environment)}
