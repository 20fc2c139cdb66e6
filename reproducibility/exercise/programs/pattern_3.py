"""The weights come back as the noise of a step.

Observed: weights and noise are drawn from keys that look different, and the noise of one step is
exactly the weights.
Right: `draws(seed, steps)` returns weights and noise that have no number in common.
"""

import jax
import jax.numpy as jnp


def draws(seed, steps):
    """Return weights, and the noise of each step, from a standard normal distribution."""
    key = jax.random.key(seed)
    _, init_key = jax.random.split(key)
    weights = jax.random.normal(init_key, (64,))
    noise = [jax.random.normal(jax.random.fold_in(key, step), (64,)) for step in range(steps)]
    return {"weights": weights, "noise": jnp.stack(noise)}


if __name__ == "__main__":
    found = draws(0, 3)
    print(found["weights"][:3], found["noise"][:, :3])
