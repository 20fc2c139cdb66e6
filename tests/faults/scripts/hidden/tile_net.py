"""Patch classifier (flax.linen) with a threaded tile reader and a prefetching feed.

Tiles are small uint8 images with one of three textures, stored one .npy per tile.
"""
import argparse
import concurrent.futures
import hashlib
import os
import pathlib
import queue
import random
import threading

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

for option, value in {
    "jax_platforms": "cpu",
    "jax_enable_x64": False,
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_random_seed_offset": 0,
    "jax_threefry_partitionable": True,
    "jax_default_prng_impl": "threefry2x32",
    "jax_default_matmul_precision": "highest",
}.items():
    jax.config.update(option, value)

SIDE, BATCH, TILES, CHUNKS = 12, 16, 96, 16


def write_tiles(folder, seed):
    rng = np.random.default_rng([seed, 7])
    folder.mkdir(parents=True, exist_ok=True)
    yy, xx = np.mgrid[:SIDE, :SIDE]
    for i in range(TILES):
        kind = i % 3
        pattern = [(xx // 2) % 2, (yy // 3) % 2, ((xx + yy) // 2) % 2][kind]
        tile = 90 * pattern + rng.integers(0, 160, (SIDE, SIDE))
        np.save(folder / f"tile_{i:04d}_k{kind}.npy", tile.astype(np.uint8))


def read_tile(path):
    return np.load(path).astype(np.float32) / np.float32(255)


def mean_and_spread(paths, pool):
    """Mean and mean square over all tiles, in float32 like the tiles themselves.

    Added one element at a time in file order (cumsum), because np.sum's order of
    additions is numpy's business and has changed with the CPU features before.
    """
    total, square = np.float32(0), np.float32(0)
    chunks = [paths[i::CHUNKS] for i in range(CHUNKS)]

    def part(chunk):
        flat = np.concatenate([read_tile(p).ravel() for p in chunk])
        return np.cumsum(flat)[-1], np.cumsum(flat * flat)[-1]

    futures = [pool.submit(part, c) for c in chunks]
    for future in futures:
        s, q = future.result()
        total += s
        square += q
    n = np.float32(len(paths) * SIDE * SIDE)
    mean = total / n
    return mean, np.sqrt(square / n - mean * mean)


class TileNet(nn.Module):
    width: int = 8

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.width, (3, 3), strides=(2, 2))(x[..., None]))
        x = nn.relu(nn.Conv(self.width, (3, 3), strides=(2, 2))(x))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def feed(paths, epochs, rng):
    """Reads ahead in one thread; the queue keeps its order."""
    q = queue.Queue(maxsize=4)

    def produce(batches):
        for batch in batches:
            x = np.stack([read_tile(p) for p in batch])
            y = np.array([int(p.stem[-1]) for p in batch])
            q.put((x, y))

    plan = []
    for _ in range(epochs):
        paths = list(paths)
        rng.shuffle(paths)
        plan += [paths[i : i + BATCH] for i in range(0, len(paths), BATCH)]
    readers = [threading.Thread(target=produce, args=(plan,), daemon=True)]
    for reader in readers:
        reader.start()
    for _ in plan:
        yield q.get()


@jax.jit
def train_step(state, x, y):
    def loss_fn(params):
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--workdir", type=pathlib.Path, required=True)
    args = ap.parse_args()
    write_tiles(args.workdir / "tiles", args.seed)
    paths = sorted((args.workdir / "tiles").iterdir())
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        mean, spread = mean_and_spread(paths, pool)

    net = TileNet()
    params = net.init(jax.random.PRNGKey(args.seed), jnp.zeros((1, SIDE, SIDE)))["params"]
    state = train_state.TrainState.create(apply_fn=net.apply, params=params, tx=optax.sgd(0.05, momentum=0.9))
    for x, y in feed(paths, 3, random.Random(args.seed)):
        state, loss = train_step(state, (x - mean) / spread, y)

    result = hashlib.sha256()
    for name, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        result.update(jax.tree_util.keystr(name).encode() + np.asarray(leaf).tobytes())
    print(f"digest {result.hexdigest()}\nloss {float(loss):.9g}")


if __name__ == "__main__":
    main()
