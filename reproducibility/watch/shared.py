"""Arrays of JAX whose numbers lie in memory that NumPy can write to: was it overwritten?

The rule: what such an array holds is looked at whenever it is used, when it goes, and at the end.
If it changed, that is told with the line where it was put on the device, that of its last use, and
the call, which may have seen either.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import ctypes
import json
import sys
import weakref
import zlib
from collections.abc import Sequence
from typing import Any

from .late import np
from .source import lines_of_source
from .writing import Writing

MEMORY_OVERWRITTEN = "NumPy overwrote the memory of a JAX array"
WHOLE = 1 << 20  # bytes of an array that are looked at in full; of a larger one, pieces
TOLD_OF_AN_ARRAY = 100  # times that an array was overwritten which are told
PIECE = 1 << 14
PIECES = 32


def memory_of(array: Any) -> list[tuple[int, int]]:
    """Return where an array lies in the memory of this machine, part by part, and how many bytes.

    That is nothing if it does not lie on a CPU.
    """
    parts = [(shard.device, shard.data) for shard in array.addressable_shards]
    if any(device.platform != "cpu" for device, _ in parts):
        return []
    return [(data.unsafe_buffer_pointer(), data.nbytes) for _, data in parts]


class SharedMemory:
    """Arrays that share memory with NumPy, by the identity of the JAX array."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self.arrays: dict[int, _SharedArray] = {}

    def note(
        self, base: Any, memory: Sequence[tuple[int, int]], source: np.ndarray | None, number: int
    ) -> None:
        """Note an array that was put on a device without a copy: where it lies, and of what."""
        name = id(base)

        def forget(_: Any) -> None:
            gone = self.arrays.pop(name, None)
            if gone is not None:
                self._look(gone)

        owner = source
        while owner is not None and isinstance(owner.base, np.ndarray):
            owner = owner.base
        known = (lambda: None) if owner is None else weakref.ref(owner)
        array = _SharedArray(weakref.ref(base, forget), known, memory)
        array.put, array.number = lines_of_source(sys._getframe(1)), number
        array.sum = array.checksum()
        self.arrays[name] = array

    def used(self, base: Any, number: int, thread: int = 0) -> None:
        """Look at an array that a call is given: which of which thread."""
        array = self.arrays.get(id(base))
        if array is not None:
            self._look(array)
            array.use, array.number = lines_of_source(sys._getframe(1)), number
            array.thread = thread

    def look_at_all(self) -> None:
        """Look at those that are left, for the last time."""
        for array in list(self.arrays.values()):
            self._look(array)

    def _look(self, array: _SharedArray) -> None:
        try:
            before, array.sum = array.sum, array.checksum()
            if before is None or array.sum is None or before == array.sum:
                return
            array.told += 1
            if array.told > TOLD_OF_AN_ARRAY:
                return
            places = [*array.put[:1], *array.use[:1]]
            lines = [[code.co_filename, line, code.co_name] for code, line in places]
            event: dict[str, Any] = {
                "after": array.number,
                "thread": array.thread,
                "kind": "overwritten",
                "what": MEMORY_OVERWRITTEN,
            }
            event["lines"] = lines
            self._writing.line("host.txt", json.dumps(event))
        except Exception as error:  # also while an array goes, at any place of the script
            self._writing.remark(f"cannot look at shared memory: {type(error).__name__}: {error}")


class _SharedArray:
    """One of them, and what it held when it was used last."""

    def __init__(self, array: Any, owner: Any, memory: Sequence[tuple[int, int]]) -> None:
        self._array, self._owner = array, owner
        self._memory = [(pointer, size) for pointer, size in memory if size]
        self.put: tuple[Any, ...] = ()
        self.use: tuple[Any, ...] = ()
        self.number = 0  # calls that its thread had made at its last use
        self.sum: int | None = None
        self.thread = 0  # that thread
        self.told = 0  # how often that was overwritten
        self.origin: Any = None  # which call had it first, if one did

    def checksum(self) -> int | None:
        """Return a checksum of the memory; None if nobody keeps it alive any more."""
        array, owner = self._array(), self._owner()
        if not self._memory or (owner is None and (array is None or array.is_deleted())):
            return None
        found = 0
        for pointer, size in self._memory:
            view = memoryview((ctypes.c_ubyte * size).from_address(pointer))
            for begin, end in _looked_at(size):
                found = zlib.crc32(view[begin:end], found)
        return found


def _looked_at(size: int) -> list[tuple[int, int]]:
    """Return which bytes of an array are looked at."""
    if size <= WHOLE:
        return [(0, size)]
    begins = [(size - PIECE) * piece // (PIECES - 1) for piece in range(PIECES)]
    return [(begin, begin + PIECE) for begin in begins]
