"""The arrays at a path by their names, whoever wrote them, and what vouches for them.

The rule: what has a seal is checked against it. Of what has none, nothing is said but that it could
be read.
Chapter: docs/reference/cli.md
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax  # noqa: F401, for a part of it alone would not wait for a thread that imports it
import numpy as np
from jaxtyping import PyTree

from reproducibility.errors import CheckpointDamagedError, CheckpointError, RunError, and_more
from reproducibility.same.hashing import leaf_digests, tree_digest
from reproducibility.same.leaves import BITS, is_key, key_implementation, leaves_by_name
from reproducibility.storage.containers import ChecksumError, arrays_in
from reproducibility.storage.files import read_json
from reproducibility.storage.found import SEAL, FoundArrays, is_step, orbax_items
from reproducibility.storage.orbax import ArrayFiles, stored_tree
from reproducibility.storage.restoring import read_leaves, verified
from reproducibility.storage.seal import Seal, SealedLeaf, kind_and_first_line, step_error

# What says nothing about the bytes of a checkpoint.
NOT_THE_BYTES = (PermissionError, MemoryError, ImportError, NotImplementedError)
_OF_NOBODY = ("commit_success.txt", "_CHECKPOINT_METADATA")  # beside the items of a checkpoint


@dataclasses.dataclass(frozen=True)
class Stored:
    """The arrays of one checkpoint, or of one file."""

    path: Path
    """Where they are."""
    values: Mapping[str, Any]
    """Arrays of NumPy and typed keys by name; of Orbax also texts."""
    leaves: Mapping[str, SealedLeaf]
    """What each of them is, with its digest."""
    digest: str | None
    """Of all together: what `tree_digest` gives. None where a leaf has no digest, such as text."""
    seal: Seal | None = None
    """What they were checked against; None where nothing vouches for them."""
    unread: tuple[str, ...] = ()
    """What there is beside them that could not be read as arrays."""


def arrays_of(found: FoundArrays, step: int | None = None) -> Stored:
    """Read the arrays of one checkpoint or file; those that have a seal are checked against it.

    **Same bits:** those that were written, or an error, where there is a seal; else those that are
    in the files now.

    Args:
        found: what is there.
        step: of a store, which checkpoint; by default the newest.

    Raises:
        CheckpointError: there is no such step, or its files are not what they seem to be.
        CheckpointDamagedError: they are not as they were written.
        CheckpointReadError: they cannot be read here.
    """
    path = checkpoint_path(found, step)
    if found.sealed:
        return _sealed(path)
    try:
        return _file(path) if found.kind == "file" else _of_orbax(path)
    except ChecksumError as error:
        raise CheckpointDamagedError(
            "use",
            "the arrays",
            path=path,
            expected="the checksums that were written with them",
            got=f"{error}",
            do="Take an intact copy.",
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many kinds
        if found.kind != "file" and not isinstance(error, NOT_THE_BYTES):
            raise CheckpointDamagedError(
                "use",
                "the arrays",
                path=path,
                expected="files that Orbax can read",
                got=kind_and_first_line(error),
                do="Take an intact copy, or the Orbax that wrote it, if that is newer.",
            ) from error
        raise CheckpointError(
            "read",
            "the arrays",
            path=path,
            expected=found.words if found.kind != "file" else f"a {path.suffix} file of numbers",
            got=f"{error}".strip()
            if isinstance(error, ValueError) and found.kind == "file"
            else kind_and_first_line(error),
            do="Check the path, or take an intact copy.",
        ) from error


def whole_digest(stored: Stored) -> str:
    """Return the digest of all arrays together.

    **Same bits:** everywhere: what `tree_digest` gives for the same names and arrays.

    Args:
        stored: arrays that were read.

    Raises:
        LeafError: one of them has no digest, such as text.
    """
    if stored.digest is None:
        return tree_digest(dict(stored.values))  # says which
    return stored.digest


def checkpoint_path(found: FoundArrays, step: int | None) -> Path:
    """Return where the arrays of one step are.

    Args:
        found: what is there.
        step: of a store, which checkpoint; by default the newest.

    Raises:
        CheckpointError: there is no such step, or no steps at all to choose from.
    """
    if step is None:
        return list(found.steps.values())[-1] if found.steps else found.path
    if step in found.steps:
        return found.steps[step]
    expected = "a committed checkpoint" if found.steps else "a store of checkpoints"
    got = and_more([f"step {each}" for each in found.steps], 5) or found.words
    do = "Ask for one of those steps." if found.steps else "Leave the step out."
    raise step_error("read", found.path, step, expected, got, do)


def _sealed(folder: Path) -> Stored:
    step = int(folder.name) if is_step(folder.name) else 0
    if not is_step(folder.name):  # a copy that was given a name
        with contextlib.suppress(RunError, LookupError, TypeError, ValueError):
            step = int(read_json(folder / SEAL)["step"])
    seal = verified(folder, step, None)
    arrays = ArrayFiles()
    try:
        values = read_leaves(arrays, folder.absolute(), seal)  # Orbax refuses relative paths
    finally:
        arrays.close()
    return Stored(folder, values, seal.leaves, seal.digest, seal)


def _file(path: Path) -> Stored:
    values = dict(arrays_in(path))
    if path.suffix == ".npy":
        values = {".": values[""]}
    return _unsealed(path, values, values)


def _of_orbax(folder: Path) -> Stored:
    trees = {name: stored_tree(item) for name, item in orbax_items(folder).items()}
    beside = [] if "" in trees else sorted({e.name for e in folder.iterdir()} - trees.keys())
    unread = []
    for name in beside:
        if name in _OF_NOBODY:
            continue
        files = [each for each in (folder / name).glob("*") if each.name not in _OF_NOBODY]
        if len(files) == 1 and files[0].is_file() and _is_json(files[0]):
            trees[name] = np.frombuffer(files[0].read_bytes(), np.uint8)
        else:
            unread.append(name)
    tree = next(iter(trees.values())) if len(trees) == 1 else trees
    return _unsealed(folder, leaves_by_name(tree), tree, tuple(unread))


def _is_json(path: Path) -> bool:
    try:
        return read_json(path) is not None
    except RunError:
        return False


def _unsealed(
    path: Path, values: Mapping[str, Any], tree: PyTree, unread: tuple[str, ...] = ()
) -> Stored:
    values = {name: v if hasattr(v, "dtype") else np.asarray(v) for name, v in values.items()}
    leaves = {name: _unsealed_leaf(name, value) for name, value in values.items()}
    whole = all(has_digest(value) for value in values.values())
    return Stored(path, values, leaves, tree_digest(tree) if whole else None, None, unread)


def has_digest(value: Any) -> bool:
    """Say whether an array is of numbers, bool or keys.

    Args:
        value: an array.
    """
    return is_key(value) or value.dtype.name in BITS


def _unsealed_leaf(name: str, value: Any) -> SealedLeaf:
    dtype, shape = value.dtype.name, tuple(value.shape)
    if has_digest(value):
        digest = leaf_digests([value])["[0]"]
        return SealedLeaf(dtype, shape, digest, key_implementation(value))
    if value.dtype.hasobject:
        raise ValueError(f"leaf {name} of Python objects")
    kind = np.lib.format.dtype_to_descr(value.dtype)  # with the names and types of its fields
    facts = f"{kind} {shape} ".encode()  # text, and what NumPy has no name for
    digest = hashlib.sha256(facts + np.ascontiguousarray(value).tobytes()).hexdigest()
    return SealedLeaf(dtype, shape, digest)
