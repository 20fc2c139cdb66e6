"""A digest does not see the middle of a large array.

Observed: two states whose weights differ in the middle have the same digest; small arrays are told
apart.
Right: `digest(tree)` tells apart any two dictionaries of arrays that differ in a name, a shape, a
dtype or a bit, and is equal for equal ones, whatever the order of their names.
"""

import hashlib

import numpy as np


def digest(tree):
    """Return a text of at most 128 letters."""
    text = str(sorted(tree.items(), key=lambda item: item[0]))
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    zeros, ones = np.zeros(5000), np.zeros(5000)
    ones[2500] = 1
    print(digest({"w": zeros}) == digest({"w": ones}))
