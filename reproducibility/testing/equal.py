"""Two trees have the same bits, or the first leaf that differs is named, and by how much.

The rule: the digest decides; a distance explains, and there is no tolerance.
Chapter: docs/guide/testing_your_code.md
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax  # noqa: F401, for a part of it alone would not wait for a thread that imports it
from jaxtyping import PyTree

from reproducibility.same.distance import distance
from reproducibility.same.hashing import leaf_digests
from reproducibility.same.leaves import (
    LeafPath,
    PathEntry,
    kind_text,
    leaves_by_name,
    named_leaves,
    path_string,
)
from reproducibility.same.overlapping import ViewFacts, in_one_memory, overlapping_leaves
from reproducibility.same.state import (
    LeafFacts,
    NodeFacts,
    State,
    differences,
    map_leaves,
    shared_leaves,
    state_of,
    static_data,
    with_leaves,
)

# What the leaf of a path is, such as "float32[3]", and its digest.
type Record = dict[LeafPath, tuple[str, str]]


def assert_bitwise_equal(a: PyTree, b: PyTree) -> None:
    """Fail unless two trees have one digest; say where they differ first, and by how much.

    Distances are counted in ULP: steps on the line on which all values of a float type stand in
    order. -0.0 and 0.0 are neighbours on it, one step apart, so no difference counts as 0. A NaN
    has no place on it: NaN against a number, or against a NaN with other bits, is said in words.
    Of complex numbers each part counts by itself. There is no tolerance, and no way to ask for one.

    **Same bits:** it passes exactly if `tree_digest` gives both trees one digest, everywhere.

    Args:
        a: any pytree of JAX arrays, NumPy arrays and scalars, and typed keys.
        b: another.

    Raises:
        AssertionError: naming the first leaf that differs, in the order of `named_leaves`: which
            side lacks it; both dtypes and shapes (a key's dtype names its implementation); or how
            many elements differ and the largest distance; and how many other leaves differ.
        LeafError: a leaf has no digest.

    Examples:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from reproducibility.testing import assert_bitwise_equal
        >>> close = np.float32([1.0, np.nextafter(np.float32(2.0), np.float32(3.0))])
        >>> assert_bitwise_equal({"w": np.float32([1, 2])}, {"w": jnp.array([1.0, 2.0])})
        >>> assert_bitwise_equal({"w": np.float32([1, 2])}, {"w": close})
        Traceback (most recent call last):
        AssertionError: Not the same bits: leaf w: 1 of 2 elements differ, by up to 1 ULP.

    References:
        Goldberg, "What every computer scientist should know about floating-point arithmetic",
        ACM Computing Surveys 23(1), 1991 (the unit in the last place).
    """
    if found := tree_difference(a, b):
        raise AssertionError(f"Not the same bits: {found}")


def copy_of(tree: PyTree) -> PyTree:
    """Return a tree whose arrays nobody else writes into; what is one object stays one object."""
    copied = map_leaves(copy.copy, tree)
    if not (overlaps := overlapping_leaves(leaves_by_name(tree))):
        return copied
    values = leaves_by_name(copied)
    values |= in_one_memory(values, overlaps)
    for first, *others in shared_leaves(tree):
        values |= dict.fromkeys(others, values[first])
    return with_leaves(copied, values, static_data(copied)[1])


def tree_record(tree: PyTree) -> Record:
    """Return what each leaf of a tree is, and its digest."""
    digests = leaf_digests(tree)
    return {
        path: (kind_text(leaf.dtype.name, leaf.shape), digests[path_string(path)])
        for path, leaf in named_leaves(tree)
    }


def tree_difference(a: PyTree, b: PyTree) -> str:
    """Name the first leaf of two trees that differs, and by how much; "" if none does."""
    one, other = dict(named_leaves(a)), dict(named_leaves(b))
    return difference_of_records(
        tree_record(a), tree_record(b), lambda path: str(distance(one[path], other[path]))
    )


def state_difference(a: PyTree, b: PyTree) -> str:
    """Name where two states differ, in their bits or in what they are beside them; "" if nowhere.

    That is static data, weak types, and which names lead to one object.
    """
    return tree_difference(a, b) or _beside_the_bits(state_of(a), state_of(b))


class Account(NamedTuple):
    """What a tree comes to: enough to compare it in another process, without its bits."""

    record: Record
    state: State

    def difference(self, other: Account) -> str:
        """Say where two differ, as `state_difference` does of trees, without distances."""
        kinds = self.record
        found = difference_of_records(
            kinds, other.record, lambda path: f"{kinds[path][0]} with other bits"
        )
        return found or _beside_the_bits(self.state, other.state)

    def to_json(self) -> Any:
        """Return it as lists, dictionaries and text."""
        leaves = [(path, *facts) for path, facts in self.record.items()]
        return [leaves, dataclasses.asdict(self.state)]

    @classmethod
    def from_json(cls, written: Any) -> Account:
        """Return what `to_json` wrote, after a way through JSON."""
        leaves, state = written
        record = {tuple(PathEntry(*e) for e in path): (kind, sha) for path, kind, sha in leaves}
        nodes = {
            name: NodeFacts(**{**facts, "not_compared": tuple(facts["not_compared"])})
            for name, facts in state["nodes"].items()
        }
        facts = {
            name: LeafFacts(**{**leaf, "shape": tuple(leaf["shape"])})
            for name, leaf in state["leaves"].items()
        }
        shared, tied = (tuple(tuple(group) for group in state[name]) for name in ("shared", "tied"))
        overlaps = tuple(tuple(map(ViewFacts.of_list, group)) for group in state["overlaps"])
        return cls(record, State(facts, nodes, shared, tied, overlaps))


def account_of(tree: PyTree) -> Account:
    """Return what a tree comes to."""
    return Account(tree_record(tree), state_of(tree))


def _beside_the_bits(a: State, b: State) -> str:
    found = [str(difference) for difference in differences(a, b)]
    n = len(found) - 1
    more = f"; {n} other {'difference' if n == 1 else 'differences'}" if n > 0 else ""
    return f"{found[0]}{more}." if found else ""


def difference_of_records(a: Record, b: Record, how_far: Callable[[Any], str]) -> str:
    """Name the first leaf that differs, how, and how many others do; "" if none does."""
    paths = [path for path in sorted({**a, **b}) if a.get(path) != b.get(path)]
    if not paths:
        return ""
    one, other = (side.get(paths[0], ("nothing", ""))[0] for side in (a, b))
    what = how_far(paths[0]) if one == other else f"{one} against {other}"
    n = len(paths) - 1
    more = f"; {n} other {'leaf differs' if n == 1 else 'leaves differ'}" if n else ""
    return f"leaf {path_string(paths[0])}: {what}{more}."
