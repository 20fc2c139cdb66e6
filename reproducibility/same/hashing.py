"""A tree becomes one string that changes if any bit, name, shape or dtype does.

The rule: digest named leaves, give every field its length, and refuse what has no exact bytes.
Chapter: docs/components/hashing_explained.md

The encoding, format 1, complete enough to write again in another language:

    field(b)    = the length of b in bytes, as 8 bytes little-endian, then b
    entry       = field(kind) + field(value)
                  kind:  "name"   a string dictionary key, an attribute, a named tuple's field
                         "key"    an integer dictionary key
                         "index"  a position in a list, in a tuple, or in a node without names
                  "other"  any other dictionary key (a tuple, an enum, a NumPy integer, ...), or
                           what else a registered class calls a child
                  value: the name in UTF-8; the integer in ASCII decimal; the text of the other
                  key, as `same/static` writes it, in UTF-8
    path        = the entries from the root to the leaf, one after the other; the root has none
    leaf digest = SHA-256(field("reproducibility leaf 1") + field(dtype name) + field(shape)
                          + field(PRNG implementation) + field(content))
                  shape: each dimension as 8 bytes little-endian
                  PRNG implementation: of a typed key, such as "threefry2x32"; else empty
                  content: the elements in C order. A type of whole bytes: its bytes,
                  little-endian (complex: real, then imaginary part). bool and the types below
                  eight bits: one byte an element, the value in its low bits, the rest zero
                  A typed key is its key data (dtype "uint32"), with the shape of the key array
    tree digest = SHA-256(field("reproducibility tree 1")
                          + for each leaf, sorted by path: field(path) + field(leaf digest))
                  with leaf digests of 32 raw bytes
    order       = entry by entry; kinds as "index" < "key" < "name" < "other"; integers by value;
                  texts by code point; a path before its continuations

No two different lists of named leaves have the same encoding: every field can be read back.
Containers themselves do not count: a list equals a tuple, a dict equals a dataclass with the same
names, and None and empty containers have no leaves. Nor do device, sharding and weak types.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax  # noqa: F401, for a part of it alone would not wait for a thread that imports it
import numpy as np
from jaxtyping import PyTree

from reproducibility.same.leaves import (
    BITS,
    LeafPath,
    check_leaves,
    host_array,
    is_key,
    key_data_or_leaf,
    key_implementation,
    path_string,
    value_bits,
)

LEAF_TAG = b"reproducibility leaf 1"
TREE_TAG = b"reproducibility tree 1"

# Bytes. Arrays whose memory is not their content are converted in blocks of this size, so that
# no thread ever holds a second copy of a leaf; one block fits a second-level cache.
BLOCK = 1 << 20

# Bytes. A leaf of this size or more is worth handing to another thread (a millisecond of work
# against some ten microseconds).
LARGE = 1 << 20


def leaf_digests(tree: PyTree) -> dict[str, str]:
    """Digest each leaf of a tree on its own, to find the one that differs.

    **Same bits:** everywhere, for the same values, shapes and dtypes. A leaf's digest does not
    depend on its path: the same array under two names has one digest.

    Args:
        tree: Any pytree of JAX arrays, NumPy arrays and scalars, and typed keys.

    Returns:
        64 hexadecimal digits for each path string, in the order of `named_leaves`.

    Raises:
        LeafError: A leaf that has no exact bytes, named by its path: a Python number or string,
            a traced value, a donated array, an array that this process does not see whole; or
            one whose copies on several devices have other bits.

    Examples:
        >>> import numpy as np
        >>> before = leaf_digests({"w": np.zeros(3), "b": np.zeros(1)})
        >>> after = leaf_digests({"w": np.array([0.0, -0.0, 0.0]), "b": np.zeros(1)})
        >>> [path for path in before if before[path] != after[path]]
        ['w']
    """
    return {path_string(path): digest.hex() for path, digest in _digests(check_leaves(tree))}


def tree_digest(tree: PyTree) -> str:
    """Digest a whole tree: names, dtypes, shapes and every bit of every leaf.

    **Same bits:** everywhere, for the same named leaves, whether they are NumPy or JAX arrays, on
    whatever device, and however they are laid out or sharded.

    Args:
        tree: Any pytree of JAX arrays, NumPy arrays and scalars, and typed keys.

    Returns:
        64 hexadecimal digits.

    Raises:
        LeafError: As from `leaf_digests`.

    References:
        NIST, Secure Hash Standard, FIPS 180-4, 2015.

    Examples:
        >>> import numpy as np
        >>> tree_digest({"w": np.zeros(3)}) == tree_digest({"w": np.zeros((3, 1))})
        False
    """
    return named_digests(check_leaves(tree))[0]


def named_digests(leaves: Sequence[tuple[LeafPath, Any]]) -> tuple[str, dict[str, str]]:
    """Digest leaves that have their names already, as a whole and each, reading every byte once.

    **Same bits:** as `tree_digest` and `leaf_digests`.

    Args:
        leaves: What `check_leaves` returns, or copies of those leaves under the same paths.

    Returns:
        What `tree_digest` and what `leaf_digests` return.
    """
    whole, each = hashlib.sha256(_field(TREE_TAG)), {}
    for path, digest in _digests(leaves):
        whole.update(_field(path_bytes(path)) + _field(digest))
        each[path_string(path)] = digest.hex()
    return whole.hexdigest(), each


def _field(content: bytes) -> bytes:
    return len(content).to_bytes(8, "little") + content


def path_bytes(path: LeafPath) -> bytes:
    """Encode a path so that no two paths have the same bytes.

    **Same bits:** everywhere.

    Args:
        path: As from `named_leaves`.
    """
    return b"".join(_field(kind.encode()) + _field(str(value).encode()) for kind, value in path)


def _digests(leaves: Sequence[tuple[LeafPath, Any]]) -> list[tuple[LeafPath, bytes]]:
    # hashlib releases the interpreter lock, so threads hash in parallel. The largest leaves start
    # first, for the shortest end; small ones are done here meanwhile.
    large = sorted(
        (i for i, (_, leaf) in enumerate(leaves) if _nbytes(leaf) >= LARGE),
        key=lambda i: -_nbytes(leaves[i][1]),
    )
    if len(large) < 2:
        return [(path, _leaf_digest(leaf)) for path, leaf in leaves]
    with ThreadPoolExecutor(min(len(large), os.cpu_count() or 1)) as pool:
        pending = {i: pool.submit(_leaf_digest, leaves[i][1]) for i in large}
        small = {i: _leaf_digest(leaf) for i, (_, leaf) in enumerate(leaves) if i not in pending}
        done = small | {i: future.result() for i, future in pending.items()}
    return [(path, done[i]) for i, (path, _) in enumerate(leaves)]


def _nbytes(leaf: Any) -> int:
    # A key array has no size in bytes that JAX would tell; counted by keys, it is small.
    return int(leaf.size if is_key(leaf) else leaf.nbytes)


def _leaf_digest(leaf: Any) -> bytes:
    array = host_array(key_data_or_leaf(leaf))
    bits = BITS[array.dtype.name]
    shape = b"".join(size.to_bytes(8, "little") for size in leaf.shape)
    header = (LEAF_TAG, array.dtype.name.encode(), shape, key_implementation(leaf).encode())
    digest = hashlib.sha256(b"".join(map(_field, header)) + array.nbytes.to_bytes(8, "little"))
    for chunk in _content(array, bits):
        digest.update(chunk)
    return digest.digest()


def _content(array: np.ndarray[Any, Any], bits: int) -> Iterator[memoryview]:
    # Words, not floats: no conversion below may ever touch a NaN.
    if array.dtype.kind != "c":
        order = array.dtype.byteorder
        array = array.view(np.dtype(f"u{array.dtype.itemsize}").newbyteorder(order))
    little = array.dtype.newbyteorder("<")
    if bits >= 8 and array.dtype == little and array.flags.c_contiguous:
        yield _bytes_of(array)
        return
    for block in _blocks(array):
        words = np.ascontiguousarray(block, dtype=little)
        yield _bytes_of(value_bits(words, bits))


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _blocks(array: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    # Views that, one after the other, are the array in C order, each of at most BLOCK bytes.
    if array.nbytes <= BLOCK:
        yield array
        return
    rows = BLOCK * len(array) // array.nbytes
    if rows == 0:
        for row in array:
            yield from _blocks(row)
    else:
        for start in range(0, len(array), rows):
            yield array[start : start + rows]
