"""A pipeline of Grain gives an element different noise each time it is read.

Observed: the order of the elements repeats, because `shuffle` has a seed. Their noise does not.
Right: `elements(seed, indices)` returns elements that are determined by seed and index, in
whichever order they are read.
"""

import grain
import numpy as np


def elements(seed, indices):
    """Return elements of a shuffled data set: 100 times a number, plus 50, plus noise."""
    dataset = (
        grain.MapDataset.source(list(range(24)))
        .seed(seed)
        .shuffle()
        .map(lambda number: 100.0 * number + 50 + np.random.normal())
    )
    return np.array([dataset[index] for index in indices])


if __name__ == "__main__":
    print(elements(0, [0, 1, 2]), elements(0, [0, 1, 2]))
