"""What one call of a function did: every operation with its source line and its values.

The rule: every value has a digest, taken when it came to be; what an operation holds is run inside.
Chapter: docs/guide/trace.md

JAX turns a function into a *jaxpr*, a list of operations with a source line each. `trace` runs that
list one operation at a time, into loops, branches and calls, and notes the digest of every value.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core, source_info_util
from jaxtyping import PyTree

from reproducibility.errors import LeafError, first_line
from reproducibility.explain.on_devices import TYPES_ONLY, Devices
from reproducibility.explain.same_key import DRAWING, KeysDrawnFrom, SameKeyDraws, Within
from reproducibility.same.hashing import leaf_digests
from reproducibility.same.leaves import kind_text, leaves_by_name

# Operations that only wrap a program: what they call is traced, they are not. "remat2" and "pjit"
# are other versions' names for "checkpoint" and "jit".
CALLS = {
    *("jit", "pjit", "call", "core_call", "closed_call", "eval_jaxpr", "composite"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vmap_call"),
    *("checkpoint", "remat", "remat2", "xla_metadata_call"),
}

# The parameter in which one of these holds the program that it calls.
CALLED = ("jaxpr", "call_jaxpr", "call")

# How operations begin that hold a program of two numbers, as scatter-add holds "a + b". That is a
# parameter of theirs, not an inside.
COMBINING = ("reduce", "scatter", "select_and_")

DIGEST_DIGITS = 16  # of a digest's 64: two unequal values agree in these once in 2**64 comparisons
NO_DIGEST = "-" * DIGEST_DIGITS  # of a value without bytes: a token, or the gradient of an integer


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation that ran: what went in, and what came out."""

    name: str
    """JAX's name of it: "dot_general"."""
    where: str
    """ "folder/file.py:12 (function)", the innermost line that is not JAX's own; "?" if unknown."""
    path: str
    """Where in loops and branches: "", "scan[3]", "scan[3]/cond[1]", "while[0]/test"."""
    inputs: tuple[str, ...]
    """The digest of each input, 16 hexadecimal digits."""
    outputs: tuple[str, ...]
    """The digest of each output. A mutable array is an input as it was, an output as it is now."""
    shapes: tuple[str, ...]
    """The dtype and shape of each output: "float32[64,32]"."""
    opaque: bool = False
    """Whether it holds a program that ran as a whole: its inside was not looked into."""
    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    """Those of its parameters that have a plain text: {"axes": "(0,)"}."""

    def __str__(self) -> str:
        inside = f", in {self.path}" if self.path else ""
        return f"{self.name} at {self.where}{inside}" + (" (opaque)" if self.opaque else "")


