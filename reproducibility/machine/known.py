"""Published faults of JAX and XLA that compute wrong bits, asked of this machine.

The rule: a fault is asked about wherever its platform is, whatever the version: the versions of a
report say where somebody looked. What could not be checked is never a pass.
Chapter: docs/guide/using_the_project.md
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jax

from reproducibility.errors import ConfigError
from reproducibility.machine import reproducers as programs
from reproducibility.machine.reproducers import Computed
from reproducibility.machine.trial import Task

DEADLINE = 60.0  # seconds for all of them on a machine that is very slow
Verdict: TypeAlias = Literal["right", "wrong", "not seen", "does not apply", "cannot be told"]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A published fault that computes wrong bits.

    Same bits: everywhere; it is a line of a table.
    """

    name: str
    """Tracker and number of its issue."""
    wrong: str
    """What goes wrong."""
    platforms: tuple[str, ...]
    """Where it was seen."""
    reproduce: Callable[[int], Iterable[Computed]]
    """The program, written after the issue; takes the number of tries."""
    consequence: str
    """What that means for a run."""
    cure: str
    """What to do."""
    wrong_in: tuple[str, ...] = ()
    """Versions of jax in which it was reported or measured; between them it is assumed."""
    right_in: tuple[str, ...] = ()
    """Versions of jax in which it was measured to be right."""
    tries: int = 1
    """More than 1: it is not certain, and not seeing it proves little."""
    prng: tuple[str, ...] = ()
    """As in `Task`: the default generators of keys that it concerns."""
    flag: str = ""
    """As in `Task`: the flag of XLA that it needs."""
    devices: int = 1
    """Devices that it needs; on the CPU they are made."""
    processes: int = 1
    """Processes that it needs."""

    @property
    def source(self) -> str:
        """The address of the issue."""
        repository, _, number = self.name.rpartition("-")
        return f"https://github.com/{_TRACKERS[repository]}/issues/{number}"

    def reported(self, version: str) -> str:
        """Say what is reported about a version; it explains an answer and decides none.

        Same bits: everywhere.

        Args:
            version: of jax.
        """
        if version in self.right_in:
            return f"measured to be right in {version}"
        if not self.wrong_in:
            return f"the report names no release; this is jax {version}"
        bounds = sorted(self.wrong_in, key=_release)
        span = " to ".join(dict.fromkeys((bounds[0], bounds[-1])))
        if _release(bounds[0]) <= _release(version) <= _release(bounds[-1]):
            return f"reported for jax {span}, which includes {version}"
        return f"reported for jax {span}; this is {version}"


@dataclasses.dataclass(frozen=True)
class FaultAnswer:
    """What this machine answered about a published fault.

    Same bits: on this machine, with these versions and settings.
    """

    name: str
    """Which fault."""
    fault: str
    """What goes wrong where it is there."""
    verdict: Verdict
    """ "right", "wrong", "not seen" (in `tries` tries), "does not apply" or "cannot be told"."""
    detail: str
    """What was wrong, what it was tried on, or why there is no answer."""
    tries: int
    """How often it was tried."""
    source: str
    """The address of its issue."""
    consequence: str
    """What it means for a run, where it is there."""
    cure: str
    """What to do, where it is there."""
    patterns: dict[str, str | None]
    """What is wrong by pattern or try; None where nothing is."""

    @property
    def text(self) -> str:
        """The verdict in words."""
        return f"not seen in {self.tries} tries" if self.verdict == "not seen" else self.verdict


