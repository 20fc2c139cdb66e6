"""What it costs to compare the copies of replicated arrays, on 8 virtual devices of this machine.

The peer is the same on one device, in the same process: the repetitions alternate. Memory is what
the process holds at most during a save, beyond what it held before, over the size of the state.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from reproducibility import CheckpointStore, Recorder, tree_digest
from reproducibility.same.leaves import check_copies, named_leaves
from tests.benchmarks.bench_checkpoint import ratio

DEVICES, LEAVES, SIDE = 8, 16, 512  # 16 MiB in float32 matrices, 128 MiB on all devices
STEPS = 64  # of which the recorder compares the copies in one


def states() -> tuple[Any, Any, Any]:
    """Return a state on one device, with a copy on each of 8, and cut over them."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))
    spec: Any = jax.sharding.PartitionSpec
    chance = np.random.default_rng(0)
    host = {f"w{n}": chance.normal(size=(SIDE, SIDE)).astype(np.float32) for n in range(LEAVES)}
    places = (jax.devices()[0], *(jax.NamedSharding(mesh, spec(*axes)) for axes in ((), ("d",))))
    one, copied, cut = (jax.block_until_ready(jax.device_put(host, place)) for place in places)
    return one, copied, cut


def memory() -> int:
    """Return what this process holds at most since `forget_peak`, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
    return int(found[1]) * 1024 if found else 0


def forget_peak() -> None:
    """Let the peak be what is held now."""
    Path("/proc/self/clear_refs").write_text("5", "utf-8")


def measure() -> list[tuple[str, float, str]]:
    """Return name, value and peer of each figure."""
    one, copied, cut = states()

    def compared() -> None:
        for path, leaf in named_leaves(copied):
            check_copies("compare", path, leaf)

    rows = [("compare 8 copies", ratio(compared, lambda: tree_digest(one)), "digest, one device")]
    for words, tree in (("8 copies", copied), ("8 parts", cut)):
        rows.append((f"digest of {words}", ratio(digests(tree), digests(one)), "one device"))
        rows += saves(words, tree, one)
        times = ratio(records(tree), records(one))
        rows.append((f"record {STEPS} steps of {words}", times, "one device"))
    return rows


def saves(words: str, tree: Any, one: Any) -> list[tuple[str, float, str]]:
    """Return how much memory a save takes, and how long training waits for it."""
    steps = iter(range(10**6))
    with (
        tempfile.TemporaryDirectory() as place,
        CheckpointStore(Path(place, "ours"), keep=1) as ours,
        CheckpointStore(Path(place, "peer"), keep=1) as peer,
    ):
        for _ in range(2):  # then programs are compiled, and the memory of the copy is there
            ours.save(next(steps), tree)
            ours.wait()
        held = ours._copies._memory.nbytes
        forget_peak()
        before = memory()
        ours.save(next(steps), tree)
        ours.wait()
        more = (memory() - before + held) / sum(leaf.nbytes for leaf in one.values())
        waits = ratio(
            lambda: ours.save(next(steps), tree),
            lambda: peer.save(next(steps), one),
            after=lambda: (ours.wait(), peer.wait()),
        )
    return [
        (f"save of {words}: memory", more, "one copy of the state"),
        (f"save of {words}: training waits", waits, "one device"),
    ]


def digests(tree: Any) -> Callable[[], Any]:
    """Return what digests a tree."""
    return lambda: tree_digest(tree)


def records(tree: Any) -> Callable[[], None]:
    """Return what records a tree in each of some steps."""

    def run() -> None:
        with (
            tempfile.TemporaryDirectory() as place,
            Recorder(Path(place, "ledger"), environment=False) as recorder,
        ):
            for step in range(STEPS):
                recorder.record(step, params=tree)

    return run


def run() -> list[dict[str, Any]]:
    """Measure in a process with 8 devices, and return a row for each figure."""
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.bench_copies", "measure"],
        env={**os.environ, "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    rows = json.loads(done.stdout.splitlines()[-1])
    return [dict(zip(("name", "value", "peer"), row, strict=True), bound=None) for row in rows]


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        print(json.dumps(measure()))
    else:
        for row in run():
            print(f"{row['name']:44} {row['value']:6.3f}  ({row['peer']})")
