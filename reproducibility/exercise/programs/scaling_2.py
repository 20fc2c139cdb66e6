"""The mean gradient has other last bits on more devices.

Observed: the gradients of the shards are equal on 1 and on 4 devices, and their mean is not.
Right: `mean(shards, devices)` returns the mean of 8 shards in float32, with the same bits on 1, 2,
4 and 8 devices.
"""

import numpy as np


def mean(shards, devices):
    """Return the mean of the shards; each device adds its own, then the devices are added."""
    each = len(shards) // devices
    sums = []
    for device in range(devices):
        total = np.zeros_like(shards[0])
        for shard in shards[device * each : (device + 1) * each]:
            total = total + shard
        sums.append(total)
    total = np.zeros_like(shards[0])
    for part in sums:
        total = total + part
    return total / np.float32(len(shards))


if __name__ == "__main__":
    values = np.array([[1e8], [1], [-1e8], [1], [1], [1], [1], [1]], np.float32)
    print(mean(values, 1), mean(values, 2))
