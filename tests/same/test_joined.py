"""Promises of `reproducibility.same.joined`: side by side as alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reproducibility.same.fingerprint import kind_name_of, leaf_fingerprint
from reproducibility.same.joined import (
    JOINED_ROWS,
    MOST_WORDS,
    SMALL_LEAF,
    SmallLeaf,
    added_up,
    chosen,
    joined_lanes,
    small_leaf,
)
from reproducibility.same.leaves import named_leaves
from tests.same.test_fingerprint import ON_DEVICE, ON_HOST, sample

SIZES = (0, 1, JOINED_ROWS - 1, JOINED_ROWS, JOINED_ROWS + 1, 1000)


def small(pairs: Any) -> list[SmallLeaf]:
    """Return leaves as what can be joined."""
    return [small_leaf(n, path, leaf, kind_name_of(leaf)) for n, (path, leaf) in enumerate(pairs)]


def test_side_by_side_is_as_alone() -> None:
    """Leaves of each dtype and of many sizes have, joined, the fingerprints they have alone."""
    numbers = np.random.default_rng(7)
    tree: dict[str, Any] = {f"device {name}": jnp.asarray(sample(name)) for name in ON_DEVICE}
    tree |= {f"size {n}": jnp.asarray(numbers.normal(size=n), jnp.float32) for n in SIZES}
    tree |= {"keys": jax.random.split(jax.random.key(3), 5), "none": jnp.zeros((3, 0), jnp.int32)}
    host = {f"host {name}": sample(name) for name in ON_HOST if name not in ON_DEVICE}
    host["host float32"] = sample("float32")
    whose: list[Any] = []

    @jax.jit
    def both(tree: Any) -> Any:
        pairs = named_leaves({**tree, **host})
        lanes, columns = joined_lanes(chosen(small(pairs)))
        whose[:] = [columns]
        return lanes, jnp.stack([leaf_fingerprint(*pair) for pair in pairs])

    lanes, alone = map(np.asarray, both(tree))
    columns = whose[0]
    assert sorted(columns.leaves) == list(range(len(alone)))
    assert columns.end == lanes.shape[1]
    assert (added_up(lanes, columns) == alone[list(columns.leaves)]).all()
    twice = added_up(np.stack([lanes, lanes + np.uint32(1)]), columns)
    assert (twice[0] == alone[list(columns.leaves)]).all()
    assert (twice[1] != twice[0]).all(), "each step has its own"


def test_only_small_leaves_are_joined() -> None:
    """A large leaf stays alone, and so do all that would make the constants of a program large."""

    def of(*sizes: int) -> list[int]:
        leaves = [
            SmallLeaf(n, (0, 0), (jax.ShapeDtypeStruct((size,), np.dtype("uint32")),))
            for n, size in enumerate(sizes)
        ]
        return [leaf.number for leaf in chosen(leaves)]

    assert of(SMALL_LEAF + 1, 5, SMALL_LEAF) == [1, 2]
    assert of(*[SMALL_LEAF] * 9) == list(range(MOST_WORDS // SMALL_LEAF))
    assert of() == []
