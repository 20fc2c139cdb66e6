"""The gradient of each shard of a batch, and their mean, on any layout.

The rule: the gradient of a shard is a program of one device, with a key from the shard's global
number; the shards are added in one tree.
Chapter: docs/scale/scaling_out.md
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from reproducibility.errors import ConfigError
from reproducibility.keys import index_key
from reproducibility.scale.layout import Layout


def shard_gradients(
    loss_fn: Callable[..., Any],
    *,
    shards: int,
    layout: Layout | None = None,
    has_aux: bool = False,
) -> Callable[..., tuple[Any, PyTree]]:
    """Return a function that computes the mean loss of a batch and its gradient, on any layout.

    What `jax.value_and_grad` is to one device. Each shard's gradient is a program of one device,
    and the shards are added in one tree. Update with a program made by `Layout.each`.

    **Same bits:** one kind of device, instruction set and version of JAX, whatever the number of
    devices and processes; on the CPU, where a very large array is reduced, with one size of XLA's
    thread pool (`NPROC`). Another number of shards is another run.

    Args:
        loss_fn: `loss_fn(params, batch, key)` returns the mean loss of one shard, a scalar.
        shards: slices that the batch of all processes is cut into, a power of two.
        layout: which devices; by default all.
        has_aux: `loss_fn` returns the loss and a tree of arrays; the mean of that over the shards
            is returned as well. With any number of shards, one included, booleans and integers
            become floating point, as in `jnp.mean`, and every other dtype stays.

    Returns:
        A function of (params, batch, key). `params` are everywhere (`Layout.replicate`); `batch`
        is a tree whose arrays begin with this process's part of the examples (`Layout.part`);
        `key` is the same on all processes, and each shard gets `index_key(key, shard)` with its
        global number. Without a key, `loss_fn` gets none. Returns the mean loss (with `has_aux`,
        and the mean of the tree) and the gradient, everywhere.

    Raises:
        ConfigError: `shards` is no power of two, or the devices do not divide it. The function: a
            batch cannot be cut into the shards of this process.

    Examples:
        >>> def loss_fn(w, x):
        ...     return ((x @ w) ** 2).mean()
        >>> gradients = shard_gradients(loss_fn, shards=4)
        >>> loss, gradient = gradients(jnp.ones(3), np.ones((8, 3), np.float32))
        >>> float(loss), gradient.shape
        (9.0, (3,))

    References:
        Li et al., "EasyScale: elastic training with consistent accuracy", SC 2023.
    """
    layout = layout or Layout.of()
    mine = layout.shards(shards)
    each = len(mine) // len(layout.local)
    owners = [layout.local[i // each] for i in range(len(mine))]
    # On one device not tied to it: the first parameters are not, and JAX would compile for each.
    numbers = [jnp.uint32(shard) for shard in mine]
    if not layout.single:
        numbers = list(map(jax.device_put, numbers, owners))

    @jax.jit
    def program(params: PyTree, batch: PyTree, key: Key[Array, ""] | None, shard: Array) -> Any:
        keys = () if key is None else (index_key(key, shard),)
        return jax.value_and_grad(loss_fn, has_aux=has_aux)(params, batch, *keys)

    def gradients(
        params: PyTree, batch: PyTree, key: Key[Array, ""] | None = None
    ) -> tuple[Any, PyTree]:
        copies = layout.copies((params, key))
        parts = []
        for i, piece in enumerate(_cut(batch, len(mine))):
            local = piece if layout.single else jax.device_put(piece, owners[i])
            parts.append(program(copies[i // each][0], local, copies[i // each][1], numbers[i]))
        found: tuple[Any, PyTree] = layout.mean(parts)
        return found

    return gradients


def _cut(batch: PyTree, count: int) -> list[PyTree]:
    """Cut a part of a batch into its shards, on the host if it is there."""
    leaves = jax.tree.leaves(batch)
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in leaves}
    size = min(sizes, default=0)
    if len(sizes) != 1 or not size or size % count:
        raise ConfigError(
            "cut",
            "a batch",
            expected=f"a multiple of {count} examples in each array, for the "
            f"{count} shards of this process",
            got=", ".join(map(str, sorted(sizes))) or "none",
            do="Give each process its part of the batch: layout.part(size).",
        )
    on_device = any(isinstance(leaf, jax.Array) for leaf in leaves)
    # Copies: JAX may read them when the pipeline has written its next batch there.
    pieces: list[PyTree] = (
        _compiled_slices(batch, count)
        if on_device
        else jax.tree.map(np.array, _slices(batch, count))
    )
    return pieces


def _slices(batch: PyTree, count: int) -> list[PyTree]:
    def piece(i: int) -> PyTree:
        return jax.tree.map(lambda x: x[i * len(x) // count : (i + 1) * len(x) // count], batch)

    return [piece(i) for i in range(count)]


_compiled_slices: Any = jax.jit(_slices, static_argnums=1)
