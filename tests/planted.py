"""Reproducers that are broken on purpose, for a process that imports them by name."""

import os
import time
from collections.abc import Iterator

import jax
import numpy as np

from reproducibility.machine.reproducers import Computed

ONES = np.ones(4)


def right(tries: int) -> Iterator[Computed]:
    """Compute what is right, so often."""
    for number in range(tries):
        yield Computed(f"try {number}", ONES, ONES)


def wrong(tries: int) -> Iterator[Computed]:
    """Compute one element that is wrong, in the last try."""
    yield from right(tries - 1)
    yield Computed(f"try {tries - 1}", np.array([1.0, 1.0, 3.0, 1.0]), ONES)


def wrong_in_process_1(tries: int) -> Iterator[Computed]:
    """Compute what is right in process 0, and nothing else."""
    yield from (wrong if jax.process_index() else right)(tries)


def silent_in_process_1(tries: int) -> Iterator[Computed]:
    """Compute what is right in process 0; process 1 crashes."""
    yield from (crashing if jax.process_index() else right)(tries)


def empty(tries: int) -> Iterator[Computed]:
    """Compute nothing."""
    yield from ()


def raising(tries: int) -> Iterator[Computed]:
    """Fail after something that is right."""
    yield from right(tries)
    raise RuntimeError("planted")


def crashing(tries: int) -> Iterator[Computed]:
    """End the process as a crash would."""
    os._exit(139)
    yield from right(tries)


def endless(tries: int) -> Iterator[Computed]:
    """Take longer than any deadline of a test."""
    time.sleep(600)
    yield from right(tries)


def wrong_then_raising(tries: int) -> Iterator[Computed]:
    """Fail after something that is wrong."""
    yield from wrong(tries)
    raise RuntimeError("planted")


def leaving(tries: int) -> Iterator[Computed]:
    """End the process as a script would."""
    raise SystemExit(0)
    yield from right(tries)


def nothing_to_compare(tries: int) -> Iterator[Computed]:
    """Compute arrays without elements."""
    yield Computed("empty", np.zeros(0), np.zeros(0))
