"""A model that is restored uses its first dropout masks again.

Observed: all parameters are restored, and from there on the outputs differ from those of the run
that was never interrupted: they are those of the first steps.
Right: `outputs(seed, steps, restored_at)` is the same, whether and wherever the model is restored.
"""

import jax.numpy as jnp
from flax import nnx


class Model(nnx.Module):
    """A layer of ones, and dropout."""

    def __init__(self, rngs):
        self.scale = nnx.Param(jnp.ones(64))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self):
        return self.dropout(self.scale[...])


def outputs(seed, steps, restored_at):
    """Return the outputs of each step; before one of them, the model is saved and restored."""
    model = Model(nnx.Rngs(seed))
    found = []
    for step in range(steps):
        if step and step == restored_at:
            saved = nnx.state(model, nnx.Param)
            model = Model(nnx.Rngs(seed))
            nnx.update(model, saved)
        found.append(model())
    return jnp.stack(found)


if __name__ == "__main__":
    print(outputs(0, 4, 0)[:, :6], outputs(0, 4, 2)[:, :6])
