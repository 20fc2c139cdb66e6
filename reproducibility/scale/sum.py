"""The one order in which the shards are added, wherever they lie.

The rule: neighbours first, then neighbours of those, and so on. The number of shards fixes the
tree; the devices only decide where each addition happens.
Chapter: docs/scale/scaling_out.md

With 8 shards the tree is ((0+1)+(2+3)) + ((4+5)+(6+7)). A device owns an aligned block of shards,
so every addition lies inside one device or between two. Between devices it is a butterfly: in round
r, device k and device k XOR 2**r exchange what they have and both add. Addition commutes, so both
get the same number, and after the last round every device has the sum without a broadcast.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, PyTree, Shaped

AXIS = "device"
type Parts = Sequence[PyTree]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["vectors"], meta_fields=["form"])
@dataclasses.dataclass(frozen=True)
class _Flat:
    """A tree as one vector for each dtype: an exchange between devices costs a call for each."""

    vectors: dict[str, Shaped[Array, "1 elements"]]
    form: tuple[Any, tuple[tuple[tuple[int, ...], str], ...], int]
    """Structure, shapes and dtypes of the tree, and how many shards were added on a device."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """What shards gave, stacked: a row for each shard of all processes, by its global number.

    Same bits: everywhere; it computes nothing.
    """

    stacks: Sequence[PyTree]
    """Of each device of this process, in their order; only the rows of its own shards count."""
    count: int
    """How many shards all processes have, and so rows."""


@jax.jit
def mean_of_rows(stack: PyTree) -> PyTree:
    """Add the rows and divide, where one device has all of them.

    Same bits: whatever the layout; those of `mean_on_one_device`, given the rows one by one.

    Args:
        stack: a row for each shard, two or more.
    """
    return _mean(_unstacked(stack, 0, len(jax.tree.leaves(stack)[0])))


@functools.partial(jax.jit, static_argnums=2)
def sum_rows_on_a_device(stack: PyTree, first: Any, count: int) -> _Flat:
    """Add the rows that a device computed: the part of the tree that lies inside of it.

    Same bits: whatever the layout; those of `sum_on_a_device`, given the rows one by one.

    Args:
        stack: a row for each shard of all processes.
        first: the global number of the device's first shard.
        count: how many shards it has.
    """
    found: _Flat = sum_on_a_device(_unstacked(stack, first, count))
    return found


def _unstacked(stack: PyTree, first: Any, count: int) -> Parts:
    own = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, count), stack)
    return tuple(jax.tree.map(lambda x: x[i], own) for i in range(count))  # noqa: B023


def mean_on_one_device(parts: Parts) -> PyTree:
    """Add the shards and divide, where one device has all of them.

    Same bits: whatever the layout.

    Args:
        parts: as for `Layout.mean`.
    """
    return _mean(tuple(parts)) if len(parts) > 1 else jax.tree.map(_inexact, parts[0])


@jax.jit
def sum_on_a_device(parts: Parts) -> _Flat:
    """Add the shards of one device: the part of the tree that lies inside of it.

    Same bits: whatever the layout.

    Args:
        parts: as for `Layout.mean`, of one device.
    """
    leaves, structure = jax.tree.flatten(_pairwise_sum(parts))
    kinds: dict[str, list[Array]] = {}
    for leaf in leaves:
        kinds.setdefault(leaf.dtype.name, []).append(leaf.reshape(1, -1))
    vectors = {kind: jnp.concatenate(same, axis=1) for kind, same in kinds.items()}
    form = (structure, tuple((leaf.shape, leaf.dtype.name) for leaf in leaves), len(parts))
    return _Flat(vectors, form)


@functools.partial(jax.jit, static_argnums=1)
def mean_between_devices(sums: _Flat, mesh: Mesh) -> PyTree:
    """Add what the devices have, the part of the tree between them, and divide.

    Same bits: whatever the layout.

    Args:
        sums: those of all devices, joined along their first axis.
        mesh: the devices.
    """
    count = mesh.size
    exchange: Any = jax.lax.ppermute

    def butterfly(vector: Array) -> Array:
        distance = 1
        while distance < count:
            partners = [(device, device ^ distance) for device in range(count)]
            vector = vector + exchange(vector, AXIS, partners)
            distance *= 2
        return vector

    add = jax.shard_map(
        butterfly, mesh=mesh, in_specs=partition(AXIS), out_specs=partition(), check_vma=False
    )
    totals = {kind: add(vector)[0] for kind, vector in sums.vectors.items()}
    structure, shapes, shards = sums.form
    starts, leaves = dict.fromkeys(totals, 0), []
    for shape, kind in shapes:
        size = int(np.prod(shape))
        flat = jax.lax.slice_in_dim(totals[kind], starts[kind], starts[kind] + size)
        leaves.append(_share(flat.reshape(shape), shards * count))
        starts[kind] += size
    return jax.tree.unflatten(structure, leaves)


def partition(*axes: str | None) -> Any:
    """Return JAX's `PartitionSpec`, which has no types in JAX's own stubs.

    Args:
        axes: of a mesh, for each axis of an array.
    """
    make: Any = PartitionSpec
    return make(*axes)


def _pairwise_sum(parts: Parts) -> PyTree:
    """Add neighbours, then neighbours of those, and so on."""
    parts = [jax.tree.map(_inexact, part) for part in parts]
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [jax.tree.map(jnp.add, left, right) for left, right in pairs]
    return parts[0]


def _inexact(leaf: Array) -> Array:
    """Give a leaf the dtype of its mean, as `jnp.mean` does: before the sum, where two bytes of 200
    are 144 and two booleans one. Nor is a dtype left weak, as it could not be between devices."""
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        leaf = leaf / 1
    return leaf.astype(leaf.dtype) if leaf.weak_type else leaf


@jax.jit
def _mean(parts: Parts) -> PyTree:
    return jax.tree.map(functools.partial(_share, count=len(parts)), _pairwise_sum(parts))


def _share(total: Array, count: int) -> Array:
    """Divide by the number of shards, a power of two.

    The sum of two NaNs has the bits of one of them, and which one is up to the device: so that all
    devices agree, there is one NaN.
    """
    mean = total / count
    return jnp.where(jnp.isnan(mean), jnp.nan, mean).astype(mean.dtype)
