"""Promises of `reproducibility.exercise.texts`: each exercise is whole, and in its place."""

import subprocess
import sys
from pathlib import Path

import pytest

from reproducibility.errors import ConfigError
from reproducibility.exercise.texts import all_exercises, edited_program, named_exercise

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "reproducibility/exercise/programs"


def test_each_exercise_is_whole() -> None:
    """Each has a title, what is observed and what is right, hints in steps, and a chapter; its
    program has 10 to 60 lines, and each program belongs to an exercise."""
    for exercise in all_exercises().values():
        assert exercise.title, exercise.name
        assert "Observed: " in exercise.observed, exercise.name
        assert "Right: " in exercise.observed, exercise.name
        assert 10 <= len(exercise.program.splitlines()) <= 60, exercise.name
        assert len(exercise.hints) >= 3, exercise.name
        assert (ROOT / "docs" / exercise.chapter).is_file(), exercise.name
        assert exercise.changed_lines.count("\n") < 40, exercise.name
    assert sorted(path.stem for path in PROGRAMS.glob("*.py")) == sorted(all_exercises())


def test_the_solutions_are_formatted() -> None:
    """A solution is written as the program is, so that the lines that change are its lines."""
    for exercise in all_exercises().values():
        longest = max(map(len, exercise.solution.splitlines()))
        assert longest <= 100, exercise.name
        compile(exercise.solution, exercise.name, "exec")


def test_a_name_that_no_exercise_has() -> None:
    """A name that was mistyped is refused with the one that is meant."""
    with pytest.raises(ConfigError, match="expected a name such as keys_1"):
        named_exercise("key_1")


def test_an_edit_meets_one_place() -> None:
    """A text that the program does not have, or has twice, is no edit."""
    assert edited_program("a b", (("a", "c"),)) == "c b"
    for program in ("b", "a a"):
        with pytest.raises(ValueError, match="expected once"):
            edited_program(program, (("a", "c"),))


def test_reading_them_loads_no_jax() -> None:
    """`list`, `start`, `hint` and `solution` answer at once: they load neither JAX nor NumPy."""
    code = """
import sys
from reproducibility.exercise import desk, texts
assert texts.all_exercises()
print(sorted({"jax", "numpy", "tyro"} & {*sys.modules}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
