"""Read a checkpoint back: all of it or a part, and nothing that is not as it was sealed.

The rule: first every byte of every file, then what is asked for, then the digest of every leaf that
was read. From intact files nothing that goes wrong is damage, whatever Orbax says.
Chapter: docs/components/checkpoint_explained.md
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from reproducibility.errors import (
    CheckpointReadError,
    LeafError,
    ProcessMismatchError,
    ReproducibilityError,
    and_more,
)
from reproducibility.same.hashing import leaf_digests
from reproducibility.same.leaves import as_weak, is_numpy, key_data_or_leaf, kind_text
from reproducibility.same.overlapping import in_one_memory
from reproducibility.same.state import (
    Groups,
    static_data,
    static_differences,
    tie_differences,
    with_leaves,
)
from reproducibility.scale.agree import assert_same_facts
from reproducibility.storage.orbax import ArrayFiles, changed_leaves
from reproducibility.storage.seal import (
    Seal,
    SealedLeaf,
    SealedState,
    changed_files,
    damage_error,
    kind_and_first_line,
    mismatch_error,
    read_seal,
)


def verified(folder: Path, step: int, run: str | None) -> Seal:
    """Check every byte of a checkpoint against its seal, and return that.

    Args:
        folder: of the checkpoint.
        step: the one that the directory is named by.
        run: the name of the run that it has to belong to; None for any.

    Raises:
        CheckpointDamagedError: a byte is not as it was sealed.
        CheckpointMismatchError: it belongs to another run, or is of another format.
        CheckpointReadError: a file cannot be read here, which does not say that it is damaged.
    """
    try:
        seal = read_seal(folder, step)
        if files := changed_files(folder, seal):
            leaves = changed_leaves(folder, seal.leaves)
            expected = "files as they were sealed"
            raise damage_error(folder, step, expected, files=files, leaves=leaves)
    except OSError as error:
        raise CheckpointReadError(
            "verify",
            "a checkpoint",
            path=folder,
            step=step,
            expected="files that can be read here",
            got=kind_and_first_line(error),
            do="Mend that: nothing says that they are damaged.",
        ) from error
    if run not in (None, seal.run):
        expected, got = f"one of run {run}", f"one of run {seal.run}"
        raise mismatch_error(folder, step, expected, got, "Move it back to where it belongs.")
    return seal


def agreed[T](step: int, work: Callable[[], T], describe: Callable[[T], str]) -> T:
    """Do the same in all processes and compare what came of it; raise in all or in none.

    Args:
        step: of the checkpoint.
        work: waits for no other process, so that one that fails leaves none behind.
        describe: says what came of it, for the comparison.
    """
    value, failed = None, None
    try:
        value = work()
    except ReproducibilityError as error:
        failed = error
    found = f"{failed.got}" if failed else describe(value)  # type: ignore[arg-type]
    try:
        assert_same_facts(
            {"found": found},
            thing=f"checkpoint {step}",
            do="Let all see the same directory, and ask for leaves that lie on devices of all.",
        )
    except ProcessMismatchError as error:
        raise error from failed
    if failed:
        raise failed
    return value  # type: ignore[return-value]


def read_tree(
    arrays: ArrayFiles,
    folder: Path,
    seal: Seal,
    like: PyTree,
    wanted: Mapping[str, Any],
    *,
    static: bool,
    part: bool,
) -> PyTree:
    """Read the leaves of a tree from files that are intact, and check what was read.

    Args:
        arrays: what reads them.
        folder: of the checkpoint.
        seal: what it was sealed with.
        like: the tree that says what to expect.
        wanted: its leaves by name.
        static: whether its static data has to be what it was.
        part: whether it may lack what was saved.
    """
    refuse_other_leaves(seal.leaves, wanted, folder, seal.step, part=part)
    seal = _part_of(seal, wanted, like) if part else seal
    if seal.state:
        refuse_other_state(seal.state, like, folder, seal.step, static=static)

    def read() -> tuple[PyTree, Mapping[str, str]]:
        values = as_sealed(arrays.read(folder, wanted), seal)
        tree = with_leaves(like, values, tied_names(seal, like))
        return tree, leaf_digests(tree)

    return _as_it_was_sealed(folder, seal, read)


def read_leaves(arrays: ArrayFiles, folder: Path, seal: Seal) -> dict[str, Any]:
    """Read all leaves from files that are intact, without a tree, and check what was read.

    Args:
        arrays: what reads them.
        folder: of the checkpoint.
        seal: what it was sealed with.

    Returns:
        Arrays of NumPy and typed keys by name.
    """

    def read() -> tuple[dict[str, Any], Mapping[str, str]]:
        wanted = {name: _described(leaf) for name, leaf in seal.leaves.items()}
        values = arrays.read(folder, wanted)
        digests = leaf_digests(list(values.values())).values()  # in this order
        return values, dict(zip(values, digests, strict=True))

    return _as_it_was_sealed(folder, seal, read)


def plain(leaf: Any) -> np.ndarray[Any, Any]:
    """Return a leaf as a plain array of NumPy: typed keys as their key data.

    Args:
        leaf: an array of NumPy, or typed keys.
    """
    return leaf if is_numpy(leaf) else np.array(key_data_or_leaf(leaf))


def _as_it_was_sealed[T](
    folder: Path, seal: Seal, read: Callable[[], tuple[T, Mapping[str, str]]]
) -> T:
    """Return what was read, if each leaf has the digest that was sealed."""
    failed, value, other = None, None, []
    try:
        value, digests = read()
        other = [name for name in digests if digests[name] != seal.leaves[name].digest]
    except LeafError:
        raise
    except Exception as error:  # Orbax, tensorstore and XLA raise many kinds
        failed = error
    if failed or other:
        verified(folder, seal.step, None)  # where bytes have changed since, this says so
        raise unread_error(folder, seal.step, failed, other) from failed
    return value  # type: ignore[return-value]


def _described(leaf: SealedLeaf) -> Any:
    """Say of a leaf what to read: an array of NumPy, or typed keys."""
    if not leaf.prng:
        return np.broadcast_to(np.zeros((), jnp.dtype(leaf.dtype)), leaf.shape)  # takes no memory
    key = jax.eval_shape(lambda: jax.random.key(0, impl=leaf.prng))
    struct: Any = jax.ShapeDtypeStruct  # without types in JAX's own stubs
    return struct(leaf.shape, key.dtype)


def _part_of(seal: Seal, wanted: Mapping[str, Any], like: PyTree) -> Seal:
    """Return a seal as if nothing beside the wanted leaves had been saved.

    A node is a part if all that was saved below it is wanted, or if `like` has data of it.
    """
    leaves = {name: leaf for name, leaf in seal.leaves.items() if name in wanted}
    if not seal.state:
        return dataclasses.replace(seal, leaves=leaves)
    asked = static_data(like)[0]

    def whole(node: str) -> bool:
        below = ("",) if node == "." else (f"{node}.", f"{node}[")
        names = [name for name in seal.leaves if name == node or name.startswith(below)]
        return bool(names) and all(name in wanted for name in names)

    def kept(groups: Groups, belongs: Callable[[str], bool]) -> Groups:
        found = (tuple(filter(belongs, group)) for group in groups)
        return tuple(group for group in found if len(group) > 1)

    nodes = {name: node for name, node in seal.state.nodes.items() if name in asked or whole(name)}
    shared = kept(seal.state.shared, leaves.__contains__)
    views = (tuple(v for v in group if v.name in leaves) for group in seal.state.overlaps)
    overlaps = tuple(group for group in views if len(group) > 1)
    state = SealedState(nodes, shared, kept(seal.state.tied, whole), overlaps)
    return dataclasses.replace(seal, leaves=leaves, state=state)


def refuse_other_leaves(
    saved: Mapping[str, SealedLeaf],
    wanted: Mapping[str, Any],
    folder: Path,
    step: int,
    *,
    part: bool,
) -> None:
    """Refuse the first leaf that is not in the checkpoint as `wanted` has it.

    Args:
        saved: what the seal says of each leaf.
        wanted: what to expect, by name.
        folder: of the checkpoint.
        step: its step.
        part: whether leaves may be left out.
    """

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
        if saved[name].weak and is_numpy(leaf):
            do = "Give a JAX array, or what jax.eval_shape returns: NumPy has no weak types."
            refuse(name, f"{expected} of NumPy", f"{got} of a weak type", do)
    for name, sealed in saved.items():
        if not part and name not in wanted:
            got = kind_text(sealed.dtype, sealed.shape)
            do = "Add it; or leave out knowingly what the tree lacks: restore(tree, part=True)."
            refuse(name, "no such leaf", got, do)


def refuse_other_state(
    sealed: SealedState, like: PyTree, folder: Path, step: int, *, static: bool
) -> None:
    """Refuse the first thing beside the leaves that is not in the checkpoint as `like` has it."""
    nodes, tied = static_data(like)
    for found in tie_differences(tied, sealed.tied):
        do = "Tie in the tree given what was tied when it was saved; jax.tree.map unties all."
        raise mismatch_error(folder, step, found.a, found.b, do, verb="restore", thing=found.thing)
    for found in static_differences(nodes, sealed.nodes) if static else ():
        do = "Give a tree that has what was saved, or static=False to go on with that of the tree."
        raise mismatch_error(folder, step, found.a, found.b, do, verb="restore", thing=found.thing)


def as_sealed(values: Mapping[str, Any], seal: Seal) -> dict[str, Any]:
    """Return leaves by name with the weak types, and as the one object, that they were saved as.

    What is wanted in two places or kinds is no one object: nobody can write to an array of JAX.
    """
    found = {
        name: as_weak(leaf) if seal.leaves[name].weak else leaf for name, leaf in values.items()
    }
    found |= in_one_memory(found, seal.state.overlaps if seal.state else ())
    for group in seal.state.shared if seal.state else ():
        first = found[group[0]]
        for name in group[1:]:
            if _kind_and_place(found[name]) == _kind_and_place(first):
                found[name] = first
    return found


def _kind_and_place(leaf: Any) -> Any:
    return type(leaf), getattr(leaf, "sharding", None)


def tied_names(seal: Seal, like: PyTree) -> Groups:
    """Return the names of nodes to make one object of.

    An old seal does not say: then those of `like` under which the same was saved.
    """
    if seal.state:
        return seal.state.tied

    def below(name: str) -> dict[str, str]:
        return {
            leaf.removeprefix(name): sealed.digest
            for leaf, sealed in seal.leaves.items()
            if leaf.startswith((f"{name}.", f"{name}["))
        }

    _, tied = static_data(like)
    return tuple(group for group in tied if all(below(n) == below(group[0]) for n in group))


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
