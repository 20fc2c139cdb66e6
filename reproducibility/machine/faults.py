"""Published faults of JAX and XLA that compute wrong bits: a table.

The rule: an entry is what its issue says, or what was measured here; nothing is filled in. Versions
say where somebody looked, and never keep a program from being run.
Chapter: docs/guide/using_the_project.md
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable

from reproducibility.machine import reproducers as programs
from reproducibility.machine.reproducers import Computed

_TRACKERS = {
    "jax": "jax-ml/jax",
    "xla": "openxla/xla",
    "tensorflow": "tensorflow/tensorflow",
}


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition(".dev")[0]))


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
        if version in (bounds[0], bounds[-1]):
            return f"reported for jax {span}"
        if _release(bounds[0]) <= _release(version) <= _release(bounds[-1]):
            return f"reported for jax {span}, which includes {version}"
        return f"reported for jax {span}; this is {version}"


_PLAIN = "cpu", "gpu", "tpu"
_NEWER = "Use a version of jax in which this line says right."
FAULTS = (
    Fault(
        "jax-39103",
        "sums and maxima of vmapped matrix-vector products, from row 32,768 on",
        ("cpu",),
        programs.vmapped_products,
        "Losses and gradients of large batches are wrong by any amount, without an error.",
        "Use jax 0.12 or newer, or smaller batches.",
        wrong_in=("0.9.2", "0.10.0", "0.10.1", "0.10.2"),
        right_in=("0.6.2", "0.7.2", "0.8.3", "0.12.0.1"),
    ),
    Fault(
        "xla-49176",
        "x.at[1:].set(x[:-1]), followed by a reshape, under jit",
        ("cpu",),
        programs.shifted_update,
        "Shifting a buffer in place repeats its first row: histories, queues, caches.",
        "Build it with jnp.concatenate, or reshape outside of jit.",
        wrong_in=("0.6.2", "0.12.0.1"),
    ),
    Fault(
        "xla-13054",
        "the gradient of a vmapped dot product over a million rows",
        ("cpu",),
        programs.vmapped_gradient,
        "The gradient of a large batch misses terms.",
        _NEWER,
    ),
    Fault(
        "jax-7461",
        "an update of an array from its own neighbours, under jit",
        ("cpu",),
        programs.update_in_place,
        "Later elements are computed from ones that were overwritten.",
        _NEWER,
    ),
    Fault(
        "jax-10129",
        "a row that is replaced by itself, rolled, under jit",
        ("cpu",),
        programs.rolled_row,
        "Elements are computed from ones that were overwritten.",
        _NEWER,
    ),
    Fault(
        "jax-9604",
        "integer division that rounds down, in a compiled loop",
        ("cpu",),
        programs.divided_in_a_loop,
        "Indices and counters that are divided in a loop are off by one.",
        _NEWER,
    ),
    Fault(
        "jax-38056",
        "a product in NumPy while eigh of JAX is still running",
        ("cpu",),
        programs.product_after_eigh,
        "Metrics and data that NumPy computes beside JAX are wrong now and then.",
        "Wait with jax.block_until_ready before NumPy multiplies, or set OMP_NUM_THREADS=1.",
        tries=100,
    ),
    Fault(
        "jax-39741",
        "one compiled program, called again with the same arrays",
        ("cpu",),
        programs.one_module_many_calls,
        "Two runs of one program differ, though nothing was changed.",
        "Set NPROC=1.",
        wrong_in=("0.11.0",),
        tries=200,
    ),
    Fault(
        "tensorflow-126812",
        "the sum of a broadcast column, in several threads of XLA",
        ("cpu",),
        programs.broadcast_sum,
        "Sums are too large, by another amount in each call.",
        "Set NPROC=1.",
        wrong_in=("0.10.2",),
        tries=50,
    ),
    Fault(
        "xla-8471",
        "the product of a conjugated complex vector and a matrix",
        ("cpu",),
        programs.conjugated_dot,
        "One execution in fifty differs from the others.",
        _NEWER,
        tries=200,
    ),
    Fault(
        "jax-19106",
        "concatenating arrays that are cut over devices",
        _PLAIN,
        programs.concatenated_shards,
        "Values are multiplied by a number of devices.",
        "Concatenate before the arrays are cut.",
        wrong_in=("0.4.21",),
        devices=8,
    ),
    Fault(
        "jax-40830",
        "psum_scatter of several MiB, under jax.distributed",
        ("cpu",),
        programs.scattered_sum_of_processes,
        "Sums between processes end in wrong values on the first of them.",
        "Do not use psum_scatter between CPU processes.",
        tries=10,
        processes=2,
    ),
    Fault(
        "jax-27796",
        "a scatter with xla_gpu_deterministic_ops",
        ("gpu",),
        programs.deterministic_scatter,
        "Indexed updates lose elements under the flag that should make runs repeat.",
        "Leave the flag out on this version, or use a newer one and run this again.",
        wrong_in=("0.5.3",),
        flag="--xla_gpu_deterministic_ops",
    ),
    Fault(
        "jax-28783",
        "a histogram with weights, called again with the same arrays",
        ("gpu",),
        programs.weighted_histogram,
        "Whatever adds by index in floating point differs from call to call.",
        "Set XLA_FLAGS=--xla_gpu_deterministic_ops=true, or compute it on the CPU.",
        wrong_in=("0.5.3",),
        tries=20,
    ),
    Fault(
        "xla-37902",
        "one sum, compiled in two processes",
        ("gpu",),
        programs.compiled_elsewhere,
        "Two runs differ in the last digits, because kernels are chosen by timing them.",
        "Keep the choice: --xla_gpu_dump_autotune_results_to, then ..._load_autotune_results_from.",
        tries=2,
    ),
    Fault(
        "jax-21628",
        "associative_scan of matrix products inside of scan, in float64",
        ("gpu",),
        programs.scanned_products,
        "Recurrent layers and filters are wrong under jit.",
        "Use float32, or leave out the scan around it.",
    ),
    Fault(
        "jax-13271",
        "jnp.roll under jit, in 64 bits",
        ("gpu",),
        programs.rolled_in_64_bits,
        "Arrays are rolled the other way.",
        "Use another version of CUDA and cuDNN.",
        wrong_in=("0.3.14", "0.3.25"),
    ),
    Fault(
        "jax-11678",
        "a product of float32 matrices with a float64 result",
        ("gpu",),
        programs.widened_dot,
        "The product is close to zero.",
        "Convert to float64 before the product.",
        wrong_in=("0.3.13", "0.3.15"),
    ),
    Fault(
        "xla-49119",
        "a window that is written at traced places into an array that is then rolled",
        ("gpu",),
        programs.moved_window,
        "Caches and windows are written in the wrong place.",
        "Compile the update and the roll as two programs.",
    ),
    Fault(
        "jax-39336",
        "alpha * (a @ b + bias) under jit",
        ("gpu",),
        programs.scaled_layer,
        "The bias of a scaled layer is not scaled.",
        "Set XLA_FLAGS=--xla_gpu_autotune_level=3.",
    ),
    Fault(
        "jax-21403",
        "a cumulative sum along an axis that is cut over devices",
        ("gpu",),
        programs.summed_along_shards,
        "Positions and cumulative weights restart or repeat at each device.",
        "Do not cut the axis that is summed.",
        devices=2,
    ),
    Fault(
        "jax-19085",
        "draws with several rbg keys under vmap",
        _PLAIN,
        programs.batched_rbg,
        "The first key draws for all: what a row draws depends on the batch around it.",
        "Use threefry2x32 keys, or draw in a loop.",
        prng=("rbg", "unsafe_rbg"),
    ),
    Fault(
        "jax-21046",
        "a dropout mask that is drawn again in the backward pass, on several devices",
        ("tpu",),
        programs.rematerialised_mask,
        "The gradient belongs to another mask than the loss.",
        "Use threefry2x32 keys.",
        prng=("rbg", "unsafe_rbg"),
        flag="--xla_tpu_spmd_rng_bit_generator_unsafe",
        devices=2,
    ),
)
