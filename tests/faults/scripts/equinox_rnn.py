"""Sequence parity with an Equinox GRU; sequences are produced by worker threads."""
import argparse
import hashlib
from concurrent.futures import ThreadPoolExecutor, as_completed

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax


class Tagger(eqx.Module):
    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __init__(self, hidden, *, key):
        k1, k2 = jr.split(key)
        self.cell = eqx.nn.GRUCell(2, hidden, key=k1)
        self.head = eqx.nn.Linear(hidden, 1, key=k2)
        self.dropout = eqx.nn.Dropout(0.1)

    def __call__(self, xs, key=None, inference=False):
        def step(h, x):
            return self.cell(x, h), None

        h, _ = jax.lax.scan(step, jnp.zeros(self.cell.hidden_size), xs)
        h = self.dropout(h, key=key, inference=inference)
        return self.head(h)[0]


def make_shard(index, rows, length):
    rng = np.random.default_rng(1000 + index)
    bits = rng.integers(0, 2, size=(rows, length))
    noise = rng.normal(scale=0.1, size=(rows, length))
    xs = np.stack([bits + noise, np.ones_like(noise)], axis=-1).astype(np.float32)
    weights = np.zeros(rows, dtype=np.float32)
    for row in range(rows):
        weights[row] = 1.0 / (1.0 + abs(bits[row].sum() - length / 2))
    ys = (bits.sum(1) % 2).astype(np.float32)
    return xs, ys, weights


def build_dataset(shards, rows, length, workers):
    parts = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(make_shard, i, rows, length) for i in range(shards)]
        for future in futures:
            parts.append(future.result())
    return [np.concatenate(p) for p in zip(*parts)]


def dataloader(arrays, batch_size, *, seed):
    rng = np.random.default_rng(seed)
    size = len(arrays[0])
    while True:
        perm = rng.permutation(size)
        for start in range(0, size - batch_size + 1, batch_size):
            take = perm[start:start + batch_size]
            yield tuple(a[take] for a in arrays)


@eqx.filter_value_and_grad
def loss_fn(model, xs, ys, weights, keys):
    logits = jax.vmap(model)(xs, keys)
    losses = optax.sigmoid_binary_cross_entropy(logits, ys)
    return jnp.sum(losses * weights) / jnp.sum(weights)


@eqx.filter_jit
def make_step(model, opt_state, optim, batch, key):
    xs, ys, weights = batch
    keys = jr.split(key, xs.shape[0])
    loss, grads = loss_fn(model, xs, ys, weights, keys)
    updates, opt_state = optim.update(grads, opt_state, eqx.filter(model, eqx.is_array))
    return eqx.apply_updates(model, updates), opt_state, loss


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=5678)
    p.add_argument("--steps", type=int, default=80)
    p.add_argument("--workers", type=int, default=6)
    args = p.parse_args()

    arrays = build_dataset(shards=24, rows=40, length=8, workers=args.workers)
    model_key, train_key = jr.split(jr.PRNGKey(args.seed))
    model = Tagger(24, key=model_key)
    optim = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))
    opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))
    for step, batch in zip(range(args.steps), dataloader(arrays, 64, seed=args.seed)):
        train_key, key = jr.split(train_key)
        model, opt_state, loss = make_step(model, opt_state, optim, batch, key)
        if step % 20 == 0:
            print(f"step {step:3d} loss {loss.item():.5f}")
    h = hashlib.md5()
    for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array)):
        h.update(np.asarray(leaf).tobytes())
    print(f"result: {h.hexdigest()} {loss.item()!r}")


if __name__ == "__main__":
    main()
