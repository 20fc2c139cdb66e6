"""Runs the reader's program in a process of its own, and hands back what its functions return.

The rule: the program is imported for each task as if it were new, in an empty folder; whatever it
raises is an answer as well.
Chapter: docs/guide/exercises.md
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import tempfile
import traceback
import types
from collections.abc import Iterator
from typing import Any

from reproducibility.exercise.answers import from_answer, to_answer

_MODULE = "exercise_program"


def run_program(task: dict[str, Any]) -> dict[str, Any]:
    """Import a program and call functions of it, in order.

    **Same bits:** as the program's.

    Args:
        task: `program`, its text; `name`, that of its file; `calls`, a list of a function's name
            and its arguments; `hidden`, sources of functions that calls hand over; `backwards`,
            whether folders are listed in reversed order.

    Returns:
        `answers`, one a call; and `error`, a sentence or an empty text.
    """
    answers: list[Any] = []
    try:
        with _empty_folder(), _listing(backwards=task["backwards"]):
            module = _imported(task["program"], task["name"])
            for name, arguments in task["calls"]:
                given = [_argument(from_answer(each), task["hidden"]) for each in arguments]
                if not callable(getattr(module, name, None)):
                    raise AttributeError(f"the program has no function {name}")
                answers.append(to_answer(getattr(module, name)(*given)))
    except BaseException as error:  # SystemExit and KeyboardInterrupt are the program's, too
        return {"answers": answers, "error": _sentence(error, task["name"])}
    return {"answers": answers, "error": ""}


def _argument(value: Any, hidden: dict[str, str]) -> Any:
    """Return an argument; a function that the judge brings stands there by its name."""
    if isinstance(value, str) and value in hidden:
        names: dict[str, Any] = {}
        exec(hidden[value], names)
        return names[value]
    return value


def _imported(program: str, file: str) -> types.ModuleType:
    """Import a program as a module that nothing has imported before."""
    path = pathlib.Path(file).resolve()
    path.write_text(program, "utf-8")
    module = types.ModuleType(_MODULE)
    module.__file__ = str(path)
    sys.modules[_MODULE] = module
    exec(compile(program, file, "exec"), module.__dict__)
    return module


@contextlib.contextmanager
def _empty_folder() -> Iterator[None]:
    """Work in a folder in which nothing was left."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


@contextlib.contextmanager
def _listing(*, backwards: bool) -> Iterator[None]:
    """List folders in one order or its reverse: a file system promises neither."""
    listed = os.listdir

    def listdir(path: Any = ".") -> list[Any]:
        return sorted(listed(path), reverse=backwards)

    def iterdir(self: pathlib.Path) -> Iterator[pathlib.Path]:
        return (self / name for name in listdir(self))

    def globbed(self: pathlib.Path, pattern: str, **options: Any) -> Iterator[pathlib.Path]:
        found = globbing(self, pattern, **options)
        return iter(sorted(found, reverse=backwards))

    globbing, iterating = pathlib.Path.glob, pathlib.Path.iterdir
    patched: Any = pathlib.Path
    os.listdir = listdir
    patched.iterdir, patched.glob = iterdir, globbed
    try:
        yield
    finally:
        os.listdir = listed
        patched.iterdir, patched.glob = iterating, globbing


def _sentence(error: BaseException, file: str) -> str:
    """Say what a program raised, and in which of its lines."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    line = frames[-1].lineno if frames else getattr(error, "lineno", None)
    where = f" in line {line}" if line else ""
    said = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}{where}: {said}".rstrip(": ")
