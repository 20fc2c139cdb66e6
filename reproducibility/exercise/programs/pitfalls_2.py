"""A sum depends on which thread ends first.

Observed: the last digits of a loss change from run to run, on a busy machine more than on a quiet
one.
Right: `total(parts, delays)` returns the sum of the parts in float32, with the same bits in
whichever order the threads end.
"""

import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np


def load(part, delay):
    """Return a part once it is there."""
    time.sleep(delay)
    return np.float32(part)


def total(parts, delays):
    """Return the sum of the parts, each of which a thread loads."""
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        futures = [pool.submit(load, *each) for each in zip(parts, delays)]
        result = np.float32(0)
        for future in as_completed(futures):
            result += future.result()
    return result


if __name__ == "__main__":
    print(total([1e8, 1, -1e8], [0.0, 0.1, 0.2]), total([1e8, 1, -1e8], [0.2, 0.1, 0.0]))
