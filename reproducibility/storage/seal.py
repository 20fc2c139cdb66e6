"""What a seal says of a checkpoint, and the words for what does not match it.

The rule: damage is said only where bytes do not match their seal; what cannot be read is unread.
Chapter: docs/components/checkpoint_explained.md
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax  # noqa: F401, for a part of it alone would not wait for a thread that imports it
from jaxtyping import PyTree

from reproducibility.errors import (
    CheckpointDamagedError,
    CheckpointError,
    CheckpointMismatchError,
    RunError,
    and_more,
    first_line,
)
from reproducibility.same.hashing import named_digests
from reproducibility.same.leaves import (
    NamedLeaves,
    is_weak,
    key_implementation,
    leaves_by_name,
    path_string,
)
from reproducibility.same.overlapping import Overlaps, ViewFacts, overlapping_leaves
from reproducibility.same.state import (
    Groups,
    NodeFacts,
    shared_leaves,
    static_data,
)
from reproducibility.storage.files import (
    file_table,
    read_with_digest,
    readable_json,
    with_digest,
)
from reproducibility.storage.found import SEAL

SEAL_FORMAT = 1
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
    weak: bool = False
    """Whether the dtype gives way to others; False in a seal that does not know."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the file has them. Same bits: everywhere."""
        prng: dict[str, Any] = {"prng": self.prng} if self.prng else {}
        weak = {"weak": True} if self.weak else {}
        known = {"dtype": self.dtype, "shape": list(self.shape), **prng, **weak}
        return {**known, "digest": self.digest}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> SealedLeaf:
        """Return what `to_json` wrote; LookupError, TypeError or ValueError if it is no such."""
        shape = tuple(map(int, found["shape"]))
        prng, weak = found.get("prng", ""), found.get("weak", False)
        return cls(found["dtype"], shape, found["digest"], prng, weak)


@dataclasses.dataclass(frozen=True)
class SealedState:
    """What a seal says of a state beside its leaves: see `same/state`."""

    nodes: dict[str, NodeFacts]
    """The static data of each node that has any, by the node's name."""
    shared: Groups
    """Names of leaves that are one array."""
    tied: Groups
    """Names of nodes that are one object."""
    overlaps: Overlaps = ()
    """Arrays of NumPy that have memory in common."""

    @classmethod
    def of(cls, tree: PyTree) -> SealedState:
        """Return what there is beside the leaves of a tree. Same bits: everywhere."""
        nodes, tied = static_data(tree)
        return cls(nodes, shared_leaves(tree), tied, overlapping_leaves(leaves_by_name(tree)))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the file has them: what nodes have in common, once."""
        names: dict[tuple[Any, ...], list[str]] = {}
        for name, node in self.nodes.items():
            entries = node.kind, node.data, tuple(node.fields.items()), node.not_compared
            names.setdefault(entries, []).append(name)
        static = [
            {
                "nodes": nodes,
                "class": kind,
                "data": data,
                "fields": dict(fields),
                "not_compared": list(not_compared),
            }
            for (kind, data, fields, not_compared), nodes in names.items()
        ]
        shared, tied = (list(map(list, groups)) for groups in (self.shared, self.tied))
        overlaps = {"overlaps": [list(map(list, group)) for group in self.overlaps]}
        known = {"static": static, "shared": shared, "tied": tied}
        return {**known, **overlaps} if self.overlaps else known

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> SealedState:
        """Return what `to_json` wrote; LookupError, TypeError or ValueError if it is no such."""
        nodes = {
            name: NodeFacts(
                entry["class"], entry["data"], dict(entry["fields"]), tuple(entry["not_compared"])
            )
            for entry in found["static"]
            for name in entry["nodes"]
        }
        shared, tied = (tuple(map(tuple, found[name])) for name in ("shared", "tied"))
        views = found.get("overlaps", ())
        overlaps = tuple(tuple(map(ViewFacts.of_list, group)) for group in views)
        return cls(nodes, shared, tied, overlaps)


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
    state: SealedState | None = None
    """What there is beside the leaves; None in a seal of a version that did not look."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the file has them. Same bits: everywhere."""
        leaves = {name: leaf.to_json() for name, leaf in self.leaves.items()}
        known = {"run": self.run, "step": self.step, "digest": self.digest, "chain": self.chain}
        state = {"state": self.state.to_json()} if self.state else {}
        return {"format": SEAL_FORMAT, **known, "leaves": leaves, **state, "files": self.files}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Seal:
        """Return what `to_json` wrote; LookupError, TypeError or ValueError if it is no such."""
        if not (isinstance(found["leaves"], dict) and isinstance(found["files"], dict)):
            raise ValueError("a seal of another shape")
        leaves = {name: SealedLeaf.from_json(leaf) for name, leaf in found["leaves"].items()}
        known = {name: found[name] for name in ("run", "step", "digest", "chain", "files")}
        state = SealedState.from_json(found["state"]) if "state" in found else None
        return cls(leaves=leaves, state=state, **known)

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
            leaf.dtype.name, leaf.shape, digests[name], key_implementation(leaf), is_weak(leaf)
        )
        for path, leaf in leaves
    }


def seal_of(
    run: str | None,
    step: int,
    copies: NamedLeaves,
    weak: Mapping[str, bool],
    state: SealedState,
) -> Seal:
    """Return what a seal says, but for files and the chain.

    Args:
        run: its name.
        step: completed updates.
        copies: what to save, on the host.
        weak: whether the dtype of a leaf gives way to others, by its name.
        state: what there is beside the leaves.
    """
    digest, digests = named_digests(copies)
    leaves = {
        name: dataclasses.replace(leaf, weak=weak[name])
        for name, leaf in sealed_leaves(copies, digests).items()
    }
    return Seal(run, step, digest, None, leaves, {}, state)


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


def refuse_other_step(step: int, leaves: NamedLeaves, folder: Path) -> None:
    """Refuse a state that counts its own steps and has come to another one."""
    for path, leaf in leaves:
        name = path_string(path)
        if name == "step" and leaf.shape == () and leaf.dtype.kind in "iu" and int(leaf) != step:
            expected = f"a state whose leaf {name} is {step}"
            do = f"Save it as step {int(leaf)}; or give the leaf another name, if it counts others."
            raise step_error("save", folder, step, expected, str(int(leaf)), do)


def step_error(
    verb: str, path: Path, step: int, expected: str, got: str, do: str
) -> CheckpointError:
    """Say what is wrong with the step of a checkpoint."""
    return CheckpointError(
        verb, "a checkpoint", path=path, step=step, expected=expected, got=got, do=do
    )
