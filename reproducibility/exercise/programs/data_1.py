"""The examples come in a different order in each run.

Observed: two runs with the same seed read the same examples in different orders.
Right: `order(seed, epoch, count)` is a permutation that seed and epoch determine, whatever was
drawn before. No two pairs of seed and epoch share one.
"""

import random


def order(seed, epoch, count):
    """Return the numbers of all examples, in the order of an epoch."""
    numbers = list(range(count))
    random.shuffle(numbers)
    return numbers


if __name__ == "__main__":
    print(order(0, 0, 10), order(0, 1, 10))
