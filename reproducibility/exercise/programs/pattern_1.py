"""One more layer changes the weights of all layers after it.

Observed: an ablation that adds a layer starts from different weights everywhere, so the two runs
cannot be compared.
Right: `init(seed, names)` gives a layer the same weights for the same seed and name, whichever
other layers there are, in whichever order. Two layers have nothing in common.
"""

import jax


def init(seed, names):
    """Return the weights of each layer by its name, from a standard normal distribution."""
    key = jax.random.key(seed)
    weights = {}
    for name in names:
        key, subkey = jax.random.split(key)
        weights[name] = jax.random.normal(subkey, (16, 16))
    return weights


if __name__ == "__main__":
    print(init(0, ["in", "out"])["out"][0, :3], init(0, ["in", "mid", "out"])["out"][0, :3])
