"""Another seed gives another run, and one seed gives one run.

The rule: what differs with every call proves nothing, and a key that is handed back is no result.
Chapter: docs/guide/testing_your_code.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import jax  # noqa: F401, for a part of it alone would not wait for a thread that imports it
import numpy as np
from jaxtyping import PyTree

from reproducibility.errors import and_more
from reproducibility.same.leaves import (
    LeafPath,
    is_key,
    key_data_or_leaf,
    named_leaves,
    path_string,
)
from reproducibility.storage.generators import is_of_generator
from reproducibility.testing.equal import Record, difference_of_records, tree_record


def assert_seed_matters(
    fn: Callable[[Any], PyTree], *, seeds: Sequence[Any] = (0, 1, 2), every_leaf: bool = False
) -> None:
    """Fail unless each seed gives another result, and one seed the same result twice.

    Typed keys in the result do not count, nor what `generator_state` returns, nor the seed itself
    where it is handed back: a state carries them whether anybody draws from them or not.

    **Same bits:** that is what is tested: in this process.

    Args:
        fn: takes a seed, returns any pytree that has a digest: a trained state, losses, draws.
        seeds: what `fn` is called with, at least two: integers, or typed keys.
        every_leaf: also fail if one leaf of the result is the same with all seeds. Return what
            should depend on the seed, such as the loss of each step, and a draw that ignores it is
            not hidden by another that does not.

    Raises:
        AssertionError: two seeds give the same bits, or one gives two results; or nothing was
            returned in which they could differ. Seeds, leaves and distances are named.
        LeafError: the function returned something that has no digest.
        ValueError: fewer than two seeds were given, or one twice.

    Examples:
        >>> import jax
        >>> from reproducibility import root_key
        >>> from reproducibility.testing import assert_seed_matters
        >>> def draw(seed):
        ...     key = root_key(seed)
        ...     return {"key": key, "x": jax.random.normal(jax.random.key(0), (3,))}
        >>> assert_seed_matters(draw)
        Traceback (most recent call last):
        AssertionError: The seed does not matter: seeds 0 and 1 give the same bits. Keys, and the \
seed where it is handed back, do not count.
    """
    names = [_name_of_seed(seed) for seed in seeds]
    if len(set(names)) < max(2, len(names)):
        given = ", ".join(names) or "none"
        raise ValueError(
            f"Cannot compare seeds: expected at least two, all different, got {given}."
        )
    results = [_result_for(fn, seed) for seed in seeds]
    again = _result_for(fn, seeds[0])
    handed_back = set.intersection(*(result.like_the_seed for result in results))
    records = [result.without(handed_back) for result in results]
    if not all(records):
        raise AssertionError("The function returned nothing but keys and the seed itself.")
    if found := _seeds_differ_by(records[0], again.without(handed_back)):
        raise AssertionError(
            f"A difference between seeds says nothing: seed {names[0]} gives another result when "
            f"it is used again: {found}"
        )
    _check_each_differs(records, names, every_leaf)


def assert_seeds_differ(results: PyTree, *, every_leaf: bool = False) -> None:
    """Fail unless the results of several seeds, computed at once, are all different.

    For a training that `jax.vmap` runs for several seeds: the first axis of each leaf is the seed.
    Keys and generators do not count, as for `assert_seed_matters`.

    **Same bits:** that is what is tested, of the results as they are.

    Args:
        results: any pytree that has a digest, whose leaves have one first axis of 2 or more.
        every_leaf: also fail if one leaf is the same for all seeds.

    Raises:
        AssertionError: two of the seeds gave the same bits; they are named by their place.
        LeafError: a leaf has no digest.
        ValueError: the leaves have no first axis in common, or it is shorter than 2.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from reproducibility import root_key
        >>> from reproducibility.testing import assert_seeds_differ
        >>> keys = jax.vmap(root_key)(jnp.arange(4))
        >>> assert_seeds_differ(jax.vmap(jax.random.normal)(keys))
        >>> assert_seeds_differ(jax.vmap(lambda key: jnp.float32(0.5))(keys))
        Traceback (most recent call last):
        AssertionError: The seed does not matter: seeds 0 and 1 give the same bits. Keys, and the \
seed where it is handed back, do not count.
    """
    found = named_leaves(results)
    leaves = [(p, leaf) for p, leaf in found if not is_key(leaf) and not is_of_generator(p)]
    sizes = {np.shape(leaf)[:1] for _, leaf in leaves}
    if len(sizes) != 1 or max(sizes) < (2,):
        got = ", ".join(sorted(str(*size) if size else "none" for size in sizes)) or "no leaves"
        raise ValueError(
            f"Cannot compare seeds: expected one first axis of 2 or more in all leaves, got {got}."
        )
    [[count]] = sizes
    rows = [{path: tree_record(leaf[n])[()] for path, leaf in leaves} for n in range(count)]
    _check_each_differs(rows, [str(n) for n in range(count)], every_leaf)


class _Result(NamedTuple):
    """What a function returned for one seed."""

    record: Record
    like_the_seed: set[LeafPath]  # leaves that are the seed, or some other number that it equals

    def without(self, handed_back: set[LeafPath]) -> Record:
        """Return the leaves that count: no keys, and not the seed where it is handed back."""
        return {
            path: facts
            for path, facts in self.record.items()
            if not (facts[0].startswith("key<") or is_of_generator(path) or path in handed_back)
        }


def _result_for(fn: Callable[[Any], PyTree], seed: Any) -> _Result:
    tree = fn(seed)
    record = tree_record(tree)  # at once: the next call may write into what this one returned
    same = set()
    for path, leaf in named_leaves(tree):
        number = not is_key(leaf) and not np.shape(leaf) and leaf.dtype.kind in "iu"
        same |= {path} if number and not is_key(seed) and leaf == seed else set()
    return _Result(record, same)


def _check_each_differs(records: list[Record], names: list[str], every_leaf: bool) -> None:
    for (a, one), (b, other) in combinations(zip(names, records, strict=True), 2):
        if one == other:
            raise AssertionError(
                f"The seed does not matter: seeds {a} and {b} give the same bits. Keys, and the "
                "seed where it is handed back, do not count."
            )
    first = records[0]
    equal = [path for path in first if all(r.get(path) == first[path] for r in records)]
    if every_leaf and equal:
        raise AssertionError(
            f"The seed does not matter for {and_more([path_string(path) for path in equal])}: the "
            f"same bits with each of {len(records)} seeds."
        )


def _name_of_seed(seed: Any) -> str:
    return str(np.asarray(key_data_or_leaf(seed)).tolist())


def _seeds_differ_by(a: Record, b: Record) -> str:
    return difference_of_records(a, b, lambda path: f"{a[path][0]} with other bits")
