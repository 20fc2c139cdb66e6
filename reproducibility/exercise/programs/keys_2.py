"""Each step adds the same noise.

Observed: the noise does not average out over the steps, because it is the same in all of them.
Right: `noises(seed, steps)` returns noise of its own for each step, determined by the seed.
"""

import jax
import jax.numpy as jnp


def noises(seed, steps):
    """Return the noise of each step, from a standard normal distribution."""
    key = jax.random.key(seed)
    found = []
    for step in range(steps):
        found.append(jax.random.normal(key, (64,)))
    return jnp.stack(found)


if __name__ == "__main__":
    print(noises(0, 3)[:, :3])
