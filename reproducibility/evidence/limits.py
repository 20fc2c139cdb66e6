"""What is refused in a run of somebody else before anything of it is read.

The rule: no link is followed, and nothing is read that would not fit into memory.
Chapter: docs/guide/verification.md
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from reproducibility.errors import EvidenceError, RunError
from reproducibility.recording.ledger import LEDGER
from reproducibility.reference.run import ATTEMPTS, CHECKPOINTS, IDENTITY, LOCK, RESULT
from reproducibility.storage.files import BYTES_AT_ONCE, read_json
from reproducibility.storage.found import SEAL

MIB = 1 << 20
LARGEST_JSON = MIB  # bytes of a small file, such as run.json
LARGEST_SEAL = 64 * MIB
LARGEST_ATTEMPTS = 16 * MIB
MOST_LINE_BYTES = 4 * MIB
MOST_ENTRIES = 100_000
_LARGEST = {IDENTITY: LARGEST_JSON, RESULT: LARGEST_JSON, ATTEMPTS: LARGEST_ATTEMPTS}


def refuse_unfit(run: Path) -> None:
    """Refuse a run directory with links, with too many files, or with one that is too large.

    Args:
        run: the directory.

    Raises:
        EvidenceError: it is such a directory.
    """
    for name in (IDENTITY, ATTEMPTS, LEDGER, RESULT, LOCK):
        if os.path.lexists(run / name):
            size = refuse_no_file(run / name)
            largest = _LARGEST.get(name, size)
            if size > largest:
                _refuse_size(run / name, f"at most {largest:,} bytes", f"{size:,}")
    if (run / LEDGER).exists():
        _refuse_long_lines(run / LEDGER)
    folder = run / CHECKPOINTS
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        _refuse_entry(folder)
    for number, entry in enumerate(_below(folder)):
        if number >= MOST_ENTRIES:
            _refuse_size(folder, f"at most {MOST_ENTRIES:,} files", "more")
        if not entry.is_dir() or entry.is_symlink():
            size = refuse_no_file(entry)
            if entry.name == SEAL and size > LARGEST_SEAL:
                _refuse_size(entry, f"at most {LARGEST_SEAL:,} bytes", f"{size:,}")


def refuse_no_file(path: Path) -> int:
    """Refuse what is no plain file, such as a link or a pipe; return its size otherwise.

    Args:
        path: what is there.

    Raises:
        EvidenceError: it is no plain file.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        _refuse_entry(path)
    return found.st_size


def small_json(path: Path, kind: str) -> dict[str, Any]:
    """Read a small JSON object that names its kind.

    Args:
        path: a plain file.
        kind: what its entry "kind" has to be.

    Raises:
        EvidenceError: it is something else.
    """
    what = kind.removeprefix("reproducibility ")
    expected, do = f"a {what} of this package", "Give the file that it wrote."
    if not path.is_file() or path.stat().st_size > 4 * MOST_LINE_BYTES:
        got = "a large file" if path.is_file() else "no such file"
        raise EvidenceError("use", f"the {what}", path=path, expected=expected, got=got, do=do)
    try:
        found = read_json(path)
    except RunError as error:
        found, got = None, error.got
    else:
        got = "a JSON file of something else"
    if not isinstance(found, dict) or found.get("kind") != kind:
        raise EvidenceError("use", f"the {what}", path=path, expected=expected, got=got, do=do)
    return found


def _below(folder: Path) -> Any:
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in [*folders, *files])


def _refuse_long_lines(path: Path) -> None:
    """Refuse a file with a line that is too long to be read at once."""
    length = 0
    with open(path, "rb") as file:
        while block := file.read(BYTES_AT_ONCE):
            first, last = block.find(b"\n"), block.rfind(b"\n")
            length = length + len(block) if first < 0 else len(block) - last - 1
            if length > MOST_LINE_BYTES:
                _refuse_size(path, f"lines of at most {MOST_LINE_BYTES:,} bytes", "a longer one")


def _refuse_entry(path: Path) -> NoReturn:
    got = "a link" if path.is_symlink() else "something else"
    do = "Nothing was read; ask for a copy without it."
    expected = "a plain file" if path.name != CHECKPOINTS else "a directory"
    raise EvidenceError("audit", path.name, path=path, expected=expected, got=got, do=do)


def _refuse_size(path: Path, expected: str, got: str) -> NoReturn:
    do = "No run has that: ask where it comes from."
    raise EvidenceError("audit", path.name, path=path, expected=expected, got=got, do=do)
