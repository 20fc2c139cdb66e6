"""A run that is evaluated more often ends differently.

Observed: two runs with the same seed differ, because one evaluates in each step. An example has a
different output in a batch of 6 than alone.
Right: `train(seed, steps, evaluate_every)` returns the same running mean, however often it
evaluates. `outputs` uses the running mean, so an example does not depend on its neighbours.
"""

import numpy as np


def normalised(state, x):
    """Return a batch minus its mean, which enters the running mean."""
    mean = x.mean(axis=0)
    state["mean"] = 0.9 * state["mean"] + 0.1 * mean
    return x - mean


def trained(seed, steps, evaluate_every):
    """Return the state after a training."""
    rng, state = np.random.default_rng(seed), {"mean": np.zeros(4)}
    validation = np.linspace(0, 1, 12).reshape(3, 4)
    for step in range(steps):
        normalised(state, rng.normal(loc=3, size=(8, 4)))
        if evaluate_every and step % evaluate_every == 0:
            evaluate(state, validation)
    return state


def evaluate(state, x):
    """Return the outputs for an evaluation."""
    return normalised(state, x)


def train(seed, steps, evaluate_every):
    """Return the running mean after a training."""
    return trained(seed, steps, evaluate_every)["mean"]


def outputs(seed, steps, x):
    """Return the outputs of a trained model."""
    return evaluate(trained(seed, steps, 0), x)


if __name__ == "__main__":
    print(train(0, 10, 0), train(0, 10, 1))
