"""Promises of `reproducibility.exercise.runner`: a program is new for each task."""

import os
from pathlib import Path
from typing import Any

import pytest

from reproducibility.exercise.answers import from_answer, to_answer
from reproducibility.exercise.runner import run_program


def run(program: str, *calls: tuple[Any, ...], **options: Any) -> tuple[list[Any], str]:
    """Run calls of a program in this process."""
    task = {"program": program, "name": "p.py", "backwards": False, "hidden": {}} | options
    task["calls"] = [[name, [to_answer(each) for each in given]] for name, *given in calls]
    found = run_program(task)
    return [from_answer(answer) for answer in found["answers"]], found["error"]


def test_each_task_imports_anew() -> None:
    """What a program keeps in a variable or a file is there within a task, and not after."""
    program = """
import pathlib
count = 0
def call(step):
    global count
    count += step
    with open("kept", "a") as file:
        file.write("x")
    return count, pathlib.Path("kept").read_text()
"""
    assert run(program, ("call", 2), ("call", 3)) == ([[2, "x"], [5, "xx"]], "")
    assert run(program, ("call", 1)) == ([[1, "x"]], "")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys\nsys.exit(0)", "SystemExit in line 2: 0"),
        ("def call():\n    raise KeyboardInterrupt", "KeyboardInterrupt in line 2"),
        ("def call(:", "SyntaxError in line 1: "),
        ("def cal():\n    pass", "AttributeError: the program has no function call"),
        ("def call():\n    return object()", "TypeError: it returned a object"),
        ("def call(a):\n    pass", "TypeError: call() missing 1 required"),
    ],
)
def test_what_it_raises_is_an_answer(program: str, said: str) -> None:
    """A program that ends, fails or lacks its function is said with its line."""
    answers, error = run(program, ("call",))
    assert answers == []
    assert error.startswith(said)


def test_folders_are_listed_in_both_orders(tmp_path: Path) -> None:
    """The order of a listing is chosen, in each of the ways to list, and restored."""
    for name in "bac":
        (tmp_path / name).touch()
    program = """
import os, pathlib
def call(folder):
    path = pathlib.Path(folder)
    return os.listdir(folder), [p.name for p in path.iterdir()], [p.name for p in path.glob("*")]
"""
    before = os.listdir, Path.glob, Path.iterdir
    for backwards in (False, True):
        [listed], _ = run(program, ("call", str(tmp_path)), backwards=backwards)
        assert listed == [sorted("abc", reverse=backwards)] * 3
    assert (os.listdir, Path.glob, Path.iterdir) == before


def test_a_hidden_function_is_handed_over() -> None:
    """A call may be given a function of the judge's own, by its name."""
    hidden = {"twice": "def twice(x):\n    return 2 * x"}
    assert run("def call(f): return f(4)", ("call", "twice"), hidden=hidden) == ([8], "")
