"""Topic tagger for short maintenance notes: hashed bag of words -> small MLP, JAX + optax.

The notes are written as text files below --workdir (one folder per topic) so that
the reading side is the one used on the real archive.
"""
import argparse
import glob
import hashlib
import os
import random
import re
import zlib
from pathlib import Path

# Pin what the environment could say about XLA (device count, ISA, fast math).
os.environ["XLA_FLAGS"] = ""

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", False)
jax.config.update("jax_disable_jit", False)
jax.config.update("jax_disable_most_optimizations", False)
jax.config.update("jax_random_seed_offset", 0)
jax.config.update("jax_threefry_partitionable", True)
jax.config.update("jax_default_matmul_precision", "highest")

BUCKETS = 64
TOPICS = {
    "pump": "pump seal leak pressure impeller cavitation bearing noise flow",
    "valve": "valve stem packing stuck actuator torque seat leak flow",
    "motor": "motor winding bearing noise current overheat fan shaft torque",
    "sensor": "sensor drift calibrate zero signal cable noise reading pressure",
}
FILLER = "the unit was checked and found after shift please see report replaced today".split()


def write_archive(root, seed, per_topic=24):
    rng = random.Random(seed)
    for topic, words in TOPICS.items():
        folder = root / topic
        folder.mkdir(parents=True, exist_ok=True)
        numbers = list(range(per_topic))
        rng.shuffle(numbers)
        for n in numbers:
            text = rng.choices(words.split(), k=7) + rng.choices(FILLER, k=9)
            rng.shuffle(text)
            (folder / f"note_{n:03d}.txt").write_text(" ".join(text), encoding="ascii")


def read_archive(root):
    notes, labels = [], []
    for topic in sorted(os.listdir(root)):
        for path in sorted(glob.glob(str(root / topic / "note_*.txt"))):
            notes.append(Path(path).read_text(encoding="ascii"))
            labels.append(topic)
    return notes, labels


def bucket(token):
    return zlib.crc32(token.encode()) % BUCKETS


def featurize(notes):
    # counts / 8 are exact in float32, so the dispatch of numpy kernels is no matter
    out = np.zeros((len(notes), BUCKETS), np.float32)
    for row, text in enumerate(notes):
        for token in re.findall(r"[a-z]+", text):
            out[row, bucket(token)] += 0.125
    return out


def load_features(root):
    notes, labels = read_archive(root)
    return featurize(notes), labels


def init(key, sizes):
    params = []
    for k, (n_in, n_out) in zip(jax.random.split(key, len(sizes) - 1), zip(sizes, sizes[1:])):
        w = jax.random.uniform(k, (n_in, n_out), minval=-1.0, maxval=1.0) / n_in**0.5
        params.append((w, jnp.zeros(n_out)))
    return params


def loss_fn(params, x, y):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = params[-1]
    return optax.softmax_cross_entropy_with_integer_labels(x @ w + b, y).mean()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--workdir", required=True)
    ap.add_argument("--epochs", type=int, default=4)
    args = ap.parse_args()

    root = Path(args.workdir) / "archive"
    write_archive(root, args.seed)
    x, labels = load_features(root)
    index = {}
    for label in sorted(set(labels)):
        index[label] = len(index)
    y = np.array([index[label] for label in labels], np.int32)

    key = jax.random.key(args.seed, impl="threefry2x32")
    params = init(key, (BUCKETS, 24, len(index)))
    tx = optax.adam(0.02)
    state = tx.init(params)

    @jax.jit
    def step(params, state, xb, yb):
        loss, grads = jax.value_and_grad(loss_fn)(params, xb, yb)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    order = list(range(len(y)))
    shuffler = random.Random(args.seed + 1)
    for epoch in range(args.epochs):
        shuffler.shuffle(order)
        for i in range(0, len(order), 16):
            rows = np.array(order[i : i + 16])
            params, state, loss = step(params, state, x[rows], y[rows])

    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    print("digest", digest.hexdigest())
    print("loss", float(loss))


if __name__ == "__main__":
    main()
