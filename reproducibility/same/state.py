"""What is part of a state beside the bits: static data, weak types, and what is one object.

The rule: what a later step can read is part of the state. What cannot be compared is named.
Chapter: docs/guide/bring_your_own_state.md

A node is a container in a tree. Of dicts, lists, tuples and None, nothing counts but the names of
what they hold. A registered class may hold static data beside that (JAX calls it auxiliary data):
fields of a dataclass that are no leaves, the shape of a sparse matrix, the mode of a module. Two
names that lead to one object (tied weights) are part of the state too, where the object can be
written to: a step that changes one changes both.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from reproducibility.errors import LeafError
from reproducibility.same.leaves import (
    LeafPath,
    is_array,
    is_weak,
    key_implementation,
    kind_of,
    kind_text,
    leaves_by_name,
    named_leaves,
    path_of,
    path_string,
)
from reproducibility.same.overlapping import Overlaps, overlapping_leaves
from reproducibility.same.static import StaticDataError, entries_of, static_text

type Groups = tuple[tuple[str, ...], ...]

# Of these nothing counts but the names of what they hold; as of tuples with names.
_NAMES_ONLY = (dict, list, tuple, type(None), collections.OrderedDict, collections.defaultdict)


@dataclasses.dataclass(frozen=True)
class LeafFacts:
    """What a leaf is, beside its bits. Same bits: everywhere."""

    kind: str
    """"JAX array", "NumPy array", "NumPy scalar" or, without a digest, "Python float"."""
    dtype: str
    """The dtype's name; "" of what is no array."""
    shape: tuple[int, ...]
    """Of an array of keys, that of the array."""
    prng: str
    """The PRNG implementation of keys, else ""."""
    weak: bool
    """Whether the dtype gives way to others."""


@dataclasses.dataclass(frozen=True)
class NodeFacts:
    """What a node holds beside its children. Same bits: everywhere."""

    kind: str
    """The name of its class."""
    data: str
    """The text of its static data."""
    fields: dict[str, str]
    """The texts of what in it has a name, to say where a difference is."""
    not_compared: tuple[str, ...]
    """What of it has no text."""


@dataclasses.dataclass(frozen=True)
class State:
    """All that `state_of` knows of a tree. Same bits: everywhere."""

    leaves: dict[str, LeafFacts]
    """Each leaf by its name."""
    nodes: dict[str, NodeFacts]
    """Each node that has static data, by its name."""
    shared: Groups
    """Names of leaves that are one array."""
    tied: Groups
    """Names of nodes that are one object and can be written to."""
    overlaps: Overlaps = ()
    """Arrays of NumPy that have memory in common, and are several objects."""


@dataclasses.dataclass(frozen=True)
class StateDifference:
    """Where two states differ beside their bits. Same bits: everywhere."""

    thing: str
    """The leaf or node."""
    a: str
    """What it is in the first state."""
    b: str
    """And in the second."""

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.thing}: {self.a} against {self.b}"


def state_of(tree: PyTree) -> State:
    """Return what a tree is, beside the bits of its leaves.

    **Same bits:** everywhere. No value of a leaf is read.

    Args:
        tree: Any pytree.

    Raises:
        LeafError: Two leaves have one name; or static data contains itself, or has no end worth
            waiting for.
    """
    nodes, tied = static_data(tree)
    overlaps = overlapping_leaves(leaves_by_name(tree))
    return State(leaf_facts(tree), nodes, shared_leaves(tree), tied, overlaps)


def leaf_facts(tree: PyTree) -> dict[str, LeafFacts]:
    """Return what each leaf of a tree is, by its name.

    Args:
        tree: Any pytree.
    """
    return {path_string(path): _one_leaf(leaf) for path, leaf in named_leaves(tree)}


