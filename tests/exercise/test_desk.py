"""Promises of `reproducibility.exercise.desk` and of its command: nothing is lost."""

import json
from pathlib import Path

import pytest

from reproducibility.exercise.texts import all_exercises
from tests.calling import Call, one_sentence
from tests.cli.conftest import call

__all__ = ["call"]
FIRST = next(iter(all_exercises().values()))


def test_an_exercise_from_start_to_solved(call: Call) -> None:
    """`start next`, `check`, `hint` step by step, the repair, `check`, `list`, `solution`."""
    code, out, err = call("exercise", "start", "next")
    assert (code, err) == (0, "")
    assert f"exercises/{FIRST.name}.py: {FIRST.title}" in out
    path = Path("exercises", f"{FIRST.name}.py")
    assert path.read_text() == FIRST.program
    code, out, err = call("exercise", "check")
    assert code == 1
    assert "wrong  " in out
    assert one_sentence(err).startswith("Not solved yet.")
    for count in (1, 2, 3, 3):
        _, out, _ = call("exercise", "hint", FIRST.name)
        assert out.splitlines()[-1].startswith(f"{count} of 3: ")
    code, _, err = call("exercise", "solution")
    assert code == 2
    assert "--show" in one_sentence(err)
    assert call("exercise", "solution", "--show")[:2] == (0, FIRST.changed_lines + "\n")
    path.write_text(FIRST.solution)
    code, out, err = call("exercise", "check")
    assert (code, err) == (0, "")
    assert f"solved: {FIRST.name}. Next: reproducibility exercise start next\n" in out
    assert "wrong" not in out
    rows = json.loads(call("exercise", "list", "--json")[1])
    assert [row["state"] for row in rows[:2]] == ["solved", ""]
    assert f"1 of {len(all_exercises())} solved" in call("exercise", "list")[1]
    assert call("exercise", "solution")[0] == 0


def test_changed_work_is_not_overwritten(call: Call) -> None:
    """`start` refuses a program that was changed; with --again it is kept under a new name."""
    call("exercise", "start", "keys_1")
    path = Path("exercises/keys_1.py")
    assert call("exercise", "start", "keys_1")[0] == 0
    for number in (1, 2):
        path.write_text(f"mine {number}")
        code, _, err = call("exercise", "start", "keys_1")
        assert code == 2
        assert "got one that was changed" in one_sentence(err)
        assert path.read_text() == f"mine {number}"
        code, _, err = call("exercise", "start", "keys_1", "--again")
        assert code == 0
        assert one_sentence(err) == f"Your program is kept as exercises/keys_1.{number}.py."
        assert Path(f"exercises/keys_1.{number}.py").read_text() == f"mine {number}"
    assert path.read_text() == all_exercises()["keys_1"].program


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["start", "key_1"], "expected a name such as keys_1"),
        (["check"], "expected a name, or one that was started"),
        (["check", "keys_1"], "got no such file"),
        (["check", "keys_1", "--dir", "file"], "expected a directory, got a file"),
        (["list", "--dir", "torn"], "got something else"),
        (["repair"], "Cannot read the command line"),
        ([], "Cannot read the command line"),
    ],
)
def test_wrong_input_gets_one_sentence(words: list[str], said: str, call: Call) -> None:
    """A mistyped name, a missing program, a file for a directory, a progress file that is torn."""
    Path("file").touch()
    Path("torn").mkdir()
    Path("torn/progress.json").write_text('{"format": 1, "exerc')
    code, out, err = call("exercise", *words)
    assert code in (1, 2)
    assert out == ""
    assert said in one_sentence(err)
