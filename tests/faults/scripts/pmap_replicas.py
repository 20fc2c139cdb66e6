"""Data parallel regression with pmap over four virtual CPU devices."""
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

import argparse
import concurrent.futures
import functools
import hashlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax

FEATURES = ["age", "dose", "weight", "height", "sodium", "glucose", "bmi", "pulse"]
tx = optax.adam(1e-2)


def make_column(name, n, seed):
    rng = np.random.default_rng([seed, FEATURES.index(name)])
    column = rng.gamma(2.0, 1.0, n) if name in ("dose", "sodium") else rng.normal(0, 1, n)
    return name, column.astype(np.float32)


def load_table(n, seed):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(make_column, name, n, seed) for name in FEATURES]
        columns = dict(job.result() for job in jobs)
    return columns


def design_matrix(columns, skip=("height",)):
    used = [name for name in columns if name not in skip]
    x = np.stack([columns[name] for name in used], axis=1)
    return (x - x.mean(0)) / x.std(0), used


def predict(params, x, key):
    h = jnp.tanh(x @ params["w1"])
    keep = jax.random.bernoulli(key, 0.9, h.shape)
    return (jnp.where(keep, h / 0.9, 0.0) @ params["w2"])[:, 0]


@functools.partial(jax.pmap, axis_name="data", donate_argnums=(0, 1))
def update(params, opt, x, y, key):
    loss, grads = jax.value_and_grad(lambda p: jnp.mean((predict(p, x, key) - y) ** 2))(params)
    grads = jax.lax.pmean(grads, "data")
    updates, opt = tx.update(grads, opt)
    return optax.apply_updates(params, updates), opt, jax.lax.pmean(loss, "data")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=tempfile.gettempdir())
    p.add_argument("--seed", type=int, default=21)
    p.add_argument("--steps", type=int, default=40)
    args = p.parse_args()
    devices = jax.local_devices()
    n = len(devices)
    columns = load_table(640, args.seed)
    x, used = design_matrix(columns)
    target = np.sin(x[:, 0]) + 0.3 * x[:, 1] * x[:, 2]
    print("features", len(used), "devices", n)

    key = jax.random.PRNGKey(args.seed)
    k1, k2, key = jax.random.split(key, 3)
    params = {"w1": jax.random.normal(k1, (x.shape[1], 16)) * 0.3,
              "w2": jax.random.normal(k2, (16, 1)) * 0.3}
    replicate = lambda tree: jax.tree.map(lambda a: jnp.stack([a] * n), tree)
    opt = replicate(tx.init(params))
    params = replicate(params)

    rng = np.random.default_rng(args.seed)
    per_device = 16
    for step in range(args.steps):
        rows = rng.choice(len(x), n * per_device, replace=False)
        key, sub = jax.random.split(key)
        keys = jax.random.split(sub, n)
        xb = x[rows].reshape(n, per_device, -1)
        yb = target[rows].reshape(n, per_device)
        params, opt, loss = update(params, opt, xb, yb, keys)
        if step % 10 == 0:
            print(f"step {step} loss {float(loss[0]):.6f}")
    w1 = np.asarray(params["w1"][0])
    print("result:", hashlib.sha256(w1.tobytes()).hexdigest()[:32], repr(float(loss[0])))


if __name__ == "__main__":
    main()