def shared_leaves(tree: PyTree) -> Groups:
    """Return the names of leaves that are one array, a group for each such array.

    Args:
        tree: Any pytree.
    """
    seen: dict[int, list[str]] = {}
    leaves = named_leaves(tree)
    ids = [id(leaf) for _, leaf in leaves]
    if len(set(ids)) == len(ids):
        return ()
    for (path, leaf), number in zip(leaves, ids, strict=True):
        if isinstance(leaf, jax.Array | np.ndarray):
            seen.setdefault(number, []).append(path_string(path))
    return _as_groups(seen.values())


def static_data(tree: PyTree) -> tuple[dict[str, NodeFacts], Groups]:
    """Return what the nodes of a tree hold beside their children, and which are one object.

    Args:
        tree: Any pytree.

    Returns:
        Facts of each node that has static data, by its name; and the names of nodes that are one
        object and can be written to, a group for each such object.

    Raises:
        LeafError: Static data contains itself, or has no end worth waiting for.
    """
    facts: dict[str, NodeFacts] = {}
    seen: dict[int, list[str]] = {}
    alive: list[Any] = []  # an id is unique while its object lives

    def visit(node: Any, path: LeafPath, within_tied: bool) -> None:
        kind = type(node)
        if is_array(node):
            return
        if kind in (dict, list, tuple) and all(
            map(is_array, node.values() if kind is dict else node)
        ):
            return  # nothing below: most nodes of most states
        children, structure = _one_level(node)
        if _is_leaf(structure):
            return
        if kind not in _NAMES_ONLY:
            alive.append(node)
            found = _node_facts(path, node, children, structure.node_data()[1])
            if found:
                facts[path_string(path)] = found
            if _can_be_written(node) and not within_tied:
                names = seen.setdefault(id(node), [])
                names.append(path_string(path))
                within_tied = len(names) > 1
        for keys, child in children:
            visit(child, path + path_of(keys, path), within_tied)

    visit(tree, (), False)
    return facts, _as_groups(seen.values())


def differences(a: State, b: State) -> Iterator[StateDifference]:
    """Yield where two states differ beside their bits, the most telling first.

    A NumPy array and a JAX array with the same bits do not differ. Nor do JAX arrays that are one
    object on one side only, as nobody can write to them.

    **Same bits:** everywhere.

    Args:
        a: What `state_of` returns.
        b: The same of another tree.
    """
    yield from tie_differences(a.tied, b.tied)
    written = [
        tuple(g for g in side.shared if all(side.leaves[n].kind == "NumPy array" for n in g))
        for side in (a, b)
    ]
    yield from tie_differences(*written)
    yield from _overlap_differences(a.overlaps, b.overlaps)
    yield from static_differences(a.nodes, b.nodes)
    for name in a.leaves.keys() & b.leaves.keys():
        weak = [side.leaves[name].weak for side in (a, b)]
        if weak[0] != weak[1]:
            one, other = ("a weak type" if w else "a strong type" for w in weak)
            yield StateDifference(f"leaf {name}", one, other)


def tie_differences(a: Groups, b: Groups) -> Iterator[StateDifference]:
    """Yield names that lead to one object in one of two states only.

    Args:
        a: Groups of names.
        b: Groups of names of the other.
    """
    for group in sorted({*a} ^ {*b}):
        one, other = ("one object", "several objects")[:: 1 if group in a else -1]
        yield StateDifference(" and ".join(group), one, other)


def _overlap_differences(a: Overlaps, b: Overlaps) -> Iterator[StateDifference]:
    """Yield arrays that lie in one memory in one of two states only, or otherwise."""
    sides = [{tuple(view.name for view in group): group for group in side} for side in (a, b)]
    for names in sorted({*sides[0], *sides[1]}):
        one, two = (side.get(names) for side in sides)
        if one and two and one != two:
            yield StateDifference(" and ".join(names), "views of one memory", "other views of one")
        elif one != two:
            words = ["views of one memory", "memory of their own"][:: 1 if one else -1]
            yield StateDifference(" and ".join(names), *words)


