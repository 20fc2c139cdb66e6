"""A test of reproducibility passes for a training that ignores its seed.

Observed: five seeds were reported, with a standard deviation of 0. The test was green.
Right: `seeded(train)` is True exactly if `train(seed)` returns the same bits for the same seed,
called again, and different bits for different seeds.
"""

import numpy as np


def seeded(train):
    """Say whether a training depends on its seed, and on nothing else."""
    return bool(np.allclose(train(0), train(0)))


if __name__ == "__main__":
    print(seeded(lambda seed: np.ones(3)))
