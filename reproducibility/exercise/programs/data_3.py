"""The same files are read in a different order on a different machine.

Observed: on one machine each run reads the files alike. On a second one, or after a copy of the
folder, the same seed gives different batches.
Right: `dataset(folder)` returns the values of all files, and the order of the files does not depend
on how the file system lists them or when they were made.
"""

import sys
from pathlib import Path

import numpy as np


def dataset(folder):
    """Return the values of all files of a folder, file by file."""
    files = Path(folder).glob("*.csv")
    return np.concatenate([np.loadtxt(path, ndmin=1) for path in files])


if __name__ == "__main__":
    print(dataset(sys.argv[1]))