def static_differences(
    a: Mapping[str, NodeFacts], b: Mapping[str, NodeFacts]
) -> Iterator[StateDifference]:
    """Yield static data that two states do not have in common: a field, or that of a node.

    Args:
        a: Facts of nodes by name.
        b: Those of the other.
    """
    for name in sorted({**a, **b}):
        one, other = a.get(name), b.get(name)
        if one is None or other is None:
            words = [f"{side.kind} with static data" if side else "none" for side in (one, other)]
            yield StateDifference(f"static data of node {name}", *words)
        elif one.kind != other.kind:
            yield StateDifference(f"the class of node {name}", one.kind, other.kind)
        elif one.data != other.data:
            yield _field_difference(name, one, other)


def _field_difference(name: str, one: NodeFacts, other: NodeFacts) -> StateDifference:
    prefix = "" if name == "." else f"{name}."
    for field in {**one.fields, **other.fields}:
        texts = [side.fields.get(field, "nothing") for side in (one, other)]
        if texts[0] != texts[1]:
            return StateDifference(f"static field {prefix}{field}", *texts)
    return StateDifference(f"static data of node {name}", one.data, other.data)


def map_leaves(function: Callable[[Any], Any], tree: PyTree) -> PyTree:
    """Call a function for each leaf, as `jax.tree.map`; what is one object stays one object.

    **Same bits:** whatever the function returns.

    Args:
        function: Called once for each leaf; once for an array that stands in several places.
        tree: Any pytree.
    """
    done: dict[int, tuple[Any, Any]] = {}  # each with its node: an id is unique while it lives

    def build(node: Any) -> Any:
        if id(node) in done:
            return done[id(node)][1]
        children, structure = _one_level(node)
        if _is_leaf(structure):
            new = function(node)
        else:
            new = jax.tree.unflatten(structure, [build(child) for _, child in children])
        if is_array(node) or _can_be_written(node):
            done[id(node)] = node, new
        return new

    return build(tree)


def with_leaves(like: PyTree, values: Mapping[str, Any], tied: Groups = ()) -> PyTree:
    """Return a tree of the structure of another, with the values of these names as its leaves.

    Args:
        like: Any pytree.
        values: A value for each name that `leaves_by_name` gives.
        tied: Names of nodes to make one object of, a group for each.
    """
    if not tied:
        structure: Any = jax.tree.structure(like)
        numbered = jax.tree.unflatten(structure, range(structure.num_leaves))
        in_order = {number: path_string(path) for path, number in named_leaves(numbered)}
        return jax.tree.unflatten(structure, [values[in_order[n]] for n in sorted(in_order)])
    first = {name: group[0] for group in tied for name in group}
    done: dict[str, Any] = {}

    def build(node: Any, path: LeafPath) -> Any:
        name = path_string(path)
        if first.get(name) in done:
            return done[first[name]]
        children, structure = _one_level(node)
        if _is_leaf(structure):
            return values[name]
        parts = [build(child, path + path_of(keys, path)) for keys, child in children]
        new = jax.tree.unflatten(structure, parts)
        if name in first:
            done[first[name]] = new
        return new

    return build(like, ())


