"""What recording costs a script that nobody changed, and what comparing two long records costs.

A script is measured with the recorder and without, in stretches that alternate; what counts is the
median of their ratios, or of their differences. Start-up and compiling are outside of what is
timed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reproducibility import compare_records, record
from reproducibility.watch.writing import DIGEST

LONG = 1_000_000  # calls of each record that is compared
DIVERGES = 600_000  # where the second one begins to differ
AGAIN = 8  # of so many calls one is computed twice

Loop = Callable[[int], None]  # so many turns, until their results are there


def training(width: int, batch: int) -> Loop:
    """Return a training of a perceptron with Adam's moments, batches of NumPy, and donation."""
    rng = np.random.default_rng(0)
    sizes = ((784, width), (width, width), (width, 10))
    keys = jax.random.split(jax.random.key(0), len(sizes))
    weights = [
        jax.random.normal(key, size) / size[0] ** 0.5 for key, size in zip(keys, sizes, strict=True)
    ]
    data = rng.normal(size=(8, batch, 784)).astype(np.float32)
    labels = rng.integers(0, 10, (8, batch))

    def loss(params: Any, x: Any, y: Any) -> Any:
        for weight in params[:-1]:
            x = jnp.tanh(x @ weight)
        return -jax.nn.log_softmax(x @ params[-1])[jnp.arange(batch), y].mean()

    def step(params: Any, moments: Any, x: Any, y: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, x, y)
        moments = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments, grads)
        return jax.tree.map(lambda p, m: p - 1e-3 * m, params, moments), moments, value

    program = jax.jit(step, donate_argnums=(0, 1))
    state = [weights, jax.tree.map(jnp.zeros_like, weights)]

    def run(turns: int) -> None:
        value = None
        for turn in range(turns):
            *state[:], value = program(*state, data[turn % 8], labels[turn % 8])
        jax.block_until_ready(value)

    return run


def scanned() -> Loop:
    """Return a loop that is one program."""

    @jax.jit
    def program(x: Any) -> Any:
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ c) + 0.1, c.sum()), x, None, 2000)

    state = [jnp.ones((64, 64))]

    def run(turns: int) -> None:
        for _ in range(turns):
            state[0], _ = program(state[0])
        jax.block_until_ready(state)

    return run


def tiny(new: int) -> Loop:
    """Return a loop of calls that take known arrays, and return so many new small ones."""
    program = jax.jit(lambda arrays: [x * 0.5 + 1 for x in arrays])
    state = [[jnp.full((4, 4), float(i)) for i in range(new)]]

    def run(turns: int) -> None:
        for _ in range(turns):
            state[0] = program(state[0])
        jax.block_until_ready(state)

    return run


def seconds(loop: Loop, turns: int) -> float:
    """Return how long a loop takes."""
    began = time.perf_counter()
    loop(turns)
    return time.perf_counter() - began


def pairs(loop: Loop, turns: int, folder: Path, repetitions: int) -> list[tuple[float, float]]:
    """Return the seconds with the recorder and without, in stretches that alternate."""
    found = []
    for _ in range(repetitions):
        loop(2)
        plain = seconds(loop, turns)
        with record(folder / "record"):
            loop(2)
            found.append((seconds(loop, turns), plain))
        shutil.rmtree(folder / "record")
    return found


def ratio(loop: Loop, turns: int, folder: Path, repetitions: int = 5) -> float:
    """Return the median ratio."""
    return statistics.median(a / b for a, b in pairs(loop, turns, folder, repetitions))


def more(loop: Loop, turns: int, folder: Path, repetitions: int = 9) -> float:
    """Return by how many microseconds a turn takes longer: the median."""
    found = pairs(loop, turns, folder, repetitions)
    return statistics.median((a - b) / turns * 1e6 for a, b in found)


def twice_as_often(loop: Loop, folder: Path, repetitions: int = 3) -> float:
    """Return the ratio of a recorded loop one of `AGAIN` of whose calls is computed twice.

    What is compiled for that is compiled in the first turns. Of each `AGAIN` that follow one is
    computed twice; of the last ones that are timed it is the first, so that none is left over.
    """
    found = []
    for _ in range(repetitions):
        took = []
        for again in (0, AGAIN):
            with contextlib.redirect_stderr(io.StringIO()), record(folder / "a", again=again):
                loop(AGAIN + 1)
                took.append(seconds(loop, 4 * AGAIN))
            shutil.rmtree(folder / "a")
        found.append(took[1] / took[0])
    return statistics.median(found)


def size_of_a_call(new: int, folder: Path) -> float:
    """Return the bytes that a call with so many new arrays adds to a record."""
    loop, sizes = tiny(new), []
    for turns in (100, 1100):
        with record(folder / "size"):
            loop(turns)
        sizes.append((folder / "size" / "process-1" / "thread-1.txt").stat().st_size)
        shutil.rmtree(folder / "size")
    return (sizes[1] - sizes[0]) / 1000


