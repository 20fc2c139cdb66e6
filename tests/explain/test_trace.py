"""Promises of `reproducibility.explain.trace`."""

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core, source_info_util
from jax.interpreters import mlir
from jax.sharding import PartitionSpec

from reproducibility import (
    LeafError,
    Trace,
    TrainConfig,
    first_divergence,
    leaf_digests,
    programs_of,
    root_key,
    trace,
)
from reproducibility.explain.trace import Operation

ROOT = Path(__file__).parents[2]
X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
ROW = X[0]
MESH = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))


def line_of(fn: Callable[..., Any], text: str) -> str:
    """Return "file.py:12 (function)" for the one line of a function that has this text."""
    lines, first = inspect.getsourcelines(fn)
    [number] = [first + i for i, line in enumerate(lines) if text in line]
    return f"test_trace.py:{number} ({fn.__qualname__})"


def names(found: Trace) -> list[str]:
    """Return the names of the operations that ran."""
    return [operation.name for operation in found.operations]


def layer(x: jax.Array, w: jax.Array) -> jax.Array:
    """Compute one layer, with one operation a line."""
    product = x @ w
    return jnp.tanh(product)


def softmax_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attend, as written by hand."""
    return jax.nn.softmax(q @ k.T / jnp.sqrt(3.0), axis=-1) @ v


@jax.custom_vjp
def own_gradient(x: jax.Array) -> jax.Array:
    """Have a backward pass of one's own."""
    return jnp.sin(x)


own_gradient.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (2 * g * jnp.cos(x),))


@jax.custom_jvp
def own_tangent(x: jax.Array) -> jax.Array:
    """Have a tangent of one's own."""
    return jnp.sin(x)


own_tangent.defjvp(lambda x, t: (jnp.sin(x[0]), 3 * t[0] * jnp.cos(x[0])))


def network(params: list[jax.Array], x: jax.Array, key: jax.Array) -> jax.Array:
    """Return a loss of two layers, with dropout, each layer computed again for its gradient."""
    for number, w in enumerate(params):
        x = jax.checkpoint(layer)(x, w)
        kept = jax.random.bernoulli(jax.random.fold_in(key, number), 0.8, x.shape)
        x = jnp.where(kept, x / 0.8, 0.0)
    return (x**2).mean()


def steps(params: list[jax.Array], xs: jax.Array, key: jax.Array) -> tuple[Any, jax.Array]:
    """Take a gradient step for each row of examples."""

    def step(params: list[jax.Array], row: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        loss, gradient = jax.value_and_grad(network)(params, *row)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), loss

    return lax.scan(step, params, (xs, jax.random.split(key, len(xs))))


