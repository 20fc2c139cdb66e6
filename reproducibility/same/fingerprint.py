"""Are two trees the same? Asked on the device, in every step, whatever the sharding.

The rule: mix each word with its position, nonlinearly, and only then add. Integer addition is
associative, so the sum does not know how the array was laid out.
Chapter: docs/components/hashing_explained.md

A sum that is linear in the bits would not do: with odd weights two flipped signs cancel, and so
does +1.25 that changed places with -1.25. Here the word w at position p becomes w ^ mix(p), and two
different mixes of that are added up, each in a lane of 32 bits. A mix is a bijection of 32 bits, so
one changed word changes both lanes, always. Several changed words go unseen if both sums happen to
come out alike, about once in 2**64. Whoever looks for such a case finds one: against intent there
is SHA-256, in `hashing`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt32

from reproducibility.same.hashing import path_bytes
from reproducibility.same.leaves import (
    BITS,
    LeafPath,
    check_on_device,
    is_key,
    is_numpy,
    key_data_or_leaf,
    key_implementation,
    named_leaves,
    path_string,
    value_bits,
)

type Words = UInt32[Array, "..."]

# Shifts and odd multipliers of two 32-bit finalisers: MurmurHash3 (Appleby, 2011) and lowbias32
# (Wellons, 2018); and 2**32 over the golden ratio.
MURMUR = (16, 0x85EBCA6B, 13, 0xC2B2AE35, 16)
LOWBIAS = (16, 0x7FEB352D, 15, 0x846CA68B, 16)
GOLDEN = 0x9E3779B9
FOLD = 8  # rows that are added in one go
ROW = 4096  # words in a row, at most, where a vector is cut into rows
SMALL = 2**14  # words that are not worth it


def fingerprint(tree: PyTree) -> UInt32[Array, " 2"]:
    """Return 64 bits that change if any bit, name, shape or dtype of a tree does.

    For use inside of `jit`, in every step. Nothing is gathered but two words for each leaf, so it
    also serves for arrays that no process sees whole. It is no cryptographic hash.

    **Same bits:** everywhere: any backend and version, any sharding, any number of devices and
    processes, inside of `jit` or outside.

    Args:
        tree: any pytree of JAX and NumPy arrays and typed keys, of any dtype that has a digest.

    Returns:
        Two words.

    Raises:
        LeafError: a leaf is no array, or of a dtype that has no digest.

    Examples:
        >>> a = {"w": jnp.array([0.0, 1.0])}
        >>> b = {"w": jnp.array([-0.0, 1.0])}
        >>> bool((fingerprint(a) == jax.jit(fingerprint)(a)).all())
        True
        >>> bool((fingerprint(a) == fingerprint(b)).any())
        False

    References:
        Appleby, MurmurHash3, 2011. Wellons, "Prospecting for hash functions", 2018.
    """
    return combine(leaf_fingerprints(tree))


def leaf_fingerprints(tree: PyTree) -> dict[str, UInt32[Array, " 2"]]:
    """Return the fingerprint of each leaf, to find the one that differs.

    **Same bits:** as `fingerprint`. It covers the leaf's name, dtype and shape as well.

    Args:
        tree: as for `fingerprint`.

    Returns:
        Two words for each path string.

    Raises:
        LeafError: as from `fingerprint`.
    """
    return {path_string(path): leaf_fingerprint(path, leaf) for path, leaf in named_leaves(tree)}


def combine(parts: dict[str, UInt32[Array, " 2"]]) -> UInt32[Array, 2]:
    """Return the fingerprint of a tree from those of its leaves.

    **Same bits:** everywhere, in whatever order the leaves come.

    Args:
        parts: what `leaf_fingerprints` returns.

    Returns:
        Two words.
    """
    total = jnp.zeros(2, jnp.uint32)
    for words in parts.values():  # each knows its name: so the order does not count
        total += jnp.stack(_crossed(words[0], words[1]))
    return total


def combined(texts: Sequence[str]) -> str:
    """Do what `combine` does with fingerprints in their written form, on the host.

    **Same bits:** everywhere.

    Args:
        texts: fingerprints of leaves, as `fingerprint_text` gives them.

    Examples:
        >>> parts = leaf_fingerprints({"a": jnp.ones(3), "b": jnp.zeros(2)})
        >>> whole = combined([fingerprint_text(words) for words in parts.values()])
        >>> whole == fingerprint_text(combine(parts))
        True
    """
    words = np.frombuffer(bytes.fromhex("".join(texts)), ">u4").astype(np.uint32)
    return fingerprint_text(combined_words(words.reshape(-1, 2)))


def combined_words(words: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Do what `combine` does with fingerprints of leaves that the host has, for many trees at once.

    **Same bits:** everywhere.

    Args:
        words: Two words for each leaf, of each tree: the last two axes.
    """
    lanes = _crossed(words[..., 0], words[..., 1])
    return np.stack([lane.sum(axis=-1, dtype=np.uint32) for lane in lanes], axis=-1)


