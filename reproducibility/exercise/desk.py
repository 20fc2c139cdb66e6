"""The reader's directory: the programs in it, and how far they are.

The rule: what the reader has changed is never overwritten.
Chapter: docs/guide/exercises.md
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from reproducibility.errors import ConfigError, RunDamagedError
from reproducibility.exercise.texts import Exercise, all_exercises, named_exercise
from reproducibility.storage.files import readable_json, write_atomically

_PROGRESS = "progress.json"


class Desk:
    """A directory with exercises in it.

    Args:
        folder: the directory; it is made when the first exercise is put there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / _PROGRESS
        self._progress = self._read_progress()

    def _read_progress(self) -> dict[str, dict[str, Any]]:
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(
                "use",
                "--dir",
                path=self.folder,
                expected="a directory",
                got="a file",
                do="Name it.",
            )
        if not self._file.exists():
            return {}
        try:
            found = json.loads(self._file.read_text("utf-8"))
            entries = found["exercises"]
            right = found["format"] == 1 and all(isinstance(e, dict) for e in entries.values())
        except (ValueError, KeyError, TypeError, AttributeError):
            right = False
        if not right:
            raise RunDamagedError(
                "read",
                "the progress",
                path=self._file,
                expected="the file that this command wrote",
                got="something else",
                do="Remove it: your programs stay, and check notes again what is solved.",
            )
        return dict(entries)

    def _note(self, name: str, **facts: Any) -> None:
        """Write down something of an exercise."""
        self._progress[name] = self._progress.get(name, {}) | facts
        content = {"format": 1, "exercises": self._progress}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._file, readable_json(content))

    def path(self, exercise: Exercise) -> Path:
        """Return where the reader's program is."""
        return self.folder / f"{exercise.name}.py"

    def state(self, name: str) -> str:
        """Return "solved", "started" or an empty text."""
        known = self._progress.get(name, {})
        started = "started" if self.path(named_exercise(name)).exists() else ""
        return "solved" if known.get("solved") else started

    def solved(self) -> int:
        """Count what is solved."""
        return sum(self.state(name) == "solved" for name in all_exercises())

    def next(self) -> Exercise | None:
        """Return the first exercise that is not solved."""
        open_ones = (e for name, e in all_exercises().items() if self.state(name) != "solved")
        return next(open_ones, None)

    def chosen(self, name: str) -> Exercise:
        """Return the exercise of a name; without one, the one that was started last."""
        if name:
            return named_exercise(name)
        began = {n: e.get("began", 0) for n, e in self._progress.items() if n in all_exercises()}
        began = {n: number for n, number in began.items() if number}
        if not began:
            raise ConfigError(
                "choose",
                "an exercise",
                path=self.folder,
                expected="a name, or one that was started",
                got="neither",
                do="Begin with: reproducibility exercise start next.",
            )
        return named_exercise(max(began, key=lambda name: began[name]))

    def put(self, exercise: Exercise, *, again: bool) -> tuple[Path, Path | None]:
        """Put the program of an exercise into the directory.

        Args:
            exercise: which.
            again: whether a program that was changed is moved aside; without, it is refused.

        Returns:
            Where it is, and where the changed one is now.
        """
        path, aside = self.path(exercise), None
        if path.exists() and not self._as_given(exercise):
            if not again:
                raise ConfigError(
                    "start",
                    exercise.name,
                    path=path,
                    expected="no file, or the program as it was given",
                    got="one that was changed",
                    do="With --again it is kept under a new name, and the exercise begins again.",
                )
            aside = next(p for n in range(1, 10_000) if not (p := self._aside(path, n)).exists())
            path.rename(aside)
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(exercise.program, "utf-8")
        count = max((e.get("began", 0) for e in self._progress.values()), default=0)
        self._note(exercise.name, began=count + 1, given=_text_digest(exercise.program.encode()))
        return path, aside

    @staticmethod
    def _aside(path: Path, number: int) -> Path:
        return path.with_name(f"{path.stem}.{number}.py")

    def _as_given(self, exercise: Exercise) -> bool:
        given = self._progress.get(exercise.name, {}).get("given")
        return _text_digest(self.path(exercise).read_bytes()) in (
            given,
            _text_digest(exercise.program.encode()),
        )

    def program(self, exercise: Exercise) -> str:
        """Return the reader's program."""
        path = self.path(exercise)
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                "check",
                exercise.name,
                path=path,
                expected="the program of the exercise",
                got="no such file" if isinstance(error, FileNotFoundError) else "no text",
                do=f"Begin with: reproducibility exercise start {exercise.name}.",
            ) from error

    def note_solved(self, exercise: Exercise) -> None:
        """Write down that an exercise is solved."""
        self._note(exercise.name, solved=True)

    def hints(self, exercise: Exercise) -> tuple[str, ...]:
        """Return the hints that were asked for, with one more than the last time."""
        known = self._progress.get(exercise.name, {}).get("hints", 0)
        count = min(known + 1, len(exercise.hints)) if isinstance(known, int) else 1
        self._note(exercise.name, hints=count)
        return exercise.hints[:count]


def _text_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
