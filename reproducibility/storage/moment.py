"""A copy of a state as it is at one moment, in memory that is used again from save to save.

The rule: what is saved is what was there at the call. Nothing says of an array of JAX whether
NumPy, or a library that took it by dlpack, writes into its memory: on a CPU each is copied.
Chapter: docs/components/checkpoint_explained.md
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from reproducibility.same.hashing import LARGE
from reproducibility.same.leaves import (
    host_array,
    is_numpy,
    may_share_memory,
    on_host,
    private_copies,
)

ALIGNED = 64  # bytes: what lies so, JAX takes over from NumPy without a copy


@dataclasses.dataclass(frozen=True)
class Moment:
    """Leaves as they were at one moment. Same bits: those of the leaves."""

    host: list[Any]
    """Arrays of NumPy, and typed keys: to be digested."""
    copied: bool
    """Whether all are copies: then it does not matter what the caller does with theirs."""
    placed: dict[int, Any]
    """Arrays that lie as the leaves did, by the number of the leaf."""
    places: dict[int, Any]
    """Where the leaves lay that are in `host` alone, by their numbers."""

    def arrays(self) -> list[Any]:
        """Return arrays of NumPy for those of NumPy, and others where they lay.

        Same bits: those of the leaves.
        """
        hosts = [self.host[number] for number in self.places]
        put = jax.device_put(hosts, list(self.places.values()))  # one by one takes longer
        placed = {**self.placed, **dict(zip(self.places, put, strict=True))}
        return [placed.get(number, leaf) for number, leaf in enumerate(self.host)]


class Copies:
    """Copies one state after the other into memory of its own, in which the last one stays."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def take(self, leaves: Sequence[Any]) -> Moment:
        """Return leaves as they are now, when every value is in them.

        The moment before is written over.

        **Same bits:** those of the leaves at the call.

        Args:
            leaves: Arrays and typed keys that this process sees whole.
        """
        numbers = range(len(leaves))
        mine = [number for number in numbers if _fits(leaves[number])]
        others = sorted({*numbers} - {*mine})
        private = private_copies([leaves[number] for number in others])
        views = self._copied([leaves[number] for number in mine])
        host = dict(zip(mine, views, strict=True)) | {
            number: on_host(leaf) for number, leaf in zip(others, private, strict=True)
        }
        return Moment(
            [host[number] for number in numbers],
            all(is_numpy(leaf) or may_share_memory(leaf) for leaf in leaves),
            dict(zip(others, private, strict=True)),
            {n: leaves[n].sharding for n in mine if isinstance(leaves[n], jax.Array)},
        )

    def forget(self) -> None:
        """Let go of the memory, for somebody may still read what is in it."""
        self._memory = np.empty(0, np.uint8)

    def _copied(self, leaves: Sequence[Any]) -> list[Any]:
        sizes = [leaf.nbytes for leaf in leaves]
        views = self._views(leaves, sizes)
        large = [number for number, size in enumerate(sizes) if size >= LARGE]
        large = large if len(large) > 1 else []
        for number in sorted({*range(len(leaves))} - {*large}):
            _copy_into(views[number], leaves[number])
        if large:  # NumPy lets go of the interpreter meanwhile
            with ThreadPoolExecutor(min(len(large), os.cpu_count() or 1)) as threads:
                list(threads.map(lambda number: _copy_into(views[number], leaves[number]), large))
        return views

    def _views(self, leaves: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
        room = [size + -size % ALIGNED for size in sizes]
        if self._memory.nbytes != sum(room) + ALIGNED:
            self.forget()  # never two at a time
            self._memory = np.empty(sum(room) + ALIGNED, np.uint8)
        begin = -self._memory.ctypes.data % ALIGNED
        places = itertools.accumulate(room, initial=begin)
        return [
            np.ndarray(leaf.shape, leaf.dtype, self._memory, place)
            for leaf, place in zip(leaves, places, strict=False)
        ]


def _fits(leaf: Any) -> bool:
    """Say whether a copy of a leaf by NumPy can be put back where the leaf lies, with its bits.

    Of 64 bits JAX takes half, where a thread has not been told to take all.
    """
    if is_numpy(leaf):
        return True
    narrow = isinstance(leaf.dtype, np.dtype) and leaf.dtype.itemsize <= 4  # others are keys
    return narrow and may_share_memory(leaf) and leaf.is_fully_addressable


def _copy_into(view: Any, leaf: Any) -> None:
    if is_numpy(leaf) or leaf.is_fully_replicated:
        np.copyto(view, host_array(leaf))
        return
    for shard in leaf.addressable_shards:
        if shard.replica_id == 0:
            view[shard.index] = host_array(shard.data)
