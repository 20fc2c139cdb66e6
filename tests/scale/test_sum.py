"""Promises of `reproducibility.scale.sum`: one order, whatever the devices and processes."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import (
    tree_digest,
)
from tests.layouts import (
    COUNTS,
    grown,
)
from tests.scale.conftest import Found

pytestmark = pytest.mark.timeout(900)  # the first to ask for a layout waits until it is computed


def pairwise(trees: Sequence[Any]) -> Any:
    """Add neighbours, then their sums, and divide: the tree, written out."""
    count = len(trees)
    trees = [jax.tree.map(floating, tree) for tree in trees]
    if count == 1:
        return trees[0]
    while len(trees) > 1:
        trees = [
            jax.tree.map(lambda a, b: np.asarray(a + b), *trees[i : i + 2])
            for i in range(0, len(trees), 2)
        ]
    with np.errstate(under="ignore"):
        return jax.tree.map(lambda total: halved(total, count), trees[0])


def floating(leaf: np.ndarray) -> np.ndarray:
    """Give booleans and whole numbers the dtype of their mean, before they are added."""
    return leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.astype(np.float32)


def halved(total: np.ndarray, count: int) -> np.ndarray:
    """Divide by a power of two."""
    return np.asarray(total / np.asarray(count, total.dtype))


@pytest.mark.parametrize("count", COUNTS)
def test_the_mean_is_the_tree_written_out(found: Found, count: int) -> None:
    """The mean of 1 to 16 shards adds neighbours first, in each dtype, and divides exactly.

    The control: adding from left to right gives other bits.
    """
    trees = [grown(shard) for shard in range(count)]
    expected = {name: tree_digest(leaf) for name, leaf in pairwise(trees).items()}
    got = found("1x1")[f"mean {count}"]
    # On the CPU, XLA takes subnormal numbers as zero, on every layout; NumPy does not.
    assert {**got, "tiny": ""} == {**expected, "tiny": ""}
    if count > 2:
        in_order = functools.reduce(np.add, [tree["float32"] for tree in trees])
        assert tree_digest(halved(in_order, count)) != got["float32"]
