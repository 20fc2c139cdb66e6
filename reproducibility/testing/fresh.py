"""A function of a file is called in a fresh process, which hands back digests.

The rule: the fresh process has this Python and its environment variables, and nothing that this
process has set up; a function that no other process can find is refused before it is called.
Chapter: docs/guide/testing_your_code.md
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax  # noqa: F401, for a part of it alone would not wait for a thread that imports it
from jaxtyping import PyTree

from reproducibility.errors import ReproducibilityError
from reproducibility.machine.child import end_python, start_python

# Set in the processes that are started here, so that they start none themselves.
TESTING_CHILD = "REPRODUCIBILITY_TESTING_CHILD"
_PROGRAM = """
import json, sys
answer, job, task, sys.path[:] = json.loads(sys.argv[1])
from reproducibility.testing.fresh import answer_parent
answer_parent(answer, job, task)
"""
type Where = Sequence[str]  # how another process finds a function: module, file and name


def importable(fn: Callable[..., PyTree]) -> Where:
    """Return how another process imports a function: module, file and name."""
    module: Any = sys.modules.get(getattr(fn, "__module__", None) or "")
    name = getattr(fn, "__qualname__", f"a {type(fn).__name__}")
    file = Path(getattr(module, "__file__", None) or "")
    found = getattr(module, name, None) is fn and file.suffix == ".py" and file.is_file()
    if not found or TESTING_CHILD in os.environ:
        got = "a test while that file is imported" if found else "one that no import finds"
        raise ValueError(
            f"Cannot call {name} in a fresh process: expected a function at module level of a "
            f"file, got {got}. Define it with def in a file, and test it in a test function."
        )
    spec = module.__spec__  # of a script there is none; with python -m it knows the name
    return spec.name if spec else file.stem, str(file.absolute()), name


class Asked(NamedTuple):
    """A fresh process that was asked for something."""

    process: subprocess.Popen[str]
    answer: Path
    what: str  # how the sentence begins if it fails


@contextmanager
def asking_fresh_process(what: str, job: str, *task: Any, salt: int = 1) -> Iterator[Asked]:
    """Start a process that does a job, and kill it in the end.

    Args:
        what: how the sentence begins if it fails.
        job: "module:function", a function that returns JSON values.
        task: what that takes, JSON values.
        salt: for `PYTHONHASHSEED`: one process has another than the next, and than this one.
    """
    salt += int(os.environ.get("PYTHONHASHSEED") == str(salt)) * 10
    variables = {**os.environ, "PYTHONHASHSEED": str(salt), TESTING_CHILD: "1"}
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        message = json.dumps([str(answer), job, task, [str(entry) for entry in sys.path]])
        process = start_python(_PROGRAM, message, variables=variables)
        try:
            yield Asked(process, answer, what)
        finally:
            end_python(process)


def answer_of(asked: Asked, timeout: float) -> Any:
    """Return what a process answers; fail if it does not.

    Raises:
        AssertionError: it took too long, failed, or was refused something by this package.
    """
    try:
        code = asked.process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{asked.what}: it was killed after {timeout} seconds.") from None
    if code or not asked.answer.exists():
        said = f"{asked.what}: it ended with exit code {code}; its output says why."
        raise AssertionError(said)
    found = json.loads(asked.answer.read_text())
    if "refused" in found:
        raise AssertionError(f"{asked.what}: {found['refused']}")
    return found["answer"]


def answer_parent(answer: str, job: str, task: list[Any]) -> None:
    """Do in the fresh process what it was started for."""
    module, _, name = job.partition(":")
    try:
        found = {"answer": getattr(importlib.import_module(module), name)(*task)}
    except ReproducibilityError as error:
        found = {"refused": str(error)}
    Path(answer).write_text(json.dumps(found))


def find_function(where: Where) -> Callable[..., Any]:
    """Return the function that `importable` found in the process that asks."""
    module, file, name = where
    found: Callable[..., Any] = load_file(module, file)[name]
    return found


@functools.cache
def load_file(name: str, file: str) -> dict[str, Any]:
    """Return what stands at module level of a file."""
    # By name where that leads to this file, so that relative imports work. The folder where the
    # name begins may not be in sys.path: pytest imports tests without it.
    sys.path += map(str, list(Path(file).parents)[name.count(".") :][:1])
    with suppress(ImportError):
        if getattr(importlib.import_module(name), "__file__", None) == file:
            return vars(sys.modules[name])
    return runpy.run_path(file, run_name=name)
