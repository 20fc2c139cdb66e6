"""What exercises there are, in the order of the chapters: program, hints and solution of each.

The rule: a program says in its own docstring what is observed; the solution is what changes in it.
Chapter: docs/guide/exercises.md
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import tomllib
from pathlib import Path
from typing import Any

from reproducibility.errors import ConfigError

_PROGRAMS = Path(__file__).with_name("programs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exercise:
    """A small program that is wrong, and what helps to repair it."""

    name: str
    chapter: str
    """The page that teaches it, below docs/."""
    program: str
    """The text that the reader begins with."""
    hints: tuple[str, ...]
    edits: tuple[tuple[str, str], ...]
    """The solution: what is found in the program, and what is put there instead."""
    judge: str
    """Which judge it has: its own name, or one that several share."""
    needs: str = ""
    """A library that it imports and that this package does not bring along."""

    @property
    def title(self) -> str:
        """What goes wrong, in one line."""
        return self._docstring.splitlines()[0].rstrip(".")

    @property
    def observed(self) -> str:
        """What is seen, and what would be right."""
        return "\n".join(self._docstring.splitlines()[1:]).strip()

    @property
    def _docstring(self) -> str:
        return ast.get_docstring(ast.parse(self.program)) or ""

    @property
    def solution(self) -> str:
        """The program, repaired."""
        return edited_program(self.program, self.edits)

    @property
    def changed_lines(self) -> str:
        """The solution as the lines that change, each with the line before and after it."""
        lines = self.program.splitlines(), self.solution.splitlines()
        changes = list(difflib.unified_diff(*lines, lineterm="", n=1))[2:]
        return "\n".join("..." if line.startswith("@@") else line for line in changes)


def edited_program(program: str, edits: tuple[tuple[str, str], ...]) -> str:
    """Replace texts of a program, each of which it has once.

    Same bits: everywhere.

    Args:
        program: its text.
        edits: what is found, and what is put there.

    Raises:
        ValueError: a text is not there, or there several times.
    """
    for find, put in edits:
        if program.count(find) != 1:
            raise ValueError(f"expected once, found {program.count(find)} times: {find!r}")
        program = program.replace(find, put)
    return program


@functools.cache
def all_exercises() -> dict[str, Exercise]:
    """Return every exercise by its name, in the order of the chapters."""
    found = {}
    for path in sorted(_PROGRAMS.glob("*.toml")):
        chapter = tomllib.loads(path.read_text("utf-8"))
        for entry in chapter["exercise"]:
            found[entry["name"]] = _exercise(chapter["page"], entry)
    return found


def _exercise(page: str, entry: dict[str, Any]) -> Exercise:
    return Exercise(
        name=entry["name"],
        chapter=page,
        program=(_PROGRAMS / f"{entry['name']}.py").read_text("utf-8"),
        hints=tuple(entry["hints"]),
        edits=tuple((find, put) for find, put in entry["solution"]),
        judge=entry.get("judge", entry["name"]),
        needs=entry.get("needs", ""),
    )


def named_exercise(name: str) -> Exercise:
    """Return an exercise.

    Args:
        name: its name, such as "keys_1".

    Raises:
        ConfigError: there is none of that name.
    """
    known = all_exercises()
    if name not in known:
        meant = difflib.get_close_matches(name, known, 1)
        raise ConfigError(
            "find",
            f"exercise {name}",
            expected=f"a name such as {(meant or list(known))[0]}",
            got="one that no exercise has",
            do="See reproducibility exercise list.",
        )
    return known[name]