def fingerprint_text(words: Any) -> str:
    """Return a fingerprint as 16 hexadecimal digits; waits for the device.

    **Same bits:** everywhere.

    Args:
        words: what `fingerprint` returns.

    Examples:
        >>> fingerprint_text(jnp.array([1, 0xAB], jnp.uint32))
        '00000001000000ab'
    """
    return "".join(f"{int(word):08x}" for word in np.asarray(words))


def leaf_fingerprint(path: LeafPath, leaf: Any) -> UInt32[Array, " 2"]:
    """Return the fingerprint of one leaf.

    **Same bits:** everywhere.

    Args:
        path: Its path.
        leaf: As a leaf of what `fingerprint` takes.

    Raises:
        LeafError: As from `fingerprint`.
    """
    words = bit_words(key_data_or_leaf(checked_leaf(path, leaf)))
    return words_fingerprint(path, kind_name_of(leaf), tuple(leaf.shape), words)


def checked_leaf(path: LeafPath, leaf: Any) -> Any:
    """Return a leaf that has a fingerprint; refuse another.

    Args:
        path: Its path.
        leaf: As a leaf of what `fingerprint` takes.

    Raises:
        LeafError: As from `fingerprint`.
    """
    check_on_device(path, leaf)
    return leaf


def kind_name_of(leaf: Any) -> str:
    """Return what the header of a fingerprint says that a leaf is made of.

    **Same bits:** everywhere.

    Args:
        leaf: An array or typed keys.
    """
    return f"key {key_implementation(leaf)}" if is_key(leaf) else str(leaf.dtype.name)


def words_fingerprint(
    path: LeafPath, kind: str, shape: tuple[int, ...], planes: Sequence[Words]
) -> UInt32[Array, " 2"]:
    """Return the fingerprint of a leaf whose bits are there as words.

    **Same bits:** everywhere.

    Args:
        path: Of the leaf.
        kind: The name of its dtype, or what else it is.
        shape: Its shape.
        planes: One array for each 32 bits of an element.
    """
    # Added up: the mixed words, and the header that says what they are.
    total = jnp.asarray(header_words(path, kind, shape))
    for number, plane in enumerate(planes):
        # Words of one element lie side by side, as they would in memory.
        mixed = plane ^ mixed_places(_positions(plane.shape) * len(planes) + number)
        total += jnp.stack([_wrapped_sum(lane) for lane in mixed_lanes(mixed)])
    return total


