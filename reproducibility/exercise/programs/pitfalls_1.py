"""The second training in a process gives other results than the first.

Observed: a test that trains twice in one process passes. In a notebook, the result for a data set
depends on which one was used before.
Right: `fitted(data)` returns the data minus its own mean, whatever was done before in the process.
"""

import numpy as np

STATISTICS = {}


def fitted(data):
    """Return the data minus its mean."""
    if "mean" not in STATISTICS:
        STATISTICS["mean"] = data.mean(axis=0)
    return data - STATISTICS["mean"]


if __name__ == "__main__":
    print(fitted(np.ones((2, 2))), fitted(np.full((2, 2), 5.0)))
