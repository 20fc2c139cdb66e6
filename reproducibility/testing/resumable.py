"""A resumed loop ends with the bits of one that never stopped, and each part of its state counts.

The rule: after a real checkpoint; and see the proof fail once for each part that is forgotten.
Chapter: docs/guide/testing_your_code.md
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jaxtyping import PyTree

from reproducibility.same.hashing import leaf_digests
from reproducibility.same.leaves import is_key, named_leaves, path_string
from reproducibility.testing.equal import copy_of, tree_difference


def assert_resumable(
    advance: Callable[[PyTree, int], PyTree], start: PyTree, *, steps: int = 6, stop: int = 3
) -> None:
    """Fail unless resuming from a checkpoint gives the bits of never having stopped.

    Then this test is tested. For each top-level part of the state it pretends that the resume
    forgot that part: its leaves get their values from `start`. Typed keys are a part of their own
    wherever they stand, and are exchanged for others if they never change. The end must then be
    another; and if keys were forgotten, in more than those keys, since a chain of keys from which
    nobody draws ends elsewhere too. What never changes and is no key cannot be lost, and is
    skipped.

    **Same bits:** that is what is tested: in this process, through a checkpoint on this disk.

    Args:
        advance: `advance(state, n)` returns the state after `n` more updates. It may donate or
            overwrite its argument: it is given copies.
        start: the state before the first update: any pytree of arrays and typed keys.
        steps: how many updates the uninterrupted run has.
        stop: after how many of them the other one is saved and restored, 0 < stop < steps.

    Raises:
        AssertionError: the resumed state differs, at the leaf that is named; or nothing depends
            on some part, or no part could be forgotten: then the test could not have failed.
        CheckpointMismatchError: the state after `stop` updates has not the names, shapes and
            dtypes of `start`, so that no resume could read it.
        LeafError: a leaf of the state is no array.
        ValueError: `stop` is not between 0 and `steps`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from reproducibility import root_key
        >>> from reproducibility.testing import assert_resumable
        >>> def advance(state, n):
        ...     for _ in range(n):
        ...         state = {**state, "w": state["w"] + 1.0}
        ...     return state
        >>> assert_resumable(advance, {"w": jnp.zeros(2)})
        >>> assert_resumable(advance, {"w": jnp.zeros(2), "key": root_key(7)})
        Traceback (most recent call last):
        AssertionError: Nothing depends on part key: a resume that forgets it would \
pass this test. Run it with settings under which the part is read, or take it out of the state.
    """
    # Not at the top: it imports Orbax, for which no fresh process should wait.
    from reproducibility.storage.checkpoint import CheckpointStore

    if not 0 < stop < steps:
        raise ValueError(f"Cannot resume after {stop} of {steps} updates: choose 0 < stop < steps.")

    def run(state: PyTree, n: int) -> PyTree:
        return copy_of(advance(copy_of(state), n))

    uninterrupted = run(start, steps)
    with tempfile.TemporaryDirectory() as folder, CheckpointStore(folder) as store:
        store.save(stop, run(start, stop))
        restored = store.restore(copy_of(start))
    if found := tree_difference(uninterrupted, run(restored, steps - stop)):
        raise AssertionError(f"Resumed after {stop} of {steps} updates, the end differs: {found}")
    expected, parts = leaf_digests(uninterrupted), list(_each_part_forgotten(start, restored))
    for part, state, keys in parts:
        end = leaf_digests(run(state, steps - stop))
        if all(end.get(n) == expected.get(n) for n in {**end, **expected} if n not in keys):
            raise AssertionError(
                f"Nothing depends on part {part}: a resume that forgets it would pass this test. "
                "Run it with settings under which the part is read, or take it out of the state."
            )
    if not parts:
        raise AssertionError(
            f"No part of the state changed in {stop} updates, and none holds keys: "
            "a resume that forgets everything would pass this test."
        )


def _each_part_forgotten(start: PyTree, restored: PyTree) -> Iterator[tuple[str, PyTree, set[str]]]:
    """Yield each part that can be forgotten, the state without it, and the names of its keys."""
    old, structure = jax.tree.flatten(start)  # what was restored has the same
    new = jax.tree.leaves(restored)
    parts: dict[tuple[Any, bool], dict[int, str]] = defaultdict(dict)
    for path, n in named_leaves(jax.tree.unflatten(structure, range(len(old)))):
        parts[path[:1], is_key(old[n])][n] = path_string(path)
    for (top, keys), names in parts.items():
        lost = [old[n] if n in names else leaf for n, leaf in enumerate(new)]
        if not tree_difference(lost, new):  # it never changed
            if not keys:
                continue
            lost = [_other_keys(leaf) if n in names else leaf for n, leaf in enumerate(new)]
        part = path_string(top) + (" (its keys)" if keys and (top, False) in parts else "")
        yield part, jax.tree.unflatten(structure, lost), set(names.values()) if keys else set()


def _other_keys(keys: Any) -> Any:
    return jax.random.wrap_key_data(~jax.random.key_data(keys), impl=jax.random.key_impl(keys))
