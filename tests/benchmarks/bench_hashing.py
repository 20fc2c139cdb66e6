"""`tree_digest` against SHA-256 of the same bytes by hand: speed and memory.

Both work on 256 MiB in 16 leaves, with as many threads as there are cores. The repetitions
alternate, so that a busy machine slows both; what counts is the median of the ratios.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reproducibility import fingerprint, tree_digest

LEAVES = 16
SIDE = 2048  # a leaf is a float32 matrix of this side: 16 MiB
REPETITIONS = 15

# The most that is resident during the digest, sampled, less what was just before, in bytes. (Not
# ru_maxrss: on Linux a process begins with the peak of the one that started it.)
MEMORY = f"""
import threading
import jax, jax.numpy as jnp, psutil
from reproducibility import tree_digest
tree_digest(jnp.zeros(3))
tree = [jax.block_until_ready(jnp.full(({SIDE}, {SIDE}), i, jnp.float32)) for i in range({LEAVES})]
process, done = psutil.Process(), threading.Event()
samples = [process.memory_info().rss]
def sample():
    while not done.wait(0.001):
        samples.append(process.memory_info().rss)
sampler = threading.Thread(target=sample)
sampler.start()
tree_digest(tree)
done.set()
sampler.join()
assert len(samples) > 20, "too few samples"
print(max(samples) - samples[0])
"""


def seconds(work: Callable[[], Any]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(ours: Callable[[], Any], peer: Callable[[], Any]) -> float:
    """Return the median of peer's time over ours: 1 is as fast, 2 twice as fast."""
    ours(), peer()
    return statistics.median(1 / (seconds(ours) / seconds(peer)) for _ in range(REPETITIONS))


def extra_memory() -> float:
    """Return the memory a digest takes in a fresh process, as a share of the tree."""
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) / (LEAVES * SIDE * SIDE * 4)


def run() -> list[dict[str, Any]]:
    """Measure, and return a row for each promise: name, value, bound, and what it is against."""
    tree = [jnp.full((SIDE, SIDE), i, jnp.float32) for i in range(LEAVES)]
    views = [np.asarray(leaf) for leaf in jax.block_until_ready(tree)]
    compiled = jax.jit(fingerprint)
    swapped = [view.astype(">f4") for view in views]
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def raw() -> None:
            list(pool.map(lambda view: hashlib.sha256(view.data).digest(), views))

        def alone() -> None:
            for view in views:
                hashlib.sha256(view.data).digest()

        def copied() -> None:
            list(pool.map(lambda view: hashlib.sha256(view.astype("<f4").data).digest(), swapped))

        return [
            {
                "name": "tree_digest of 256 MiB in 16 leaves, speed",
                "value": alternate(lambda: tree_digest(tree), raw),
                "bound": ">= 0.85",
                "peer": "raw hashlib.sha256 on all cores, without a copy",
            },
            {
                "name": "the same, big-endian leaves, speed",
                "value": alternate(lambda: tree_digest(swapped), copied),
                "bound": ">= 0.85",
                "peer": "hashlib.sha256 on all cores, of a converted copy",
            },
            {
                "name": "fingerprint of 256 MiB in 16 leaves, inside jit, speed",
                "value": alternate(lambda: jax.block_until_ready(compiled(tree)), raw),
                "bound": ">= 1.2",
                "peer": "raw hashlib.sha256 on all cores, without a copy",
            },
            {
                "name": "the same, speed",
                "value": alternate(lambda: jax.block_until_ready(compiled(tree)), alone),
                "bound": ">= 2",
                "peer": "raw hashlib.sha256 in one thread, without a copy",
            },
            {
                "name": "tree_digest of 256 MiB in 16 leaves, extra memory",
                "value": extra_memory(),
                "bound": "<= 0.05",
                "peer": "the size of the tree",
            },
        ]


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']:52} {row['value']:6.3f}  {row['bound']}  ({row['peer']})")
