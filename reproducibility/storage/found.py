"""What is at a path: a store, a checkpoint, a folder of Orbax's, a file of arrays, or else?

The rule: told by the names of files alone. Nothing is opened, and no link is followed.
Chapter: docs/reference/cli.md
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal

from reproducibility.storage.files import saved_steps

SEAL = "seal.json"  # by which a checkpoint of ours is known
ARRAYS = "arrays"  # the directory of its arrays
ORBAX = "_METADATA"  # by which a folder of Orbax's arrays is known
_STORE = "checkpoints"  # the store of a run, and of whoever does the same
ARRAY_FILES = (".npz", ".npy", ".safetensors")  # files of arrays
_MARKS = ("_CHECKPOINT_METADATA", "commit_success.txt")  # of a checkpoint with items
_OF_ORBAX = re.compile(r"([A-Za-z][\w-]*[_-])?([0-9]+)")  # a step of its CheckpointManager

type ArraysKind = Literal["store", "checkpoint", "Orbax store", "Orbax checkpoint", "file"]

_KIND_WORDS: dict[ArraysKind, str] = {
    "store": "a store of checkpoints",
    "checkpoint": "one checkpoint of a store",
    "Orbax store": "a directory of Orbax checkpoints",
    "Orbax checkpoint": "an Orbax checkpoint",
    "file": "a file of arrays",
}


@dataclasses.dataclass(frozen=True)
class FoundArrays:
    """Something with arrays in it."""

    path: Path
    """Where it is; of a folder that has a store, the store."""
    kind: ArraysKind
    """What it is."""
    steps: dict[int, Path] = dataclasses.field(default_factory=dict)
    """The checkpoints of a store by their steps, oldest first."""

    @property
    def words(self) -> str:
        """What it is, in words."""
        return _KIND_WORDS[self.kind]

    @property
    def sealed(self) -> bool:
        """Whether it says by itself if it is as it was written."""
        return self.kind in ("store", "checkpoint")


def arrays_at(path: Path) -> FoundArrays | None:
    """Return what there is at a path that has arrays in it; None where there is nothing such.

    A run directory has a store in it, and more: who wants the run has to look for it first.

    Args:
        path: anything.
    """
    if path.is_file():
        return FoundArrays(path, "file") if path.suffix in ARRAY_FILES else None
    if not path.is_dir():
        return None
    if (path / SEAL).exists() or (is_step(path.name) and (path / ARRAYS).is_dir()):
        return FoundArrays(path, "checkpoint")
    if orbax_items(path):
        return FoundArrays(path, "Orbax checkpoint")
    if steps := saved_steps(path):
        folders = {step: path / f"{step:08d}" for step in steps}
        if not all(orbax_items(folder) and not _ours(folder) for folder in folders.values()):
            return FoundArrays(path, "store", folders)
    if steps_of_orbax := _orbax_steps(path):
        return FoundArrays(path, "Orbax store", steps_of_orbax)
    inner = arrays_at(path / _STORE) if path.name != _STORE else None
    return inner if inner and inner.steps else None


def orbax_items(path: Path) -> dict[str, Path]:
    """Return the folders of arrays in a checkpoint of Orbax's, by the names of its items.

    Args:
        path: a folder; one that is such a folder itself is the item "".
    """
    if (path / ORBAX).is_file():
        return {"": path}
    marked = any((path / name).exists() for name in _MARKS)
    if not path.is_dir() or not (marked or _OF_ORBAX.fullmatch(path.name)):
        return {}
    entries = sorted(path.iterdir())
    real = [entry for entry in entries if not entry.is_symlink()]
    return {entry.name: entry for entry in real if (entry / ORBAX).is_file()}


def unread_steps(found: FoundArrays) -> list[str]:
    """Return the folders of an Orbax store that are named as a step is, and are none of its steps.

    They have lost what names their arrays.

    Args:
        found: anything.
    """
    if found.kind != "Orbax store":
        return []
    folders = [e for e in found.path.iterdir() if e.is_dir() and _OF_ORBAX.fullmatch(e.name)]
    return sorted({each.name for each in folders} - {each.name for each in found.steps.values()})


def is_step(name: str) -> bool:
    """Say whether this is the name of a checkpoint of ours.

    Args:
        name: of a folder.
    """
    return bool(re.fullmatch(r"[0-9]{8}|[1-9][0-9]{8,}", name))


def path_words(path: Path) -> str:
    """Say in words what is at a path.

    Args:
        path: anything.
    """
    if found := arrays_at(path):
        return found.words
    if path.is_dir() and (several := [entry.name for _, _, entry in _named_by_orbax(path)]):
        return f"Orbax checkpoints of several names, {' and '.join(several[:2])}"
    if path.is_dir():
        return "a directory of something else" if any(path.iterdir()) else "an empty directory"
    if path.is_file():
        return "a file" if path.stat().st_size else "an empty file"
    return "something that is not a plain file" if path.exists() else "no such file"


def _ours(folder: Path) -> bool:
    return (folder / SEAL).exists() or (folder / ARRAYS).is_dir()


def _orbax_steps(path: Path) -> dict[int, Path]:
    """Return checkpoints by their steps; none where they are of several, as `model_5`, `opt_5`."""
    named = _named_by_orbax(path)
    prefixes = {prefix for prefix, _, _ in named}
    found = {step: entry for _, step, entry in named}
    return dict(sorted(found.items())) if len(prefixes) == 1 and len(found) == len(named) else {}


def _named_by_orbax(path: Path) -> list[tuple[str, int, Path]]:
    """Return the checkpoints in a folder: what stands before its step in the name, and the step."""
    found = []
    for entry in sorted(path.iterdir()):
        named = _OF_ORBAX.fullmatch(entry.name)
        if named and entry.is_dir() and not entry.is_symlink() and orbax_items(entry):
            found.append((named[1] or "", int(named[2]), entry))
    return found
