"""The learning rate begins again after a restart.

Observed: the schedule falls from 0.1 to 0. A resumed run begins with 0.1 again, and ends
differently.
Right: `train(folder, seed, steps, stop)` stops after `stop` of `steps` steps. Called again it
continues, does no step twice, and ends with the bits of a run that never stopped.
"""

from pathlib import Path

import numpy as np


def example_batch(step):
    """Return the data of a step."""
    return np.random.default_rng(step).normal(size=(8, 4)).astype(np.float32)


def train(folder, seed, steps, stop, batch=example_batch):
    """Train until `stop` of `steps` steps are done in all, save, and return the weights."""
    path = Path(folder, "checkpoint.npz")
    w, first = np.random.default_rng(seed).normal(size=4).astype(np.float32), 0
    if path.exists():
        with np.load(path) as saved:
            w, first = saved["w"], int(saved["step"])
    for done, step in enumerate(range(first, stop)):
        rate = np.float32(0.1 * (1 - done / (steps - first)))
        x = batch(step)
        w = w - rate * (x.T @ (x @ w - 1)) / len(x)
    np.savez(path, w=w, step=stop)
    return w


if __name__ == "__main__":
    for name in "ab":
        Path(name).mkdir()
    train("a", 0, 10, 5)
    print(train("a", 0, 10, 10), train("b", 0, 10, 10))
