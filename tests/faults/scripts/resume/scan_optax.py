"""Noisy regression with an optax pile: MultiSteps, injected schedules, reduce-on-plateau, EMA.

Steps run in chunks under lax.scan; checkpoints are msgpack files from flax.serialization, and a text file
`LATEST` names the one to go on from.
"""
import argparse
import hashlib
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization

N, DIM, BATCH = 160, 6, 16
PER_EPOCH = N // BATCH
CHUNK = 5
SAVE_EVERY_CHUNKS = 3
ACCUMULATE = 2


class Train(NamedTuple):
    params: Any
    opt_state: Any
    ema: Any
    plateau: Any
    key: Any


def dataset():
    rng = np.random.default_rng(123)
    x = rng.normal(size=(N, DIM)).astype(np.float32)
    y = np.sin(x @ rng.normal(size=DIM)) + 0.3 * x[:, 0] * x[:, 1]
    return jnp.asarray(x), jnp.asarray(y.astype(np.float32))


X, Y = dataset()


def init_params(key):
    sizes = [DIM, 40, 40, 1]
    keys = jax.random.split(key, len(sizes) - 1)
    return [{"w": jax.random.normal(k, (a, b)) / jnp.sqrt(a), "b": jnp.zeros(b)}
            for k, a, b in zip(keys, sizes, sizes[1:])]


def forward(params, x, key, rate=0.1):
    for i, layer in enumerate(params):
        x = x @ layer["w"] + layer["b"]
        if i + 1 < len(params):
            x = jax.nn.gelu(x)
            keep = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - rate, x.shape)
            x = jnp.where(keep, x / (1 - rate), 0.0)
    return x[:, 0]


learning_rate = optax.join_schedules(
    [optax.linear_schedule(1e-3, 1e-2, 6), optax.exponential_decay(1e-2, 10, 0.7)], [6])
inner = optax.chain(optax.clip_by_global_norm(1.0),
                    optax.inject_hyperparams(optax.adamw)(learning_rate=learning_rate, weight_decay=1e-3))
tx = optax.MultiSteps(inner, every_k_schedule=ACCUMULATE)
plateau_tx = optax.contrib.reduce_on_plateau(factor=0.6, patience=1, rtol=0.25)


@jax.jit
def train_chunk(params, opt_state, ema, plateau, key, steps):
    """Runs the steps numbered `steps` and then lets the plateau rule look at the mean loss."""
    def one(carry, step):
        params, opt_state, ema = carry
        order = jax.random.permutation(jax.random.fold_in(key, 10_000 + step // PER_EPOCH), N)
        idx = jax.lax.dynamic_slice(order, ((step % PER_EPOCH) * BATCH,), (BATCH,))

        def loss_fn(p):
            return jnp.mean((forward(p, X[idx], jax.random.fold_in(key, step)) - Y[idx]) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, optax.tree.scale(plateau.scale, updates))
        ema = optax.incremental_update(params, ema, step_size=0.1)
        return (params, opt_state, ema), loss

    (params, opt_state, ema), losses = jax.lax.scan(one, (params, opt_state, ema), steps)
    _, plateau = plateau_tx.update(optax.tree.zeros_like(params), plateau, value=losses.mean())
    return params, opt_state, ema, plateau, losses[-1]


def write(folder, train, step):
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step{step:06d}.msgpack"
    (folder / name).write_bytes(serialization.to_bytes({"train": train, "step": step}))
    (folder / "LATEST.new").write_text(name)
    (folder / "LATEST.new").rename(folder / "LATEST")


def read(folder, train):
    blob = (folder / (folder / "LATEST").read_text()).read_bytes()
    got = serialization.from_bytes({"train": train, "step": 0}, blob)
    return got["train"], got["step"]


def run(steps, workdir, resume, seed):
    folder = pathlib.Path(workdir)
    init_key, key = jax.random.split(jax.random.key(seed))
    params = init_params(init_key)
    train = Train(params, tx.init(params), params, plateau_tx.init(params), jax.random.key_data(key))
    step = 0
    if resume and (folder / "LATEST").exists():
        train, step = read(folder, train)

    loss = None
    while step < steps:
        length = min(CHUNK, steps - step)
        key = jax.random.wrap_key_data(jnp.asarray(train.key))
        params, opt_state, ema, plateau, loss = train_chunk(
            train.params, train.opt_state, train.ema, train.plateau, key, jnp.arange(step, step + length))
        train = Train(params, opt_state, ema, plateau, train.key)
        step += length
        if step % (CHUNK * SAVE_EVERY_CHUNKS) == 0:
            write(folder, train, step)
    return train, loss


if __name__ == "__main__":
    cli = argparse.ArgumentParser()
    cli.add_argument("--steps", type=int, default=48)
    cli.add_argument("--workdir", required=True)
    cli.add_argument("--resume", action="store_true")
    cli.add_argument("--seed", type=int, default=31)
    train, loss = run(**vars(cli.parse_args()))
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves((train.params, train.ema)):
        sha.update(np.asarray(leaf).tobytes())
    print("digest", sha.hexdigest())
    print("last loss", float(loss))
