"""A resumed loop reads the beginning of the epoch again.

Observed: a run that is interrupted in the middle of an epoch sees some examples twice in it, and
others not at all.
Right: `batches(seed, first, last)` returns the batches of these steps as the loop from step 0 has
them. An epoch has 10 steps.
"""

import numpy as np

EXAMPLES, SIZE = np.arange(40), 4


def batches(seed, first, last):
    """Return the batches of the steps from first to last - 1."""
    found, position, order = [], 0, None
    per_epoch = len(EXAMPLES) // SIZE
    for step in range(first, last):
        if order is None or step % per_epoch == 0:
            order = np.random.default_rng([seed, step // per_epoch]).permutation(EXAMPLES)
            position = 0
        found.append(order[position : position + SIZE])
        position += SIZE
    return np.stack(found)


if __name__ == "__main__":
    print(batches(0, 0, 4)[2:], batches(0, 2, 4))
