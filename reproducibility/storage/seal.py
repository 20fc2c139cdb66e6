"""What a seal says of a checkpoint, and the words for what does not match it.

The rule: damage is said only where bytes do not match their seal; what cannot be read is unread.
Chapter: docs/components/checkpoint_explained.md
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reproducibility.errors import (
    CheckpointDamagedError,
    CheckpointMismatchError,
    CheckpointReadError,
    RunError,
    and_more,
    first_line,
)
from reproducibility.same.leaves import NamedLeaves, key_implementation, kind_text, path_string
from reproducibility.storage.files import (
    file_table,
    read_with_digest,
    readable_json,
    with_digest,
)

SEAL_FORMAT = 1
SEAL = "seal.json"
# What the system says of a file that is not there any more, or of a disk that has lost it.
_LOST = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EIO)


@dataclasses.dataclass(frozen=True)
class SealedLeaf:
    """What a seal says of one leaf."""

    dtype: str
    """The dtype's name; of keys, such as "key<fry>", it tells their kind."""
    shape: tuple[int, ...]
    """Of an array of keys, that of the array."""
    digest: str
    """What `leaf_digests` gives for it."""
    prng: str = ""
    """The PRNG implementation of keys, else ""."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the file has them. Same bits: everywhere."""
        prng = {"prng": self.prng} if self.prng else {}
        return {"dtype": self.dtype, "shape": list(self.shape), **prng, "digest": self.digest}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> SealedLeaf:
        """Return what `to_json` wrote; LookupError, TypeError or ValueError if it is no such."""
        shape = tuple(map(int, found["shape"]))
        return cls(found["dtype"], shape, found["digest"], found.get("prng", ""))


@dataclasses.dataclass(frozen=True)
class Seal:
    """What a checkpoint was sealed with: the content of `seal.json`, without its own digest."""

    run: str | None
    """The name of the run; None of a store without one."""
    step: int
    """Completed updates."""
    digest: str
    """`tree_digest` of the whole state."""
    chain: str | None
    """What the chain of the ledger had come to; None where nothing was recorded."""
    leaves: dict[str, SealedLeaf]
    """Each leaf by its name."""
    files: dict[str, dict[str, Any]]
    """What `file_table` gives for the checkpoint, before the seal is in it."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the file has them. Same bits: everywhere."""
        leaves = {name: leaf.to_json() for name, leaf in self.leaves.items()}
        known = {"run": self.run, "step": self.step, "digest": self.digest, "chain": self.chain}
        return {"format": SEAL_FORMAT, **known, "leaves": leaves, "files": self.files}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Seal:
        """Return what `to_json` wrote; LookupError, TypeError or ValueError if it is no such."""
        if not (isinstance(found["leaves"], dict) and isinstance(found["files"], dict)):
            raise ValueError("a seal of another shape")
        leaves = {name: SealedLeaf.from_json(leaf) for name, leaf in found["leaves"].items()}
        known = {name: found[name] for name in ("run", "step", "digest", "chain", "files")}
        return cls(leaves=leaves, **known)

    def write(self, folder: Path) -> None:
        """Write it into the directory of its checkpoint, which is not committed yet."""
        (folder / SEAL).write_bytes(readable_json(with_digest(self.to_json())))


def sealed_leaves(leaves: NamedLeaves, digests: Mapping[str, str]) -> dict[str, SealedLeaf]:
    """Return what a seal says of leaves, by name.

    Args:
        leaves: arrays and typed keys.
        digests: what `leaf_digests` returns for them.
    """
    return {
        (name := path_string(path)): SealedLeaf(
            leaf.dtype.name, leaf.shape, digests[name], key_implementation(leaf)
        )
        for path, leaf in leaves
    }


def read_seal(folder: Path, step: int) -> Seal:
    """Read the seal of a checkpoint, as it was written.

    Args:
        folder: of the checkpoint.
        step: the one that the directory is named by.

    Raises:
        CheckpointDamagedError: it is missing, or not as it was written, or of another step.
        CheckpointMismatchError: it is of another format.
        OSError: it cannot be read here.
    """
    try:
        found = read_with_digest(folder / SEAL)
        if found["format"] != SEAL_FORMAT:
            do = "Use the version of this package that wrote it."
            raise mismatch_error(folder, step, f"format {SEAL_FORMAT}", found["format"], do)
        seal = Seal.from_json(found)
        if (folder / SEAL).is_symlink() or seal.step != step:
            raise ValueError(f"a link, or step {seal.step}")
        return seal
    except (RunError, LookupError, TypeError, ValueError) as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno not in _LOST:
            raise cause from None
        what = f"{SEAL}: {getattr(error, 'got', None) or kind_and_first_line(error)}"
        raise damage_error(folder, step, f"{SEAL} as it was written", what, [SEAL]) from error


