"""How soon the command line answers, against importing JAX; each in fresh processes, in turn."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPETITIONS = 9
PEER = ("-c", "import jax")
OURS = ("-m", "reproducibility")
RATES = {"a": "0.001", "b": "0.002"}  # the default network; the two differ from step 1 on
# What a user has: no cache of compiled programs.
PLAIN = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}


def seconds(*arguments: str, expected: int = 0) -> float:
    """Return how long a Python process takes."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, env=PLAIN)
    taken = time.perf_counter() - start
    if done.returncode != expected:
        raise RuntimeError(done.stderr.decode())
    return taken


def ratio(ours: Sequence[str], repetitions: int, expected: int) -> float:
    """Return the median of our time over the peer's, in runs that alternate."""
    return statistics.median(
        seconds(*OURS, *ours, expected=expected) / seconds(*PEER) for _ in range(repetitions)
    )


def run() -> list[dict[str, Any]]:
    """Measure, and return a row for each command: name, value, bound, and what it is against."""
    with tempfile.TemporaryDirectory() as folder:
        a, b = (str(Path(folder, name)) for name in RATES)
        for path, rate in zip((a, b), RATES.values(), strict=True):
            settings = ("--seed", "7", "--steps", "4", "--learning-rate", rate)
            seconds(*OURS, "train", "--run-dir", path, *settings)
        seconds(*OURS, "--help"), seconds(*PEER)
        commands: list[tuple[str, Sequence[str], int, int, str]] = [
            ("--help", ["--help"], REPETITIONS, 0, "<= 0.50"),
            (
                "compare A B --no-replay",
                ["compare", a, b, "--no-replay"],
                REPETITIONS,
                1,
                "<= 0.80",
            ),
            ("compare A B, one step again", ["compare", a, b], 3, 1, "<= 9"),
            ("trace A --against B", ["trace", a, "--against", b], 3, 1, "<= 12"),
        ]
        return [
            {
                "name": f"reproducibility {name}",
                "value": ratio(arguments, repetitions, expected),
                "bound": bound,
                "peer": "python -c 'import jax'",
            }
            for name, arguments, repetitions, expected, bound in commands
        ]


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']:44} {row['value']:6.2f}  {row['bound']}  ({row['peer']})")
