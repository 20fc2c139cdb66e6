"""64 bits of an array: the same on every device, sharding and process, and by NumPy.

The rule: mix each word with its position, nonlinearly, and only then add. Integer addition is
associative, so it does not matter who adds what first.
Chapter: docs/guide/any_script.md

This is the mixing of `same/fingerprint`, without names: `leaf_fingerprints` explains it. It is
written down again because this folder imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import hook

FIRST_MIX = (16, 0x85EBCA6B, 13, 0xC2B2AE35, 16)
SECOND_MIX = (16, 0x7FEB352D, 15, 0x846CA68B, 16)
ODD = 0x9E3779B9
AT_ONCE = 1 << 20  # words that NumPy mixes at a time
ROWS_AT_ONCE = 8  # rows that are added in one go
ROW_LENGTH = 1024  # words in a row where a vector is cut into rows
WORTH_FOLDING = 1 << 14  # words that are worth it


def _mixed(words: Any, by: tuple[int, int, int, int, int], word: Any) -> Any:
    one, first, two, second, three = by
    words = words ^ (words >> word(one))
    words = words * word(first)
    words = words ^ (words >> word(two))
    words = words * word(second)
    return words ^ (words >> word(three))


def _lanes(words: Any, places: Any, word: Any) -> tuple[Any, Any]:
    mixed = words ^ _mixed(places, FIRST_MIX, word)
    return _mixed(mixed, FIRST_MIX, word), _mixed(mixed * word(ODD), SECOND_MIX, word)


def of_host(array: Any) -> str:
    """Return the fingerprint of a NumPy array, as 16 hexadecimal digits."""
    array = np.asarray(array)
    planes = _words_of_numpy(array)
    count, sums = len(planes), [0, 0]
    with np.errstate(over="ignore"):
        for number, plane in enumerate(planes):
            for begin in range(0, plane.size, AT_ONCE):
                words = plane[begin : begin + AT_ONCE]
                places = np.arange(begin, begin + words.size, dtype=np.uint64) * np.uint64(count)
                places = (places + np.uint64(number)).astype(np.uint32)
                for lane, mixed in enumerate(_lanes(words, places, np.uint32)):
                    sums[lane] = (sums[lane] + int(mixed.sum(dtype=np.uint32))) % 2**32
    return text(sums)


def on_device(array: Any) -> Any:
    """Return a copy of a NumPy array on the first device, whatever the settings."""
    import jax

    with hook.plain_settings():
        return jax.device_put(np.array(array), jax.local_devices()[0])


def text(words: Sequence[Any]) -> str:
    """Return two words as 16 hexadecimal digits."""
    return f"{int(words[0]):08x}{int(words[1]):08x}"


def _words_of_numpy(array: Any) -> list[Any]:
    """Return the bits of an array as flat uint32 arrays: one for each 32 bits of an element."""
    if array.dtype.kind in "OSU" or array.dtype.names:
        raise TypeError(f"an array of dtype {array.dtype} has no fingerprint")
    if array.dtype == bool:
        return [array.ravel().astype(np.uint32)]
    bits = NARROW.get(array.dtype.name, array.dtype.itemsize * 8)
    little = array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype
    flat = np.ascontiguousarray(array, little).reshape(-1)
    if flat.dtype.itemsize < 4:
        words = flat.view(f"<u{flat.dtype.itemsize}").astype(np.uint32)
        return [words & np.uint32((1 << bits) - 1)]
    pieces = flat.view("<u4").reshape(flat.size, flat.dtype.itemsize // 4)
    return [pieces[:, i] for i in range(pieces.shape[1])]


# Types of less than a byte, which NumPy keeps in one.
NARROW = {
    **{"int2": 2, "uint2": 2, "int4": 4, "uint4": 4},
    **{"float4_e2m1fn": 4, "float6_e2m3fn": 6, "float6_e3m2fn": 6},
}


def _words_of_jax(array: Any) -> list[Any]:
    """Do on the device what `_words_of_numpy` does, and keep the shape."""
    import jax
    import jax.numpy as jnp

    if array.dtype.kind == "c":
        return [*_words_of_jax(array.real), *_words_of_jax(array.imag)]
    if array.dtype == bool:
        return [array.astype(jnp.uint32)]
    bits = NARROW.get(array.dtype.name, array.dtype.itemsize * 8)
    if bits < 8 and jnp.issubdtype(array.dtype, jnp.integer):
        return [array.astype(jnp.uint32) & jnp.uint32((1 << bits) - 1)]
    if bits == 64:
        pair = jax.lax.bitcast_convert_type(array, jnp.uint32)
        return [pair[..., 0], pair[..., 1]]
    return [jax.lax.bitcast_convert_type(array, f"uint{bits}").astype(jnp.uint32)]


def _of_shard(array: Any, start: Any, strides: Any) -> Any:
    """Add up a shard's mixed words; `start` is the place of its first element in the whole."""
    import jax
    import jax.numpy as jnp

    planes = _words_of_jax(array)
    place = jnp.full(array.shape, start, jnp.uint32)
    for axis in range(array.ndim):
        place = place + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * strides[axis]
    total = jnp.zeros(2, jnp.uint32)
    for number, plane in enumerate(planes):
        where = place * jnp.uint32(len(planes)) + jnp.uint32(number)
        lanes = _lanes(plane, where, jnp.uint32)
        total = total + jnp.stack([_folded_sum(lane) for lane in lanes])
    return total


