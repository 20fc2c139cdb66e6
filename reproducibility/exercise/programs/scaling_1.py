"""The same run on more devices has different noise.

Observed: from one device to two, the loss curve changes from the first step on.
Right: `noise(seed, step, devices)` returns the same noise for the 8 examples of a batch on 1, 2, 4
and 8 devices. Each example and each step has noise of its own.
"""

import jax
import jax.numpy as jnp

BATCH = 8


def noise(seed, step, devices):
    """Return the noise of a batch, whose examples the devices share."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    each = BATCH // devices
    parts = []
    for device in range(devices):
        parts.append(jax.random.normal(jax.random.fold_in(key, device), (each, 32)))
    return jnp.concatenate(parts)


if __name__ == "__main__":
    print(noise(0, 0, 1)[:, 0], noise(0, 0, 2)[:, 0])
