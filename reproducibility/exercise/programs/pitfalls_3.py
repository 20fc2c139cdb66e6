"""A sweep over learning rates gives the same result for each.

Observed: each rate alone gives a result of its own. In one process, all give that of the first.
Right: `train(seed, rate, steps)` uses its rate, whatever was trained before in the process.
"""

import jax

RATE = 0.1


@jax.jit
def update(w):
    """Return the weights after a step; the gradient of the loss is the weights."""
    return w - RATE * w


def train(seed, rate, steps):
    """Return the weights after a training."""
    global RATE
    RATE = rate
    w = jax.random.normal(jax.random.key(seed), (16,))
    for _ in range(steps):
        w = update(w)
    return w


if __name__ == "__main__":
    print(train(0, 0.1, 5)[:3], train(0, 0.3, 5)[:3])
