"""Promises of `reproducibility.storage.restoring`: what comes out is as it was sealed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import (
    CheckpointDamagedError,
    CheckpointMismatchError,
    CheckpointReadError,
    CheckpointStore,
    leaf_digests,
    tree_digest,
)
from tests.same.test_state import Box
from tests.storage.test_checkpoint import alter, largest
from tests.storage.test_orbax import EVERY_KIND
from tests.storage.test_whole_state import saved, tied_model


def test_all_leaves_by_name_without_a_tree(tmp_path: Path) -> None:
    """Without `like`, every kind of leaf comes as a plain array of NumPy under its own name, with
    the digest that was sealed; of keys their data, from which the same keys can be made."""
    tree = {name: make() for name, make in EVERY_KIND.items()}
    with CheckpointStore(tmp_path) as store:
        store.save(3, tree)
        found, seal = store.restore(), store.verify(3)
    assert list(found) == list(leaf_digests(tree))
    for name, leaf in found.items():
        assert isinstance(leaf, np.ndarray)
        if prng := seal["leaves"][name].get("prng"):
            leaf = jax.random.wrap_key_data(leaf, impl=prng)
        assert leaf_digests([leaf])["[0]"] == seal["leaves"][name]["digest"], name
        assert list(leaf.shape) == seal["leaves"][name]["shape"]


def test_a_part_is_asked_for_knowingly(tmp_path: Path) -> None:
    """A tree that lacks leaves is refused, with the way to a part; with `part=True` it gets what it
    asks for, and another name, shape or dtype is refused by name as always."""
    state = {"params": {"w": jnp.arange(3.0)}, "ema": np.ones(2), "step": np.uint32(9)}
    with CheckpointStore(tmp_path) as store:
        store.save(9, state)
        with pytest.raises(CheckpointMismatchError, match=r"leaf ema .*restore\(tree, part=True\)"):
            store.restore({"params": state["params"]})
        found = store.restore({"params": {"w": jnp.zeros(3)}, "step": np.uint32(0)}, part=True)
        assert tree_digest(found) == tree_digest({k: state[k] for k in ("params", "step")})
        assert store.restore({}, part=True) == {}
        for other, match in (
            ({"params": {"v": jnp.zeros(3)}}, "no such leaf, but an unknown params.w"),
            ({"params": {"w": jnp.zeros(4)}}, r"expected float32\[4\], got float32\[3\]"),
            ({"step": np.int32(0)}, r"expected int32\[\], got uint32\[\]"),
        ):
            with pytest.raises(CheckpointMismatchError, match=match):
                store.restore(other, part=True)
        with pytest.raises(ValueError, match="Cannot restore a part: expected a tree that says"):
            store.restore(part=True)


def test_a_part_has_what_there_is_beside_its_bits(tmp_path: Path) -> None:
    """Ties, shared arrays, weak types and static data of a part count as those of the whole do;
    those of what is left out do not."""
    w, model = jnp.ones(2), tied_model()
    box = Box(jnp.ones(2), "mean")
    state = {"model": model, "one": w, "two": w, "rate": jnp.asarray(0.1), "box": box}
    with saved(tmp_path, state) as store:
        assert store.restore({"box": Box(jnp.zeros(2), "mean")}, part=True)["box"].data == "mean"
        found = store.restore({"model": tied_model(), "rate": state["rate"]}, part=True)
        assert found["model"].embed is found["model"].head
        assert found["rate"].weak_type
        shared = store.restore({"one": w, "two": w}, part=True)
        assert shared["one"] is shared["two"]
        assert store.restore({"one": w}, part=True).keys() == {"one"}
        for other, match in (
            ({"box": Box(jnp.zeros(2), "sum")}, "static"),
            ({"model": tied_model(tied=False)}, "one object"),
            ({"rate": np.float32(0)}, "of a weak type"),
        ):
            with pytest.raises(CheckpointMismatchError, match=match):
                store.restore(other, part=True)


@pytest.mark.parametrize("leaf", ["a", "b"])
def test_damage_is_refused_whatever_is_asked_for(tmp_path: Path, leaf: str) -> None:
    """One bit of one leaf refuses the checkpoint: all leaves by name, and a part that has the other
    leaf only."""
    state = {"a": np.arange(4096, dtype=np.uint32), "b": np.arange(3)}
    with saved(tmp_path, state) as store:
        store.restore()
        store.restore({leaf: state[leaf]}, part=True)
        alter(largest(tmp_path / "00000000"))
        for use in (store.restore, lambda: store.restore({leaf: state[leaf]}, part=True)):
            with pytest.raises(CheckpointDamagedError, match="and with it a"):
                use()


def test_what_is_read_of_all_leaves_is_what_was_sealed(tmp_path: Path) -> None:
    """Where intact files are read as other values, that is said, and no array is handed out."""
    with saved(tmp_path, {"a": np.arange(3), "b": np.ones(2)}) as store:
        read = store.arrays.read
        store.arrays.read = lambda *where: {**read(*where), "b": np.zeros(2)}
        for use in (store.restore, lambda: store.restore({"b": np.ones(2)}, part=True)):
            with pytest.raises(CheckpointReadError, match="others in b"):
                use()