def _folded_sum(words: Any) -> Any:
    """Add up modulo 2**32: `ROWS_AT_ONCE` rows at a time first, and then what is left of them.

    XLA's CPU compiler turns the mixing and that first addition into one vectorised loop.
    """
    import jax
    import jax.numpy as jnp

    if words.size < WORTH_FOLDING:
        return jnp.sum(words, dtype=jnp.uint32)
    if words.ndim == 1:
        words, rest = _whole_and_rest(words, 0, ROW_LENGTH)
        return _folded_sum(words.reshape(-1, ROW_LENGTH)) + jnp.sum(rest, dtype=jnp.uint32)
    axis = next((axis for axis, size in enumerate(words.shape[:-1]) if size >= ROWS_AT_ONCE), None)
    if axis is None:
        return jnp.sum(words, dtype=jnp.uint32)
    words, rest = _whole_and_rest(words, axis, ROWS_AT_ONCE)
    rows = words.reshape(*words.shape[:axis], -1, ROWS_AT_ONCE, *words.shape[axis + 1 :])
    folded = jax.lax.index_in_dim(rows, 0, axis + 1, keepdims=False)
    for row in range(1, ROWS_AT_ONCE):
        folded = folded + jax.lax.index_in_dim(rows, row, axis + 1, keepdims=False)
    return jnp.sum(folded, dtype=jnp.uint32) + jnp.sum(rest, dtype=jnp.uint32)


def _whole_and_rest(words: Any, axis: int, unit: int) -> tuple[Any, Any]:
    """Cut off what is more than a multiple of `unit`."""
    import jax

    end = words.shape[axis] - words.shape[axis] % unit
    return (
        jax.lax.slice_in_dim(words, 0, end, axis=axis),
        jax.lax.slice_in_dim(words, end, words.shape[axis], axis=axis),
    )


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step % 2**32)
        step *= size
    return tuple(reversed(strides))


class Pending:
    """Fingerprints that a device computes; `texts` waits for them."""

    __slots__ = ("_parts",)

    def __init__(self, parts: list[tuple[list[int], Any]]) -> None:
        self._parts = parts  # which arrays, and an array of two words for each

    def texts(self, count: int) -> list[str]:
        """Return them as hexadecimal digits."""
        sums = [[0, 0] for _ in range(count)]
        for numbers, found in self._parts:
            for number, words in zip(numbers, np.asarray(found)):  # noqa: B905 (Python 3.10)
                for lane in (0, 1):
                    sums[number][lane] = (sums[number][lane] + int(words[lane])) % 2**32
        return [text(words) for words in sums]


class Prints:
    """Programs that compute the fingerprints of several arrays at once, compiled as needed."""

    def __init__(self) -> None:
        self._programs: dict[Any, Any] = {}
        self.executed = 0

    def of(self, arrays: Sequence[Any]) -> Pending:
        """Start to compute the fingerprints of JAX arrays, where they lie.

        Of an array on several devices each shard is looked at where it is, and the words are added
        on the host: no device waits for another.
        """
        groups: dict[Any, list[tuple[int, Any, Any]]] = {}
        for number, array in enumerate(arrays):
            for device, data, start in _shards(array):
                key = (data.shape, data.dtype, array.shape, start)
                groups.setdefault(device, []).append((number, data, key))
        parts = []
        for device, group in groups.items():
            key = (device, *(key for *_, key in group))
            program = self._programs.get(key)
            if program is None:
                program = self._programs[key] = _compiled(device, [key for *_, key in group])
            parts.append(
                ([number for number, *_ in group], program([data for _, data, _ in group]))
            )
            self.executed += 1
        return Pending(parts)


def _compiled(device: Any, keys: Sequence[Any]) -> Any:
    """Compile the program for arrays of these shapes; nothing but them is an argument."""
    import jax
    import jax.numpy as jnp

    def fingerprints(arrays: Any) -> Any:
        return jnp.stack(
            [
                _of_shard(array, jnp.uint32(start), [jnp.uint32(step) for step in _strides(whole)])
                for array, (_, _, whole, start) in zip(arrays, keys)  # noqa: B905 (Python 3.10)
            ]
        )

    described: Any = jax.ShapeDtypeStruct
    sharding = jax.sharding.SingleDeviceSharding(device)
    with hook.plain_settings():
        shapes = [described(shape, dtype, sharding=sharding) for shape, dtype, _, _ in keys]
        return jax.jit(fingerprints).lower(shapes).compile()


def _shards(array: Any) -> list[tuple[Any, Any, int]]:
    """Return the device, the data and the first place of each part that this process holds."""
    devices = array.sharding.device_set
    if len(devices) == 1:
        (device,) = devices
        return [(device, array, 0)]
    strides, found = _strides(array.shape), []
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            begins = [part.start or 0 for part in shard.index]
            place = sum(b * s for b, s in zip(begins, strides))  # noqa: B905 (Python 3.10)
            found.append((shard.device, shard.data, place % 2**32))
    return found
