"""A script differs from run to run, though it is given a seed.

Observed: `reproducibility twice -- python script_1.py` says "different", and that the weights begin
to differ with the generator.
Right: `main(seed)` returns weights that the seed determines, and a name that no other run has.
"""

import os
import time
import uuid

import numpy as np


def run_name(seed):
    """Return a name for the folder of a run."""
    return f"{time.strftime('%H%M%S')}-{os.getpid()}-{seed}-{uuid.uuid4().hex[:8]}"


def generator(seed, name):
    """Return the generator of a run."""
    return np.random.default_rng([seed, *name.encode()])


def main(seed):
    """Train, and return the name of the run and its weights."""
    name = run_name(seed)
    rng = generator(seed, name)
    began = time.perf_counter()
    weights = rng.normal(size=(16, 4))
    print(f"{name}: {time.perf_counter() - began:.3f} s")
    return {"name": name, "weights": weights}


if __name__ == "__main__":
    print(main(0)["weights"][0])
