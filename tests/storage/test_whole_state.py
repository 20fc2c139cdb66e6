"""Beside its bits a state comes back as it was, or is refused by name: the store's part of that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import sparse

from reproducibility import (
    CheckpointError,
    CheckpointMismatchError,
    CheckpointStore,
    LeafError,
    root_key,
    tree_digest,
)
from reproducibility.same.state import map_leaves, shared_leaves
from reproducibility.storage.restoring import read_tree, verified
from tests.same.test_state import Box, Train, cyclic


def saved(folder: Path, tree: Any, step: int = 0) -> CheckpointStore:
    """Return a store in which a tree is saved."""
    store = CheckpointStore(folder)
    store.save(step, tree)
    store.wait()
    return store


def tied_model(*, tied: bool = True) -> Any:
    """Return a module with one Variable under two names, or with two of the same value."""
    model = nnx.Dict()
    model.embed = nnx.Param(jnp.ones(2))
    model.head = model.embed if tied else nnx.Param(jnp.ones(2))
    return model


def test_tied_weights_come_back_tied(tmp_path: Path) -> None:
    """A Variable under two names is one Variable after a restore, with what was saved."""
    model = tied_model()
    model.embed.set_value(jnp.arange(2.0))
    with saved(tmp_path, model) as store:
        restored = store.restore(tied_model())
    assert restored.embed is restored.head
    assert restored.embed[...].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("tied", [True, False])
def test_other_ties_are_refused(tmp_path: Path, tied: bool) -> None:
    """What is one object only when saved, or only in the tree given, is refused by its names."""
    words = ["several objects", "one object"]
    with saved(tmp_path, tied_model(tied=tied)) as store:
        with pytest.raises(CheckpointMismatchError) as caught:
            store.restore(tied_model(tied=not tied))
        assert caught.value.thing == "embed and head"
        assert [caught.value.expected, caught.value.got] == words[:: 1 if tied else -1]
        assert store.verify(0)


def test_arrays_that_are_shared_stay_so(tmp_path: Path) -> None:
    """Two names of one array lead to one array again, and others do not, whatever `like` has."""
    w, host = jnp.ones(2), np.ones(2)
    one = {"w": w, "ema": w, "a": host, "b": host, "c": np.ones(2)}
    other = map_leaves(lambda leaf: leaf, {**one, "ema": jnp.ones(2), "b": np.ones(2)})
    for tree, like in ((one, other), (other, one)):
        with saved(tmp_path / str(tree is one), tree) as store:
            assert shared_leaves(store.restore(like)) == shared_leaves(tree)


def test_weak_types_come_back(tmp_path: Path) -> None:
    """A weak type is saved and comes back, with its bits; a strong one stays strong."""
    tree = {"weak": jnp.asarray(-0.0), "nan": jnp.asarray(np.float32(np.nan)), "n": jnp.asarray(1)}
    tree["wide"] = jax.jit(lambda x: jnp.broadcast_to(x, (3,)))(tree["weak"])
    with saved(tmp_path, tree) as store:
        for like in (tree, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)):
            restored = store.restore(like)
            assert {n: x.weak_type for n, x in restored.items()} == {
                **{"weak": True, "nan": False, "n": True, "wide": True}
            }
            assert tree_digest(restored) == tree_digest(tree)
        with pytest.raises(CheckpointMismatchError, match=r"leaf n .*of NumPy, got .* weak type"):
            store.restore({**tree, "n": np.int32(1)})


def test_scalars_of_numpy_stay_scalars(tmp_path: Path) -> None:
    """A scalar of NumPy comes back as one: nobody can write into it; an array as an array."""
    tree = {"scalar": np.float64(0.1), "flag": np.bool_(True), "array": np.array(0.1)}
    with saved(tmp_path, tree) as store:
        restored = store.restore(tree)
    assert {name: type(leaf) for name, leaf in restored.items()} == {
        **{"scalar": np.float64, "flag": np.bool_, "array": np.ndarray}
    }
    assert tree_digest(restored) == tree_digest(tree)


def test_other_static_data_is_refused(tmp_path: Path) -> None:
    """Another static field is refused with its name, before anything is read; or knowingly not."""
    entries = jnp.ones(1), jnp.zeros((1, 2), jnp.int32)
    tree = {"train": Train(jnp.ones(2), epoch=3), "m": sparse.BCOO(entries, shape=(9, 9))}
    other = {"train": Train(jnp.ones(2)), "m": tree["m"]}
    with saved(tmp_path, tree) as store:
        with pytest.raises(CheckpointMismatchError) as caught:
            store.resume(other)
        assert str(caught.value) == (
            f"Cannot restore static field train.epoch at {tmp_path}/00000000, step 0: expected 0, "
            "got 3. Give a tree that has what was saved, or static=False to go on with that of "
            "the tree."
        )
        assert store.restore(tree)["train"].epoch == 3
        assert store.resume(other, static=False)["train"].epoch == 0
        with pytest.raises(CheckpointMismatchError, match=r"field m\.shape .*expected \(3, 3\)"):
            store.restore({**tree, "m": sparse.BCOO(entries, shape=(3, 3))})


def test_a_state_of_another_step_is_refused(tmp_path: Path) -> None:
    """A checkpoint named 3 does not hold a state that says 2; other counters are its own affair."""
    with CheckpointStore(tmp_path) as store:
        with pytest.raises(CheckpointError) as caught:
            store.save(3, {"step": jnp.uint32(2), "w": jnp.ones(2)})
        assert str(caught.value) == (
            f"Cannot save a checkpoint at {tmp_path}/00000003, step 3: expected a state whose leaf "
            "step is 3, got 2. Save it as step 2; or give the leaf another name, if it counts "
            "others."
        )
        assert list(tmp_path.iterdir()) == []
        store.save(3, {"step": jnp.uint32(3), "opt": {"step": jnp.uint32(2)}})
        store.save(4, {"step": jnp.ones(2), "rate": jnp.uint32(2)})


@pytest.mark.parametrize("make", [cyclic, lambda: [0] * 100_001])
def test_static_data_without_end_is_not_saved(tmp_path: Path, make: Callable[[], Any]) -> None:
    """Static data that cannot be sealed is refused before anything is written."""
    with CheckpointStore(tmp_path) as store, pytest.raises(LeafError, match="data of node at a: "):
        store.save(0, {"a": Box(jnp.ones(2), make())})
    assert list(tmp_path.iterdir()) == []


def test_what_was_saved_before_still_restores(tmp_path: Path) -> None:
    """A checkpoint whose seal says nothing of sharing, static data and weak types is restored."""
    with zipfile.ZipFile(Path(__file__).with_name("before_sharing.zip")) as file:
        file.extractall(tmp_path)
    w, key = jnp.arange(3.0), root_key(7)
    tree = {"w": w, "ema": w, "rate": jnp.asarray(0.5), "n": np.int8(3), "host": np.arange(2)}
    with CheckpointStore(tmp_path) as store:
        assert "state" not in store.verify(3)
        restored = store.restore({**tree, "key": key})
        assert tree_digest(restored) == tree_digest({**tree, "key": key})
        assert shared_leaves(restored) == ()


def test_ties_of_an_old_seal(tmp_path: Path) -> None:
    """Where a seal says nothing, nodes that are one in `like` are one if the same was saved."""
    model = tied_model(tied=False)
    for number, value in enumerate((1.0, 2.0)):
        model.head.set_value(jnp.full(2, value))
        with saved(tmp_path / str(number), model) as store:
            seal = verified(store.path / "00000000", 0, None)
            object.__setattr__(seal, "state", None)
            folder, like, wanted = store._folder(0), tied_model(), _wanted(model)
            restored = read_tree(store.arrays, folder, seal, like, wanted, static=True, part=False)
        assert (restored.embed is restored.head) == (value == 1.0)
        assert restored.head[...].tolist() == [value, value]


def _wanted(tree: Any) -> dict[str, Any]:
    return {"embed.value": tree.embed[...], "head.value": tree.head[...]}


def test_facts_of_a_seal(tmp_path: Path) -> None:
    """Static data, sharing and weak types are facts of their own in the seal."""
    w = jnp.asarray(0.5)
    box = Box(w, ("a", len))
    with saved(tmp_path, {"x": box, "y": box}):
        seal = json.loads((tmp_path / "00000000" / "seal.json").read_text())
    static = {"class": "Box", "data": '("a", <function len>)', "not_compared": []}
    static["fields"] = {"data": '("a", <function len>)'}
    assert seal["state"] == {
        "static": [{"nodes": ["x", "y"], **static}],
        "shared": [["x[0]", "y[0]"]],
        "tied": [["x", "y"]],
    }
    assert [leaf["weak"] for leaf in seal["leaves"].values()] == [True, True]


ON_EIGHT = """
import sys, threading
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from reproducibility import CheckpointStore, LeafError, Recorder, fingerprint, tree_digest
mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
raw = np.zeros(4 * 2**16 + 64, np.uint8)
begin = -raw.ctypes.data % 64
buffer = raw[begin : begin + 4 * 2**16].view(np.float32)
buffer[:] = np.arange(buffer.size)
tree = {}
for name, spec in {"whole": P(), "rows": P("a"), "cut": P(("a", "b"))}.items():
    tree[name] = jax.device_put(buffer, NamedSharding(mesh, spec))
