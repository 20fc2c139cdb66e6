"""64 bits of an array: the same on every device, sharding and process, and by NumPy.

The rule: mix each word with its position, nonlinearly, and only then add. Integer addition is
associative, so it does not matter who adds what first.
Chapter: docs/guide/any_script.md

This is the mixing of `same/fingerprint`, without names: `leaf_fingerprints` explains it. It is
written down again because this folder imports nothing of the package.
"""

from __future__ import annotations

from typing import Any

from .late import np

FIRST_MIX = (16, 0x85EBCA6B, 13, 0xC2B2AE35, 16)
SECOND_MIX = (16, 0x7FEB352D, 15, 0x846CA68B, 16)
ODD = 0x9E3779B9
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


def words_of_numpy(array: Any) -> list[Any]:
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


def words_of_jax(array: Any) -> list[Any]:
    """Do on the device what `words_of_numpy` does, and keep the shape."""
    import jax
    import jax.numpy as jnp

    if array.dtype.kind == "c":
        return [*words_of_jax(array.real), *words_of_jax(array.imag)]
    if array.dtype == bool:
        return [array.astype(jnp.uint32)]
    bits = NARROW.get(array.dtype.name, array.dtype.itemsize * 8)
    if bits < 8 and jnp.issubdtype(array.dtype, jnp.integer):
        return [array.astype(jnp.uint32) & jnp.uint32((1 << bits) - 1)]
    if bits == 64:
        pair = jax.lax.bitcast_convert_type(array, jnp.uint32)
        return [pair[..., 0], pair[..., 1]]
    return [jax.lax.bitcast_convert_type(array, f"uint{bits}").astype(jnp.uint32)]


def of_shard(array: Any, start: Any, strides: Any) -> Any:
    """Add up a shard's mixed words; `start` is the place of its first element in the whole."""
    import jax
    import jax.numpy as jnp

    planes = words_of_jax(array)
    place = jnp.full(array.shape, start, jnp.uint32)
    for axis in range(array.ndim):
        place = place + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * strides[axis]
    total = jnp.zeros(2, jnp.uint32)
    for number, plane in enumerate(planes):
        where = place * jnp.uint32(len(planes)) + jnp.uint32(number)
        lanes = _lanes(plane, where, jnp.uint32)
        total = total + jnp.stack([folded_sum(lane) for lane in lanes])
    return total


def folded_sum(words: Any) -> Any:
    """Add up modulo 2**32: `ROWS_AT_ONCE` rows at a time first, and then what is left of them.

    XLA's CPU compiler turns the mixing and that first addition into one vectorised loop.
    """
    import jax
    import jax.numpy as jnp

    if words.size < WORTH_FOLDING:
        return jnp.sum(words, dtype=jnp.uint32)
    if words.ndim == 1:
        words, rest = _whole_and_rest(words, 0, ROW_LENGTH)
        return folded_sum(words.reshape(-1, ROW_LENGTH)) + jnp.sum(rest, dtype=jnp.uint32)
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


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return how far apart neighbours are along each axis."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step % 2**32)
        step *= size
    return tuple(reversed(strides))


def sums_of_host(parts: list[Any], sizes: list[int]) -> Any:
    """Mix the words of many arrays, and add up those of each."""
    sums = np.zeros((len(sizes), 2), np.uint32)
    filled = np.flatnonzero(np.asarray(sizes, np.int64))
    if not filled.size:
        return sums
    places, starts = mixed_places_of([sizes[i] for i in filled])
    sums[filled] = sums_of_rows(np.concatenate(parts)[None], places, starts)[0]
    return sums


def mixed_places_of(sizes: list[int]) -> tuple[Any, Any]:
    """Return the mixed places of words of arrays that follow each other, and where each begins."""
    most = _mixed_places(max(sizes))
    return np.concatenate([most[:size] for size in sizes]), np.cumsum([0, *sizes])[:-1]


def sums_of_rows(words: Any, places: Any, starts: Any) -> Any:
    """Mix the words of arrays that follow each other in each row, and add up those of each."""
    first = words ^ places
    second = first * np.uint32(ODD)
    free, sums = np.empty_like(first), np.empty((*words.shape[:1], len(starts), 2), np.uint32)
    for number, (lane, by) in enumerate(((first, FIRST_MIX), (second, SECOND_MIX))):
        _mix_in_place(lane, free, by)
        sums[..., number] = np.add.reduceat(lane, starts, axis=1, dtype=np.uint32)
    return sums


def _mix_in_place(words: Any, free: Any, by: tuple[int, int, int, int, int]) -> None:
    """Do what `_mixed` does without new memory, which takes longer than all the rest."""
    one, first, two, second, three = [np.uint32(each) for each in by]
    for shift, factor in ((one, first), (two, second), (three, None)):
        np.right_shift(words, shift, out=free)
        np.bitwise_xor(words, free, out=words)
        if factor is not None:
            np.multiply(words, factor, out=words)


def _mixed_places(count: int) -> Any:
    """Return the first places, mixed."""
    if _places is None or _places.size < count:
        with np.errstate(over="ignore"):
            mixed = _mixed(np.arange(2 * count, dtype=np.uint32), FIRST_MIX, np.uint32)
        globals()["_places"] = mixed
        return mixed
    return _places


_places: Any = None


def hexadecimal(sums: Any) -> list[str]:
    """Return pairs of words as 16 hexadecimal digits each."""
    digits = sums.astype(">u4").tobytes().hex()
    return [digits[i : i + 16] for i in range(0, len(digits), 16)]
