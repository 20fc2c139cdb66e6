"""The fingerprints of many small leaves at once: they lie side by side, and are mixed as one array.

The rule: the fingerprints are those that each leaf has alone. What is added up is a sum modulo
2**32, so it does not matter which part of it is added on the device, and which on the host.
Chapter: docs/components/hashing_explained.md

A program that mixes twenty small arrays one by one spends its time on beginning sixty loops. Here
each leaf takes some columns of one array, the rest of its last column is 0, which mixes to 0, and
two loops do it all. The device adds up the rows; the columns of each leaf are added by the host.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from reproducibility.same.fingerprint import bit_words, header_words, mixed_lanes, mixed_places
from reproducibility.same.leaves import LeafPath, is_numpy, key_data_or_leaf

JOINED_ROWS = 16  # of the array in which leaves lie side by side
SMALL_LEAF = 2**14  # words of a leaf that is joined, at most
MOST_WORDS = 2**16  # of all of them: their mixed places are a constant of the program
_AS_THEY_ARE = ("float32", "int32", "uint32")  # are words as soon as they lie side by side


@dataclasses.dataclass(frozen=True)
class SmallLeaf:
    """A leaf that may be joined with others."""

    number: int
    """Among all leaves."""
    header: tuple[int, int]
    """The words of its fingerprint that say what it is."""
    planes: tuple[Any, ...]
    """Its bits: an array for each 32 of an element."""

    @property
    def words(self) -> int:
        """How many words it has."""
        return sum(int(plane.size) for plane in self.planes)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns belong to which leaf. Same bits: everywhere."""

    leaves: tuple[int, ...]
    """The number of each leaf, in the order of the columns."""
    starts: tuple[int, ...]
    """Its first column."""
    end: int
    """How many columns there are."""
    headers: tuple[tuple[int, int], ...]
    """What is added to the sum of the columns of each leaf."""


def small_leaf(number: int, path: LeafPath, leaf: Any, kind: str) -> SmallLeaf:
    """Return a leaf as what can be joined.

    **Same bits:** everywhere.

    Args:
        number: Among all leaves.
        path: Its path.
        leaf: An array or typed keys.
        kind: What the header of its fingerprint calls it.
    """
    shape, data = tuple(leaf.shape), key_data_or_leaf(leaf)
    as_it_is = data.dtype.name in _AS_THEY_ARE and not is_numpy(data)
    planes = [data] if as_it_is else bit_words(data)
    one, other = header_words(path, kind, shape).tolist()
    return SmallLeaf(number, (one, other), tuple(planes))


def chosen(leaves: Sequence[SmallLeaf]) -> list[SmallLeaf]:
    """Return the leaves that are worth being joined: the smaller ones, and not too many words.

    **Same bits:** everywhere.

    Args:
        leaves: All.
    """
    taken, words = [], 0
    for leaf in sorted(leaves, key=lambda leaf: leaf.words):
        words += leaf.words
        if leaf.words > SMALL_LEAF or words > MOST_WORDS:
            break
        taken.append(leaf)
    # Those of one dtype side by side: then they become words in one go.
    return sorted(taken, key=lambda leaf: leaf.planes[0].dtype.name if leaf.planes else "")


def joined_lanes(leaves: Sequence[SmallLeaf]) -> tuple[UInt32[Array, "2 columns"], Columns]:
    """Mix the words of leaves that lie side by side, and add up the rows.

    **Same bits:** everywhere.

    Args:
        leaves: One at least, as `chosen` orders them.

    Returns:
        Two words for each column, and whose columns they are.
    """
    pieces: list[Any] = []
    places: list[Any] = []
    starts, at = [], 0
    for leaf in leaves:
        starts.append(at)
        for number, plane in enumerate(leaf.planes or (jnp.zeros(0, jnp.uint32),)):
            pieces.append(_in_rows(plane.reshape(-1)))
            places.append(_places_in_rows(plane.size, number, max(1, len(leaf.planes))))
            at += pieces[-1].shape[1]
    mixed = _side_by_side(pieces) ^ np.concatenate(places, axis=1)
    lanes = [
        functools.reduce(jnp.add, [lane[row] for row in range(JOINED_ROWS)])
        for lane in mixed_lanes(mixed)
    ]
    numbers = tuple(leaf.number for leaf in leaves)
    headers = tuple(leaf.header for leaf in leaves)
    return jnp.stack(lanes), Columns(numbers, tuple(starts), at, headers)


def _in_rows(plane: Any) -> Any:
    """Lay words into rows; what is missing in the last column is 0."""
    missing = max(JOINED_ROWS, -(-plane.size // JOINED_ROWS) * JOINED_ROWS) - plane.size
    if missing:
        plane = jnp.concatenate([plane, jnp.zeros(missing, plane.dtype)])
    return plane.reshape(JOINED_ROWS, -1)


def _places_in_rows(size: int, number: int, planes: int) -> Any:
    found = np.zeros(max(JOINED_ROWS, -(-size // JOINED_ROWS) * JOINED_ROWS), np.uint32)
    found[:size] = mixed_places(
        np.arange(size, dtype=np.uint32) * np.uint32(planes) + np.uint32(number)
    )
    return found.reshape(JOINED_ROWS, -1)


def _side_by_side(pieces: Sequence[Any]) -> Any:
    """Put pieces side by side, those of one dtype first, as words."""
    runs: list[list[Any]] = []
    for piece in pieces:
        if runs and runs[-1][0].dtype == piece.dtype:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    words = [jax.lax.bitcast_convert_type(jnp.concatenate(run, axis=1), jnp.uint32) for run in runs]
    return jnp.concatenate(words, axis=1)


def added_up(lanes: np.ndarray[Any, Any], columns: Columns) -> np.ndarray[Any, Any]:
    """Return the fingerprints of leaves from what `joined_lanes` returned.

    **Same bits:** everywhere.

    Args:
        lanes: On the host; of one step, or of several, along the axes before.
        columns: As returned with them.

    Returns:
        Two words for each leaf, in the order of `columns.leaves`.
    """
    sums = np.add.reduceat(lanes, columns.starts, axis=-1, dtype=np.uint32)
    return np.swapaxes(sums, -1, -2) + np.array(columns.headers, np.uint32)
