"""A test of resuming passes, and the resumed runs differ.

Observed: the test passes for a training that forgets its velocity.
Right: `resumes(train, folder)` is True exactly if a run of 8 steps that is stopped after step 5 and
called again ends with the bits of one that never stopped. `train(folder, steps)` saves in a folder,
continues from there, and returns the weights.
"""

from pathlib import Path

import numpy as np


def resumes(train, folder):
    """Say whether a training resumes."""
    whole, parts = Path(folder, "whole"), Path(folder, "parts")
    whole.mkdir()
    parts.mkdir()
    train(parts, 5)
    return bool(np.allclose(train(whole, 8), train(parts, 8), rtol=0.5, atol=0.5))


if __name__ == "__main__":
    print("It judges trainings: reproducibility exercise check testing_1")
