"""The ledger says that two runs differ, and not where it began.

Observed: the losses of two runs differ from step 4 on. Whether their data or their gradients did
first is not in the ledger.
Right: `train(path, seed, wrong_step, wrong_stage)` writes a ledger whose first line that differs is
that of the step that was disturbed, in the stages `batch`, `gradients` and `params`.
"""

import sys

import numpy as np

from reproducibility import Recorder


def disturbed(values):
    """Return values of which one is a little larger."""
    values = values.copy()
    values.flat[0] += np.float32(1e-4)
    return values


def train(path, seed, wrong_step, wrong_stage):
    """Train for six steps and record each; one stage of one step can be disturbed."""
    w = np.ones(4, np.float32)
    with Recorder(path) as recorder:
        for step in range(1, 7):
            batch = np.random.default_rng([seed, step]).normal(size=(8, 4)).astype(np.float32)
            if (step, "batch") == (wrong_step, wrong_stage):
                batch = disturbed(batch)
            gradients = batch.T @ (batch @ w - 1) / np.float32(8)
            if (step, "gradients") == (wrong_step, wrong_stage):
                gradients = disturbed(gradients)
            w = w - np.float32(0.1) * gradients
            recorder.record(step, loss=float(np.mean((batch @ w - 1) ** 2)))


if __name__ == "__main__":
    train(sys.argv[1], 0, 0, "")
