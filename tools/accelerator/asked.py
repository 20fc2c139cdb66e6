"""What a fresh process is asked to measure: each task yields rows, written at once.

So a process that crashes or takes too long costs only the rows that were not written yet. An error
in one row is a sentence in that row.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CALLS = 10
ROW = dict[str, Any]


def device() -> Iterator[ROW]:
    """Say what is here: devices, versions, driver."""
    from importlib import metadata

    import jax

    began = time.perf_counter()
    first, facts = jax.devices()[0], {}
    facts["platform"], facts["device"] = first.platform, first.device_kind
    facts["devices"] = len(jax.devices())
    for name in ("compute_capability", "core_count"):
        facts[name] = str(getattr(first, name, "") or "")
    facts["seconds until the device was there"] = round(time.perf_counter() - began, 1)
    facts["runtime"] = " ".join(str(first.client.platform_version).split())[:120]
    facts["driver"] = driver()
    facts["Python"], facts["machine"] = platform.python_version(), platform.machine()
    facts["processor"], facts["cores"] = name_of_processor(), os.cpu_count()
    names = sorted({d.metadata["Name"].lower() for d in metadata.distributions()})
    for name in names:
        if name in ("jax", "jaxlib", "numpy", "scipy") or name.startswith(
            ("jax-cuda", "jax_cuda", "nvidia-cudnn", "nvidia-cublas", "libtpu")
        ):
            facts[f"version of {name}"] = metadata.version(name)
    for name in (
        "jax_default_matmul_precision",
        "jax_default_prng_impl",
        "jax_threefry_gpu_kernel_lowering",
    ):
        facts[name] = str(getattr(jax.config, name, "no such setting"))
    yield {what: value for what, value in facts.items() if value != ""}


def name_of_processor() -> str:
    """Return the name of the processor, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def driver() -> str:
    """Return the version of NVIDIA's driver, or nothing."""
    command = [
        "nvidia-smi",
        "--query-gpu=driver_version,name,memory.total",
        "--format=csv,noheader",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout else ""


def trainings(
    networks: list[str], first: int, last: int, times: int = 1, folder: str = "", save: bool = False
) -> Iterator[ROW]:
    """Train each network, several times in this process."""
    from tools.accelerator.trainings import trained

    for network in networks:
        file = str(Path(folder, f"{network}.npz")) if folder else ""
        load, into = (file if first else ""), (file if save else "")

        def train(network: str = network, load: str = load, into: str = into) -> ROW:
            stretches = [trained(network, first, last, load, into) for _ in range(times)]
            row: ROW = dataclasses.asdict(stretches[0])
            return row | {"digests": [each.digest for each in stretches]}

        yield {"what": network} | attempt(train)


def operations(names: list[str], compare: bool = True) -> Iterator[ROW]:
    """Call each operation several times, and compare it with the CPU backend of this process."""
    import jax

    from tools.accelerator.more_operations import ONLY_ON
    from tools.accelerator.trainings import digest_of

    for name in names:
        if jax.default_backend() != ONLY_ON.get(name, jax.default_backend()):
            yield {"what": name, "left out": f"only on {ONLY_ON[name]}"}
            continue

        def call(name: str = name) -> ROW:
            operation, value = operation_of(name)
            program = jax.jit(lambda x: operation(x))
            began = time.perf_counter()
            results = [jax.block_until_ready(program(value)) for _ in range(CALLS)]
            row: ROW = {"digests": [digest_of(result) for result in results]}
            row["seconds"] = round(time.perf_counter() - began, 3)
            return row | (distances(operation, value, results[0]) if compare else {})

        yield {"what": name} | attempt(call)


def operation_of(name: str) -> tuple[Callable[[Any], Any], Any]:
    """Return an operation and what it is asked of."""
    from tools.accelerator.more_operations import MORE_OPERATIONS
    from tools.eighteen import OPERATIONS

    return (OPERATIONS | MORE_OPERATIONS)[name]


def distances(operation: Callable[[Any], Any], value: Any, got: Any) -> ROW:
    """Compare with the CPU backend, as it is and at the highest precision; nothing on a CPU."""
    import jax

    if jax.default_backend() == "cpu":
        return {}
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        right = jax.jit(lambda x: operation(x))(jax.device_put(value, cpu))
    with jax.default_matmul_precision("highest"):
        precise = jax.jit(lambda x: operation(x))(value)
    return {"from the CPU": distance(got, right), "at highest": distance(precise, right)}


def distance(got: Any, right: Any) -> float:
    """Return the largest difference of two results, by the largest number of either leaf."""
    import jax
    import numpy as np

    worst = 0.0
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(right), strict=True):
        x, y = np.asarray(a).astype(np.float64), np.asarray(b).astype(np.float64)
        if x.tobytes() != y.tobytes():
            largest = max(float(np.max(np.abs(y))), 1e-300)
            worst = max(worst, float(np.max(np.abs(x - y))) / largest)
    return worst