_TRACKERS = {
    "jax": "jax-ml/jax",
    "xla": "openxla/xla",
    "tensorflow": "tensorflow/tensorflow",
}
_PLAIN = "cpu", "gpu", "tpu"
_NEWER = "Use a version of jax in which this line says right."
FAULTS = (
    Fault(
        "jax-39103", "sums and maxima of vmapped matrix-vector products, from row 32,768 on",
        ("cpu",), programs.vmapped_products,
        "Losses and gradients of large batches are wrong by any amount, without an error.",
        "Use jax 0.11 or newer, or smaller batches.",
        wrong_in=("0.9.2", "0.10.0", "0.10.1", "0.10.2"),
        right_in=("0.6.2", "0.7.2", "0.8.3", "0.12.0.1"),
    ),
    Fault(
        "xla-49176", "x.at[1:].set(x[:-1]), followed by a reshape, under jit",
        ("cpu",), programs.shifted_update,
        "Shifting a buffer in place repeats its first row: histories, queues, caches.",
        "Build it with jnp.concatenate or jnp.roll, or return it before the reshape.",
    ),
    Fault(
        "xla-13054", "the gradient of a vmapped dot product over a million rows",
        ("cpu",), programs.vmapped_gradient,
        "The gradient of a large batch misses terms.",
        _NEWER,
    ),
    Fault(
        "jax-7461", "an update of an array from its own neighbours, under jit",
        ("cpu",), programs.update_in_place,
        "Later elements are computed from ones that were overwritten.",
        _NEWER,
    ),
    Fault(
        "jax-10129", "a row that is replaced by itself, rolled, under jit",
        ("cpu",), programs.rolled_row,
        "Elements are computed from ones that were overwritten.",
        _NEWER,
    ),
    Fault(
        "jax-9604", "integer division that rounds down, in a compiled loop",
        ("cpu",), programs.divided_in_a_loop,
        "Indices and counters that are divided in a loop are off by one.",
        _NEWER,
    ),
    Fault(
        "jax-38056", "a product in NumPy while eigh of JAX is still running",
        ("cpu",), programs.product_after_eigh,
        "Metrics and data that NumPy computes beside JAX are wrong now and then.",
        "Wait with jax.block_until_ready before NumPy multiplies, or set OMP_NUM_THREADS=1.",
        tries=100,
    ),
    Fault(
        "jax-39741", "one compiled program, called again with the same arrays",
        ("cpu",), programs.one_module_many_calls,
        "Two runs of one program differ, though nothing was changed.",
        "Set NPROC=1.",
        wrong_in=("0.11.0",), tries=200,
    ),
    Fault(
        "tensorflow-126812", "the sum of a broadcast column, in several threads of XLA",
        ("cpu",), programs.broadcast_sum,
        "Sums are too large, by another amount in each call.",
        "Set NPROC=1.",
        tries=50,
    ),
    Fault(
        "xla-8471", "the product of a conjugated complex vector and a matrix",
        ("cpu",), programs.conjugated_dot,
        "One execution in fifty differs from the others.",
        _NEWER, tries=200,
    ),
    Fault(
        "jax-19106", "concatenating arrays that are cut over devices",
        _PLAIN, programs.concatenated_shards,
        "Values are multiplied by a number of devices.",
        "Concatenate under jit, or before the arrays are cut.",
        wrong_in=("0.4.21",), devices=8,
    ),
    Fault(
        "jax-40830", "psum_scatter of several MiB, under jax.distributed",
        ("cpu",), programs.scattered_sum_of_processes,
        "Sums between processes end in wrong values on the first of them.",
        "Use psum and keep a part; do not use psum_scatter between CPU processes.",
        tries=10, processes=2,
    ),
    Fault(
        "jax-27796", "a scatter with xla_gpu_deterministic_ops",
        ("gpu",), programs.deterministic_scatter,
        "Indexed updates lose elements under the flag that should make runs repeat.",
        "Use --xla_gpu_exclude_nondeterministic_ops instead, and run this again.",
        wrong_in=("0.5.3",), flag="--xla_gpu_deterministic_ops",
    ),
    Fault(
        "jax-28783", "a histogram with weights, called again with the same arrays",
        ("gpu",), programs.weighted_histogram,
        "Whatever adds by index in floating point differs from call to call.",
        "Set XLA_FLAGS=--xla_gpu_deterministic_ops=true, or compute it on the CPU.",
        wrong_in=("0.5.3",), tries=20,
    ),
    Fault(
        "xla-37902", "one sum, compiled in two processes",
        ("gpu",), programs.compiled_elsewhere,
        "Two runs differ in the last digits, because kernels are chosen by timing them.",
        "Keep the choice: --xla_gpu_dump_autotune_results_to, then ..._load_autotune_results_from.",
        tries=2,
    ),
    Fault(
        "jax-21628", "associative_scan of matrix products inside of scan, in float64",
        ("gpu",), programs.scanned_products,
        "Recurrent layers and filters are wrong under jit.",
        _NEWER,
    ),
    Fault(
        "jax-13271", "jnp.roll under jit, in 64 bits",
        ("gpu",), programs.rolled_in_64_bits,
        "Arrays are rolled the other way.",
        _NEWER, wrong_in=("0.3.14", "0.3.25"),
    ),
    Fault(
        "jax-11678", "a product of float32 matrices with a float64 result",
        ("gpu",), programs.widened_dot,
        "The product is close to zero.",
        "Convert to float64 before the product.",
        wrong_in=("0.3.13", "0.3.15"),
    ),
    Fault(
        "xla-49119", "a window that is written at traced places into an array that is then rolled",
        ("gpu",), programs.moved_window,
        "Caches and windows are written in the wrong place.",
        "Compile the update and the roll as two programs.",
    ),
    Fault(
        "jax-39336", "alpha * (a @ b + bias) under jit",
        ("gpu",), programs.scaled_layer,
        "The bias of a scaled layer is not scaled.",
        "Set XLA_FLAGS=--xla_gpu_autotune_level=3.",
    ),
    Fault(
        "jax-21403", "a cumulative sum along an axis that is cut over devices",
        ("gpu",), programs.summed_along_shards,
        "Positions and cumulative weights restart or repeat at each device.",
        "Do not cut the axis that is summed.",
        devices=2,
    ),
    Fault(
        "jax-19085", "draws with several rbg keys under vmap",
        _PLAIN, programs.batched_rbg,
        "The first key draws for all: what a row draws depends on the batch around it.",
        "Use threefry2x32 keys, or draw in a loop.",
        prng=("rbg", "unsafe_rbg"),
    ),
    Fault(
        "jax-21046", "a dropout mask that is drawn again in the backward pass, on several devices",
        ("tpu",), programs.rematerialised_mask,
        "The gradient belongs to another mask than the loss.",
        "Use threefry2x32 keys.",
        prng=("rbg", "unsafe_rbg"), flag="--xla_tpu_spmd_rng_bit_generator_unsafe", devices=2,
    ),
)  # fmt: skip