@dataclasses.dataclass(frozen=True)
class Trace:
    """What one call of a function did, in order."""

    inputs: dict[str, str]
    """The digest of each leaf of the arguments: "args[0].kernel", "kwargs.scale"."""
    operations: tuple[Operation, ...]
    """Every operation that ran, in every iteration of a loop and in the branch that was taken."""
    outputs: dict[str, str]
    """The digest of each leaf of what the function returned."""
    derived: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Digests of what a value was taken out of or put together from, as a row of what a loop runs
    over; by the digest of the value."""
    same_key: tuple[SameKeyDraws, ...] = ()
    """Draws from a key that an operation before it drew from: they are not independent."""

    def to_json(self) -> dict[str, Any]:
        """Return the trace as JSON values, for another process.

        Same bits: everywhere.
        """
        value: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Trace:
        """Return the trace that `to_json` wrote.

        Same bits: everywhere.

        Args:
            value: what `to_json` returned.
        """
        lists = ("inputs", "outputs", "shapes")
        operations = [
            Operation(**{**fields, **{name: tuple(fields[name]) for name in lists}})
            for fields in value["operations"]
        ]
        derived = {name: tuple(parts) for name, parts in value.get("derived", {}).items()}
        same_key = tuple(SameKeyDraws(**fields) for fields in value.get("same_key", ()))
        return cls(value["inputs"], tuple(operations), value["outputs"], derived, same_key)


def trace(fn: Callable[..., Any], *args: PyTree, **kwargs: PyTree) -> Trace:
    """Run a function operation by operation, and note the digest of every value.

    It finds the place and verifies nothing: outside of its compiled program an operation is not
    fused with its neighbours, so the values are not exactly those of `jax.jit(fn)`. A difference
    that only the compiled programs have, for example by another fusion, does not show here.

    Every value is computed and digested on its own, and kept until its function returns. Time and
    memory grow with each iteration of each loop.

    **Same bits:** two traces of one function agree wherever each of its operations, alone, has the
    same bits: on one machine with one environment (see `capture_environment`), in any process.

    Args:
        fn: what can be given to `jax.jit`, compiled already or not.
        *args: pytrees of arrays, typed keys and numbers. Close over everything else.
        **kwargs: the same, by name.

    Returns:
        The digests of arguments, of every operation's inputs and outputs, and of the results.

    Raises:
        ValueError: an argument or a result is not an array, or the function asks for the value of
            an array, as `if x > 0:` does.
        LeafError: an argument has no digest: it is traced already, donated, or of such a dtype.

    Examples:
        >>> found = trace(lambda x: 2 * x + 1, jnp.float32(3))
        >>> [operation.name for operation in found.operations]
        ['mul', 'add']
    """
    name = getattr(fn, "__name__", type(fn).__name__)
    do = "Close over it: trace(lambda x: fn(x, value), x)."
    arguments = _arrays({"args": args, "kwargs": kwargs}, name, "arguments that are arrays", do)
    arguments = jax.tree.map(jnp.asarray, arguments)
    inputs = leaf_digests(arguments)

    def checked(*args: Any, **kwargs: Any) -> Any:
        return _arrays(fn(*args, **kwargs), name, "results that are arrays", "Return only those.")

    try:
        program, result = jax.make_jaxpr(checked, return_shape=True)(
            *arguments["args"], **arguments["kwargs"]
        )
    except (TypeError, IndexError) as error:
        ours = (jax.errors.JAXTypeError, jax.errors.JAXIndexError)
        if not isinstance(error, ours) and "concrete value" not in str(error):  # as for shapes
            raise
        got = f"one that needs their values ({first_line(error)})"
        do = "Use jax.numpy.where or jax.lax.cond, or close over the value."
        raise _trace_refusal(name, "a function that computes with arrays", got, do) from error
    runner = _Runner()
    with jax.debug_key_reuse(False):  # a key that was looked at is not a key that was used
        values = [_digested(leaf) for leaf in jax.tree.leaves(arguments)]
        returned = runner.run(program, values, _Place("", "?"))
    digests = jax.tree.unflatten(jax.tree.structure(result), [value.digest for value in returned])
    shortened = {path: digest[:DIGEST_DIGITS] for path, digest in inputs.items()}
    derived = {digest: tuple(sources) for digest, sources in runner.derived.items()}
    operations = tuple(runner.operations)
    same_key = runner.keys.twice(operations)
    return Trace(shortened, operations, leaves_by_name(digests), derived, same_key)


class _Value(NamedTuple):
    """An array, and its digest, taken when it came to be."""

    array: Any
    digest: str


class _Place(NamedTuple):
    """What an operation inherits from the equations that it is in."""

    path: str
    where: str
    within: Within = Within()

    def inside(self, name: str) -> _Place:
        return self._replace(path=f"{self.path}/{name}".removeprefix("/"))


class _Runner:
    """Runs the equations of a jaxpr one by one, and notes each."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.derived: dict[str, dict[str, None]] = {}
        self.keys = KeysDrawnFrom()
        self.called = 0
        self.devices: Devices | None = None  # inside of a `shard_map`

    def run(self, program: Any, inputs: Sequence[_Value], place: _Place) -> list[_Value]:
        # Up to JAX 0.11 a jaxpr with constants is an object around one without.
        jaxpr = getattr(program, "jaxpr", program)
        constants = [self.constant(array) for array in getattr(program, "consts", ())]
        known: dict[Any, _Value] = {}

        def read(atom: Any) -> _Value:
            return self.literal(atom) if isinstance(atom, core.Literal) else known[atom]

        known.update(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))
        for equation in jaxpr.eqns:
            values = [read(atom) for atom in equation.invars]
            # What JAX traced once for all its callers has no lines: theirs is the caller's.
            inherited = place._replace(where=_source(equation.source_info) or place.where)
            results = self.equation(equation, values, inherited)
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, equation: Any, inputs: list[_Value], place: _Place) -> list[_Value]:
        name, params = equation.primitive.name, equation.params
        if name == "scan" and params["length"]:
            return self.scan(equation, inputs, place)
        if name == "while":
            return self.loop(params, inputs, place)
        if name == "cond" and self.devices and len(set(np.asarray(inputs[0].array).tolist())) > 1:
            return self.apply(equation, inputs, place)  # the devices take several branches
        if name == "cond":
            which = int(np.asarray(inputs[0].array).reshape(-1)[0])
            return self.run(params["branches"][which], inputs[1:], place.inside(f"cond[{which}]"))
        mutable = any(isinstance(value.array, jax.Ref) for value in inputs)
        if name == "shard_map" and not (self.devices or mutable) and Devices.can(params):
            return self.on_devices(params, inputs, place.inside("shard_map"))
        if self.devices and name in TYPES_ONLY:
            return inputs
        if name in CALLS:
            called = next(params[key] for key in CALLED if key in params)
            self.called += 1
            within = place.within.call(params, called, self.called)
            return self.run(called, inputs, place._replace(within=within))
        return self.apply(equation, inputs, place)

    def on_devices(
        self, params: dict[str, Any], inputs: list[_Value], place: _Place
    ) -> list[_Value]:
        self.devices = Devices(params)
        try:
            parts = self.devices.parts([jnp.asarray(value.array) for value in inputs])
            values = [self.derive(*pair) for pair in zip(parts, inputs, strict=True)]
            results = self.run(params["jaxpr"], values, place)
            whole = self.devices.whole([value.array for value in results])
        finally:
            self.devices = None
        return [self.derive(*pair) for pair in zip(whole, results, strict=True)]

    def value(self, array: Any) -> _Value:
        if self.devices and not isinstance(array, jax.Ref):
            return _Value(array, _digest(self.devices.joined(array)))
        return _digested(array)

    def derive(self, array: Any, *sources: _Value) -> _Value:
        made = self.value(array)
        known = self.derived.setdefault(made.digest, {})
        known.update(dict.fromkeys(source.digest for source in sources))
        return made

    def constant(self, array: Any) -> _Value:
        digest = _digest(array)
        return _Value(self.devices.everywhere(array) if self.devices else array, digest)

    def literal(self, atom: Any) -> _Value:
        # A number written in the program: its type is that of its place.
        value = np.asarray(atom.val, atom.aval.dtype)
        array = self.devices.everywhere(value) if self.devices else atom.val
        return _Value(array, _digest(value))

    def scan(self, equation: Any, inputs: list[_Value], place: _Place) -> list[_Value]:
        body, length = equation.params["jaxpr"], equation.params["length"]
        # Counted by rank: what is taken apart has one axis more outside than inside. The numbers
        # themselves are kept in other parameters in each version of JAX.
        inner = getattr(body, "jaxpr", body)
        sliced = _more_outside(equation.invars, inner.invars)
        carried = len(inner.outvars) - _more_outside(equation.outvars, inner.outvars)
        split = len(inputs) - sliced
        constants, carry = inputs[: split - carried], inputs[split - carried : split]
        rows: list[list[_Value]] = [[]] * length
        axis = 1 if self.devices else 0
        for i in reversed(range(length)) if equation.params["reverse"] else range(length):
            row = [
                self.derive(jax.lax.index_in_dim(x.array, i, axis, keepdims=False), x)
                for x in inputs[split:]
            ]
            results = self.run(body, [*constants, *carry, *row], place.inside(f"scan[{i}]"))
            carry, rows[i] = results[:carried], results[carried:]
        columns = [
            self.derive(jnp.stack([value.array for value in column], axis), *column)
            for column in zip(*rows, strict=True)
        ]
        return [*carry, *columns]

    def loop(self, params: dict[str, Any], inputs: list[_Value], place: _Place) -> list[_Value]:
        test, both = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        carry, i = inputs[both:], 0
        while True:
            turn = place.inside(f"while[{i}]")
            tested = [*inputs[:test], *carry]
            [going] = self.run(params["cond_jaxpr"], tested, turn.inside("test"))
            if not np.any(going.array):
                return carry
            results = self.run(params["body_jaxpr"], [*inputs[test:both], *carry], turn)
            carry, i = self.where_going(going.array, results, carry), i + 1

    def where_going(self, going: Any, new: list[_Value], old: list[_Value]) -> list[_Value]:
        """Keep what has come to its end: under `vmap` a loop goes on until the last of them has."""
        if not going.shape:
            return new

        def select(x: Any, y: Any) -> Any:
            return jnp.where(going.reshape(going.shape + (1,) * (x.ndim - going.ndim)), x, y)

        pairs = zip(new, old, strict=True)
        return [self.derive(select(x.array, y.array), x, y) for x, y in pairs]

    def apply(self, equation: Any, inputs: list[_Value], place: _Place) -> list[_Value]:
        primitive, arrays = equation.primitive, [value.array for value in inputs]
        mutable = [array for array in arrays if isinstance(array, jax.Ref)]
        before = [_digest(x) if isinstance(x, jax.Ref) else d for x, d in inputs]
        if primitive.name in DRAWING:
            keys = self.devices.joined(arrays[0]) if self.devices else arrays[0]
            on_devices, number = self.devices is not None, len(self.operations)
            self.keys.note(primitive.name, keys, number, place.within, on_devices=on_devices)
        results = self.devices.call(equation, arrays) if self.devices else _call(equation, arrays)
        outputs = [self.value(result) for result in results]
        after = [*(x.digest for x in outputs), *map(_digest, mutable)]
        shapes = tuple(_shape(variable.aval) for variable in equation.outvars)
        opaque = _holds_a_program(primitive.name, equation.params)
        known = (primitive.name, place.where, place.path, tuple(before), tuple(after), shapes)
        self.operations.append(Operation(*known, opaque, _parameters(equation.params)))
        return outputs


