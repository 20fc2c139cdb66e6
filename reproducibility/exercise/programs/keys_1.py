"""Two layers begin with the same weights.

Observed: the first and the second layer have the same numbers, so they learn the same.
Right: `init(seed)` returns two layers that have no number in common; both are determined by the
seed.
"""

import jax


def init(seed):
    """Return the weights of two layers, drawn from a standard normal distribution."""
    key = jax.random.key(seed)
    return {
        "first": jax.random.normal(key, (16, 16)),
        "second": jax.random.normal(key, (16, 16)),
    }


if __name__ == "__main__":
    weights = init(0)
    print(weights["first"][0, :3], weights["second"][0, :3])
