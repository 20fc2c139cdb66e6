"""Sealed checkpoints against Orbax alone: how long training waits, how long a save and a read take.

The repetitions alternate, so that a busy machine slows both; what counts is the median of the
ratios.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from reproducibility import PLANNED, CheckpointStore, TrainConfig, programs_of
from tests.benchmarks.bench_hashing import seconds

REPETITIONS = 25
LEAVES, SIDE = 16, 1024  # 64 MiB in float32 matrices
STEPS, EVERY = 512, 128  # of the training that is interrupted by checkpoints


def large() -> dict[str, jax.Array]:
    """Make a state of 64 MiB that does not compress to nothing."""
    keys = jax.random.split(jax.random.key(0), LEAVES)
    make = jax.jit(lambda key: jax.random.normal(key, (SIDE, SIDE)))
    return jax.block_until_ready({f"leaf{i}": make(key) for i, key in enumerate(keys)})


class Pair:
    """Our store and Orbax, each in a directory of its own, one checkpoint after the other."""

    def __init__(self, folder: Path, tree: Any) -> None:
        self.tree, self.folder = tree, folder
        self.store = CheckpointStore(folder / "ours", keep=1)
        self.orbax = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        self.steps: Iterator[int] = iter(range(10**6))

    def ours(self) -> None:
        """Begin to save, under a name, so that the state's own counter of steps is not asked."""
        self.store.save(next(self.steps), {"state": self.tree})

    def peer(self) -> None:
        """Begin to save."""
        path = self.folder / "orbax" / str(next(self.steps))
        self.orbax.save(path, args=ocp.args.StandardSave(self.tree))

    def waits(self) -> float:
        """Return for how long the caller of `save` waits, ours over Orbax's."""
        return ratio(self.ours, self.peer, after=self.both)

    def saves(self) -> float:
        """Return how long it takes until all is on the disk, ours over Orbax's."""
        return ratio(
            lambda: (self.ours(), self.store.wait()),
            lambda: (self.peer(), self.orbax.wait_until_finished()),
        )

    def reads(self) -> float:
        """Return how long a restore takes, ours over Orbax's."""
        self.ours(), self.peer(), self.both()
        path = max((self.folder / "orbax").iterdir(), key=lambda path: int(path.name))
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, self.tree)
        return ratio(
            lambda: jax.block_until_ready(self.store.restore({"state": like})),
            lambda: jax.block_until_ready(
                self.orbax.restore(path, args=ocp.args.StandardRestore(like))
            ),
        )

    def verifies(self) -> float:
        """Return how fast all bytes are checked, against one SHA-256 over each file."""
        step = self.store.steps()[-1]
        files = [path for path in self.store.path.rglob("*") if path.is_file()]

        def peer() -> None:
            for path in files:
                hashlib.sha256(path.read_bytes()).hexdigest()

        return 1 / ratio(lambda: self.store.verify(step), peer)

    def both(self) -> None:
        """Let both finish."""
        self.store.wait(), self.orbax.wait_until_finished()


def ratio(
    ours: Callable[[], Any], peer: Callable[[], Any], after: Callable[[], Any] = lambda: None
) -> float:
    """Return the median of our time over the peer's."""
    found = []
    for repetition in range(REPETITIONS + 1):
        a, _, b, _ = seconds(ours), after(), seconds(peer), after()
        if repetition:
            found.append(a / b)
    return statistics.median(found)


def trains(folder: Path) -> float:
    """Return how long training with checkpoints takes, sealed ones over those of Orbax alone."""
    programs = programs_of(TrainConfig(seed=0).identity)
    pair = Pair(folder, None)

    def loop(save: Callable[[], None], finish: Callable[[], None]) -> None:
        pair.tree = jax.tree.map(jnp.copy, programs.start)
        for step in range(STEPS):
            if step % PLANNED == 0:
                plan = programs.plan(pair.tree)
            pair.tree, _, _ = programs.step(pair.tree, plan)
            if step % EVERY == EVERY - 1:
                save()
        finish()

    return ratio(
        lambda: loop(pair.ours, pair.store.wait),
        lambda: loop(pair.peer, pair.orbax.wait_until_finished),
    )


def run() -> list[dict[str, Any]]:
    """Measure, and return a row for each promise: name, value, bound, and what it is against."""
    start = programs_of(TrainConfig(seed=0).identity).start
    with tempfile.TemporaryDirectory() as place:
        small, big = (Pair(Path(place, n), t) for n, t in {"s": start, "b": large()}.items())
        peer = "Orbax's AsyncCheckpointer alone"
        rows = [
            ("save: training waits, default state", small.waits(), "<= 1.3", peer),
            ("save: training waits, 64 MiB", big.waits(), "<= 1.3", peer),
            ("save until committed, 64 MiB", big.saves(), "<= 3.0", peer + ", not flushed"),
            ("restore, verified twice, 64 MiB", big.reads(), "<= 2.5", "Orbax alone"),
            ("verify every byte, 64 MiB, speed", big.verifies(), ">= 0.85", "sha256 of the files"),
            ("training with checkpoints", trains(Path(place, "t")), "<= 1.1", peer),
        ]
        for pair in (small, big):
            pair.store.close(), pair.orbax.close()
    return [dict(zip(("name", "value", "bound", "peer"), row, strict=True)) for row in rows]


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']:52} {row['value']:6.3f}  {row['bound']}  ({row['peer']})")
