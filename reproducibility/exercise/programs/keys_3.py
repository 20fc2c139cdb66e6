"""The weights of a layer change from process to process, though the key comes from a seed.

Observed: two calls in one process agree. The next process draws different weights for the same
seed and the same name.
Right: `weights(seed, name)` is determined by seed and name, and two names get weights that have
nothing in common.
"""

import jax


def weights(seed, name):
    """Return the weights of the layer of a name, from a standard normal distribution."""
    key = jax.random.fold_in(jax.random.key(seed), hash(name) % 2**31)
    return jax.random.normal(key, (16, 16))


if __name__ == "__main__":
    print(weights(0, "dense")[0, :3])