def changed_files(folder: Path, seal: Seal) -> list[str]:
    """Name the files of a checkpoint that are not as they were sealed, missing or added.

    Args:
        folder: of the checkpoint.
        seal: what it was sealed with.
    """
    found = {name: entry for name, entry in file_table(folder).items() if name != SEAL}
    return sorted(n for n in found.keys() | seal.files if found.get(n) != seal.files.get(n))


def kind_and_first_line(error: Exception) -> str:
    """Return the kind of an error and the two ends of its first line: what, and why."""
    line = first_line(error) if str(error).strip() else ""
    short = line if len(line) <= 200 else f"{line[:80]} … {line[-110:]}"
    number = re.search(r"os_error_code='(\d+)'", line)  # TensorStore says why anywhere in its line
    why = os.strerror(int(number[1])) if number else ""
    return f"{type(error).__name__}{line and ': '}{short}{'' if why in short else f' ({why})'}"


def damage_error(
    folder: Path,
    step: int,
    expected: str,
    got: str = "",
    files: Sequence[str] = (),
    leaves: Sequence[str] = (),
) -> CheckpointDamagedError:
    """Say which files are not as they were, and which leaves that concerns."""
    if files and not got:
        spoilt = (
            f"with {'it' if len(files) == 1 else 'them'} {and_more(leaves, 3)}" if leaves else ""
        )
        got = f"{and_more(files, 3)} altered, and {spoilt or 'no leaf spoilt'}"
    error = CheckpointDamagedError(
        "use",
        "a checkpoint",
        path=folder,
        step=step,
        expected=expected,
        got=got or f"others in {and_more(leaves, 3)}",
        do="Use an earlier one.",
    )
    error.files, error.leaves = tuple(files), tuple(leaves)
    return error


def unread_error(
    folder: Path, step: int, failed: Exception | None, leaves: Sequence[str]
) -> CheckpointReadError:
    """Say what came of reading files that are intact."""
    error = CheckpointReadError(
        "restore",
        "a checkpoint",
        path=folder,
        step=step,
        expected="the leaves that were sealed, from files that are intact",
        got=kind_and_first_line(failed) if failed else f"others in {and_more(leaves, 3)}",
        do="The checkpoint is not damaged: look at memory, at the shardings asked for, and at the "
        "versions of Orbax and JAX.",
    )
    error.leaves = tuple(leaves)
    return error


def mismatch_error(
    folder: Path,
    step: int,
    expected: str,
    got: Any,
    do: str,
    *,
    verb: str = "use",
    thing: str = "a checkpoint",
) -> CheckpointMismatchError:
    """Say what a checkpoint, or a leaf of it, is instead of what was expected."""
    return CheckpointMismatchError(
        verb, thing, path=folder, step=step, expected=expected, got=got, do=do
    )


def refuse_other_leaves(
    saved: Mapping[str, SealedLeaf], wanted: Mapping[str, Any], folder: Path, step: int
) -> None:
    """Refuse the first leaf that is not in the checkpoint as `wanted` has it."""

    def refuse(name: str, expected: str, got: str, do: str) -> None:
        thing = f"leaf {name}"
        raise mismatch_error(folder, step, expected, got, do, verb="restore", thing=thing)

    for name, leaf in wanted.items():
        expected = kind_text(leaf.dtype.name, leaf.shape)
        if name not in saved:
            near = difflib.get_close_matches(name, set(saved) - set(wanted), n=1)
            got = f"no such leaf, but an unknown {near[0]}" if near else "no such leaf"
            refuse(name, expected, got, "Restore with the model that was saved.")
        got = kind_text(saved[name].dtype, saved[name].shape)
        if got != expected:
            do = "Restore as it was saved; what is wanted instead, make from that."
            refuse(name, expected, got, do)
    for name, sealed in saved.items():
        if name not in wanted:
            got = kind_text(sealed.dtype, sealed.shape)
            do = "Add it to the tree, or drop it knowingly: restore all, then take what you need."
            refuse(name, "no such leaf", got, do)
