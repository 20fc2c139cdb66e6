"""Each image of a batch gets the same noise.

Observed: augmentation works for one image. In a batch under `vmap`, all images are shifted alike.
Right: `augment(seed, images)` adds noise of its own to each image, determined by the seed.
"""

import jax
import numpy as np


def augment(seed, images):
    """Add noise from a standard normal distribution to a batch of images."""
    key = jax.random.key(seed)

    def one(image):
        return image + jax.random.normal(key, image.shape)

    return jax.vmap(one)(images)


if __name__ == "__main__":
    print(augment(0, np.zeros((3, 4), np.float32)))
