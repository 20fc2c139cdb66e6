"""A digest does not see names and boundaries.

Observed: a state whose arrays were saved under each other's names, or with a different shape, has
the digest of the right one.
Right: `digest(tree)` tells apart any two dictionaries of arrays that differ in a name, a shape, a
dtype or a bit, and is equal for equal ones, whatever the order of their names.
"""

import hashlib

import numpy as np


def digest(tree):
    """Return a text of at most 128 letters."""
    hasher = hashlib.sha256()
    for name in sorted(tree):
        hasher.update(tree[name].tobytes())
    return hasher.hexdigest()


if __name__ == "__main__":
    print(digest({"w": np.zeros(4)}) == digest({"v": np.zeros((2, 2))}))
