"""Regression on named sensor channels with Flax NNX."""
import argparse
import math
import os
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

CHANNELS = ["temp", "pressure", "humidity", "flow", "voltage", "current", "torque", "speed"]
WANTED = {"temp", "humidity", "flow", "current", "speed", "torque"}


class Block(nnx.Module):
    def __init__(self, width, rngs):
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.fc = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x):
        return x + nnx.relu(self.fc(self.norm(x)))


class Regressor(nnx.Module):
    def __init__(self, features, width, rngs):
        self.inp = nnx.Linear(features, width, rngs=rngs)
        self.a = Block(width, rngs)
        self.b = Block(width, rngs)
        self.dropout = nnx.Dropout(0.05, rngs=rngs)
        self.out = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x):
        x = self.b(self.a(self.inp(x)))
        return self.out(self.dropout(x))[:, 0]


def simulate(path, seed, rows=600):
    rng = np.random.default_rng(seed)
    table = {name: rng.normal(size=rows).astype(np.float32) for name in CHANNELS}
    target = np.sin(table["temp"]) + 0.5 * table["flow"] * table["speed"] - 0.3 * table["torque"]
    table["target"] = (target + rng.normal(scale=0.05, size=rows)).astype(np.float32)
    file = os.path.join(path, "sensors.npz")
    np.savez(file, **table)
    return file


def load(file):
    table = np.load(file)
    columns = sorted(WANTED)
    x = np.stack([table[c] for c in columns], axis=1)
    x = (x - x.mean(0)) / x.std(0)
    return x, table["target"]


@nnx.jit
def train_step(model, optimizer, x, y):
    def loss_fn(m):
        return jnp.mean((m(x) - y) ** 2)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


def minibatches(x, y, size, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    for i in range(0, len(x), size):
        yield x[order[i:i + size]], y[order[i:i + size]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", default=None)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    workdir = args.workdir or tempfile.mkdtemp()
    os.makedirs(workdir, exist_ok=True)

    x, y = load(simulate(workdir, args.seed))
    model = Regressor(x.shape[1], 32, nnx.Rngs(args.seed))
    optimizer = nnx.Optimizer(model, optax.adam(2e-3), wrt=nnx.Param)
    started = time.perf_counter()
    for epoch in range(args.epochs):
        total = 0.0
        model.train()
        for bx, by in minibatches(x, y, 60, args.seed + epoch):
            total += float(train_step(model, optimizer, bx, by))
        print(f"epoch {epoch} mse {total / math.ceil(len(x) / 60):.5f}")
    print(f"trained in {time.perf_counter() - started:.1f}s")
    model.eval()
    params = nnx.state(model, nnx.Param)
    checksum = sum(float(jnp.sum(jnp.abs(p))) for p in jax.tree.leaves(params))
    final = float(jnp.mean((model(jnp.asarray(x)) - y) ** 2))
    print(f"result: params={checksum!r} loss={final!r}")


if __name__ == "__main__":
    main()
