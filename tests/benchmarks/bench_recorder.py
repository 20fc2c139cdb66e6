"""What recording costs a training, and what comparing two ledgers of a million steps costs.

Recording is measured against the same training without it, in stretches that alternate; what
counts is the median of their ratios. The comparison is a process of the command line, start
included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import psutil

from reproducibility import PLANNED, Programs, Recorder, TrainConfig
from reproducibility.recording.lines import STAGES, Header
from reproducibility.storage.files import chained
from tests.benchmarks.bench_training import Loop, ours, ratio

STEPS = 1_000_000  # in each of the two ledgers that are compared
PARTS = 600_000  # the step in which the second begins to differ


def recorded(programs: Programs, folder: Path, level: str) -> Loop:
    """Return the loop of `train` with a ledger."""

    def run(steps: int) -> None:
        file = folder / "ledger.jsonl"
        file.unlink(missing_ok=True)
        state = jax.tree.map(jnp.copy, programs.start)
        with Recorder(file, level=level, view=Programs.stages) as recorder:
            recorder.record(0, state=state)
            for step in range(1, steps + 1):
                if step % PLANNED == 1:
                    plan = programs.plan(state)
                state, loss, gradient = programs.step(state, plan)
                parts = {"state": state, "plan": plan, "gradient": gradient, "data": programs.data}
                recorder.record(step, loss=loss, **parts)
        jax.block_until_ready((state, loss))

    return run


def write_ledgers(folder: Path) -> tuple[Path, Path]:
    """Write two ledgers of `STEPS` groups that part in step `PARTS`."""
    header = Header("a" * 64, "group", 1, 1, {stage: ["leaf"] for stage in STAGES})
    paths = folder / "a.jsonl", folder / "b.jsonl"
    with open(paths[0], "wb") as one, open(paths[1], "wb") as other:
        raw, head = chained(header.run, header.body())
        one.write(raw), other.write(raw)
        heads = [head, head]
        for step in range(1, STEPS + 1):
            text = f"{step * 0x9E3779B97F4A7C15 % 2**64:016x}"
            line: dict[str, Any] = dict.fromkeys(STAGES, text)
            line |= {"step": step, "loss": (1 / step).hex()}
            raw, heads[0] = chained(heads[0], line)
            one.write(raw)
            if step >= PARTS:
                line |= {"gradients": "0" * 16, "params": "1" * 16, "loss": (1.5 / step).hex()}
                raw, heads[1] = chained(heads[1], line)
            else:
                heads[1] = heads[0]
            other.write(raw)
    return paths


def comparison(folder: Path) -> tuple[float, float]:
    """Return the seconds and the megabytes that `compare` of two long ledgers takes."""
    command = [sys.executable, "-m", "reproducibility", "compare", *write_ledgers(folder)]
    began, most = time.perf_counter(), 0
    with subprocess.Popen(
        [*command, "--no-replay"], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    ) as child:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            try:
                most = max(most, process.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.01)
        took = time.perf_counter() - began
        said = child.stdout.read() if child.stdout else ""
    assert f"step {PARTS}, first in gradients" in said, said
    return took, most / 1e6


def run() -> list[dict[str, Any]]:
    """Measure, and return a row for each promise: name, value, bound, and what it is against."""
    small = Programs(TrainConfig(seed=7).identity)
    large = Programs(TrainConfig(seed=7, batch_size=512, hidden=(3100, 3100)).identity)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        by_leaf = ratio(recorded(small, folder, "leaf"), ours(small), 500)
        by_group = ratio(recorded(small, folder, "group"), ours(small), 500)
        size = (folder / "ledger.jsonl").stat().st_size / 500
        costs = ratio(recorded(large, folder, "auto"), ours(large), 4, 5)
        took, most = comparison(folder)
    return [
        {
            "name": "recording every step, 10 million parameters, batch 512",
            "value": costs,
            "bound": "<= 1.10",
            "peer": "the same training without",
        },
        {
            "name": "recording every step by leaf, default network",
            "value": by_leaf,
            "bound": "<= 1.25",
            "peer": "the same training without",
        },
        {
            "name": "recording every step by group, default network",
            "value": by_group,
            "bound": "<= 1.25",
            "peer": "the same training without",
        },
        {
            "name": "a step in the ledger, by group",
            "value": size,
            "bound": "<= 400",
            "peer": "a byte",
        },
        {
            "name": "compare of two ledgers of a million steps, process and all",
            "value": took,
            "bound": "<= 5",
            "peer": "a second",
        },
        {
            "name": "the same, memory",
            "value": most,
            "bound": "<= 500",
            "peer": "a megabyte",
        },
    ]


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']:58} {row['value']:8.3f}  {row['bound']}  ({row['peer']})")
