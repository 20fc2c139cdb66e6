"""A run that is logged more often ends differently.

Observed: to look closer, someone logs in each step instead of every 10. The weights change.
Right: `train(seed, steps, log_every)` ends with the same weights however often it logs, and still
logs the loss on examples that are drawn at random.
"""

import numpy as np


def train(seed, steps, log_every):
    """Return the weights, and the losses that were logged."""
    rng, logged = np.random.default_rng(seed), []
    w = rng.normal(size=4)
    for step in range(steps):
        x = rng.normal(size=(8, 4))
        w = w - 0.1 * x.T @ (x @ w - 1) / len(x)
        if log_every and step % log_every == 0:
            sample = rng.normal(size=(100, 4))
            logged.append(float(np.mean((sample @ w - 1) ** 2)))
    return {"weights": w, "logged": logged}


if __name__ == "__main__":
    print(train(0, 20, 10)["weights"], train(0, 20, 1)["weights"])