def scatter() -> Iterator[ROW]:
    """Time a sum by index, which some flags make slow."""
    import jax

    def timed() -> ROW:
        operation, value = operation_of("sum by index")
        program, times = jax.jit(operation), []
        jax.block_until_ready(program(value))
        until = time.perf_counter() + 2
        while len(times) < 3 or (time.perf_counter() < until and len(times) < 50):
            began = time.perf_counter()
            jax.block_until_ready(program(value))
            times.append(1000 * (time.perf_counter() - began))
        return {"ms": min(times)}

    yield {"what": "sum by index"} | attempt(timed)


def flagged(networks: list[str], first: int, last: int, times: int) -> Iterator[ROW]:
    """Do what is compared with and without a flag."""
    yield from trainings(networks, first, last, times)
    yield from scatter()


def layout(devices: int) -> Iterator[ROW]:
    """Take steps on so many devices: as one sharded program, and by shards in a fixed order."""
    import jax

    from tools.accelerator.sharded import in_fixed_order, ordinary

    if len(jax.devices()) < devices:
        yield {"what": "layout", "left out": f"there are {len(jax.devices())} devices"}
        return
    yield {"what": "ordinary"} | attempt(lambda: {"digest": ordinary(devices)})
    yield {"what": "fixed order"} | attempt(lambda: {"digest": in_fixed_order(devices)})


def faults(deadline: float, names: list[str] | None = None) -> Iterator[ROW]:
    """Ask this machine about published faults."""
    from reproducibility import known_faults

    for answer in known_faults(names, deadline=deadline):
        yield {"what": answer.name, "fault": answer.fault, "verdict": answer.verdict} | {
            "detail": answer.detail,
            "source": answer.source,
        }


def package_training(folder: str) -> Iterator[ROW]:
    """Train with `train` of the package: twice, and stopped and resumed."""

    def train() -> ROW:
        from reproducibility import TrainConfig
        from reproducibility import train as run

        whole = [run(TrainConfig(seed=7, steps=60)).digest for _ in range(2)]
        run(TrainConfig(seed=7, steps=30), run_dir=Path(folder, "run"))
        resumed = run(TrainConfig(seed=7, steps=60), run_dir=Path(folder, "run")).digest
        return {"digests": whole, "resumed": resumed}

    yield {"what": "`train` of the package"} | attempt(train)


def attempt(measure: Callable[[], ROW]) -> ROW:
    """Return what was measured, or in a sentence why it was not."""
    try:
        return measure()
    except ModuleNotFoundError as error:
        return {"left out": f"this Python has no {error.name}"}
    except Exception as error:  # whatever it is, the other rows are measured
        words = " ".join(str(error).split())
        return {"error": f"{type(error).__name__}: {words}"[:300]}


def answer_tasks() -> None:
    """Run the task of the command line, a function "module:name" with arguments, into a file."""
    file, task, arguments = sys.argv[1:]
    module, _, name = task.partition(":")
    function = getattr(importlib.import_module(f"tools.accelerator.{module}"), name)
    with open(file, "a", encoding="utf-8") as lines:
        for row in function(**json.loads(arguments)):
            print(json.dumps(row), file=lines, flush=True)
