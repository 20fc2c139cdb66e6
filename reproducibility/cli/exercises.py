"""The command that gives exercises and judges what becomes of them.

The rule: nothing that the reader wrote is overwritten; a solution is shown only when asked for.
Chapter: docs/guide/exercises.md
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from reproducibility.cli.parse import named, placed
from reproducibility.cli.terminal import print_exercises, print_judgement, say_on_stderr
from reproducibility.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from reproducibility.exercise.desk import Desk


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExerciseCommand:
    """Practise: small programs that do not repeat, for you to repair, and a judge for each.

    `list` shows all exercises and which are solved, `start` puts the program of one into your
    directory, `check` runs it and says what is right, `hint` gives one more hint with each call,
    `solution` shows the lines that change. Without a name, the exercise that was started last is
    meant; `start` then takes the next one that is not solved.

    Exit code: 0 solved or done, 1 not solved yet, 2 refused, 3 a library is missing.

    Example: reproducibility exercise start next
    """

    action: Literal["list", "start", "check", "hint", "solution"]
    """What to do."""
    name: Annotated[str, placed()] = ""
    """The name of an exercise, such as keys_1, or next."""
    dir: Annotated[Path, named("dir", "DIR")] = Path("exercises")
    """Your directory, which is made if it is not there."""
    again: bool = False
    """Start from the given program again; yours is kept under a new name."""
    show: bool = False
    """Show the solution of an exercise that is not solved."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> int:
        """Do what the action says."""
        from reproducibility.exercise.desk import Desk

        desk = Desk(self.dir)
        actions = {"start": self._start, "check": self._check, "hint": self._hint}
        actions |= {"solution": self._solution, "list": self._list}
        return actions[self.action](desk)

    def _list(self, desk: Desk) -> int:
        from reproducibility.exercise.texts import all_exercises

        rows = [(e.name, desk.state(e.name), e.title, e.chapter) for e in all_exercises().values()]
        if self.json:
            names = ("name", "state", "title", "chapter")
            print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1))
        else:
            print_exercises(rows, desk.solved())
        return ExitCode.SAME

    def _start(self, desk: Desk) -> int:
        from reproducibility.exercise.texts import named_exercise

        exercise = desk.next() if self.name in ("", "next") else named_exercise(self.name)
        if exercise is None:
            print("All exercises are solved.")
            return ExitCode.SAME
        path, aside = desk.put(exercise, again=self.again)
        if aside:
            say_on_stderr(f"Your program is kept as {aside}.")
        print(f"{path}: {exercise.title}\n\n{exercise.observed}\n")
        print(f"The chapter: docs/{exercise.chapter}")
        print(f"Change the program, then: {self._again('check', exercise.name)}")
        return ExitCode.SAME

    def _again(self, action: str, name: str) -> str:
        """Return the command for something else in this directory."""
        place = "" if self.dir == Path("exercises") else f" --dir {self.dir}"
        return f"reproducibility exercise {action} {name}{place}".replace("  ", " ")

    def _check(self, desk: Desk) -> int:
        from reproducibility.exercise.bench import Places
        from reproducibility.exercise.verdict import judge_program

        exercise = desk.chosen(self.name)
        program, places = desk.program(exercise), Places()
        try:
            found = judge_program(exercise, program, places, secrets.randbits(32))
        finally:
            places.close()
        if found.solved:
            desk.note_solved(exercise)
        if self.json:
            print(json.dumps(found.to_json(), indent=1))
        else:
            print_judgement(found)
        if found.missing:
            say_on_stderr(f"Cannot check {exercise.name}: it needs {found.missing}. Install it.")
        elif not found.solved:
            say_on_stderr(f"Not solved yet. For a hint: {self._again('hint', exercise.name)}")
        elif not self.json:
            print(f"solved: {exercise.name}. Next: {self._again('start', 'next')}")
        return found.exit_code

    def _hint(self, desk: Desk) -> int:
        exercise = desk.chosen(self.name)
        hints = desk.hints(exercise)
        if self.json:
            print(json.dumps({"name": exercise.name, "hints": hints}, indent=1))
            return ExitCode.SAME
        for number, hint in enumerate(hints, 1):
            print(f"{number} of {len(exercise.hints)}: {hint}")
        return ExitCode.SAME

    def _solution(self, desk: Desk) -> int:
        exercise = desk.chosen(self.name)
        if not self.show and desk.state(exercise.name) != "solved":
            raise ConfigError(
                "show",
                f"the solution of {exercise.name}",
                expected="a solved exercise, or --show",
                got="neither",
                do=f"Try a hint first: {self._again('hint', exercise.name)}.",
            )
        print(exercise.changed_lines)
        return ExitCode.SAME
