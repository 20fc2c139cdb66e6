"""Shards in a folder are listed, read and averaged; a program asks the host for each batch's scale."""

import hashlib
import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

NAMES = ["north", "south", "east", "west", "centre"]


def write_shards(folder, names):
    for name in names:
        seed = sum(name.encode())
        shard = np.random.default_rng(seed).normal(size=(8, 4)).astype(np.float32)
        np.save(os.path.join(folder, f"{name}.npy"), shard)


def read_shards(folder):
    names = sorted(os.listdir(folder))
    return [np.load(os.path.join(folder, name)) for name in names]


def scale_of(batch):
    return np.float32(1 / (1 + np.abs(batch).max()))


@jax.jit
def train(w, batch):
    scale = jax.pure_callback(scale_of, jax.ShapeDtypeStruct((), jnp.float32), batch)
    return w * 0.9 + scale * batch.mean(0)


@jax.jit
def finish(w, shift):
    return jnp.tanh(w) + shift


def size_of_steps():
    return 3


with tempfile.TemporaryDirectory() as folder:
    write_shards(folder, NAMES)
    shards = read_shards(folder)

w = jnp.zeros(4)
for _ in range(size_of_steps()):
    for shard in shards:
        w = train(w, shard)
w = finish(w, np.float32(0))
print("result:", hashlib.sha256(np.asarray(w).tobytes()).hexdigest()[:16])