def describe(tree: PyTree) -> str:
    """Say in words all that counts as the state of a tree: for a reader, to be printed.

    **Same bits:** everywhere: of the values themselves nothing is shown.

    Args:
        tree: Any pytree.

    Returns:
        A line for each leaf, for each node with static data, for names that are one object, and
        for what is not compared.

    Raises:
        LeafError: As from `tree_digest`, for names and static data. Leaves without a digest are
            described like the others.

    Examples:
        >>> import jax.numpy as jnp
        >>> w = jnp.zeros((2, 3))
        >>> print(describe({"w": w, "ema": w, "rate": jnp.asarray(0.1), "step": np.uint32(0)}))
        leaf ema: float32[2,3], JAX array
        leaf rate: float32[], JAX array, weak type
        leaf step: uint32[], NumPy scalar
        leaf w: float32[2,3], JAX array
        one array: ema and w
    """
    state = state_of(tree)
    lines = [f"leaf {name}: {_leaf_words(leaf)}" for name, leaf in state.leaves.items()]
    for name, node in state.nodes.items():
        said = ", ".join(f"{field}={text}" for field, text in node.fields.items()) or node.data
        lines.append(f"static data of {name}: {node.kind}, {said}")
    lines += [f"one array: {' and '.join(group)}" for group in state.shared]
    lines += [f"one object: {' and '.join(group)}" for group in state.tied]
    for views in state.overlaps:
        lines.append(f"views of one memory: {' and '.join(view.name for view in views)}")
    for name, node in state.nodes.items():
        lines += [f"not compared in {name}: {what}" for what in node.not_compared]
    return "\n".join(lines)


def _leaf_words(leaf: LeafFacts) -> str:
    words = [kind_text(leaf.dtype, leaf.shape), leaf.kind] if leaf.dtype else [leaf.kind]
    words += [f"PRNG {leaf.prng}"] if leaf.prng else []
    words += ["weak type"] if leaf.weak else []
    return ", ".join(words)


def _one_leaf(leaf: Any) -> LeafFacts:
    if not is_array(leaf):
        return LeafFacts(kind_of(leaf), "", (), "", False)
    shape, prng = tuple(leaf.shape), key_implementation(leaf)
    return LeafFacts(kind_of(leaf), leaf.dtype.name, shape, prng, is_weak(leaf))


def _one_level(node: Any) -> tuple[Any, Any]:
    return jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda other: other is not node)


def _is_leaf(structure: Any) -> bool:
    return bool(structure.node_data() is None and structure.num_leaves == 1)


def _as_groups(found: Any) -> Groups:
    return tuple(sorted(tuple(sorted(names)) for names in found if len(names) > 1))


def _can_be_written(node: Any) -> bool:
    """Say whether a node of a registered class can change, so that it counts where else it is."""
    kind = type(node)
    if kind in _NAMES_ONLY or issubclass(kind, tuple):
        return False  # JAX itself makes new ones at each call
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is not None:
        return not parameters.frozen
    return hasattr(kind, "__setitem__") or hasattr(node, "__dict__")


def _node_facts(path: LeafPath, node: Any, children: Any, data: Any) -> NodeFacts | None:
    names = {entry.value for keys, _ in children for entry in path_of(keys, path)}
    try:
        text, not_compared = static_text(data)
        entries = list(entries_of(data))
        if all(type(e) in (tuple, type(None)) or (type(e) is str and e in names) for e in entries):
            return None  # the names of its children are all it says
        known = {id(entry) for entry in entries}
        named = {
            name: value
            for name, value in _attributes(node, data).items()
            if name not in names and id(value) in known
        }
        fields = {name: static_text(value)[0] for name, value in named.items()}
    except StaticDataError as error:
        raise _static_error(path, str(error)) from error
    return NodeFacts(type(node).__qualname__, text, fields, tuple(dict.fromkeys(not_compared)))


def _attributes(node: Any, data: Any) -> dict[str, Any]:
    """Return what may be a field of static data by its name, for the words of an error."""
    if type(data) is tuple and all(type(e) is tuple and len(e) == 2 for e in data):
        return {name: value for name, value in data if type(name) is str}
    names = getattr(type(node), "__dataclass_fields__", None) or getattr(node, "__dict__", {})
    found: dict[str, Any] = {}
    for name in names:
        try:
            found |= {} if name.startswith("_") else {name: getattr(node, name)}
        except Exception:  # a field that is not set, or one that raises
            continue
    return found


def _static_error(path: LeafPath, got: str) -> LeafError:
    return LeafError(
        "read",
        "the static data of node",
        path=path_string(path),
        expected="what can be written down",
        got=got,
        do="Put it into arrays, or leave it out.",
    )
