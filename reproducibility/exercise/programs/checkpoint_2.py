"""A resumed run drops the units of its first steps again.

Observed: weights and step are restored, and the masks of the resumed steps are those of the steps
from 0 on.
Right: `train(folder, seed, steps)` continues from what is in the folder, does no step twice, and
ends with the bits of a run that never stopped.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np


def example_batch(step):
    """Return the data of a step."""
    return np.random.default_rng(step).normal(size=(8, 4)).astype(np.float32)


@jax.jit
def update(w, x, key):
    """Return the weights after a step with dropout."""
    kept = jax.random.bernoulli(key, 0.5, x.shape)
    return w - 0.1 * jax.grad(lambda w: jnp.mean((jnp.where(kept, 2 * x, 0) @ w - 1) ** 2))(w)


def train(folder, seed, steps, batch=example_batch):
    """Train until so many steps are done in all, save, and return the weights."""
    path = Path(folder, "checkpoint.npz")
    init_key, key = jax.random.split(jax.random.key(seed))
    w, first = jax.random.normal(init_key, (4,)), 0
    if path.exists():
        with np.load(path) as saved:
            w, first = jnp.asarray(saved["w"]), int(saved["step"])
    for step in range(first, steps):
        key, dropout_key = jax.random.split(key)
        w = update(w, batch(step), dropout_key)
    np.savez(path, w=w, step=steps)
    return w


if __name__ == "__main__":
    for name in "ab":
        Path(name).mkdir()
    train("a", 0, 5)
    print(train("a", 0, 10), train("b", 0, 10))
