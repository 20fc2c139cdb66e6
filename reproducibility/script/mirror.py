"""A folder as it is, in another place: what is small is copied, what is large is linked.

The rule: a file that is linked is the user's own, and nothing of it is changed by the copying.
Chapter: docs/guide/hidden_inputs.md
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

COPIED = 1 << 20  # bytes of a file that is copied
MOST_IN_A_MIRROR = 4_000  # files and folders; what is more is linked
LINKED = {".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", ".cache"}


def mirror(folder: Path, place: Path) -> None:
    """Make `place` look like a folder.

    Args:
        folder: the folder.
        place: a directory that does not exist yet; it may not lie in the folder.
    """
    _Mirror().copy(folder, place)


class _Mirror:
    """Counts what it makes."""

    def __init__(self) -> None:
        self._made = 0

    def copy(self, folder: Path, place: Path) -> None:
        place.mkdir(parents=True)
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            self._made += 1
            with contextlib.suppress(OSError):  # it may be gone, or not ours to read
                self._one(entry, place / entry.name)
        with contextlib.suppress(OSError):
            shutil.copystat(folder, place)

    def _one(self, entry: os.DirEntry[str], place: Path) -> None:
        whole = self._made < MOST_IN_A_MIRROR
        if entry.is_symlink():
            place.symlink_to(Path(entry.path).resolve())
        elif entry.is_dir():
            path = Path(entry.path)
            environment = (path / "pyvenv.cfg").exists() or entry.name in LINKED
            if whole and not environment and not place.is_relative_to(path):
                self.copy(path.absolute(), place)
            else:
                place.symlink_to(path.absolute())
        elif whole and entry.is_file() and entry.stat().st_size <= COPIED:
            shutil.copy2(entry.path, place)
        else:
            place.symlink_to(Path(entry.path).absolute())