columns = NamedSharding(mesh, P(None, ("a", "b")))
tree["columns"] = jax.device_put(buffer.reshape(256, 256), columns)
tree["third"] = jax.device_put(buffer[:16], jax.devices()[3])
step = jax.jit(lambda x: x + 1, donate_argnums=0)
tree["weak"] = jax.device_put(jnp.asarray(0.5), NamedSharding(mesh, P()))
like, digest, go = jax.eval_shape(lambda: tree), tree_digest(tree), threading.Event()
shardings = {name: leaf.sharding for name, leaf in tree.items()}
with CheckpointStore(sys.argv[1]) as store:
    store._commits.submit(go.wait)
    store.save(0, tree)
    given = dict(tree)
    buffer[:] = -1.0
    tree = {name: step(leaf) for name, leaf in tree.items()}
    go.set()
    restored = store.restore(jax.tree.map(lambda x: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=x.sharding), tree))
    print(tree_digest(restored) == digest, restored["weak"].weak_type)
    print({name: leaf.sharding for name, leaf in restored.items()} == shardings)
    parts = [np.full(4, np.float32(n == 5)) for n in range(8)]
    copies = [jax.device_put(part, d) for part, d in zip(parts, jax.devices())]
    wrong = jax.make_array_from_single_device_arrays((4,), NamedSharding(mesh, P()), copies)
    try:
        store.save(1, {"w": wrong})
    except LeafError as error:
        print(error.got, store.steps())
with Recorder(sys.argv[1] + "/ledger.jsonl", level="leaf") as recorder:
    recorder.record(1, params={"v": restored["whole"], "w": restored["rows"]})
    recorder.flush().result()
    recorder.record(2, params={"v": restored["whole"], "w": wrong})
    try:
        recorder.flush().result()
    except LeafError as error:
        print(error.thing, error.step, error.got)
    recorder._failed = None
try:
    fingerprint({"w": wrong})
except LeafError as error:
    print(error.path, error.got)
"""


def test_on_eight_devices(tmp_path: Path) -> None:
    """On eight devices: saved as it was at the call, restored as it lay; copies may not differ.

    That is also what the recorder and the fingerprint say of copies, with leaf and devices.
    """
    done = subprocess.run(
        [sys.executable, "-c", ON_EIGHT, str(tmp_path)],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "True True",
        "True",
        "other bits on cpu:5 than on cpu:0 [0]",
        "leaf w of params 2 other bits on cpu:5 than on cpu:0",
        "w other bits on cpu:5 than on cpu:0",
    ], done.stderr[-2000:]