def write_records(folder: Path) -> tuple[Path, Path]:
    """Write two records of `LONG` calls that begin to differ in `DIVERGES`."""
    loop = tiny(1)
    with record(folder / "a"):
        loop(5)
    files = folder / "a" / "process-1"
    text = (files / "thread-1.txt").read_text()
    begin = text[: text.rindex("# ")]
    pattern = begin.splitlines()[-1].partition(" ")[0]
    end = json.loads((files / "end.json").read_text())
    del end[DIGEST]
    shutil.copytree(folder / "a", folder / "b")
    for name, other in (("a", 0), ("b", 1)):
        lines = [begin]
        for call in range(LONG):
            value = (call + (other if call >= DIVERGES else 0)) * 0x9E3779B97F4A7C15 % 2**64
            lines.append(f"{pattern} ;>{value:016x}\n")
        data = "".join(lines).encode()
        data += f"# {hashlib.sha256(data).hexdigest()}\n".encode()
        process = folder / name / "process-1"
        (process / "thread-1.txt").write_bytes(data)
        end["files"]["thread-1.txt"] = hashlib.sha256(data).hexdigest()
        (process / "end.json").write_text(json.dumps(end))
    return folder / "a", folder / "b"


def comparison(folder: Path) -> float:
    """Return the seconds that comparing two long records takes."""
    a, b = write_records(folder)
    began = time.perf_counter()
    found = compare_records(a, b)
    took = time.perf_counter() - began
    assert found.calls >= LONG, found
    assert found.roots[0].call >= DIVERGES, found.roots
    return took


def peak(script: str, folder: Path, *, recorded: bool) -> float:
    """Return the most memory that a script had in a process of its own, in megabytes."""
    file = folder / "script.py"
    file.write_text(script)
    command = [sys.executable, str(file)]
    if recorded:
        shutil.rmtree(folder / "memory", ignore_errors=True)
        command = [sys.executable, "-m", "reproducibility", "record", str(folder / "memory")]
        command += ["--", sys.executable, str(file)]
    paths = [str(Path.cwd()), *os.environ.get("PYTHONPATH", "").split(":")]
    environment = {**os.environ, "PYTHONPATH": ":".join(paths)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(found.stdout.split()[-1])


MEMORY = """
import resource
from tests.benchmarks.bench_watch import training
training(2700, 512)(8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""


def run() -> list[dict[str, Any]]:
    """Measure, and return a row for each promise: name, value, bound, and what it is against."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = ratio(training(2700, 512), 6, folder)
        whole = ratio(scanned(), 4, folder)
        again = [twice_as_often(loop, folder) for loop in (training(2700, 512), scanned())]
        calls = [more(tiny(new), 1000, folder) for new in (1, 14)]
        sizes = [size_of_a_call(new, folder) for new in (0, 14)]
        took = comparison(folder)
        memory = peak(MEMORY, folder, recorded=True) / peak(MEMORY, folder, recorded=False)
    return [
        {
            "name": "a script recorded, 10 million parameters, batch 512",
            "value": large,
            "bound": "<= 1.25",
            "peer": "the same script alone",
        },
        {
            "name": "the same, memory",
            "value": memory,
            "bound": "<= 1.05",
            "peer": "the same script alone",
        },
        {
            "name": "a script recorded, a loop that is one program",
            "value": whole,
            "bound": "<= 1.10",
            "peer": "the same script alone",
        },
        {
            "name": f"one call of {AGAIN} computed twice, 10 million parameters, batch 512",
            "value": again[0],
            "bound": f"<= {1 + 1 / AGAIN + 0.03:.3f}",
            "peer": "the same script recorded",
        },
        {
            "name": f"one call of {AGAIN} computed twice, a loop that is one program",
            "value": again[1],
            "bound": f"<= {1 + 1 / AGAIN + 0.03:.3f}",
            "peer": "the same script recorded",
        },
        {
            "name": "a call recorded, 1 new small array",
            "value": calls[0],
            "bound": "<= 46",
            "peer": "a microsecond more",
        },
        {
            "name": "a call recorded, 14 new small arrays",
            "value": calls[1],
            "bound": "<= 124",
            "peer": "a microsecond more",
        },
        {
            "name": "a call in the record, without a new array",
            "value": sizes[0],
            "bound": "<= 60",
            "peer": "a byte",
        },
        {
            "name": "a call in the record, 14 new arrays",
            "value": sizes[1],
            "bound": "<= 396",
            "peer": "a byte",
        },
        {
            "name": "compare of two records of a million calls",
            "value": took,
            "bound": "<= 10",
            "peer": "a second",
        },
    ]


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']:58} {row['value']:8.3f}  {row['bound']}  ({row['peer']})")
