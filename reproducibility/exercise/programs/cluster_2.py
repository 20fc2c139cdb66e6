"""Two processes of one run have different weights.

Observed: the gradients are averaged, and the copies of the weights never agree. A checkpoint that
process 1 saves is a different one than that of process 0.
Right: after `train(seed, steps, process, data)` all processes have the same weights. They depend on
the seed and on the data of each.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils


def join(process, processes, port):
    """Join the other processes of the run."""
    jax.distributed.initialize(f"localhost:{port}", processes, process)


def batch(step, process, data):
    """Return what a process reads in a step."""
    return np.random.default_rng([data, step, process]).normal(size=(8, 4)).astype(np.float32)


def train(seed, steps, process, data):
    """Return the weights after a training."""
    key = jax.random.fold_in(jax.random.key(seed), process)
    w = jax.random.normal(key, (4,))
    for step in range(steps):
        x = batch(step, process, data)
        gradient = jax.grad(lambda w: jnp.mean((x @ w - 1) ** 2))(w)
        gradient = multihost_utils.process_allgather(gradient).mean(axis=0)
        w = w - 0.1 * gradient
    return w


if __name__ == "__main__":
    print("It runs in two processes: reproducibility exercise check cluster_2")
