"""Promises of `reproducibility.scale.gradients`: of each shard, whatever the layout."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import (
    index_key,
    root_key,
    shard_gradients,
    tree_digest,
)
from tests.layouts import (
    NETWORKS,
    THOROUGH,
    batches,
    mlp,
    numbers,
)
from tests.scale.conftest import Found, each, refusal
from tests.scale.test_sum import pairwise

pytestmark = pytest.mark.timeout(900)  # the first to ask for a layout waits until it is computed


@pytest.mark.parametrize("layout", each(THOROUGH[1:]))
def test_keys_by_process_or_place_have_other_bits(found: Found, layout: str) -> None:
    """The control: dropout keyed by the process and the shard's number on its device differs on
    every other layout, so the keys of `shard_gradients` are by something else."""
    assert found(layout)["control: keys by place"] != found("1x1")["control: keys by place"]


@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.parametrize("layout", each(THOROUGH))
def test_every_way_to_hand_a_batch_gives_the_same(found: Found, layout: str) -> None:
    """A batch may lie on the host, on the device or on both; parameters on the host too."""
    ways = ("batch of the host", "batch of JAX", "batch of both", "parameters of the host")
    assert len({found(layout)[way] for way in ways}) == 1


def test_shard_gradients_are_what_the_words_say() -> None:
    """The gradient is that of a loop over the shards, each with its key by its global number, added
    as a tree; the control: with keys that are not folded it is another."""
    params, batch, key = NETWORKS["mlp"][1], batches(8)[0], root_key(5)
    found = shard_gradients(mlp, shards=8)(params, batch, key)

    def by_hand(key_of: Callable[[int], jax.Array]) -> str:
        program = jax.jit(jax.value_and_grad(mlp))
        pieces = [jax.tree.map(lambda x: x[i * 8 : i * 8 + 8], batch) for i in range(8)]  # noqa: B023
        parts = [program(params, piece, key_of(i)) for i, piece in enumerate(pieces)]
        return tree_digest(pairwise(jax.device_get(parts)))

    assert tree_digest(found) == by_hand(functools.partial(index_key, key))
    with jax.debug_key_reuse(False):
        assert tree_digest(found) != by_hand(lambda shard: key)


def test_has_aux_means_the_tree_as_well() -> None:
    """With `has_aux`, the tree that a loss returns is averaged over the shards; the gradient is the
    one without it."""

    def loss_fn(w: jax.Array, x: jax.Array) -> jax.Array:
        return ((x @ w) ** 2).mean()

    def more(w: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        return loss_fn(w, x), {"largest": x.max(), "count": (x > 0).sum()}

    w, x = numbers(1, 3), numbers(2, 8, 3)
    (loss, aux), gradient = shard_gradients(more, shards=4, has_aux=True)(w, x)
    plain = shard_gradients(loss_fn, shards=4)(w, x)
    assert tree_digest((loss, gradient)) == tree_digest(plain)
    pieces = x.reshape(4, 6)
    expected = {"largest": pieces.max(1).mean(), "count": np.float32((x > 0).sum() / 4)}
    assert tree_digest(aux) == tree_digest(expected)


AUX_DTYPES = {
    "bool": "float32",
    "int8": "float32",
    "uint8": "float32",
    "int32": "float32",
    "uint32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float32": "float32",
    "complex64": "complex64",
}


@pytest.mark.parametrize("dtype", AUX_DTYPES)
def test_aux_has_one_dtype_and_one_mean(dtype: str) -> None:
    """What every shard gives alike comes back with the same values and the same firm dtype for any
    number of shards, one included: nothing wraps around, and booleans are averaged, not joined.

    The value is the largest that the dtype has, where a sum of two would not fit.
    """
    most = {"bool": True, "int8": 127, "uint8": 255, "int32": 2**30, "uint32": 2**31}.get(dtype, 3)

    def loss_fn(w: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        leaf = jnp.asarray(most, dtype)
        return (w * x).sum(), {"nested": [leaf, {"row": jnp.full((2, 3), leaf)}], "weak": 1.5}

    w, x, found = jnp.ones(()), np.ones(8, np.float32), {}
    for shards in (1, 2, 4, 8):
        (_, aux), _ = shard_gradients(loss_fn, shards=shards, has_aux=True)(w, x)
        found[shards] = tree_digest(aux)
        assert not any(leaf.weak_type for leaf in jax.tree.leaves(aux))
    scalar = np.asarray(most, jnp.dtype(AUX_DTYPES[dtype]))
    expected = {"nested": [scalar, {"row": np.full((2, 3), scalar)}], "weak": np.float32(1.5)}
    assert found == dict.fromkeys(found, tree_digest(expected))


def test_aux_that_differs_from_shard_to_shard_is_averaged() -> None:
    """Booleans and small integers that the shards do not share have the mean that NumPy has."""

    def loss_fn(w: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        return (w * x).sum(), {"flag": x[0] > 1, "byte": (100 * x[0]).astype(jnp.uint8)}

    w, x = jnp.ones(()), np.array([2, 1, 2, 2], np.float32)
    (_, aux), _ = shard_gradients(loss_fn, shards=4, has_aux=True)(w, x)
    assert tree_digest(aux) == tree_digest({"flag": np.float32(0.75), "byte": np.float32(175)})


def test_another_number_of_shards_is_another_run() -> None:
    """The control: cut into other shards, the same batch has other bits."""
    params, batch, key = NETWORKS["mlp"][1], batches(8)[0], root_key(5)
    digests = {
        tree_digest(shard_gradients(mlp, shards=shards)(params, batch, key)) for shards in (4, 8)
    }
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (np.ones((6, 2)), "6"),
        ((np.ones((8, 2)), np.ones(4)), "4, 8"),
        ((np.ones((8, 2)), np.float32(1)), "0, 8"),
        (np.ones((0, 2)), "0"),
        ((), "none"),
    ],
)
def test_a_batch_is_cut_evenly_or_not_at_all(batch: Any, got: str) -> None:
    """A batch whose arrays cannot be cut into the shards of this process is refused."""
    gradients = shard_gradients(lambda w, x: (w * x[0]).sum(), shards=4)
    assert refusal(gradients, jnp.ones(2), batch) == (
        "Cannot cut a batch: expected a multiple of 4 examples in each array, for the 4 shards of "
        f"this process, got {got}. Give each process its part of the batch: layout.part(size)."
    )