def known_faults(
    names: Collection[str] | None = None, *, deadline: float = DEADLINE
) -> tuple[FaultAnswer, ...]:
    """Ask this machine about published faults of JAX and XLA that compute wrong bits.

    Each fault has a small program whose right result is known. The programs run in fresh
    processes, with this environment, so that one that crashes or does not end costs its own answer
    only. Those of another platform, or of a setting that is not in use, do not apply.

    **Same bits:** this is what is asked; "right" speaks of these programs and no others.

    Args:
        names: which faults, by tracker and number as in "jax-39103"; by default all.
        deadline: seconds after which a fault that has no answer yet cannot be told.

    Returns:
        An answer for each fault, in the order of the table.

    Raises:
        ConfigError: there is no fault of that name.

    Examples:
        >>> from reproducibility import known_faults
        >>> [answer] = known_faults(["jax-27796"])
        >>> answer.verdict, answer.source  # on a CPU
        ('does not apply', 'https://github.com/jax-ml/jax/issues/27796')
    """
    check_fault_names(names or ())
    asked = [fault for fault in FAULTS if names is None or fault.name in names]
    groups: dict[tuple[int, int], list[Fault]] = {}
    for fault in asked:
        groups.setdefault((fault.devices, fault.processes), []).append(fault)
    told: dict[str, dict[str, Any]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="reproducibility-known-") as folder,
        concurrent.futures.ThreadPoolExecutor(max(1, len(groups))) as pool,
    ):
        places = [Path(folder, str(number)) for number in range(len(groups))]
        for answers in pool.map(_ask, groups.values(), places, [deadline] * len(groups)):
            told |= answers
    return tuple(_answer(fault, told.get(fault.name)) for fault in asked)


def check_fault_names(names: Iterable[str]) -> None:
    """Refuse a name that no fault has.

    Same bits: everywhere.

    Args:
        names: what was asked for.

    Raises:
        ConfigError: it is not in the table.
    """
    known = [fault.name for fault in FAULTS]
    for name in names:
        if name not in known:
            raise ConfigError(
                "find", "a published fault", expected=f"one of {', '.join(known)}", got=name,
                do="reproducibility doctor lists them.",
            )  # fmt: skip


