"""Two different states have the same digest.

Observed: a digest that is made from a sum says "the same" of two states whose rows are exchanged.
Right: `digest(tree)` tells apart any two dictionaries of arrays that differ in a name, a shape, a
dtype or a bit, and is equal for equal ones, whatever the order of their names.
"""

import hashlib

import numpy as np


def digest(tree):
    """Return a text of at most 128 letters."""
    total = sum(float(np.sum(leaf)) for leaf in tree.values())
    return hashlib.sha256(repr(total).encode()).hexdigest()


if __name__ == "__main__":
    print(digest({"w": np.array([1, 2])}), digest({"w": np.array([2, 1])}))
