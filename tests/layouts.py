"""Compute the same things on one layout: what tests/scale/conftest.py starts.

    python -m tests.layouts --devices 4 FOLDER

With the settings that `launch` adds it is one of several processes. Process 0 writes
FOLDER/found.json: digests by name. Those that begin with "control" may depend on the layout; all
others may not.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reproducibility import (
    Layout,
    NotReproducedError,
    ProcessMismatchError,
    TrainConfig,
    fingerprint,
    index_key,
    initialize,
    process_key,
    root_key,
    shard_gradients,
    train,
    tree_digest,
)
from reproducibility.scale.launch import end_with_parent
from reproducibility.scale.sum import Rows
from tests.conftest import SMALL

# Each device compiles all for itself, so what no layout could change alone is not asked of all.
THOROUGH = ("1x1", "1x2", "2x1", "1x4", "2x2")
DEADLINE = 600  # seconds; a process that takes longer says where it is, and ends
TRAINED = {
    "seed": 7,
    "steps": 12,
    "checkpoint_every": 4,
    **SMALL,
    "batch_size": 64,
    "shards": 8,
}
DATASETS = ("synthetic", "digits")
SHARDS = 8
SIZES = {"mlp": (8,), "convolution": (1, 8, 64), "attention": (1, 8, 64)}  # examples in a shard
QUICK = {"mlp": (8,), "convolution": (8,), "attention": (1,)}  # and the first data set
STEPS = 3
COUNTS = (1, 2, 4, 8, 16)  # shards of which the mean is taken
Tree = Any


def numbers(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Draw numbers on the host: the same on any layout, whatever JAX does."""
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def batches(size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the batches of all processes: images and labels."""
    x = numbers(1, STEPS, size * SHARDS, 8, 8)
    y = np.random.default_rng(2).integers(0, 10, x.shape[:2]).astype(np.int32)
    return list(zip(x, y, strict=True))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean loss."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def mlp(params: Tree, batch: Tree, key: jax.Array) -> jax.Array:
    """A network with dropout."""
    hidden = jax.nn.gelu(batch[0].reshape(len(batch[0]), -1) @ params["in"] + params["bias"])
    kept = jax.random.bernoulli(key, 0.75, hidden.shape)
    return cross_entropy(jnp.where(kept, hidden / 0.75, 0.0) @ params["out"], batch[1])


def convolution(params: Tree, batch: Tree, key: jax.Array) -> jax.Array:
    """A convolution."""
    layout, images = ("NHWC", "HWIO", "NHWC"), batch[0][..., None]
    found = jax.lax.conv_general_dilated(
        images, params["filter"], (1, 1), "SAME", dimension_numbers=layout
    )
    return cross_entropy(jax.nn.relu(found).mean((1, 2)) @ params["out"], batch[1])


def attention(params: Tree, batch: Tree, key: jax.Array) -> jax.Array:
    """One head of attention over the rows of an image, with layer normalisation."""
    x = batch[0]
    x = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
    query, keys, values = (x @ params[name] for name in ("query", "key", "value"))
    weights = jax.nn.softmax(query @ keys.swapaxes(1, 2) / 8**0.5)
    return cross_entropy((x + weights @ values).mean(1) @ params["out"], batch[1])


NETWORKS: dict[str, tuple[Callable[..., Any], Tree]] = {
    "mlp": (
        mlp,
        {"in": numbers(3, 64, 16, scale=0.1), "bias": numbers(4, 1, 16), "out": numbers(5, 16, 10)},
    ),
    "convolution": (
        convolution,
        {"filter": numbers(6, 3, 3, 1, 4), "out": numbers(7, 4, 10)},
    ),
    "attention": (
        attention,
        {name: numbers(8 + i, 8, 8, scale=0.3) for i, name in enumerate(("query", "key", "value"))}
        | {"out": numbers(11, 8, 10)},
    ),
}


def adam(layout: Layout) -> tuple[Callable[..., Tree], Callable[..., Tree]]:
    """Return the programs that begin and go on with (parameters, state of the optimiser)."""
    optimiser = optax.adam(1e-2)

    def update(state: Tree, gradient: Tree) -> Tree:
        change, opt_state = optimiser.update(gradient, state[1])
        return optax.apply_updates(state[0], change), opt_state

    begin = layout.each(lambda params: (params, optimiser.init(params)))
    return begin, layout.each(update, donate_argnums=0)


def through_shard_gradients(
    layout: Layout, sizes: dict[str, tuple[int, ...]]
) -> Iterator[tuple[str, str]]:
    """Train each network with some sizes of a shard."""
    for name, (loss_fn, params) in NETWORKS.items():
        begin, update = adam(layout)
        gradients = shard_gradients(loss_fn, shards=SHARDS, layout=layout)
        for size in sizes[name]:
            state, losses = begin(layout.replicate(params)), []
            for step, batch in enumerate(batches(size)):
                mine = jax.tree.map(lambda x: x[layout.part(len(x))], batch)
                loss, gradient = gradients(state[0], mine, index_key(root_key(7), step))
                state = update(state, gradient)
                losses.append(loss)
            yield f"{name} {size}", tree_digest((state, losses))


def with_keys_by_place(layout: Layout) -> str:
    """The mistake: dropout keyed by the process and the shard's number on its device."""
    each = len(layout.shards(SHARDS)) // len(layout.local)

    def loss_fn(params: Tree, batch: Tree) -> jax.Array:
        return mlp(params, batch[:2], index_key(process_key(root_key(7)), batch[2][0]))

    x, y = (leaf[layout.part(len(leaf))] for leaf in batches(1)[0])
    place = np.arange(len(x), dtype=np.uint32) % each
    gradients = shard_gradients(loss_fn, shards=SHARDS, layout=layout)
    return tree_digest(gradients(layout.replicate(NETWORKS["mlp"][1]), (x, y, place)))


def ordinary(layout: Layout) -> str:
    """What is usual: one program, its batch cut over the devices."""
    mesh = Mesh(np.array(layout.devices), ("device",))
    cut = NamedSharding(mesh, PartitionSpec("device"))
    loss_fn, params = NETWORKS["mlp"]
    optimiser = optax.adam(1e-2)

    @jax.jit
    def step(params: Tree, opt_state: Tree, batch: Tree, key: jax.Array) -> Tree:
        loss, gradient = jax.value_and_grad(loss_fn)(params, batch, key)
        change, opt_state = optimiser.update(gradient, opt_state)
        return optax.apply_updates(params, change), opt_state, loss

    params = layout.replicate(params)
    opt_state, losses = layout.each(optimiser.init)(params), []
    for number, batch in enumerate(batches(64)):
        there = jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(
                cut, x[layout.part(len(x))], global_shape=x.shape
            ),
            batch,
        )
        key = layout.replicate(index_key(root_key(7), number))
        params, opt_state, loss = step(params, opt_state, there, key)
        losses.append(loss.block_until_ready())
    return tree_digest((params, opt_state, losses))


