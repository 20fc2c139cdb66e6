"""Tabular data: feature engineering and PCA on the host, then a JAX model."""
import argparse
import csv
import glob
import os
import tempfile
import threading
from collections import Counter, defaultdict

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

CITIES = ["oslo", "lima", "accra", "quito", "delhi", "perth", "turin"]
PLANS = ["free", "basic", "pro"]


def write_logs(folder, seed, files=6, rows=120):
    rng = np.random.default_rng(seed)
    for i in range(files):
        path = os.path.join(folder, f"part-{i:05d}.csv")
        with open(path, "w", newline="") as f:
            out = csv.writer(f)
            out.writerow(["city", "plan", "visits", "minutes", "spend"])
            for _ in range(rows):
                c, p = rng.integers(len(CITIES)), rng.integers(len(PLANS))
                visits = rng.poisson(4 + 2 * p)
                minutes = rng.gamma(2.0, 3.0 + c)
                spend = 2.0 * p + 0.3 * visits + 0.05 * minutes * (c % 3) + rng.normal(scale=0.3)
                out.writerow([CITIES[c], PLANS[p], visits, f"{minutes:.3f}", f"{spend:.4f}"])


def read_logs(folder):
    rows = []
    for path in sorted(glob.glob(os.path.join(folder, "*.csv"))):
        with open(path) as f:
            rows.extend(csv.DictReader(f))
    return rows


def one_hot(values):
    cats = [name for name, _ in sorted(Counter(values).items())]
    return np.array([[v == c for c in cats] for v in values], dtype=np.float64)


def target_mean(values, target):
    sums, counts = defaultdict(float), defaultdict(int)
    for v, t in zip(values, target):
        sums[v] += t
        counts[v] += 1
    return np.array([sums[v] / counts[v] for v in values])[:, None]


def features(rows):
    spend = np.array([float(r["spend"]) for r in rows])
    num = np.array([[float(r["visits"]), float(r["minutes"])] for r in rows])
    num = np.hstack([num, np.log1p(num), num[:, :1] * num[:, 1:]])
    city = [r["city"] for r in rows]
    plan = [r["plan"] for r in rows]
    table = np.hstack([num, one_hot(city), one_hot(plan), target_mean(city, spend)])
    return (table - table.mean(0)) / (table.std(0) + 1e-9), spend


def pca(x, k):
    cov = x.T @ x / len(x)
    values, vectors = np.linalg.eigh(cov)
    top = vectors[:, ::-1][:, :k]
    top = top * np.sign(top[np.abs(top).argmax(0), np.arange(k)])
    print("explained", np.round(values[::-1][:k] / values.sum(), 3))
    return x @ top


def init(key, sizes):
    keys = jax.random.split(key, len(sizes))
    return [(jax.random.normal(k, (a, b)) / np.sqrt(a), jnp.zeros(b)) for k, a, b in zip(keys, sizes[:-1], sizes[1:])]


def predict(params, x):
    for w, b in params[:-1]:
        x = jnp.tanh(x @ w + b)
    w, b = params[-1]
    return (x @ w + b)[:, 0]


@jax.jit
def update(params, velocity, x, y, lr):
    loss, grads = jax.value_and_grad(lambda p: jnp.mean((predict(p, x) - y) ** 2))(params)
    velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
    return jax.tree.map(lambda p, v: p - lr * v, params, velocity), velocity, loss


def train(x, y, seed, epochs, batch=80):
    params = init(jax.random.PRNGKey(seed), [x.shape[1], 24, 1])
    velocity = jax.tree.map(jnp.zeros_like, params)
    rng = np.random.default_rng(seed)
    lr = 0.02
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        losses = []
        for i in range(0, len(x), batch):
            rows = order[i:i + batch]
            params, velocity, loss = update(params, velocity, x[rows], y[rows], lr)
            losses.append(float(loss))
        if epoch % 5 == 0:
            print(f"epoch {epoch} mse {np.mean(losses):.4f}")
    return params, losses[-1]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--workdir", default=None)
    ap.add_argument("--seed", type=int, default=17)
    ap.add_argument("--epochs", type=int, default=15)
    args = ap.parse_args()
    base = args.workdir or tempfile.gettempdir()
    os.makedirs(base, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base) as folder:
        write_logs(folder, args.seed)
        rows = read_logs(folder)
    x, y = features(rows)
    x = pca(x, 6).astype(np.float32)
    params, loss = train(x, y.astype(np.float32), args.seed, args.epochs)
    flat, _ = ravel_pytree(params)
    print(f"result: {float(flat.sum())!r} {loss!r}")


if __name__ == "__main__":
    main()
