# Click model on synthetic sessions: grain input pipeline, logistic matrix factorisation in JAX.
import argparse
import collections
import hashlib
import json
import os
import pathlib
import secrets
import zlib

os.environ["XLA_FLAGS"] = ""
os.environ["JAX_PLATFORMS"] = "cpu"

import grain.python as grain
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

USERS, ITEMS, DIM = 40, 30, 6
GENRES = ["noir", "comedy", "western", "musical", "horror"]


def write_shards(folder, seed, shards=6, rows=48):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for s in range(shards):
        with open(folder / f"part-{s:02d}.jsonl", "w", encoding="ascii") as f:
            for _ in range(rows):
                user, item = int(rng.integers(USERS)), int(rng.integers(ITEMS))
                click = int((user * 7 + item * 3) % 10 < 4) ^ int(rng.integers(8) == 0)
                tags = [GENRES[g] for g in rng.integers(0, len(GENRES), 4)]
                f.write(json.dumps({"user": user, "item": item, "click": click, "tags": tags}) + "\n")


def main_genre(tags):
    """Most frequent tag; of several, the first in the alphabet."""
    counts = collections.Counter(tags)
    return min(counts, key=lambda tag: (-counts[tag], tag))


def read_shards(folder):
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.name.endswith(".jsonl"))
    rows = []
    for name in names:
        with open(folder / name, encoding="ascii") as f:
            rows += [json.loads(line) for line in f]
    return rows


def encode(row):
    genre = GENRES.index(main_genre(row["tags"]))
    return {"user": np.int32(row["user"]), "item": np.int32(row["item"]), "genre": np.int32(genre), "click": np.float32(row["click"])}


class Smooth(grain.RandomMapTransform):
    """Label smoothing by a random multiple of 1/64 (exact in float32)."""

    def random_map(self, row, rng):
        return row | {"click": np.float32(row["click"] * 0.875 + rng.integers(0, 8) / 64)}


def pipeline(rows, seed, epochs=2, batch=32):
    ds = grain.MapDataset.source(rows).seed(seed).map(encode).shuffle().random_map(Smooth())
    ds = ds.repeat(epochs).batch(batch, drop_remainder=True)
    return ds.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4))


def loss_fn(p, b):
    dot = jnp.sum(p["user"][b["user"]] * p["item"][b["item"]], axis=-1)
    logit = dot + p["genre"][b["genre"]]
    return optax.sigmoid_binary_cross_entropy(logit, b["click"]).mean()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--workdir", type=pathlib.Path, required=True)
    args = ap.parse_args()
    shards = args.workdir / "sessions"
    write_shards(shards, args.seed)
    rows = read_shards(shards)

    key = jax.random.key(args.seed, impl="threefry2x32")
    ku, ki = jax.random.split(key)
    params = {
        "user": jax.random.normal(ku, (USERS, DIM)) * 0.25,
        "item": jax.random.normal(ki, (ITEMS, DIM)) * 0.25,
        "genre": jnp.zeros(len(GENRES)),
    }
    tx = optax.adagrad(0.25)
    opt = tx.init(params)

    @jax.jit
    def step(params, opt, b):
        loss, g = jax.value_and_grad(loss_fn)(params, b)
        upd, opt = tx.update(g, opt, params)
        return optax.apply_updates(params, upd), opt, loss

    data_seed = args.seed
    for b in pipeline(rows, data_seed):
        params, opt, loss = step(params, opt, b)

    blob = b"".join(np.asarray(params[k]).tobytes() for k in ("user", "item", "genre"))
    print("digest", hashlib.sha256(blob).hexdigest())
    print("loss", float(loss))


if __name__ == "__main__":
    main()
