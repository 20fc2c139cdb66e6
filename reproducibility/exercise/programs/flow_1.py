"""A resumed run differs from its first step on, for more than one reason.

Observed: weights and step are restored, and the first resumed update has neither the velocity nor
the noise of the run that never stopped.
Right: `train(folder, seed, steps)` continues from what is in the folder, does no step twice, and
ends with the bits of a run that never stopped.
"""

from pathlib import Path

import numpy as np


def example_batch(step):
    """Return the data of a step."""
    return np.random.default_rng(step).normal(size=(8, 4)).astype(np.float32)


def train(folder, seed, steps, batch=example_batch):
    """Train until so many steps are done in all, save, and return the weights."""
    path = Path(folder, "checkpoint.npz")
    rng = np.random.default_rng(seed)
    w, first = rng.normal(size=4).astype(np.float32), 0
    velocity = np.zeros_like(w)
    if path.exists():
        with np.load(path) as saved:
            w, first = saved["w"], int(saved["step"])
    for step in range(first, steps):
        x = batch(step)
        x = x + rng.normal(scale=0.1, size=x.shape).astype(np.float32)
        velocity = np.float32(0.9) * velocity + (x.T @ (x @ w - 1)) / len(x)
        w = w - np.float32(0.05) * velocity
    np.savez(path, w=w, step=steps)
    return w


if __name__ == "__main__":
    for name in "ab":
        Path(name).mkdir()
    train("a", 0, 5)
    print(train("a", 0, 10), train("b", 0, 10))