def grown(shard: int) -> Tree:
    """Return what a shard could give: several dtypes, an empty array, scalars, tiny numbers."""
    x = numbers(100 + shard, 3, 5)
    return {
        "float32": x,
        "bfloat16": x[0].astype(ml_dtypes.bfloat16),
        "float16": x[1].astype(np.float16),
        "int32": (100 * x[2]).astype(np.int32),
        "uint8": np.abs(100 * x[1]).astype(np.uint8),
        "bool": x[1] > 0,
        "scalar": x[0, 0],
        "tiny": x * np.float32(1e-38),
        "large": x * np.float32(1e30),
        "nothing": np.zeros((0, 2), np.float32),
        "inside": [{}, x[:, 1]],
    }


def rows(layout: Layout, count: int) -> Rows:
    """Return the same as rows; those of the shards of other devices are noughts."""
    whole = jax.tree.map(lambda *leaves: np.stack(leaves), *map(grown, range(count)))
    each, stacks = count // len(layout.devices), []
    for device in layout.local:
        first = layout.devices.index(device) * each
        own = (np.arange(count) >= first) & (np.arange(count) < first + each)

        def keep(leaf: np.ndarray, own: np.ndarray = own) -> np.ndarray:
            return np.where(own.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, np.zeros_like(leaf))

        stacks.append(jax.device_put(jax.tree.map(keep, whole), device))
    return Rows(stacks, count)