def _call(equation: Any, arrays: list[Any]) -> list[Any]:
    primitive = equation.primitive
    bind = functools.partial(primitive.bind, **primitive.get_bind_params(equation.params))
    with equation.ctx.manager:
        try:
            results = bind(*arrays)
        except NotImplementedError:  # by itself; it may have a compiled form only
            results = jax.jit(bind)(*arrays)
    return list(results) if primitive.multiple_results else [results]


def _arrays(tree: Any, name: str, expected: str, do: str) -> Any:
    """Return a tree, all of whose leaves JAX can compute with."""
    for where, leaf in leaves_by_name(tree).items():
        if not core.valid_jaxtype(leaf) or isinstance(leaf, jax.Ref):
            got = f"a value of type {type(leaf).__name__} at {where}"
            raise _trace_refusal(name, expected, got, do)
    return tree


def _trace_refusal(name: str, expected: str, got: str, do: str) -> ValueError:
    return ValueError(f"Cannot trace {name}: expected {expected}, got {got}. {do}")


def _digested(array: Any) -> _Value:
    return _Value(array, _digest(array))


def _digest(array: Any) -> str:
    content = array[...] if isinstance(array, jax.Ref) else array
    try:
        [digest] = leaf_digests(content).values()
    except LeafError:
        return NO_DIGEST
    return digest[:DIGEST_DIGITS]


