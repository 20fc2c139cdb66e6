"""Sweep eighteen operations, and print which of them a setting changes, as a table in Markdown.

    python -m tools.operations

It is the table of docs/guide/hidden_inputs.md. It takes some minutes, and says what the machine it
runs on does: not part of the tests.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

import jax

from reproducibility import sweep
from reproducibility.script.swept import Row

SWEPT = (
    *("xla-threads", "blas-threads", "blas-kernels", "devices", "precision", "cache"),
    *("instructions", "fast-math", "vectors"),
)
EIGHTEEN = Path(__file__).with_name("eighteen.py").read_text(encoding="utf-8")
SWEPT_SCRIPT = f"""
{EIGHTEEN}
for name, (operation, value) in OPERATIONS.items():
    def call(x, operation=operation):
        return operation(x)
    call.__name__ = name
    jax.block_until_ready(jax.jit(call)(value))
"""
NAMES = tuple(line.split('"')[1] for line in EIGHTEEN.splitlines() if line.startswith('    "'))


def line_of(row: Row) -> str:
    """Return the line of a table for one row of a sweep."""
    differ = [name for name in NAMES if name in row.programs]
    rest = [name for name in NAMES if name not in row.programs]
    same = "everything" if not differ else "everything else" if len(rest) > 6 else ", ".join(rest)
    changed = f"{row.called} (`{row.changed_to}`)"
    if row.result not in ("same", "different"):
        return f"| {changed} | {row.result} | |"
    return f"| {changed} | {', '.join(differ) or 'nothing'} | {same} |"


def main() -> None:
    """Sweep them, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "operations.py")
        script.write_text(SWEPT_SCRIPT, encoding="utf-8")
        found = sweep([sys.executable, str(script)], only=SWEPT, machine=True, say=_say)
    print(
        f"{len(NAMES)} operations, jax {jax.__version__}, {platform.machine()}: {found.verdict}\n"
    )
    print("| setting | what differed | what did not |\n|---|---|---|")
    for row in found.rows:
        print(line_of(row))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