def header_words(
    path: LeafPath, kind: str, shape: tuple[int, ...]
) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Return the two words of a fingerprint that say what its leaf is.

    **Same bits:** everywhere.

    Args:
        path: Of the leaf.
        kind: The name of its dtype, or what else it is.
        shape: Its shape.
    """
    header = hashlib.sha256(repr((kind, shape)).encode() + path_bytes(path)).digest()
    return np.frombuffer(header[:8], "<u4").astype(np.uint32)


def mixed_places(places: Any) -> Any:
    """Mix the places of words, to be laid over the words with XOR.

    **Same bits:** everywhere, for arrays of NumPy and JAX.

    Args:
        places: Where each word lies in its leaf, counted from 0.
    """
    return _mix(places, MURMUR)


def mixed_lanes(words: Any) -> tuple[Any, Any]:
    """Mix words that lie over their mixed places, in two ways; a word of 0 gives 0 in both.

    **Same bits:** everywhere.

    Args:
        words: With their places.
    """
    return _mix(words, MURMUR), _mix(words * jnp.uint32(GOLDEN), LOWBIAS)


def _wrapped_sum(words: Words) -> UInt32[Array, ""]:
    """Add up modulo 2**32: `FOLD` rows at a time first, and then what is left of them.

    XLA's CPU compiler turns the mixing and that first addition into one vectorised loop, several
    times as fast as mixing inside of a plain sum. Rows that lie next to each other are added, so
    an array that is cut evenly along this axis needs nothing from another device.
    """
    if words.size < SMALL or any(jax.typeof(words).sharding.spec):
        # A few rows on each of several devices would be exchanged one by one; and where axes are
        # explicit, JAX asks for the sharding of what is cut up.
        return jnp.sum(words, dtype=jnp.uint32)
    if words.ndim == 1 and words.size >= FOLD * FOLD:
        row = min(ROW, 1 << (words.size // FOLD).bit_length() - 1)
        whole, rest = _split(words, 0, row)
        return _wrapped_sum(whole.reshape(-1, row)) + jnp.sum(rest, dtype=jnp.uint32)
    axis = next((axis for axis, size in enumerate(words.shape[:-1]) if size >= FOLD), None)
    if axis is None or not words.size:
        return jnp.sum(words, dtype=jnp.uint32)
    whole, rest = _split(words, axis, FOLD)
    rows = whole.reshape(*words.shape[:axis], -1, FOLD, *words.shape[axis + 1 :])
    parts = [jax.lax.index_in_dim(rows, i, axis + 1, keepdims=False) for i in range(FOLD)]
    folded: Words = functools.reduce(jnp.add, parts)
    return jnp.sum(folded, dtype=jnp.uint32) + jnp.sum(rest, dtype=jnp.uint32)


def _split(words: Words, axis: int, unit: int) -> tuple[Words, Words]:
    """Cut off what is more than a multiple of `unit`; nothing is, mostly."""
    size = words.shape[axis]
    end = size - size % unit
    return (
        jax.lax.slice_in_dim(words, 0, end, axis=axis),
        jax.lax.slice_in_dim(words, end, size, axis=axis),
    )


def bit_words(leaf: Any) -> list[Words]:
    """Return the bits of a leaf as words: one array of its shape for each 32 bits of an element.

    **Same bits:** everywhere.

    Args:
        leaf: An array of a dtype that has a digest; no keys.
    """
    bits = BITS[leaf.dtype.name]
    if is_numpy(leaf):
        # By NumPy: jnp.asarray would turn float64 into float32 where x64 is off.
        return [jnp.asarray(words) for words in host_words(np.asarray(leaf), bits)]
    if leaf.dtype.kind == "c":
        return [*bit_words(leaf.real), *bit_words(leaf.imag)]
    if leaf.dtype == bool:
        return [leaf.astype(jnp.uint32)]
    if bits < 8 and jnp.issubdtype(leaf.dtype, jnp.integer):
        return [leaf.astype(jnp.uint32) & jnp.uint32((1 << bits) - 1)]
    if bits == 64:
        pair = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
        return [pair[..., 0], pair[..., 1]]
    return [jax.lax.bitcast_convert_type(leaf, f"uint{bits}").astype(jnp.uint32)]


def host_words(array: np.ndarray[Any, Any], bits: int) -> list[np.ndarray[Any, Any]]:
    """Return the bits of a NumPy array as words: one array of its shape for each 32 of an element.

    **Same bits:** everywhere.

    Args:
        array: Of a dtype that has a digest.
        bits: Value bits of an element, from `BITS`.
    """
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
    if array.dtype.itemsize < 4:
        return [value_bits(array.view(f"<u{array.dtype.itemsize}"), bits).astype(np.uint32)]
    words = array[..., None].view("<u4")
    return [words[..., i] for i in range(words.shape[-1])]


def _positions(shape: tuple[int, ...]) -> Words:
    """Number the elements in C order, modulo 2**32."""
    place, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        step = jnp.uint32(stride % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * step
        stride *= shape[axis]
    return place


def _crossed(one: Any, other: Any) -> list[Any]:
    """Mix each lane of a leaf with the other, so that leaves cannot exchange one of them."""
    return [_mix(one ^ _mix(other, LOWBIAS), MURMUR), _mix(other ^ _mix(one, MURMUR), LOWBIAS)]


def _mix(words: Words, steps: tuple[int, int, int, int, int]) -> Words:
    a, first, b, second, c = steps
    words = (words ^ (words >> a)) * np.uint32(first)
    words = (words ^ (words >> b)) * np.uint32(second)
    return words ^ (words >> c)
