"""A check says that two results are the same, and their digests differ.

Observed: two runs whose weights are one unit in the last place apart pass the check. Some arrays
with a NaN do not pass, though all their bits are equal.
Right: `same(a, b)` is True exactly if both have the same dtype, the same shape and the same bits.
"""

import numpy as np


def same(a, b):
    """Say whether two arrays are the same."""
    return bool(np.allclose(a, b))


if __name__ == "__main__":
    ones = np.ones(3, np.float32)
    print(same(ones, ones), same(ones, np.nextafter(ones, np.float32(2))))
