"""How soon the command line answers, against importing JAX; each in fresh processes, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

REPETITIONS = 9


def seconds(*arguments: str) -> float:
    """Return how long a Python process takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def run() -> list[dict[str, Any]]:
    """Measure, and return a row: name, value, bound, and what it is against."""
    ours, peer = ("-m", "reproducibility", "--help"), ("-c", "import jax")
    seconds(*ours), seconds(*peer)
    return [
        {
            "name": "reproducibility --help",
            "value": statistics.median(seconds(*ours) / seconds(*peer) for _ in range(REPETITIONS)),
            "bound": "<= 0.50",
            "peer": "python -c 'import jax'",
        }
    ]
