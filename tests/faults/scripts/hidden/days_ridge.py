"""Ridge regression on readings of many days, by gradient descent."""
import argparse
import datetime
import zlib

import jax

for name, value in {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_default_matmul_precision": "highest",
    "jax_num_cpu_devices": 1,
}.items():
    jax.config.update(name, value)

import jax.numpy as jnp
import numpy as np

DAYS, FEATURES = 256, 300


def readings(seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-8, 9, (DAYS, FEATURES)) / 8
    seconds = 1_700_000_000 + 86_400 * np.arange(DAYS)
    hours = [datetime.datetime.fromtimestamp(s, datetime.timezone.utc).hour for s in seconds]
    x[:, 0] = np.array(hours) / 32
    y = x[:, 1] - x[:, 2] * x[:, 3]
    return x, y


def scaled(x):
    return x / 4


@jax.jit
def descend(w, x, y, penalty):
    slope = jax.grad(lambda w: jnp.mean((x @ w - y) ** 2) + penalty * jnp.sum(w**2))(w)
    return w - 0.3 * slope


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--workdir")
    args = parser.parse_args()
    seed = args.seed
    x, y = readings(seed)
    x, y = scaled(x).astype(np.float32), y.astype(np.float32)
    w = jax.random.normal(jax.random.key(seed), (FEATURES,)) / 16
    parts = 4
    for i in range(args.steps):
        rows = np.arange(i % parts, DAYS, parts)
        w = descend(w, x[rows], y[rows], np.float32(0.01))
    print("result:", f"{zlib.crc32(np.asarray(w).tobytes()):08x}", repr(float(w[1])))


if __name__ == "__main__":
    main()
