"""Run all benchmarks and print one table: `make bench`.

Every figure is a ratio against a peer that was measured in the same run, so that it means the same
on a slow, fast or busy machine. Nothing here is asserted in a test.
"""

from __future__ import annotations

import os
import platform
import sys

import jax
from rich.console import Console
from rich.table import Table

from tests.benchmarks import (
    bench_checkpoint,
    bench_copies,
    bench_hashing,
    bench_recorder,
    bench_startup,
    bench_topology,
    bench_training,
    bench_watch,
)


def holds(value: float, bound: str | None) -> bool:
    """Say whether a value keeps its bound, which is written as `<= 1.15`, if it has one."""
    if bound is None:
        return True
    relation, number = bound.split()
    return value <= float(number) if relation == "<=" else value >= float(number)


def main() -> None:
    """Measure everything; the exit code says whether every bound was kept."""
    print(
        f"jax {jax.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"{jax.devices()[0].device_kind}, load {os.getloadavg()[0]:.1f} at the start",
        file=sys.stderr,
    )
    table = Table("what", "ratio", "bound", "kept", "against")
    kept = True
    modules = (bench_startup, bench_hashing, bench_checkpoint, bench_training, bench_recorder)
    for module in (*modules, bench_copies, bench_watch, bench_topology):
        print(f"measuring {module.__name__} …", file=sys.stderr)
        for row in module.run():
            good = holds(row["value"], row["bound"])
            kept &= good
            bound = row["bound"] or "-"
            verdict = "-" if row["bound"] is None else "yes" if good else "NO"
            table.add_row(row["name"], f"{row['value']:.3f}", bound, verdict, row["peer"])
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
