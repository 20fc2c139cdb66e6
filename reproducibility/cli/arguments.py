"""Arguments that have the right type and cannot be used.

The rule: they are refused before anything is computed, with the flag or the path in the sentence.
Chapter: docs/reference/cli.md
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from reproducibility.errors import ConfigError, RunError
from reproducibility.storage.found import FoundArrays, arrays_at, path_words


def checked_step(step: int | None, do: str) -> int:
    """Return a step that may exist."""
    if step is None or step < 0:
        raise ConfigError("use", "step", expected="0 or more", got=step, do=do)
    return step


def check_there(*paths: Path) -> None:
    """Refuse to compare what does not exist."""
    for path in paths:
        if not path.exists():
            raise RunError(
                "compare",
                str(path),
                expected="a run, a record, a ledger, a result, or something with arrays in it",
                got="no such path",
                do="Check its name.",
            )


def arrays_without_a_run(path: Path, verb: str) -> FoundArrays | None:
    """Return what has arrays in it and is no run directory; None for a run directory.

    Args:
        path: what the command was given.
        verb: what the command does.

    Raises:
        RunError: it is neither.
    """
    if any((path / name).exists() for name in ("run.json", "attempts.jsonl", "result.json")):
        return None
    if found := arrays_at(path):
        return found
    record = (path / "process-1").is_dir()
    raise RunError(
        verb,
        str(path),
        expected="a run directory, a store of checkpoints, an Orbax checkpoint or a file of arrays",
        got="a record of a script" if record else path_words(path),
        do="Records are compared: reproducibility compare." if record else "Check the path.",
    )


def check_output_file(flag: str, path: Path, inputs: dict[Path, str], otherwise: str) -> None:
    """Refuse a place where a file could not be written at the end, or must not be.

    Args:
        flag: the flag that names it.
        path: the file.
        inputs: paths in which it must not lie, each with what to call it.
        otherwise: what is said after "Choose another file" where it lies in one of them.
    """
    for place, name in inputs.items():
        if path.resolve().is_relative_to(place.resolve()):
            expected = f"a file outside of {name}"
            _refuse_file(flag, path, expected, "one in it", f"Choose another file; {otherwise}.")
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        got = "a directory" if path.is_dir() else "no such directory"
        expected = "a file in a directory that can be written"
        _refuse_file(flag, path, expected, got, "Choose another file.")


def _refuse_file(flag: str, path: Path, expected: str, got: str, do: str) -> NoReturn:
    raise ConfigError("use", flag, path=path, expected=expected, got=got, do=do)
