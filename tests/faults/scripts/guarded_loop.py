"""Donated training loop with explicit transfers only (transfer guard on)."""
import argparse
import hashlib
import os
import tempfile
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def aligned(shape, dtype=np.float32, to=64):
    """Host staging memory, aligned as XLA wants it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + to, np.uint8)
    off = -raw.ctypes.data % to
    return raw[off:off + size].view(dtype).reshape(shape)


def features(t, lags, period):
    cols = [np.sin(2 * np.pi * (t - lag) / period) for lag in range(lags)]
    return np.stack(cols, axis=1).astype(np.float32)


@partial(jax.jit, donate_argnums=(0, 1))
def train(params, velocity, x, y, lr):
    def loss_fn(p):
        h = jax.nn.relu(x @ p["w1"] + p["b1"])
        return jnp.mean((h @ p["w2"] - y) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
    params = jax.tree.map(lambda p, v: p - lr * v, params, velocity)
    return params, velocity, loss


def init_params(rng, lags, hidden):
    return {"w1": rng.normal(0, 0.4, (lags, hidden)).astype(np.float32),
            "b1": np.zeros(hidden, np.float32),
            "w2": rng.normal(0, 0.4, hidden).astype(np.float32)}


def settings(path):
    """key = value lines; later ones win."""
    out = {"period": 24.0, "lags": 8.0, "noise": 0.1}
    if os.path.exists(path):
        for line in open(path):
            name, _, value = line.partition("=")
            out[name.strip()] = float(value)
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=None)
    p.add_argument("--seed", type=int, default=8)
    p.add_argument("--steps", type=int, default=200)
    args = p.parse_args()
    workdir = args.workdir or tempfile.mkdtemp(prefix="guard_")
    cfg = settings(os.path.join(workdir, "settings.txt"))
    lags = int(cfg["lags"])
    rng = np.random.default_rng(args.seed)
    params = jax.device_put(init_params(rng, lags, 32))
    velocity = jax.device_put(jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), params))
    lr = jax.device_put(np.float32(0.01))
    staging = aligned((64, lags))
    losses = []
    with jax.transfer_guard("disallow"):
        for step in range(args.steps):
            t = rng.integers(0, 1000, 64)
            staging[:] = features(t, lags, cfg["period"])
            y = np.cos(2 * np.pi * t / cfg["period"]) + rng.normal(0, cfg["noise"], 64)
            x_dev = jax.device_put(staging.copy())
            y_dev = jax.device_put(y.astype(np.float32))
            params, velocity, loss = train(params, velocity, x_dev, y_dev, lr)
            losses.append(loss)
            if step % 50 == 0:
                print(f"step {step} loss {jax.device_get(loss):.6f}")
        curve = np.stack(jax.device_get(losses))
        final = jax.device_get(params)
    print("deleted", sum(v.is_deleted() for v in jax.tree.leaves(velocity)))
    digest = hashlib.sha256(curve.tobytes() + b"".join(final[k].tobytes() for k in sorted(final)))
    print("result:", digest.hexdigest()[:32], repr(float(curve[-1])))


if __name__ == "__main__":
    main()
