"""A loop that begins at a later step draws the noise of the first steps again.

Observed: steps 0 to 9 in one go differ from steps 0 to 4 followed by 5 to 9: the second part has
the noise of the first.
Right: `noises(seed, first, last)` gives a step the same noise wherever the loop began.
"""

import jax
import jax.numpy as jnp


def noises(seed, first, last):
    """Return the noise of the steps from first to last - 1, from a standard normal distribution."""
    key = jax.random.key(seed)
    found = []
    for step in range(first, last):
        key, subkey = jax.random.split(key)
        found.append(jax.random.normal(subkey, (64,)))
    return jnp.stack(found)


if __name__ == "__main__":
    print(noises(0, 0, 4)[2:, :3], noises(0, 2, 4)[:, :3])
