"""A function of a file is called in a fresh process, which hands back digests.

The rule: the fresh process has this Python and its environment variables, and nothing that this
process has set up; a function that no other process can find is refused before it is called.
Chapter: docs/guide/testing_your_code.md
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax  # noqa: F401, for a part of it alone would not wait for a thread that imports it
from jaxtyping import PyTree

from reproducibility.machine.child import end_python, start_python
from reproducibility.machine.environment import capture_environment
from reproducibility.same.leaves import PathEntry
from reproducibility.testing.equal import Record, tree_record

# Set in the processes that are started here, so that they start none themselves.
TESTING_CHILD = "REPRODUCIBILITYTESTING_CHILD"
_PROGRAM = """
import json, sys
*task, sys.path[:] = json.loads(sys.argv[1])
from reproducibility.testing.fresh import answer_parent
answer_parent(*task)
"""


def importable(fn: Callable[[], PyTree]) -> tuple[str, str, str]:
    """Return how another process imports a function: module, file and name."""
    module: Any = sys.modules.get(getattr(fn, "__module__", None) or "")
    name = getattr(fn, "__qualname__", repr(fn))
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


def records_of_a_fresh_process(
    where: tuple[str, str, str], timeout: float
) -> tuple[Record, dict[str, Any]]:
    """Return what a function returns in a fresh process, as digests, and that environment."""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    variables = {**os.environ, "PYTHONHASHSEED": seed, TESTING_CHILD: "1"}
    failed = "Not reproducible in a fresh process: it"
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        task = json.dumps([*where, str(answer), [str(entry) for entry in sys.path]])
        process = start_python(_PROGRAM, task, variables=variables)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{failed} was killed after {timeout} seconds.") from None
        finally:
            end_python(process)
        if code or not answer.exists():
            raise AssertionError(f"{failed} ended with exit code {code}; its output says why.")
        leaves, environment = json.loads(answer.read_text())
    return {
        tuple(PathEntry(*e) for e in path): (kind, sha) for path, kind, sha in leaves
    }, environment


def answer_parent(module: str, file: str, function: str, answer: str) -> None:
    """Do in the fresh process what it was started for."""
    record = tree_record(load_file(module, file)[function]())
    leaves = [(path, *facts) for path, facts in record.items()]
    Path(answer).write_text(json.dumps([leaves, capture_environment()]))


def load_file(name: str, file: str) -> dict[str, Any]:
    """Return what stands at module level of a file."""
    # By name where that leads to this file, so that relative imports work. The folder where the
    # name begins may not be in sys.path: pytest imports tests without it.
    sys.path += map(str, list(Path(file).parents)[name.count(".") :][:1])
    with suppress(ImportError):
        if getattr(importlib.import_module(name), "__file__", None) == file:
            return vars(sys.modules[name])
    return runpy.run_path(file, run_name=name)
