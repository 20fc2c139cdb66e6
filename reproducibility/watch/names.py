"""What the user calls an argument that a library has put into a list: Equinox, and NNX of Flax.

The rule: a name is given only where the library itself holds the tree that the list was made from;
else the library's name stays.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .compiled import Compiled

_OF_EQUINOX = re.compile(r"dynamic_(?:no)?donate\['(first|rest)'\]\[(\d+)\]")
_OF_NNX = re.compile(r"(.*)\.states\[(\d+)\]\[(\d+)\](.*)", re.DOTALL)
FRAMES = 100  # of JAX and the library, between the library's call and where its name is asked


def with_names(program: Compiled, executable: Any, call: Any) -> Compiled:
    """Add what JAX knows of a program: the names of arguments and results, and what executes it."""
    info: Any = getattr(executable, "_all_args_info", None)
    with contextlib.suppress(Exception):  # names explain a difference; without them it has none
        program.arguments = users_names([str(name) for name in info.debug_info.arg_names or ()])
        program.results = tuple(str(name) for name in info.debug_info.result_paths or ())
        program.where = str(info.debug_info.func_src_info or "")
        program.shapes = tuple(aval.str_short(short_dtypes=True) for aval in info.in_avals)
    program.loaded, program.execution = getattr(call, "xla_executable", None), call
    kept = getattr(call, "kept_var_idx", None)
    program.kept = None if kept is None else tuple(sorted(kept))
    mutation = getattr(call, "mut", None)
    program.mutable = tuple(mutation.in_mut) if mutation else ()
    return program


def users_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a program's arguments, as far as a caller of this knows better ones."""
    try:
        if any(_OF_EQUINOX.fullmatch(name) for name in names):
            return _named(names, _OF_EQUINOX, _names_of_equinox())
        if any(_OF_NNX.fullmatch(name) for name in names):
            return _in_nnx(names)
    except Exception:  # the library has changed: its own names are right, too
        return tuple(names)
    return tuple(names)


def _named(
    names: Sequence[str], pattern: re.Pattern[str], known: Mapping[tuple[str, int], str]
) -> tuple[str, ...]:
    found = []
    for name in names:
        match = pattern.fullmatch(name)
        better = known.get((match[1], int(match[2]))) if match else None
        found.append(better or name)
    return tuple(found)


def _frames() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give the functions that wait for this one, and their variables."""
    frame = sys._getframe(1)
    for _ in range(FRAMES):
        if frame.f_back is None:
            return
        frame = frame.f_back
        yield frame.f_code.co_filename.replace("\\", "/"), frame.f_locals


def _names_of_equinox() -> dict[tuple[str, int], str]:
    """Return the names of all leaves of the function that `filter_jit` is calling."""
    variables = next(
        found
        for file, found in _frames()
        if file.endswith("equinox/_jit.py") and {"jit_wrapper", "args", "kwargs"}.issubset(found)
    )
    signature: inspect.Signature = variables["jit_wrapper"]._signature
    bound = signature.bind(*variables["args"], **variables["kwargs"])
    first: list[str]
    rest: list[list[str]]
    first, *rest = [*_leaves_by_name(_positional(signature, bound)), []]
    for name in sorted(bound.kwargs):
        rest += _leaves_by_name([(name, bound.kwargs[name])])
    parts = {"first": first, "rest": [each for part in rest for each in part]}
    return {(part, place): name for part, all_ in parts.items() for place, name in enumerate(all_)}


def _positional(
    signature: inspect.Signature, bound: inspect.BoundArguments
) -> list[tuple[str, Any]]:
    """Return the arguments that are given by their place, by name."""
    names: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind == parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}[{place}]" for place in range(len(bound.args) - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    return list(zip(names, bound.args, strict=False))


def _leaves_by_name(arguments: Sequence[tuple[str, Any]]) -> list[list[str]]:
    """Return the names of the leaves of each argument."""
    tree: Any = sys.modules["jax"].tree_util
    return [
        [f"{name}{tree.keystr(path)}" for path, _ in tree.tree_flatten_with_path(value)[0]]
        for name, value in arguments
    ]


def _in_nnx(names: Sequence[str]) -> tuple[str, ...]:
    """Return names with the attributes of the module in place of the numbers of its leaves."""
    variables = next(
        found
        for file, found in _frames()
        if file.endswith("nnx/transforms/compilation.py") and "pure_args" in found
    )
    function = inspect.unwrap(variables["self"].jitted_fn)
    signature = inspect.signature(function)
    bound = signature.bind(*variables["args"], **variables["kwargs"])
    pure = signature.bind(*variables["pure_args"], **variables["pure_kwargs"])
    given = _positional(signature, bound) + sorted(bound.kwargs.items())
    split = _positional(signature, pure) + sorted(pure.kwargs.items())
    states = dict(_inside(split, lambda each: type(each).__name__ == "NodeStates"))
    known: dict[int, str] = {}
    for name, value in _inside(given, lambda each: not isinstance(each, (dict, list, tuple))):
        known |= {**_names_of_variables(name, value), **known}
    found = []
    for name in names:
        match = _OF_NNX.fullmatch(name)
        if match and match[1] in states:
            leaf = states[match[1]].states[int(match[2])][int(match[3])]
            better = known.get(id(_raw(leaf)), "")
            name = better if better.startswith(match[1]) else name
        found.append(name)
    return tuple(found)


def _inside(
    arguments: Sequence[tuple[str, Any]], is_leaf: Callable[[Any], bool]
) -> list[tuple[str, Any]]:
    """Return what the arguments hold, by name."""
    tree: Any = sys.modules["jax"].tree_util
    return [
        (f"{name}{tree.keystr(path)}", leaf)
        for name, value in arguments
        for path, leaf in tree.tree_flatten_with_path(value, is_leaf=is_leaf)[0]
    ]


def _names_of_variables(name: str, module: Any) -> dict[int, str]:
    """Return what the user calls each array of a module, by the array."""
    nnx: Any = sys.modules["flax.nnx"]
    found: dict[int, str] = {}
    if isinstance(module, nnx.Pytree):
        for path, node in nnx.iter_graph(module):
            if isinstance(node, nnx.Variable):
                found.setdefault(id(_raw(node)), name + "".join(map(_attribute, path)))
    return found


def _raw(variable: Any) -> Any:
    """Return what a variable holds, or an array itself."""
    get = getattr(variable, "get_raw_value", None)
    return get() if get is not None else variable


def _attribute(key: Any) -> str:
    """Write one step into a module, as the user writes it."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"
