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
SCRIPT = """
import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", False)
key = jax.random.key(0, impl="threefry2x32")
vector = jnp.linspace(0.1, 3, 100_000)
matrix = jnp.cos(jnp.outer(jnp.arange(300.0), jnp.arange(300.0))) + 20 * jnp.eye(300)
symmetric = matrix @ matrix.T
images = jnp.sin(jnp.arange(16 * 32 * 32 * 8.0)).reshape(16, 32, 32, 8)
kernel = jnp.cos(jnp.arange(3 * 3 * 8 * 16.0)).reshape(3, 3, 8, 16)


def convolution(kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    out = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
    return jnp.sum(out**2)


OPERATIONS = {
    "key bits": (lambda k: jax.random.bits(k, (1000,)), key),
    "normal": (lambda k: jax.random.normal(k, (1000,)), key),
    "exp": (jnp.exp, vector),
    "log": (jnp.log, vector),
    "sin": (jnp.sin, vector),
    "tanh": (jnp.tanh, vector),
    "rsqrt": (jax.lax.rsqrt, vector),
    "softmax": (jax.nn.softmax, matrix),
    "sum": (jnp.sum, jnp.sin(jnp.arange(10_000_000.0))),
    "cumsum": (jnp.cumsum, vector),
    "matrix times matrix": (lambda m: m @ m, matrix),
    "matrix times vector": (lambda m: m @ m[0], matrix),
    "gradient of a convolution": (jax.grad(convolution), kernel),
    "svd": (jnp.linalg.svd, matrix),
    "eigh": (jnp.linalg.eigh, symmetric),
    "cholesky": (jnp.linalg.cholesky, symmetric),
    "qr": (jnp.linalg.qr, matrix),
    "solve": (lambda m: jnp.linalg.solve(m, m[0]), matrix),
}
for name, (operation, value) in OPERATIONS.items():
    def call(x, operation=operation):
        return operation(x)
    call.__name__ = name
    jax.block_until_ready(jax.jit(call)(value))
"""
NAMES = tuple(line.split('"')[1] for line in SCRIPT.splitlines() if line.startswith('    "'))


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
        script.write_text(SCRIPT, encoding="utf-8")
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