def total(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Add up rows from the last to the first, and return the sums on the way."""
    return lax.scan(lambda c, row: (c + row, c * 2), jnp.zeros(3), rows, reverse=True)


def doubled(x: jax.Array) -> jax.Array:
    """Double until it is large."""
    return lax.while_loop(lambda c: abs(c) < 5, lambda c: c * 2, x)


def mutated(x: jax.Array) -> jax.Array:
    """Compute in place."""
    cell = jax.new_ref(x)
    lax.fori_loop(0, 2, lambda i, _: cell.__setitem__(i, cell[i] * 3), None)
    return cell[...]


def other_bits(key: jax.Array) -> jax.Array:
    """Draw what JAX drew before version 0.5."""
    with jax.threefry_partitionable(False):
        return jax.random.bits(key, (5,))


PARAMS = [np.full((3, 3), 0.3, np.float32), np.full((3, 2), 0.7, np.float32)]
FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "layer": (layer, (X, X.T)),
    "compiled": (jax.jit(layer), (X, X.T)),
    "attention": (softmax_attention, (X, X, X)),
    "convolution": (
        lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "SAME"),
        (np.ones((1, 2, 4, 4), np.float32), np.full((3, 2, 2, 2), 0.1, np.float32)),
    ),
    "own gradient": (jax.grad(lambda x: own_gradient(x).sum()), (X,)),
    "own tangent": (lambda x: jax.jvp(own_tangent, (x,), (x,)), (X,)),
    "not differentiated": (lambda x: own_gradient(x) + own_tangent(x), (X,)),
    "vmap": (jax.vmap(own_gradient), (X,)),
    "scan backwards": (total, (X,)),
    "gradient of a scan": (jax.grad(lambda x: total(x)[1].sum()), (X,)),
    "scan over keys": (
        lambda: lax.map(lambda k: jax.random.split(k, 2), jax.random.split(root_key(0), 3)),
        (),
    ),
    "while": (doubled, (np.float32(0.3),)),
    "while with constants": (
        lambda x, factor, end: lax.while_loop(lambda c: c < end, lambda c: c * factor, x),
        (np.float32(0.3), np.float32(3), np.float32(9)),
    ),
    "while under vmap": (jax.vmap(doubled), (np.float32([0.1, -3, 6]),)),
    "while of rows under vmap": (
        jax.vmap(
            lambda x: lax.while_loop(lambda c: c[0].sum() < 5, lambda c: (c[0] + 1, -c[1]), x)
        ),
        ((X, X),),
    ),
    "cond": (lambda x: lax.cond(x.sum() > 1, jnp.sin, jnp.cos, x), (X,)),
    "switch, out of range": (lambda x, i: lax.switch(i, [jnp.sin, jnp.cos], x), (X, 7)),
    "donated": (lambda x: jax.jit(jnp.negative, donate_argnums=0)(x) + x, (X,)),
    "numbers": (lambda x, y, z: x * y + z, (jnp.bfloat16(1.1), 0.3, np.float64(2))),
    "scatter": (lambda x: x.at[0].add(1.5), (X,)),
    "solve": (jnp.linalg.solve, (np.diag(np.float32([1, 2, 3])), np.float32([1, 2, 3]))),
    "permutation": (lambda k: jax.random.permutation(k, 9), (root_key(3),)),
    "under a setting": (other_bits, (root_key(3),)),
    "callback": (lambda x: jax.pure_callback(np.sin, jnp.asarray(x), x), (X,)),
    "composite": (lax.composite(lambda x: jnp.sin(x) * 2, name="test.twice"), (X,)),
    "in place": (mutated, (X,)),
    "nothing": (lambda x: x, (X,)),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_the_values_are_those_of_the_function(case: str) -> None:
    """What a trace computes is, bit for bit, what the function does without any compilation."""
    fn, args = FUNCTIONS[case]
    found = trace(fn, *args)
    with jax.disable_jit():
        expected = jax.tree.map(jnp.asarray, fn(*jax.tree.map(jnp.asarray, args)))
    assert found.outputs == {path: d[:16] for path, d in leaf_digests(expected).items()}


def test_each_operation_is_known_with_its_line() -> None:
    """The operations of a function come in order, with lines, shapes, parameters and digests."""
    found = trace(layer, X, X.T)
    first, second = found.operations
    assert (first.name, second.name) == ("dot_general", "tanh")
    assert first.where.endswith(line_of(layer, "x @ w"))
    assert second.where.endswith(line_of(layer, "jnp.tanh"))
    assert first.shapes == second.shapes == ("float32[2,2]",)
    assert first.parameters["dimension_numbers"] == "(((1,), (0,)), ((), ()))"
    assert found.inputs == {
        "args[0]": leaf_digests(X)["."][:16],
        "args[1]": leaf_digests(X.T)["."][:16],
    }
    assert first.inputs == tuple(found.inputs.values())
    assert second.inputs == first.outputs
    assert found.outputs == {".": second.outputs[0]}
    assert not first.path


def test_arguments_and_results_have_their_names() -> None:
    """Arguments are named by position or keyword and path, results by path."""
    found = trace(lambda *a, **k: {"sum": a[1]["w"] + k["scale"]}, X, {"w": X}, scale=2.0)
    assert [*found.inputs] == ["args[0]", "args[1].w", "kwargs.scale"]
    assert [*found.outputs] == ["sum"]


def test_a_whole_training_of_steps_is_traced() -> None:
    """A scan of gradient steps, with dropout and recomputation, is followed to every operation."""
    found = trace(steps, PARAMS, np.stack([X, X, X]), root_key(1))
    with jax.disable_jit():
        expected = steps([*map(jnp.asarray, PARAMS)], jnp.stack([X, X, X]), root_key(1))
    assert found.outputs == {path: d[:16] for path, d in leaf_digests(expected).items()}
    inside = [operation for operation in found.operations if operation.path == "scan[2]"]
    assert [o.name for o in inside].count("tanh") == 4  # two layers, and each of them again
    assert {"random_bits", "dot_general", "select_n"} <= {o.name for o in inside}
    assert not [operation for operation in found.operations if operation.opaque]
    tanh = next(operation for operation in inside if operation.name == "tanh")
    assert tanh.where.endswith(line_of(layer, "jnp.tanh"))


def test_the_package_traces_its_own_step() -> None:
    """The gradient of the default network is followed to the last operation, with its lines."""
    programs = programs_of(TrainConfig(seed=7, shards=2).identity)
    start, data = programs.start, programs.data
    plan = programs.plan(start)
    found = trace(
        programs.gradient, start.params, start.step, plan, data.x, data.y, programs.shards[1]
    )
    assert len(found.operations) > 100
    assert found.same_key == ()
    assert not [operation for operation in found.operations if operation.opaque]
    wheres = {operation.where for operation in found.operations}
    assert any(where.startswith("flax/nnx/nn/linear.py:") for where in wheres)
    assert any("reference/step.py:" in where for where in wheres)
    assert not [where for where in wheres if Path(where).is_absolute() or "site-packages" in where]


def test_no_line_names_a_folder_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a library, of the working directory or of elsewhere has no absolute path."""
    monkeypatch.chdir(tmp_path)
    for folder in ("site-packages/lib/sub", "below", "../elsewhere"):
        file = (tmp_path / folder / "code.py").resolve()
        space: dict[str, Any] = {}
        exec(compile("def double(x):\n    return x * 2", file, "exec"), space)
        [operation] = trace(space["double"], X).operations
        expected = {"site-packages/lib/sub": "lib/sub/", "below": "below/"}.get(folder, "")
        assert operation.where == f"{expected}code.py:2 (double)"


def uses_relu_first(x: jax.Array) -> jax.Array:
    """Call functions that JAX traces once a process."""
    return jax.nn.gelu(jnp.linalg.norm(jax.nn.relu(x)) + jnp.where(x > 0, x, 0.0))


def test_the_line_is_the_callers_also_in_what_jax_traces_once() -> None:
    """Operations inside of JAX's own compiled functions have the line of this call of them."""

    def fn(x: jax.Array) -> jax.Array:
        x = jax.nn.relu(x)
        x = jnp.where(x > 0, x, 0.0)
        return jax.nn.gelu(jnp.linalg.norm(x))

    trace(uses_relu_first, X)
    here = [operation.where.split("test_trace.py:")[1] for operation in trace(fn, X).operations]
    first = fn.__code__.co_firstlineno
    qualified = f"({fn.__qualname__})"
    lines = [f"{first + i} {qualified}" for i in (1, 2, 3)]
    assert sorted(set(here)) == lines
    assert here == sorted(here)


def test_without_source_lines_there_is_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation whose line JAX does not tell is traced all the same."""
    monkeypatch.setattr(source_info_util, "summarize", lambda info: "unknown")
    assert [operation.where for operation in trace(layer, X, X.T).operations] == ["?", "?"]


class Faulty:
    """The identity, until told to go wrong: then its n-th call flips the last bit of one value."""

    def __init__(self) -> None:
        self.calls, self.wrong = 0, -1

    def __call__(self, x: jax.Array) -> jax.Array:
        """Run on the host, as one operation."""
        return jax.pure_callback(self.on_host, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    def on_host(self, x: jax.Array) -> np.ndarray:
        """Flip a bit, or do not."""
        self.calls += 1
        value = np.array(x)
        if self.calls - 1 == self.wrong:
            value.reshape(-1)[:1].view(np.uint32)[:] ^= 1
        return value


faulty = Faulty()


@jax.custom_vjp
def faulty_gradient(x: jax.Array) -> jax.Array:
    """Go wrong in the backward pass."""
    return x * 2


faulty_gradient.defvjp(lambda x: (x * 2, None), lambda _, g: (faulty(g),))


@jax.custom_vjp
def faulty_primal(x: jax.Array) -> jax.Array:
    """Go wrong in a function with a backward pass of its own."""
    return faulty(x) * 2


faulty_primal.defvjp(lambda x: (x * 2, None), lambda _, g: (g,))


@jax.custom_jvp
def faulty_tangent(x: jax.Array) -> jax.Array:
    """Go wrong in a function with a tangent of its own."""
    return faulty(x) * 2


faulty_tangent.defjvp(lambda x, t: (faulty(x[0]) * 2, t[0] * 2))


def faulty_while(x: jax.Array) -> jax.Array:
    """Go wrong in a body."""
    return lax.while_loop(lambda c: c[0] < 4, lambda c: (c[0] + 1, faulty(c[1]) * 2), (0, x))[1]


def faulty_test(x: jax.Array) -> jax.Array:
    """Go wrong in what decides whether a loop goes on."""
    return lax.while_loop(lambda c: faulty(c)[0] < 9, lambda c: c + 2, x)


def faulty_scan(x: jax.Array, **how: Any) -> jax.Array:
    """Go wrong in an iteration."""
    return lax.scan(lambda c, _: (faulty(c) * 2, c), x, length=4, **how)[0]


def faulty_nest(x: jax.Array) -> jax.Array:
    """Go wrong in a branch of a loop in a loop, compiled."""

    def body(c: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        branch = lambda c: lax.fori_loop(0, i + 1, lambda _, d: faulty(d) + 1, c)  # noqa: E731
        return jax.jit(lambda c: lax.cond(i > 0, branch, jnp.negative, c))(c), None

    return lax.scan(body, x, jnp.arange(3))[0]


# A function, the call of `faulty` that goes wrong, and where that is.
FAULTS: dict[str, tuple[Callable[..., Any], int, str]] = {
    "plain": (lambda x: faulty(faulty(x)) * 2, 1, ""),
    "jit": (jax.jit(lambda x: jax.jit(faulty)(x) * 2), 0, ""),
    "scan": (faulty_scan, 3, "scan[3]"),
    "scan backwards": (lambda x: faulty_scan(x, reverse=True), 0, "scan[3]"),
    "scan unrolled": (lambda x: faulty_scan(x, unroll=2), 2, "scan[2]"),
    "while": (faulty_while, 2, "while[2]"),
    "test of a while": (faulty_test, 1, "while[1]/test"),
    "cond": (lambda x: lax.cond(x.sum() > 1, faulty, jnp.sin, x) * 2, 0, "cond[1]"),
    "switch": (lambda x: lax.switch(2, [jnp.sin, jnp.cos, faulty], x), 0, "cond[2]"),
    "nest": (faulty_nest, 3, "scan[2]/cond[1]/while[1]"),
    "remat": (lambda x: jax.checkpoint(lambda x: faulty(x) * 2)(x), 0, ""),
    "own gradient": (jax.grad(lambda x: faulty_gradient(x * 3).sum()), 0, ""),
    "own gradient, unused": (lambda x: faulty_primal(x) + 1, 0, ""),
    "own tangent": (lambda x: faulty_tangent(x) + 1, 0, ""),
    "own tangent, used": (jax.grad(lambda x: faulty_tangent(x).sum() ** 2), 0, ""),
    "composite": (lax.composite(lambda x: faulty(x) + 1, name="test.faulty"), 0, ""),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_found_where_it_is(case: str) -> None:
    """One bit, once wrong inside of any loop, branch or call, is blamed on the operation there."""
    fn, call, path = FAULTS[case]
    traces = []
    for wrong in (-1, call, -1):
        faulty.calls, faulty.wrong = 0, wrong
        traces.append(trace(fn, jnp.ones(3)))
    good, bad, again = traces
    found = first_divergence(good, bad)
    assert (found.kind, found.a.name, found.a.path) == ("operation", "pure_callback", path)
    assert found.a == good.operations[found.number]
    assert found.b == bad.operations[found.number]
    before = [o.name for o in good.operations[: found.number]]
    assert before.count("pure_callback") == call
    assert first_divergence(good, again).kind == "none"


def inherit(found: Trace, number: int, output: int, *, results: bool = False) -> Trace:
    """Return a trace as it were if one output of one operation were wrong, and nothing else."""
    old = found.operations[number].outputs[output]
    wrong = "f" * 16
    operations = list(found.operations)
    for i, operation in enumerate(operations[number:], number):
        inputs = tuple(wrong if d == old and i > number else d for d in operation.inputs)
        operations[i] = dataclasses.replace(operation, inputs=inputs)
    outputs = operations[number].outputs
    outputs = (*outputs[:output], wrong, *outputs[output + 1 :])
    operations[number] = dataclasses.replace(operations[number], outputs=outputs)
    returned = dict.fromkeys(found.outputs, wrong) if results else found.outputs
    return dataclasses.replace(found, operations=tuple(operations), outputs=returned)


def test_every_operation_can_be_found() -> None:
    """Whichever operation of a training step is wrong, in whichever output, it is the one named."""
    found = trace(jax.grad(network), PARAMS, X, root_key(1))
    for number, operation in enumerate(found.operations):
        for output in range(len(operation.outputs)):
            divergence = first_divergence(found, inherit(found, number, output))
            assert (divergence.kind, divergence.number) == ("operation", number)
            assert str(operation) in divergence.reason


CHILD = """
import json
from tests.explain.test_trace import isa_network, np, trace
print(json.dumps(trace(isa_network, np.linspace(-3, 3, 1000, dtype=np.float32)).to_json()))
"""


def isa_network(x: jax.Array) -> jax.Array:
    """Compute, among other things, one function that each instruction set approximates its way."""
    scaled = abs(x) * 3
    weights = jnp.exp(scaled)
    return weights / weights.sum()


def other_instruction_set(isa: str) -> Trace:
    """Trace in another process, where XLA may use another instruction set only."""
    environment = {**os.environ, "XLA_FLAGS": f"--xla_cpu_max_isa={isa}", "PYTHONPATH": str(ROOT)}
    # Keep the flag out of the persistent cache's way: it holds programs of this machine's own set.
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    done = subprocess.run(
        [sys.executable, "-c", CHILD], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return Trace.from_json(json.loads(done.stdout))


@pytest.mark.long
def test_another_instruction_set_is_found_in_the_operation_that_it_changes() -> None:
    """Of what differs between two instruction sets, `exp` comes first, and its line is named."""
    known, other = (other_instruction_set(isa) for isa in ("AVX2", "SSE4_2"))
    found = first_divergence(known, other)
    assert (found.kind, found.a.name) == ("operation", "exp")
    assert found.a.where == f"tests/explain/{line_of(isa_network, 'jnp.exp')}"
    assert found.differing > 1  # what follows inherits it
    assert first_divergence(known, Trace.from_json(known.to_json())).kind == "none"


def test_equal_traces_part_nowhere() -> None:
    """Two traces of one call agree in everything; keys and arguments are left unused."""
    key, x = root_key(5), jnp.asarray(X)
    fn = jax.jit(lambda k, x: jax.random.normal(k, x.shape) + x, donate_argnums=1)
    a, b = (trace(fn, key, x) for _ in range(2))
    assert a == b
    found = first_divergence(a, b)
    assert (found.kind, found.number, found.a, found.b, found.differing) == ("none", *[None] * 3, 0)
    assert found.reason == f"All {len(a.operations)} operations agree, and so do the results."
    fn(key, x)  # raises if the key was consumed, or the array was donated before


def test_other_arguments_are_the_cause_if_no_operation_is() -> None:
    """Where arguments differ and each operation does its part, the leaves are named."""
    a, b = (trace(lambda t: t["x"] * t["y"] + 1, {"x": X, "y": y}) for y in (X, X + 1))
    found = first_divergence(a, b)
    assert (found.kind, found.number, found.a, found.differing) == ("inputs", None, None, 2)
    assert found.reason.startswith("The arguments differ: args[0].y; no operation")


def test_an_operation_counts_more_than_the_arguments() -> None:
    """Where arguments differ too, the operation with equal inputs and other outputs is named."""
    faulty.calls, faulty.wrong = 0, -1
    a = trace(lambda x, y: faulty(x) + y, X, X)
    faulty.calls, faulty.wrong = 0, 0
    found = first_divergence(a, trace(lambda x, y: faulty(x) + y, X, X + 1))
    assert (found.kind, found.number, found.a.name) == ("operation", 0, "pure_callback")


def test_arguments_that_decide_the_way_are_the_cause() -> None:
    """Where other arguments lead into another branch or iteration, it is still the arguments."""
    branches = lambda x: lax.cond(x.sum() > 1, jnp.sin, jnp.cos, x)  # noqa: E731
    for fn in (branches, lambda x: doubled(x.sum() + 0.1), lambda x: -doubled(x.sum() + 0.1)):
        found = first_divergence(trace(fn, X), trace(fn, X + 3))
        assert (found.kind, found.reason[:30]) == ("inputs", "The arguments differ: args[0];")


PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any], int | None, str]] = {
    "operation": (
        lambda x: jnp.sin(x) * 2,
        lambda x: jnp.cos(x) * 2,
        0,
        r"operation 0 is sin at .*test_trace.py.* in one, cos at .*test_trace.py.* in the other",
    ),
    "shape": (
        lambda x: x @ np.ones((3, 2), np.float32),
        lambda x: x @ np.ones((3, 4), np.float32),
        0,
        "operation 0 is dot_general",
    ),
    "parameter": (lambda x: x.sum(0), lambda x: x.T.T.sum(1)[:1], 0, "reduce_sum .* transpose"),
    "parameter alone": (
        lambda x: lax.cumsum(x, 0),
        lambda x: lax.cumsum(x, 1),
        0,
        "operation 0 is cumsum",
    ),
    "one more": (jnp.sin, lambda x: jnp.sin(x) * 2, 1, "operation 1 is missing in one, mul at"),
    "one less": (lambda x: jnp.sin(x) * 2, jnp.sin, 1, "is mul at .* in one, missing in the other"),
    "iterations": (
        lambda x: lax.fori_loop(0, 2, lambda i, c: c * 2, x),
        lambda x: lax.fori_loop(0, 3, lambda i, c: c * 2, x),
        5,
        r"missing in one, .* in scan\[2\] in the other",
    ),
    "literal": (
        lambda x: jnp.sin(x) * 2.0,
        lambda x: jnp.sin(x) * 3.0,
        1,
        "A constant of the program differs: mul at .* gets another input, and nothing before",
    ),
    "closed-over array": (
        lambda x: jnp.sin(x) * X,
        lambda x: jnp.sin(x) * (X + 1),
        1,
        "A constant of the program differs: mul at",
    ),
    "constant of a loop": (
        lambda x: lax.map(lambda row: row + ROW, x),
        lambda x: lax.map(lambda row: row + ROW * 2, x),
        0,
        r"A constant of the program differs: add at .*, in scan\[0\] gets another input",
    ),
    "returned constant": (
        lambda x: (x, jnp.asarray(X)),
        lambda x: (x, jnp.asarray(X + 1)),
        None,
        r"The results differ, no operation does: \[1\]; they are constants",
    ),
    "structure": (lambda x: {"a": x}, lambda x: {"b": x}, None, "a and 1 more; they are const"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_two_programs_are_not_blamed_on_an_operation(case: str) -> None:
    """Where the program is another one, or has another constant, that is said, and where."""
    one, other, number, reason = PAIRS[case]
    found = first_divergence(trace(one, X), trace(other, X))
    assert (found.kind, found.number) == ("program", number)
    with pytest.raises(ValueError, match=reason):
        raise ValueError(found.reason)


def normalised(x: jax.Array, epsilon: float = 1e-5, shift: float | None = None) -> jax.Array:
    """Normalise what a layer gives; perhaps with an operation more."""
    x = x if shift is None else x + shift
    h = jnp.tanh(x @ X.T)
    h = h - h.mean(-1, keepdims=True)
    return h / jnp.sqrt((h**2).mean(-1, keepdims=True) + epsilon)


@pytest.mark.parametrize("shift", [None, 0.0])
def test_an_added_operation_hides_nothing(shift: float | None) -> None:
    """Behind a harmless operation that only one program has, the real change is named."""
    found = first_divergence(trace(normalised, X), trace(lambda x: normalised(x, 2e-5, shift), X))
    assert (found.kind, found.a.name, found.b.name) == ("program", "add", "add")
    assert found.reason.startswith("A constant of the program differs: add at tests/explain/")
    assert found.alone == ((0, 0) if shift is None else (0, 1))
    assert not found.results_equal


EQUAL: dict[str, tuple[Callable[..., Any], str]] = {
    "one more": (lambda x: normalised(x, shift=0.0), "only the second has add at"),
    "in a loop": (
        lambda x: lax.map(normalised, x[None])[0],
        r"only the first has dot_general at .* more; only the second has broadcast",
    ),
    "not used": (lambda x: (normalised(x), jnp.sin(x))[0], "only the second has sin at"),
}


@pytest.mark.parametrize("case", EQUAL)
def test_two_programs_with_equal_results(case: str) -> None:
    """Where all results are equal that is said, beside what only one program does."""
    other, said = EQUAL[case]
    found = first_divergence(trace(normalised, X), trace(other, X))
    assert (found.kind, found.number, found.results_equal) == ("none", None, True)
    assert found.reason.startswith("The results are equal. The programs are two: ")
    assert re.search(said, found.reason)


CHANGED: dict[str, tuple[Callable[..., Any], str]] = {
    "an operation that changes": (
        lambda x: normalised(x, shift=1.0),
        "operation 0 is missing in one, add at",
    ),
    "one that is left out": (
        lambda x: jnp.tanh(x @ X.T),
        r"operation \d+ is (reduce_sum|div|sub) at .* in one, missing in the other",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_an_operation_that_changes_results_is_named(case: str) -> None:
    """The control: an operation that only one program has, and that counts, is the cause."""
    other, said = CHANGED[case]
    found = first_divergence(trace(normalised, X), trace(other, X))
    assert (found.kind, found.results_equal) == ("program", False)
    assert re.search(said, found.reason)


def test_the_same_fault_behind_another_program() -> None:
    """An operation that computes otherwise is the cause, though the programs are two."""
    a, b = trace(normalised, X), trace(lambda x: normalised(x, shift=0.0), X)
    number = next(n for n, operation in enumerate(b.operations) if operation.name == "tanh")
    found = first_divergence(a, inherit(b, number, 0, results=True))
    assert (found.kind, found.a.name) == ("operation", "tanh")


def test_another_program_is_said_though_the_arguments_differ() -> None:
    """Another operation in the same place is another program, whatever the arguments."""
    found = first_divergence(trace(jnp.sin, X), trace(jnp.cos, X + 1))
    assert (found.kind, found.number) == ("program", 0)
    assert "in the other; the arguments differ too: args[0]." in found.reason


def test_another_line_or_version_is_not_another_program() -> None:
    """Moved code, and a parameter that only one version of JAX has, are no difference."""
    [one] = trace(lambda x: lax.cumsum(x, 0), X).operations
    moved = dataclasses.replace(one, where="other.py:1 (f)", parameters={"new": "1"})
    assert one.parameters.keys() - moved.parameters.keys()
    a, b = (Trace({}, (operation,), {}) for operation in (one, moved))
    assert first_divergence(a, b).kind == "none"


mystery_p = core.Primitive("mystery")
mystery_p.def_abstract_eval(lambda x, *, inside: x)


@mystery_p.def_impl
def _(x: jax.Array, *, inside: Any) -> jax.Array:
    return core.jaxpr_as_fun(inside)(x)[0]


compiled_p = core.Primitive("compiled_mystery")
compiled_p.def_abstract_eval(lambda x, *, inside: x)
mlir.register_lowering(
    compiled_p,
    mlir.lower_fun(lambda x, *, inside: core.jaxpr_as_fun(inside)(x)[0], multiple_results=False),
)


@pytest.mark.parametrize("primitive", [mystery_p, compiled_p], ids=str)
def test_an_unknown_operation_is_one_operation(primitive: core.Primitive) -> None:
    """An operation that holds a program in a way not known here runs as a whole, and is named."""
    inside = jax.make_jaxpr(lambda x: jnp.sin(x) * 2)(ROW)
    found = trace(lambda x: -primitive.bind(x, inside=inside), ROW)
    assert names(found) == [str(primitive), "neg"]
    assert [operation.opaque for operation in found.operations] == [True, False]
    assert str(found.operations[0]).endswith(" (opaque)")
    assert found.operations[0].outputs == (leaf_digests(jnp.sin(ROW) * 2)["."][:16],)


def cut_up(fn: Callable[..., Any], mesh: Any = MESH) -> Callable[..., Any]:
    """Run a function on several devices, each with its part of the argument."""
    [axis] = mesh.axis_names
    spec = PartitionSpec(axis)
    return jax.shard_map(fn, mesh=mesh, in_specs=spec, out_specs=spec)


def test_a_program_for_several_devices_is_looked_into() -> None:
    """What stands in a `shard_map` is traced, each operation with its place."""
    found = trace(lambda x: cut_up(lambda x: x * 2.0)(x) + 1, X)
    last = [(o.name, o.path, o.opaque) for o in found.operations[-2:]]
    assert last == [("mul", "shard_map", False), ("add", "", False)]
    assert not any(operation.opaque for operation in found.operations)
    assert found.outputs == {".": leaf_digests(X * 2 + 1)["."][:16]}


DEVICES = """
import json
import jax, jax.numpy as jnp
from jax import lax
from reproducibility import first_divergence, leaf_digests, trace
from tests.explain.test_trace import cut_up
mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
x = jnp.arange(24.0).reshape(8, 3) % 7

def exchanged(x):
    total, place = lax.psum(x, "d"), lax.axis_index("d")
    other = lax.ppermute(x, "d", [(i, (i + 1) % 4) for i in range(4)])
    return total * place + other + lax.all_gather(x, "d").sum(0)

def looped(x):
    def body(c, row):
        c = c + lax.psum(row, "d")
        return lax.cond(c.sum() > 0, lambda c: c * 2, lambda c: c - 1, c), row + c
    carry, rows = lax.scan(body, lax.pcast(jnp.zeros(3), "d", to="varying"), x)
    return lax.while_loop(lambda c: c.sum() < 900, lambda c: c + 1, carry) + rows

def keyed(x):
    key = jax.random.fold_in(jax.random.key(1), lax.axis_index("d"))
    return jax.random.bits(key, x.shape)

for fn in (exchanged, looped, keyed):
    whole = cut_up(fn, mesh)
    found, right = trace(whole, x), leaf_digests(jax.jit(whole)(x))["."][:16]
    opaque = [o.name for o in found.operations if o.opaque]
    print(json.dumps([len(found.operations) > 4, opaque, found.outputs["."] == right]))
gradient = jax.vmap(lambda row: jax.grad(lambda w: w @ row)(jnp.ones(3)))
cause = first_divergence(trace(gradient, x), trace(cut_up(gradient, mesh), x))
print(json.dumps([cause.kind, cause.b.name, cause.b.path]))
mean = jax.pmap(lambda x, c: lax.pmean(x, "d") + c, axis_name="d", in_axes=(0, None))
cause = first_divergence(trace(mean, x[:4], 1.0), trace(mean, x[:4], 1.0))
print(json.dumps([cause.kind, cause.results_equal]))
double = lambda x: jnp.sin(x) * jnp.cos(x)
cause = first_divergence(trace(double, x), trace(cut_up(double, mesh), x))
print(json.dumps([cause.kind, cause.results_equal, cause.alone]))
"""


@pytest.mark.long
def test_several_devices_operation_by_operation() -> None:
    """On four devices a trace has the results of the program: exchanged, in loops, with keys.

    Against the same function on one device, what only several devices do is named: here the sum of
    the gradients. Without such a thing the two are lined up, value by value.
    """
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", DEVICES], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        *[[True, [], True]] * 3,
        ["program", "psum_invariant", "shard_map"],
        ["none", True],
        ["none", True, [0, 0]],
    ]


def test_a_sum_is_not_opaque() -> None:
    """That a scatter or reduction holds the rule to combine two numbers makes it no program."""
    combined = lambda x: lax.reduce(x, np.float32(0), lambda a, b: a + 2 * b, (0,))  # noqa: E731
    found = trace(lambda x: (x.at[0].add(1.0), combined(x), lax.cummax(x)), X)
    assert {"scatter-add", "reduce", "cummax"} <= {*names(found)}
    assert not [operation for operation in found.operations if operation.opaque]


def test_an_effect_happens_once() -> None:
    """A callback is one operation, and tracing calls it as often as running does."""
    seen = []

    def fn(x: jax.Array) -> jax.Array:
        jax.debug.callback(lambda row: seen.append(row.sum()), x)
        return x + 1

    assert names(trace(fn, X)) == ["debug_callback", "add"]
    jax.effects_barrier()
    assert len(seen) == 1


def test_a_loop_that_never_runs_is_one_operation() -> None:
    """A scan over nothing gives what it starts with, and rows of length nought."""
    found = trace(lambda x: lax.scan(lambda c, r: (c + r, c), jnp.zeros(3), x), X[:0])
    assert names(found)[-1] == "scan"
    expected = leaf_digests((np.zeros(3, np.float32), X[:0]))
    assert found.outputs == {path: d[:16] for path, d in expected.items()}


def test_a_change_in_place_is_an_output() -> None:
    """The operation that writes into a mutable array is known by what is in it afterwards."""

    def fn(x: jax.Array) -> jax.Array:
        cell = jax.new_ref(x)
        cell[...] = x * 2
        return cell[...]

    *_, write, read = trace(fn, X).operations
    assert (write.name, read.name) == ("swap", "get")
    assert write.inputs[0] == leaf_digests(X)["."][:16]
    assert write.outputs[-1] == read.inputs[0] == leaf_digests(X * 2)["."][:16]


def test_values_without_bytes_have_no_digest() -> None:
    """The gradient with respect to an integer is no number; the trace goes on without."""
    found = trace(lambda x: jax.vjp(lambda a, i: a * i, x, 3)[1](x), X)
    assert found.outputs["[1]"] == "-" * 16
    assert found.outputs["[0]"] == leaf_digests(X * 3)["."][:16]


def test_a_trace_is_json() -> None:
    """A trace goes to another process as JSON and comes back the same."""
    found = trace(jax.grad(network), PARAMS, X, root_key(1))
    value = found.to_json()
    assert Trace.from_json(json.loads(json.dumps(value))) == found
    assert json.loads(json.dumps(value)) == value


def negative(x: jax.Array) -> jax.Array:
    """Ask for a value."""
    return -x if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("fn", "args", "message"),
    [
        (
            negative,
            (X,),
            r"Cannot trace negative: expected a function that computes with arrays, got one that "
            r"needs their values \(Attempted boolean conversion .*\). Use jax.numpy.where",
        ),
        (lambda x: np.sin(x), (X,), r"needs their values \(The numpy.ndarray conversion method"),
        (lambda x: x[x > 0], (X,), r"needs their values \(Array boolean indices must be concrete"),
        (lambda x: jnp.zeros(x), (3,), "needs their values"),
        (
            lambda x: {"a": x, "b": "text"},
            (X,),
            r"Cannot trace <lambda>: expected results that are arrays, got a value of type "
            r"str at b. Return only those.",
        ),
        (lambda x: jax.new_ref(x), (X,), "expected results that are arrays, got"),
        (
            jax.nn.softmax,
            (X, "axis"),
            r"Cannot trace softmax: expected arguments that are arrays, got a value of type "
            r"str at args\[1\]. Close over it: trace\(lambda x: fn\(x, value\), x\).",
        ),
        (jnp.sin, (jnp.sin,), r"got a value of type \w+ at args\[0\]"),
        (jnp.sin, (np.array(["a"]),), r"got a value of type ndarray at args\[0\]"),
    ],
)
def test_what_cannot_be_traced_is_refused(
    fn: Callable[..., Any], args: tuple[Any, ...], message: str
) -> None:
    """A function that needs values, or takes or returns other things than arrays, is refused."""
    with pytest.raises(ValueError, match=message):
        trace(fn, *args)


def test_a_traced_or_deleted_argument_is_refused() -> None:
    """Inside of jit there are no values to digest, and a donated array is gone: both are said."""
    with pytest.raises(LeafError, match=r"at args\[0\].*got a traced value"):
        jax.jit(lambda x: trace(jnp.sin, x).outputs)(X)
    gone = jnp.asarray(X)
    gone.delete()
    with pytest.raises(LeafError, match=r"at args\[0\].*got a deleted"):
        trace(jnp.sin, gone)


def test_an_error_of_the_function_is_its_own() -> None:
    """What the function itself raises is not dressed up as a failure to trace."""

    def fn(x: jax.Array) -> jax.Array:
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        trace(fn, X)


def test_an_operation_reads_well() -> None:
    """As text, an operation is its name, its line, and where in loops and branches it ran."""
    operation = Operation("exp", "train.py:12 (loss)", "scan[3]", (), (), (), opaque=True)
    assert str(operation) == "exp at train.py:12 (loss), in scan[3] (opaque)"
