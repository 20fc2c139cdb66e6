"""A parent starts two Python children, one after another; each trains a part, the parent judges."""

import hashlib
import os
import subprocess
import sys
import tempfile

import numpy as np


def train(part, path):
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(part)
    x = rng.normal(size=(64, 5)).astype(np.float32)
    y = x.sum(1)

    @jax.jit
    def fit(w, x, y):
        return w - 0.1 * jax.grad(lambda w: jnp.mean((x @ w - y) ** 2))(w)

    w = jnp.full(5, 0.1)
    for _ in range(15):
        w = fit(w, x, y)
    np.save(path, w)


def main():
    import jax
    import jax.numpy as jnp

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for part in (1, 2):
            path = os.path.join(folder, f"part{part}.npy")
            subprocess.run([sys.executable, __file__, str(part), path], check=True)
            found.append(np.load(path))

    @jax.jit
    def judge(weights):
        return jnp.tanh(weights).mean(0)

    weights = np.stack(found)
    verdict = judge(weights)
    digest = hashlib.sha256(np.asarray(verdict).tobytes()).hexdigest()[:16]
    print("result:", digest, float(verdict.sum()))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(int(sys.argv[1]), sys.argv[2])
    else:
        main()
