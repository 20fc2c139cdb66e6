"""A VAE with dropout in plain JAX, Adam written by hand."""
import argparse
import gc
import json
import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

DIM, HIDDEN, LATENT = 36, 48, 4


def dataset(seed, n=512):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(1, 5, size=(n, 2))
    width = rng.uniform(0.6, 1.4, size=(n, 1, 1))
    yy, xx = np.mgrid[:6, :6]
    d2 = (yy[None] - centre[:, 0, None, None]) ** 2 + (xx[None] - centre[:, 1, None, None]) ** 2
    return np.exp(-d2 / (2 * width ** 2)).reshape(n, DIM).astype(np.float32)


def dense_init(key, n_in, n_out):
    return {"w": random.normal(key, (n_in, n_out)) * jnp.sqrt(2.0 / n_in), "b": jnp.zeros(n_out)}


def init_vae(key):
    shapes = {"enc1": (DIM, HIDDEN), "mean": (HIDDEN, LATENT), "logvar": (HIDDEN, LATENT), "dec1": (LATENT, HIDDEN), "dec2": (HIDDEN, DIM)}
    params = {}
    for i, (name, (n_in, n_out)) in enumerate(shapes.items()):
        params[name] = dense_init(random.fold_in(key, i), n_in, n_out)
    return params


def dense(p, x):
    return x @ p["w"] + p["b"]


def dropout(key, x, rate=0.1):
    keep = random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0.0)


def elbo(params, key, x, beta):
    k_drop, k_eps = random.split(key)
    h = dropout(k_drop, jax.nn.relu(dense(params["enc1"], x)))
    mean, logvar = dense(params["mean"], h), dense(params["logvar"], h)
    z = mean + jnp.exp(0.5 * logvar) * random.normal(k_eps, mean.shape)
    recon = dense(params["dec2"], jax.nn.relu(dense(params["dec1"], z)))
    mse = jnp.sum((recon - x) ** 2, -1)
    kl = -0.5 * jnp.sum(1 + logvar - mean ** 2 - jnp.exp(logvar), -1)
    return jnp.mean(mse + beta * kl)


def adam_init(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    return {"m": zeros, "v": zeros, "t": 0}


@jax.jit
def step(params, opt, key, x, beta):
    loss, grads = jax.value_and_grad(elbo)(params, key, x, beta)
    t = opt["t"] + 1
    m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, opt["m"], grads)
    v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g * g, opt["v"], grads)
    scale = 2e-3 * jnp.sqrt(1 - 0.999 ** t) / (1 - 0.9 ** t)
    params = jax.tree.map(lambda p, a, b: p - scale * a / (jnp.sqrt(b) + 1e-8), params, m, v)
    return params, {"m": m, "v": v, "t": t}, loss


def fill_batch(buffer, data, idx):
    for row, i in enumerate(idx):
        buffer[row] = data[i]
    return buffer


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", type=int, default=2)
    ap.add_argument("--steps", type=int, default=150)
    ap.add_argument("--workdir", default=None)
    args = ap.parse_args()
    workdir = args.workdir or tempfile.mkdtemp()
    os.makedirs(workdir, exist_ok=True)
    data = dataset(args.seed)
    key = random.key(args.seed)
    key, init_key = random.split(key)
    params = init_vae(init_key)
    opt = adam_init(params)
    rng = np.random.default_rng(args.seed)
    history = []
    for i in range(args.steps):
        key, sub = random.split(key)
        idx = rng.choice(len(data), 64)
        x = fill_batch(np.zeros((64, DIM), np.float32), data, idx)
        beta = min(1.0, i / 50) * 0.05
        params, opt, loss = step(params, opt, sub, x, beta)
        if i % 30 == 0:
            history.append(float(loss))
            print(f"{i:4d} elbo {history[-1]:.4f}")
    with open(os.path.join(workdir, "history.json"), "w") as f:
        json.dump(history, f)
    norm = jnp.sqrt(sum(jnp.sum(p ** 2) for p in jax.tree.leaves(params)))
    print(f"result: {float(norm)!r} {float(loss)!r}")


if __name__ == "__main__":
    main()
