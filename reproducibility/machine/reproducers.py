"""Small programs that computed wrong values somewhere, each beside what is right.

The rule: what is right comes from NumPy or from integers on paper, never from the path under test;
where a fault is that calls differ, from the first call as well.
Chapter: docs/guide/using_the_project.md

Each function yields what it computed, one `Computed` for each pattern or try. They are written
after the issues that `known` names, need JAX and NumPy only, and run on any JAX since 0.6.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reproducibility.machine.child import end_python, start_python

ROWS = 33_000  # jax#39103: wrong from row 32,768 on
CHUNK = 2**20  # jax#40830: a result of 4 MiB for each device
P: Any = PartitionSpec  # without types in JAX
_SUM = """
import jax, jax.numpy as jnp, numpy as np
x = np.sin(np.arange(2**22)).astype(np.float32).reshape(2048, 2048)
print(float(jax.jit(lambda x: jnp.sum(x))(x)).hex())
"""


@dataclasses.dataclass(frozen=True)
class Computed:
    """What a program computed, and what is right."""

    what: str
    """The pattern, or the number of the try."""
    got: np.ndarray[Any, Any]
    """What JAX computed."""
    right: np.ndarray[Any, Any]
    """What is right, of the same shape."""
    tolerance: float = 0.0
    """The largest error allowed, as a part of the largest value that is right; 0 is none."""

    def problem(self) -> str | None:
        """Say how many elements are wrong, and the first; None if none is.

        Same bits: everywhere, for the same two arrays.
        """
        if self.got.shape != self.right.shape:
            return f"{self.what}: shape {self.got.shape} instead of {self.right.shape}"
        bound = self.tolerance * np.max(np.abs(self.right), initial=0)
        with np.errstate(invalid="ignore", over="ignore"):
            within = np.abs(self.got - self.right) <= bound  # of a NaN this is false
        wrong = np.argwhere(~within)
        if not len(wrong):
            return None
        first = tuple(int(i) for i in wrong[0])
        values = f"{self._got(first)} instead of {self.right[first]}"
        return f"{self.what}: {len(wrong)} of {self.got.size} wrong, first at {first}: {values}"

    def _got(self, place: tuple[int, ...]) -> str:
        """Write an integer as one where what is right is one."""
        kinds, value = self.got.dtype.kind + self.right.dtype.kind, self.got[place]
        return str(int(value) if kinds in ("fi", "fu") and value.is_integer() else value)


def vmapped_products(tries: int) -> Iterator[Computed]:
    """Reduce the products of one matrix with many rows, compiled together.

    Same bits: everywhere, where XLA is right: all but tanh is exact in float32.
    """
    matrix = np.array([[2, 0, 1], [0, 3, 0], [1, 0, 4]], np.float32)
    rows = (np.arange(ROWS * 3, dtype=np.float32) % 251).reshape(ROWS, 3)
    products = rows.astype(np.float64) @ matrix.astype(np.float64).T
    patterns: list[tuple[str, Callable[[Any], Any], Any, float]] = [
        ("sum", jnp.sum, products.sum(1), 0.0),
        ("max", jnp.max, products.max(1), 0.0),
        ("squares", lambda v: jnp.sum(v**2), (products**2).sum(1), 0.0),
        ("tanh", lambda v: jnp.sum(jnp.tanh(v / 512)), np.tanh(products / 512).sum(1), 1e-5),
    ]
    for name, reduce, right, tolerance in patterns:
        program = jax.jit(jax.vmap(lambda row, reduce=reduce: reduce(matrix @ row)))
        yield _computed(name, program(rows), right, tolerance)


def vmapped_gradient(tries: int) -> Iterator[Computed]:
    """Differentiate the mean of a million dot products, one of which is multiplied by zero.

    Same bits: one machine; the mean of a million terms is rounded.
    """
    weights = np.array([1, 2, 3], np.float32)
    rows = jnp.ones((10**6, 3), jnp.float32)

    def mean(x: Any) -> Any:
        def one(row: Any) -> Any:
            gap = row - x
            return gap @ weights + gap @ jnp.zeros((3, 3)) @ gap

        return jnp.mean(jax.vmap(one)(rows))

    yield _computed("gradient", jax.jit(jax.grad(mean))(jnp.ones(3)), -weights, 1e-4)


def shifted_update(tries: int) -> Iterator[Computed]:
    """Write rows of an array one row further down, and reshape.

    Same bits: everywhere, where XLA is right; integers.
    """
    rows = np.arange(8 * 16, dtype=np.int32).reshape(8, 16)
    right = np.concatenate([rows[:1], rows[:-1]])
    for name, shape in (("8 rows", rows.shape), ("8 rows, reshaped", (1, 8, 16))):
        program = jax.jit(lambda x, shape=shape: (x + 1).at[1:].set((x + 1)[:-1]).reshape(shape))
        yield _computed(name, program(rows), right.reshape(shape) + 1)


def update_in_place(tries: int) -> Iterator[Computed]:
    """Write into an array values computed from its own neighbours.

    Same bits: everywhere, where XLA is right; small integers.
    """
    yield _computed(
        "one more than the neighbour",
        jax.jit(lambda x: x.at[1:].set(1 + x[:-1]))(jnp.zeros(8)),
        np.array([0, 1, 1, 1, 1, 1, 1, 1]),
    )


def rolled_row(tries: int) -> Iterator[Computed]:
    """Replace a row by itself, rolled.

    Same bits: everywhere, where XLA is right; small integers.
    """
    rows = np.arange(200, dtype=np.float32).reshape(2, 100)
    program = jax.jit(lambda x: x.at[0].set(jnp.roll(x[0], 5, axis=-1)))
    yield _computed("rolled by 5", program(rows), np.stack([np.roll(rows[0], 5), rows[1]]))


def divided_in_a_loop(tries: int) -> Iterator[Computed]:
    """Divide integers in a compiled loop, rounding down.

    Same bits: everywhere, where XLA is right; integers.
    """
    by = jnp.array([2, 2, -3], jnp.int32)
    last = lax.fori_loop(1, 3, lambda i, value: value // by[i], by[0])
    yield _computed("2 // 2 // -3", last, np.array(2 // 2 // -3))


def product_after_eigh(tries: int) -> Iterator[Computed]:
    """Multiply in NumPy while JAX's eigh of another matrix is still running.

    Same bits: everywhere, where the libraries are right; small integers.
    """
    one, other = np.ones((64, 64)), np.ones((64, 128))
    right = np.full((64, 128), 64.0)
    wait: Any = jax.block_until_ready  # without types in JAX
    with _x64():
        identity = jnp.eye(64)
        for number in range(tries):
            running = lax.linalg.eigh(identity)  # not waited for
            yield Computed(f"try {number}", one @ other, right)
            wait(running)


def one_module_many_calls(tries: int) -> Iterator[Computed]:
    """Call one compiled program again and again with the same arrays, in several threads of XLA.

    Same bits: one machine.
    """
    x = (np.arange(96 * 96, dtype=np.float64) % 17).reshape(96, 96) / 17
    right = np.tanh(x @ x.T / 96).sum() + (x @ x.T).max()
    with _x64():
        product = jax.jit(lambda x: jnp.sum(jnp.tanh(x @ x.T / 96)) + jnp.max(x @ x.T))
        first = np.asarray(product(x))
        yield Computed("the first call", first, np.asarray(right), 1e-12)
        for number in range(tries):
            yield Computed(f"call {number}", np.asarray(product(x)), first)


def broadcast_sum(tries: int) -> Iterator[Computed]:
    """Add two million ones that are broadcast from a column.

    Same bits: everywhere, where XLA is right; a whole number below 2**24.
    """
    program = jax.jit(lambda column: jnp.sum(jnp.broadcast_to(column, (2, 1024, 1024))))
    column = jnp.ones((1024, 1), jnp.float32)
    for number in range(tries):
        yield _computed(f"try {number}", program(column), np.array(2 * 1024 * 1024))


def conjugated_dot(tries: int) -> Iterator[Computed]:
    """Multiply a conjugated complex vector and a matrix, from new buffers each time.

    Same bits: everywhere, where XLA is right; small integers.
    """
    vector = np.array([1 - 2j, 3 + 4j, -5 + 1j])
    matrix = np.arange(9).reshape(3, 3) * (1 + 1j) - 4
    right = np.array(
        [sum(vector[k].conjugate() * matrix[k, j] for k in range(3)) for j in range(3)]
    )
    with _x64():
        program = jax.jit(lambda v, m: jnp.conj(v) @ m)
        for number in range(tries):
            yield _computed(f"try {number}", program(vector.copy(), matrix.copy()), right)


def concatenated_shards(tries: int) -> Iterator[Computed]:
    """Concatenate a replicated and a sharded array, and two sharded ones.

    Same bits: everywhere, where XLA is right; ones.
    """
    mesh = _mesh(4, 2)
    for name, sizes, axes in (
        ("replicated and sharded", (2, 10), (None, "b")),
        ("both sharded", (4, 12), ("a", "a")),
    ):
        parts = [
            jax.device_put(jnp.ones(size), NamedSharding(mesh, P(axis)))
            for size, axis in zip(sizes, axes, strict=True)
        ]
        yield _computed(name, jnp.concatenate(parts), np.ones(sum(sizes)))


def summed_along_shards(tries: int) -> Iterator[Computed]:
    """Add up along an axis that is cut over devices.

    Same bits: everywhere, where XLA is right; integers.
    """
    ones = jax.device_put(np.ones((8, 1024), np.int32), NamedSharding(_mesh(1, 2), P("a", "b")))
    right = np.broadcast_to(np.arange(1, 1025), (8, 1024))
    yield _computed("cumulative sum", jax.jit(lambda x: jnp.cumsum(x, axis=-1))(ones), right)


def scattered_sum_of_processes(tries: int) -> Iterator[Computed]:
    """Add arrays of all processes, and let each keep its part.

    Same bits: everywhere, where the messages are right; whole numbers.
    """
    count = jax.device_count()
    mesh = Mesh(np.array(jax.devices()), ("x",))
    whole = (np.arange(count * count * CHUNK, dtype=np.float32) % 1021).reshape(count, -1)
    right = whole.sum(0)
    split = NamedSharding(mesh, P("x"))
    cut = jax.make_array_from_callback(whole.shape, split, lambda index: whole[index])
    scatter_sum: Any = lax.psum_scatter  # without types in JAX
    scatter = jax.jit(
        _shard_map()(
            lambda x: scatter_sum(x[0], "x", scatter_dimension=0, tiled=True),
            mesh=mesh,
            in_specs=P("x"),
            out_specs=P("x"),
        )
    )
    for number in range(tries):
        for shard in scatter(cut).addressable_shards:
            yield _computed(f"try {number}", shard.data, right[shard.index])


def deterministic_scatter(tries: int) -> Iterator[Computed]:
    """Write values into an array of zeros, each at its own index.

    Same bits: everywhere, where XLA is right; integers.
    """
    values = jnp.array([1, 2, 0, 0], jnp.int32)
    got = jnp.zeros_like(values).at[jnp.arange(4)].set(values)
    yield _computed("scatter", got, np.array([1, 2, 0, 0]))


def weighted_histogram(tries: int) -> Iterator[Computed]:
    """Add up random weights by bin, twice and more.

    Same bits: one machine; never on a GPU that adds in the order in which threads arrive.
    """
    draws = np.random.default_rng(1)
    places, weights = draws.normal(size=20_000), draws.normal(size=20_000)
    right = np.histogram(places, bins=10, range=(-3, 3), weights=weights)[0]
    with _x64():

        def call() -> Any:
            return np.asarray(jnp.histogram(places, bins=10, range=(-3, 3), weights=weights)[0])

        first = call()
        yield Computed("the first call", first, right, 1e-10)
        for number in range(tries):
            yield Computed(f"call {number}", call(), first)


def compiled_elsewhere(tries: int, program: str = _SUM) -> Iterator[Computed]:
    """Compile one sum in several fresh processes, and compare what the programs compute.

    Same bits: one machine; never on a GPU where kernels are chosen by timing them.
    """
    with contextlib.ExitStack() as stack:
        running: list[Any] = []
        for _ in range(tries + 1):
            running.append(start_python(program, variables=os.environ, stdout=subprocess.PIPE))
            stack.callback(end_python, running[-1])
        printed = [process.stdout.read() for process in running]
    sums = [np.array(float.fromhex(text.split()[-1])) for text in printed]
    yield Computed("the first process", sums[0], np.sin(np.arange(2**22)).sum(), 1e-2)
    for number, got in enumerate(sums[1:]):
        yield Computed(f"process {number}", got, sums[0])


def scanned_products(tries: int) -> Iterator[Computed]:
    """Multiply matrices cumulatively, inside of a scan.

    Same bits: everywhere, where XLA is right; small integers.
    """
    matrices = np.arange(16.0).reshape(4, 2, 2) - 7
    right = [matrices[0]]
    for matrix in matrices[1:]:
        right.append(right[-1] @ matrix)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        return lax.associative_scan(jnp.matmul, carry), None

    with _x64():
        got, _ = lax.scan(step, jnp.asarray(matrices), xs=None, length=1)
        yield _computed("cumulative products", got, np.stack(right))


def rolled_in_64_bits(tries: int) -> Iterator[Computed]:
    """Roll an array of 64-bit integers by an argument.

    Same bits: everywhere, where XLA is right; integers.
    """
    with _x64():
        got = jax.jit(lambda x, by: jnp.roll(x, -by))(jnp.arange(8), 1)
        yield _computed("rolled by -1", got, np.roll(np.arange(8), -1))


def widened_dot(tries: int) -> Iterator[Computed]:
    """Multiply float32 matrices and ask for a float64 result.

    Same bits: everywhere, where XLA is right; small integers.
    """
    a = np.array([[1, 2], [3, 4]], np.float32)
    with _x64():
        got = lax.dot(jnp.asarray(a), jnp.asarray(a.T), preferred_element_type=jnp.float64)
        yield _computed("float64 of float32", got, np.array([[5, 11], [11, 25]]))


def scaled_layer(tries: int) -> Iterator[Computed]:
    """Scale a matrix product and its bias together.

    Same bits: everywhere, where XLA is right: powers of two and small integers.
    """
    a = (np.arange(64 * 64) % 5 - 2).reshape(64, 64).astype(np.float32)
    bias = np.arange(64, dtype=np.float32)
    right = (a.astype(np.int64) @ a.astype(np.int64) + bias) / 64
    with jax.default_matmul_precision("highest"):
        yield _computed("(a @ a + bias) / 64", jax.jit(lambda a: (a @ a + bias) / 64)(a), right)


def moved_window(tries: int) -> Iterator[Computed]:
    """Write a window at traced places, and roll the result by a traced number.

    Same bits: everywhere, where XLA is right; integers.
    """
    x = (np.arange(33 * 7 * 16, dtype=np.int32) % 7).reshape(33, 7, 16)

    def program(x: Any, i: Any, j: Any, k: Any, by: Any) -> Any:
        sums = jnp.flip(jnp.cumsum(jnp.flip(x, 2), axis=2, dtype=jnp.int32), 2)
        sums = lax.pad(sums, jnp.int32(0), [(-3, -1, 0), (1, 2, 0), (-2, -3, 0)])
        window = sums[:14, :4, :7] * 3 - 1
        return jnp.roll(lax.dynamic_update_slice(sums, window, (i, j, k)), by, axis=1)

    sums = np.flip(np.cumsum(np.flip(x, 2), axis=2), 2)[3:-1, :, 2:-3]
    right = np.pad(sums, ((0, 0), (1, 2), (0, 0)))
    right[15:29, 5:9, 1:8] = right[:14, :4, :7] * 3 - 1
    got = jax.jit(program)(x, *(jnp.int32(n) for n in (15, 5, 1, 3)))
    yield _computed("window and roll", got, np.roll(right, 3, axis=1))


def batched_rbg(tries: int) -> Iterator[Computed]:
    """Draw with several rbg keys under vmap, and one by one.

    Same bits: not promised by JAX: under vmap the first key draws for all.
    """
    keys = jax.random.split(jax.random.key(7, impl="rbg"), 4)
    each = np.stack([np.asarray(jax.random.bits(key, (8,))) for key in keys])
    batched = jax.vmap(lambda key: jax.random.bits(key, (8,)))(keys)
    yield _computed("vmap against a loop", batched, each.astype(np.int64))


def rematerialised_mask(tries: int) -> Iterator[Computed]:
    """Draw a dropout mask that the backward pass draws again, over several devices.

    Same bits: one layout of devices, and only where the mask is the same in both passes.
    """
    mesh = _mesh(2, 1)
    key = jax.random.key(7, impl="unsafe_rbg")
    x = jax.device_put(np.ones((8, 64), np.float32), NamedSharding(mesh, P("a")))

    @jax.checkpoint
    def dropped(x: Any) -> Any:
        return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0.0)

    def loss(x: Any) -> tuple[Any, Any]:
        kept = dropped(x)
        return jnp.sum(kept), kept

    gradient, forward = jax.jit(jax.grad(loss, has_aux=True))(x)
    yield _computed("mask of the gradient", gradient, np.asarray(forward))


def _computed(what: str, got: Any, right: Any, tolerance: float = 0.0) -> Computed:
    """Bring what JAX computed to where it can be compared; small integers become wide ones."""
    array = np.asarray(got)
    wide = array if array.dtype.kind == "c" else array.astype(np.float64)
    return Computed(what, wide, np.asarray(right), tolerance)


def _mesh(rows: int, columns: int) -> Mesh:
    devices = np.array(jax.devices()[: rows * columns])
    return Mesh(devices.reshape(rows, columns), ("a", "b"))


def _x64() -> contextlib.AbstractContextManager[Any]:
    """Allow 64 bits for a while: a name that has moved between versions of JAX."""
    allow: Any = getattr(jax, "enable_x64", None)
    if not callable(allow):
        allow = importlib.import_module("jax.experimental").enable_x64
    context: contextlib.AbstractContextManager[Any] = allow(True)
    return context


def _shard_map() -> Any:
    """Find shard_map: another name that has moved."""
    found = getattr(jax, "shard_map", None)
    return found or importlib.import_module("jax.experimental.shard_map").shard_map