def _more_outside(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """Count the values that have another rank outside of a loop than in its body."""
    pairs = zip(outside, inside, strict=True)
    return sum(len(x.aval.shape) > len(y.aval.shape) for x, y in pairs)


def _source(info: Any) -> str:
    """Return the innermost line that is not JAX's, or "": none is known, or it is in this file."""
    found = re.fullmatch(r"(.+?):(\d+)(?::\d+)? \((.*)\)", source_info_util.summarize(info))
    if not found or found[1] == __file__:
        return ""
    return f"{_relative(found[1])}:{found[2]} ({found[3]})"


def _relative(file: str) -> str:
    """Name a file without saying where this machine keeps it."""
    path = Path(file)
    for folder in ("site-packages", "dist-packages"):
        if folder in path.parts:
            return "/".join(path.parts[path.parts.index(folder) + 1 :])
    working = Path.cwd()
    return path.relative_to(working).as_posix() if path.is_relative_to(working) else path.name


def _shape(aval: Any) -> str:
    return kind_text(aval.dtype.name, aval.shape) if hasattr(aval, "shape") else str(aval)


def _holds_a_program(name: str, params: dict[str, Any]) -> bool:
    if name.startswith("call_"):  # call_exported, call_hi_primitive: in an object of their own
        return True
    return any(core.jaxprs_in_params(params)) and not name.startswith(COMBINING)


def _parameters(params: dict[str, Any]) -> dict[str, str]:
    return {name: str(x) for name, x in params.items() if x is not None and _is_plain(x)}


def _is_plain(value: Any) -> bool:
    # What prints the same in every process; a program or a function does not.
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | np.dtype | enum.Enum)
