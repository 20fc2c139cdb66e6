"""Promises of `reproducibility.storage.orbax`: any array comes back as it was, or is named."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from reproducibility import (
    CheckpointDamagedError,
    CheckpointStore,
    root_key,
    tree_digest,
)
from tests.storage.test_checkpoint import alter, largest

EVERY_KIND = {
    "nan and -0.0": lambda: jnp.asarray(np.array([0x7FC00001, 0x80000000], np.uint32).view("f4")),
    "bfloat16": lambda: jnp.array([1, 2], jnp.bfloat16),
    "float8": lambda: jnp.array([1, 2], jnp.float8_e4m3fn),
    "float4": lambda: jnp.array([1, 2], ml_dtypes.float4_e2m1fn),
    "int4": lambda: jnp.array([1, -2], jnp.int4),
    "uint2": lambda: jnp.array([1, 3], jnp.uint2),
    "uint4": lambda: jnp.array([1, 15], jnp.uint4),
    "float8_e4m3": lambda: jnp.array([1, 2], jnp.float8_e4m3),
    "float6": lambda: np.arange(64, dtype=np.uint8).view(ml_dtypes.float6_e3m2fn),
    "scalar of float6": lambda: np.uint8(5).view(ml_dtypes.float6_e2m3fn),
    "bool": lambda: jnp.array(True),
    "complex": lambda: jnp.array([1j, 2], jnp.complex64),
    "empty": lambda: jnp.zeros((0, 3)),
    "numpy": lambda: np.arange(3),
    "numpy float64": lambda: np.array([1e300]),
    "numpy big-endian": lambda: np.arange(3, dtype=">f4"),
    "numpy scalar": lambda: np.float32(3),
    "numpy empty": lambda: np.zeros(0),
    "threefry key": lambda: root_key(1),
    "rbg keys": lambda: jax.random.split(jax.random.key(0, impl="rbg"), 3),
    "no keys": lambda: jax.random.split(root_key(0), 0),
    "optimiser state": lambda: optax.adam(1e-3).init({"w": jnp.ones(3)}),
    "list with None": lambda: [jnp.ones(2), None, (), {}],
    "odd names": lambda: {"a/b": jnp.ones(1), "a.b": jnp.zeros(1), "a": {"b": jnp.ones(2)}},
}


def test_every_kind_of_leaf_comes_back(tmp_path: Path) -> None:
    """Any dtype, shape, key and container is restored with the digest it was saved with."""
    tree = {name: make() for name, make in EVERY_KIND.items()}
    with CheckpointStore(tmp_path) as store:
        store.save(3, tree)
        restored = store.restore(tree)
    for name in tree:
        assert tree_digest(restored[name]) == tree_digest(tree[name]), name
    assert isinstance(restored["numpy"], np.ndarray)
    assert isinstance(restored["bool"], jax.Array)
    assert jax.tree.structure(restored) == jax.tree.structure(tree)


def test_shapes_are_enough_to_restore(tmp_path: Path) -> None:
    """A tree of `jax.eval_shape` tells what to restore as well as arrays do."""

    def make() -> Any:
        return {"w": jnp.arange(6.0).reshape(2, 3), "key": root_key(1), "none": jnp.zeros(0)}

    with CheckpointStore(tmp_path) as store:
        store.save(0, make())
        restored = store.restore(jax.eval_shape(make))
    assert tree_digest(restored) == tree_digest(make())


def test_a_tree_without_leaves(tmp_path: Path) -> None:
    """A tree of no leaves, or of empty ones only, is saved and restored."""
    with CheckpointStore(tmp_path) as store:
        store.save(0, {})
        store.save(1, {"empty": jnp.zeros((2, 0))})
        assert store.restore({}, step=0) == {}
        assert store.restore({"empty": jnp.zeros((2, 0))}, step=1)["empty"].shape == (2, 0)


def test_numpy_arrays_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the background writes from is not the caller's own memory."""
    host, given = np.ones(3), {}
    with CheckpointStore(tmp_path) as store:
        write = store.arrays.write

        def spy(folder: Path, arrays: dict[str, Any]) -> None:
            given.update(arrays)
            write(folder, arrays)

        monkeypatch.setattr(store.arrays, "write", spy)
        store.save(0, {"host": host})
    assert not np.shares_memory(given["host"], host)


def test_the_damaged_leaf_is_named(tmp_path: Path) -> None:
    """A bit of one array spoils that leaf and no other; any kind of leaf can be read for that."""
    noise = np.frombuffer(hashlib.shake_256(b"").digest(2**20), np.uint8)  # not to be compressed
    tree = {name: make() for name, make in EVERY_KIND.items()}
    with CheckpointStore(tmp_path) as store:
        store.save(0, {"small": tree, "large": noise})
        store.wait()
        alter(largest(tmp_path / "00000000"))
        with pytest.raises(CheckpointDamagedError, match="altered, and with it large") as caught:
            store.verify(0)
    assert caught.value.leaves == ("large",)
    assert len(caught.value.files) == 1


def test_small_leaves_are_put_where_they_are_to_lie(tmp_path: Path) -> None:
    """A small array of JAX is read by way of the host: of its own, committed, with its type."""
    tree = {"a": jnp.arange(3), "flag": jnp.array(True), "narrow": jnp.ones(2, jnp.int4)}
    tree["two bits"], tree["weak"] = jnp.ones(3, "int2"), jnp.asarray(0.5)
    with CheckpointStore(tmp_path) as store:
        store.save(0, tree)
        restored = store.restore(jax.eval_shape(lambda: tree))
    assert tree_digest(restored) == tree_digest(tree)
    for name, leaf in restored.items():
        assert isinstance(leaf, jax.Array), name
        assert (leaf.sharding, leaf.weak_type) == (tree[name].sharding, tree[name].weak_type), name
