"""Evaluation gives a different accuracy each time.

Observed: the same weights, evaluated on the same data in two steps, give different outputs.
Right: `evaluate(seed, step, x)` draws nothing and is the same in each step. `train_outputs` still
drops half of the hidden units, others in each step.
"""

import jax
import jax.numpy as jnp


def init(seed):
    """Return the weights of two layers."""
    first, second = jax.random.split(jax.random.key(seed))
    return jax.random.normal(first, (8, 32)), jax.random.normal(second, (32, 1))


def forward(weights, x, key):
    """Return the outputs of the network."""
    hidden = jax.nn.relu(x @ weights[0])
    kept = jax.random.bernoulli(key, 0.5, hidden.shape)
    return jnp.where(kept, 2 * hidden, 0) @ weights[1]


def train_outputs(seed, step, x):
    """Return the outputs in a step of training, with dropout."""
    return forward(init(seed), x, jax.random.fold_in(jax.random.key(seed), step))


def evaluate(seed, step, x):
    """Return the outputs for an evaluation after a step."""
    return forward(init(seed), x, jax.random.fold_in(jax.random.key(seed), step))


if __name__ == "__main__":
    print(evaluate(0, 1, jnp.ones((1, 8))), evaluate(0, 2, jnp.ones((1, 8))))
