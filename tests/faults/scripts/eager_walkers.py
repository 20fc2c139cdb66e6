"""Thousands of eager operations: random walkers with typed keys and mutable arrays."""
import argparse
import hashlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

PROBES = ("salt", "heat", "ph", "depth", "light")


def probe_keys(key, names):
    """A key of its own for every probe."""
    out = {}
    for name in names:
        key, out[name] = jax.random.split(key)
    return out


def potential(x, centers):
    d = x[:, None, :] - centers[None]
    return jnp.sum(jnp.exp(-jnp.sum(d * d, axis=-1)), axis=-1)


def move(key, x, scale):
    return x + scale * jax.random.normal(key, x.shape)


def accept(key, old, new):
    return jnp.log(jax.random.uniform(key, old.shape)) < (new - old)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=tempfile.gettempdir())
    p.add_argument("--seed", type=int, default=2)
    p.add_argument("--steps", type=int, default=150)
    p.add_argument("--walkers", type=int, default=10)
    args = p.parse_args()
    root = jax.random.key(args.seed, impl="threefry2x32")
    key, k_centers, k_start, k_probe = jax.random.split(root, 4)
    centers = jax.random.uniform(k_centers, (4, 2), minval=-2, maxval=2)
    x = jax.random.normal(k_start, (args.walkers, 2))
    hist = jax.new_ref(jnp.zeros((8, 8), jnp.int32))
    count = jax.new_ref(jnp.zeros((), jnp.int32))
    value = potential(x, centers)
    for step in range(args.steps):
        k_move, k_acc = jax.random.split(jax.random.fold_in(key, step))
        new = move(k_move, x, 0.5)
        new_value = potential(new, centers)
        ok = accept(k_acc, value, new_value)
        x = jnp.where(ok[:, None], new, x)
        value = jnp.where(ok, new_value, value)
        cell = jnp.clip(jnp.floor(x + 4).astype(jnp.int32), 0, 7)
        hist[...] = hist[...].at[cell[:, 0], cell[:, 1]].add(1)
        count[...] += jnp.sum(ok)
        if step % 50 == 0:
            print(f"step {step} accepted {int(count[...])} mean {float(jnp.mean(value)):.5f}")

    keys = probe_keys(k_probe, PROBES)
    readings = {}
    for name in PROBES:
        noise = jax.random.normal(keys[name], (args.walkers,))
        readings[name] = float(jnp.mean(value + 0.1 * noise))
    print("readings", {k: round(v, 4) for k, v in readings.items()})
    final = jax.freeze(hist)
    digest = hashlib.sha256(np.asarray(final).tobytes() + np.asarray(x).tobytes())
    print("result:", digest.hexdigest()[:32], [repr(readings[n]) for n in sorted(readings)])


if __name__ == "__main__":
    main()