def _ask(faults: list[Fault], place: Path, deadline: float) -> dict[str, dict[str, Any]]:
    """Run what needs the same devices and processes in processes of its own."""
    ends = time.monotonic() + deadline
    tasks = json.dumps([dataclasses.asdict(_task(fault)) for fault in faults])
    count, address = faults[0].processes, f"127.0.0.1:{_free_port()}"
    place.mkdir()
    files = [place / str(index) for index in range(count)]
    with contextlib.ExitStack() as stack:
        running = []
        for index, file in enumerate(files):
            others = [address, str(count), str(index)] if count > 1 else []
            command = [sys.executable, "-m", "reproducibility.machine.trial", str(file), tasks]
            process = subprocess.Popen(
                [*command, *others], env=_environment(faults[0].devices),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)  # SIGKILL: jax.distributed ignores SIGTERM
            running.append(process)
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, ends - time.monotonic()))
    return _merged([_read(file) for file in files])


def _read(file: Path) -> dict[str, dict[str, Any]]:
    """Read the answers of a process, by fault; it may have ended in the middle of a line."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    answers = [json.loads(line) for line in lines if line.endswith("\n")]
    return {answer["name"]: answer for answer in answers}


def _merged(processes: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Bring together what the processes of a group said: none may be wrong, none may be silent."""
    if len(processes) == 1:
        return processes[0]
    merged = {}
    for name in sorted({name for answers in processes for name in answers}):
        told: dict[str, Any] = {"problems": {}}
        for index, answers in enumerate(processes):
            other = answers.get(name, {"error": f"no answer from process {index}"})
            problems = other.get("problems", {})
            told["problems"] |= {f"process {index}, {what}": p for what, p in problems.items()}
            told |= {key: value for key, value in other.items() if key != "problems"}
        merged[name] = told
    return merged


def _answer(fault: Fault, told: dict[str, Any] | None) -> FaultAnswer:
    """Make a verdict of what the processes said, or did not say."""
    problems: dict[str, str | None] = (told or {}).get("problems", {})
    wrong = [problem for problem in problems.values() if problem]
    verdict: Verdict
    if wrong:
        verdict, detail = "wrong", wrong[0]
    elif told is None:
        verdict, detail = "cannot be told", "no answer: the process crashed or took too long"
    elif "error" in told:
        verdict, detail = "cannot be told", told["error"]
    elif "obstacle" in told:
        verdict, detail = "does not apply", told["obstacle"]
    else:
        verdict = "not seen" if fault.tries > 1 else "right"
        detail = fault.reported(told["jax"])
    if wrong and told:
        detail = f"{detail} ({fault.reported(told['jax'])})"
    return FaultAnswer(
        fault.name, fault.wrong, verdict, detail, fault.tries, fault.source, fault.consequence,
        fault.cure, problems,
    )  # fmt: skip


def _task(fault: Fault) -> Task:
    where = f"{fault.reproduce.__module__}:{fault.reproduce.__name__}"
    needed = fault.devices * fault.processes
    return Task(
        fault.name, where, fault.platforms, fault.tries, fault.prng, fault.flag, needed
    )  # fmt: skip


def _environment(devices: int) -> dict[str, str]:
    """Return this environment for a process with so many devices, if they are of the CPU.

    What was set in Python is passed on as well. A GPU is shared with this process, so its memory
    must not be taken whole.
    """
    variables = dict(os.environ)
    variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    variables["JAX_DEFAULT_PRNG_IMPL"] = str(jax.config.jax_default_prng_impl)
    if jax.config.jax_platforms:
        variables["JAX_PLATFORMS"] = str(jax.config.jax_platforms)
    variables.pop("JAX_NUM_CPU_DEVICES", None)
    flags = re.sub(
        r"--xla_force_host_platform_device_count=\S+", "", variables.get("XLA_FLAGS", "")
    )
    variables["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}".strip()
    return variables


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition(".dev")[0]))
