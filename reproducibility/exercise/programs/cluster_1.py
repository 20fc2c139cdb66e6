"""Two processes read some examples both, and others are never read.

Observed: an epoch of two processes has as many batches as expected. Some examples are in it twice.
Right: `share(seed, epoch, process, processes)` returns the examples of a process. All processes
together have each of the 48 once, in an order of its own for each epoch.
"""

import numpy as np


def share(seed, epoch, process, processes):
    """Return the examples that a process reads in an epoch."""
    rng = np.random.default_rng([seed, epoch, process])
    return rng.permutation(48)[process::processes]


if __name__ == "__main__":
    print(np.sort(np.concatenate([share(0, 0, process, 2) for process in (0, 1)])))