def means(layout: Layout) -> Iterator[tuple[str, Any]]:
    """Take means of trees that shards could give."""
    for count in COUNTS:
        if count % len(layout.devices):
            continue
        mine = layout.shards(count)
        each = len(mine) // len(layout.local)
        owners = [layout.local[i // each] for i in range(len(mine))]
        given = [jax.device_put(grown(n), owner) for n, owner in zip(mine, owners, strict=True)]
        found = layout.mean(given)
        if count == SHARDS:
            assert tree_digest(layout.mean(rows(layout, count))) == tree_digest(found)
        yield f"mean {count}", {name: tree_digest(leaf) for name, leaf in found.items()}
        assert jax.tree.leaves(layout.mean([{} for _ in mine])) == []
        if not layout.single:
            assert all(leaf.sharding == layout.everywhere for leaf in jax.tree.leaves(found))


def moved(layout: Layout) -> Iterator[tuple[str, Any]]:
    """Bring trees everywhere, compute on each device, cut them, in every form they come in."""
    here, key = numbers(20, SHARDS, 3), root_key(3)
    forms = {
        "numpy": here,
        "jax": jnp.asarray(here),
        "key": key,
        "scalar": np.float32(2.5),
        "last": jax.device_put(here, layout.local[-1]),
        "nothing": {},
        "none": None,
    }
    everywhere = layout.replicate(forms)
    yield "replicate", tree_digest(everywhere)
    assert tree_digest(layout.replicate({})) == tree_digest({})
    for leaf in jax.tree.leaves(everywhere) if not layout.single else []:
        assert leaf.sharding.device_set == set(layout.devices)
        assert leaf.is_fully_replicated

    copies = layout.copies(everywhere)
    assert [tree_digest(copy) for copy in copies] == [tree_digest(forms)] * len(layout.local)
    for device, copy in zip(layout.local, copies if not layout.single else [], strict=False):
        assert all(leaf.devices() == {device} for leaf in jax.tree.leaves(copy))

    drawn = layout.each(lambda key, x: (jax.random.normal(key, (4,)), x.sum(), {"x": x}))
    yield "each", tree_digest(drawn(key, here))
    begun = layout.each(lambda x: {"zeros": jnp.zeros_like(x)})  # as `init` of an optimiser
    yield "each, whatever it is given", tree_digest(begun(here))
    given = layout.replicate({"x": jnp.asarray(here), "y": jnp.ones(4)})
    kept = layout.replicate(jnp.ones(4))
    other = layout.each(lambda a, b: jax.tree.map(lambda x: x * b.sum(), a), donate_argnums=0)(
        given, kept
    )
    yield "each, donated", tree_digest((other, kept))
    yield "memory is used again", gone(given) and not gone(kept)

    keys = jax.random.split(key, 2 * SHARDS).reshape(2, SHARDS)
    whole = layout.replicate({"x": jnp.asarray(here.T), "keys": keys})
    parts = layout.divide(whole, axis=1)
    yield "divide", fingerprint(parts).tolist()
    each = SHARDS // len(layout.devices)
    for device in layout.local:
        at = layout.devices.index(device) * each
        wanted = {"x": here.T[:, at : at + each].copy(), "keys": keys[:, at : at + each]}
        owned = jax.tree.map(lambda leaf: on(device, leaf), parts)  # noqa: B023
        assert tree_digest(owned) == tree_digest(wanted)


def gone(tree: Tree) -> bool:
    """Say whether the memory of arrays was given away, on every device of this process."""
    leaves = jax.tree.leaves(tree)
    return all(leaf.is_deleted() for leaf in leaves)


def on(device: Any, leaf: jax.Array) -> jax.Array:
    """Return what a device has of an array."""
    [found] = [shard.data for shard in leaf.addressable_shards if shard.device == device]
    return found


def devices_that_err(layout: Layout) -> Iterator[tuple[str, str]]:
    """Let one device of each process, then one process, have other bits: both are named."""

    def made(*wrong: Any) -> Tree:
        here = [jax.device_put(np.float32(device in wrong), device) for device in layout.local]
        return {"x": jax.make_array_from_single_device_arrays((), layout.everywhere, here)}

    layout.assert_same_on_all_devices(made(), step=5)
    first, last = layout.local[0], layout.local[-1]
    if first != last:
        said = f"step 5: expected the bits that {first} has, got others on {last}"
        with pytest.raises(NotReproducedError, match=re.escape(said)):
            layout.assert_same_on_all_devices(made(last), step=5)
    if layout.processes > 1:
        process = layout.processes - 1
        wrong = [device for device in layout.devices if device.process_index == process]
        with pytest.raises(ProcessMismatchError, match=f"step 5.*on process {process}"):
            layout.assert_same_on_all_devices(made(*wrong), step=5)
    yield "devices that err", "are named"


def ways_to_call(layout: Layout) -> Iterator[tuple[str, str]]:
    """Call `shard_gradients` with and without key and aux, with arrays of the host and of JAX."""
    here = NETWORKS["mlp"][1]
    params, key = layout.replicate(here), root_key(5)
    batch = jax.tree.map(lambda x: x[layout.part(len(x))], batches(8)[0])

    def plain(params: Tree, batch: Tree) -> jax.Array:
        return cross_entropy(batch[0].reshape(len(batch[0]), -1) @ params["in"], batch[1])

    def more(params: Tree, batch: Tree, key: jax.Array) -> tuple[jax.Array, Tree]:
        right = (batch[0][:, 0].argmax(-1) == batch[1]).sum()
        return mlp(params, batch, key), {"right": right, "half": batch[0].mean(dtype=jnp.bfloat16)}

    gradients = shard_gradients(plain, shards=SHARDS, layout=layout)
    yield "batch of the host", tree_digest(gradients(params, batch))
    yield "batch of JAX", tree_digest(gradients(params, jax.tree.map(jnp.asarray, batch)))
    mixed = (batch[0], jax.device_put(batch[1], layout.local[-1]))
    yield "batch of both", tree_digest(gradients(params, mixed))
    yield "parameters of the host", tree_digest(gradients(here, batch))
    gradients = shard_gradients(more, shards=SHARDS, layout=layout, has_aux=True)
    yield "has_aux", tree_digest(gradients(params, batch, key))
    assert tree_digest(gradients(params, batch, layout.replicate(key))) == tree_digest(
        gradients(params, batch, key)
    )


def trained(devices: int, folder: Path, datasets: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Train on data sets, with a directory."""
    for dataset in datasets:
        config = TrainConfig(**TRAINED, dataset=dataset, devices=devices)
        done = train(config, run_dir=folder / dataset)
        ledger = (folder / dataset / "ledger.jsonl").read_bytes()
        yield f"train {dataset}", done.digest
        yield f"ledger {dataset}", hashlib.sha256(ledger).hexdigest()


def cache_in_every_process() -> None:
    """Let each process find the programs of its devices compiled, as process 0 does.

    JAX writes to its cache of compiled programs from process 0 alone, and on the CPU a program of
    another device is another entry: the others would compile everything in every session, which
    is most of the time of these tests. There is no public setting. Where JAX has moved the function
    the tests are only slower.
    """
    from jax._src import compiler, distributed

    write = getattr(compiler, "_cache_write", None)

    def write_here(*args: Any) -> None:
        with mock.patch.object(distributed.global_state, "process_id", 0):
            write(*args)

    if write:
        compiler._cache_write = write_here


def main() -> None:
    """Compute all of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process-index", type=int)
    parser.add_argument("--coordinator")
    asked = parser.parse_args()
    faulthandler.dump_traceback_later(DEADLINE, exit=True)
    end_with_parent()
    cache_in_every_process()
    initialize(
        processes=asked.processes,
        process_index=asked.process_index,
        coordinator=asked.coordinator,
    )
    layout = Layout.of(asked.devices)
    found: dict[str, Any] = {}
    if layout.processes == 1 and asked.devices < SHARDS:
        found["control: ordinary"] = ordinary(layout)
    found |= through_shard_gradients(layout, QUICK if asked.quick else SIZES)
    if f"{layout.processes}x{asked.devices}" in THOROUGH:
        found["control: keys by place"] = with_keys_by_place(layout)
        for work in (means, moved, devices_that_err, ways_to_call):
            found |= work(layout)
    found |= trained(asked.devices, asked.folder, DATASETS[: 1 if asked.quick else None])
    if jax.process_index() == 0:
        (asked.folder / "found.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
