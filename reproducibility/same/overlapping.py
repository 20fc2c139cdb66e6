"""Arrays of NumPy that lie in one memory: what is written into one, the others hold too.

The rule: views of one memory are part of a state, as one object under two names is. They are found
by their addresses, told by where each lies from the first byte on, and made again from that.
Chapter: docs/guide/bring_your_own_state.md
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MOST_WORK = 10_000  # steps of NumPy's search for an element that two arrays have in common
MOST_PAIRS = 2_000  # of arrays that are looked at so; where there are more, the span decides


class ViewFacts(NamedTuple):
    """Where an array lies in a memory that it has in common with others."""

    name: str
    """The name of the leaf."""
    begin: int
    """Bytes from the first byte of all to its first element."""
    strides: tuple[int, ...]
    """Bytes from one element to the next, along each axis."""
    writeable: bool
    """Whether it can be written to."""

    @classmethod
    def of_list(cls, found: Sequence[Any]) -> ViewFacts:
        """Return what was written as a list in JSON."""
        name, begin, strides, writeable = found
        return cls(str(name), int(begin), tuple(map(int, strides)), bool(writeable))


type Overlaps = tuple[tuple[ViewFacts, ...], ...]
type _Span = tuple[int, int, str, Any]  # first address, address behind the last, name, array


def overlapping_leaves(leaves: Mapping[str, Any]) -> Overlaps:
    """Return the leaves that have memory in common and are no one object, a group for each memory.

    Args:
        leaves: Anything by name; looked at are arrays of NumPy.
    """
    arrays: dict[int, tuple[str, Any]] = {}
    for name in sorted(n for n, leaf in leaves.items() if isinstance(leaf, np.ndarray)):
        arrays.setdefault(id(leaves[name]), (name, leaves[name]))
    bounds = np.lib.array_utils.byte_bounds
    spans = sorted(
        ((*bounds(array), name, array) for name, array in arrays.values() if array.size),
        key=lambda span: span[:3],
    )
    found = [_group(members) for run in _stretches_of(spans) if (members := _sharing(run))]
    return tuple(sorted(found))


def _stretches_of(spans: Sequence[_Span]) -> list[list[_Span]]:
    """Cut sorted spans where one begins behind the end of all before it."""
    runs: list[list[_Span]] = []
    end = -1
    for span in spans:
        if span[0] >= end:
            runs.append([])
        runs[-1].append(span)
        end = max(end, span[1])
    return [run for run in runs if len(run) > 1]


def _sharing(run: Sequence[_Span]) -> list[_Span]:
    """Return those that share an element with another one: x[::2] and x[1::2] share none."""
    if len(run) * (len(run) - 1) > 2 * MOST_PAIRS:
        return list(run)
    known: set[str] = set()
    for a, b in itertools.combinations(run, 2):
        if not {a[2], b[2]} <= known and _have_one_element(a[3], b[3]):
            known |= {a[2], b[2]}
    return [span for span in run if span[2] in known]


def _have_one_element(one: Any, other: Any) -> bool:
    try:
        return np.shares_memory(one, other, max_work=MOST_WORK)
    except np.exceptions.TooHardError:
        return True


def _group(members: Sequence[_Span]) -> tuple[ViewFacts, ...]:
    first = min(low for low, *_ in members)
    return tuple(
        sorted(
            ViewFacts(name, array.ctypes.data - first, array.strides, array.flags.writeable)
            for _, _, name, array in members
        )
    )


def in_one_memory(values: Mapping[str, Any], groups: Overlaps) -> dict[str, Any]:
    """Return arrays of these values as views of one memory, a memory for each group.

    **Same bits:** those of the values, if they are what lay in one memory once.

    Args:
        values: Arrays by name. A group of which one is missing, or is none of NumPy, is left out.
        groups: What `overlapping_leaves` returned for them.
    """
    found: dict[str, Any] = {}
    for group in groups:
        if all(isinstance(values.get(view.name), np.ndarray) for view in group):
            found |= _views(values, group)
    return found


def _views(values: Mapping[str, Any], group: Sequence[ViewFacts]) -> dict[str, Any]:
    sizes = [values[view.name].itemsize for view in group]
    shifts = range(max(sizes))
    aligned = (
        s for s in shifts if not any((v.begin + s) % n for v, n in zip(group, sizes, strict=True))
    )
    shift = next(aligned, 0)
    end = max(view.begin + _extent(values[view.name], view.strides) for view in group)
    memory = np.zeros(shift + end, np.uint8)
    views = {
        view.name: np.ndarray(
            values[view.name].shape,
            values[view.name].dtype,
            memory,
            shift + view.begin,
            view.strides,
        )
        for view in group
    }
    for view in group:
        views[view.name][...] = values[view.name]
    for view in group:
        views[view.name].flags.writeable = view.writeable
    return views


def _extent(array: Any, strides: Sequence[int]) -> int:
    """Return the bytes from the first element to the end of the last one in memory."""
    steps = zip(array.shape, strides, strict=True)
    return int(array.itemsize + sum((n - 1) * step for n, step in steps if step > 0))
