"""A tree becomes one string that changes if any bit, name, shape or dtype does.

The rule: digest named leaves, give every field its length, and refuse what has no exact bytes.
Chapter: docs/components/hashing_explained.md

The encoding, format 1, complete enough to write again in another language:

    field(b)    = the length of b in bytes, as 8 bytes little-endian, then b
    entry       = field(kind) + field(value)
                  kind:  "name"   a string dictionary key, an attribute, a named tuple's field
                         "key"    an integer dictionary key
                         "index"  a position in a list, in a tuple, or in a node without names
                  value: the name in UTF-8; the integer in ASCII decimal
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
    order       = entry by entry; kinds as "index" < "key" < "name"; integers by value; names by
                  code point; a path before its continuations

No two different lists of named leaves have the same encoding: every field can be read back.
Containers themselves do not count: a list equals a tuple, a dict equals a dataclass with the same
names, and None and empty containers have no leaves. Nor do device, sharding and weak types.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey
from jaxtyping import PyTree

from reproducibility.errors import LeafError

LEAF_TAG = b"reproducibility leaf 1"
TREE_TAG = b"reproducibility tree 1"

# Value bits of one element, by dtype name. A dtype that is not here has no digest: its bytes are
# pointers, text or padding, or they depend on the platform (float128). Adding one moves no digest.
BITS = {
    "bool": 1,
    **{f"{sign}int{bits}": bits for sign in ("", "u") for bits in (2, 4, 8, 16, 32, 64)},
    **{"float4_e2m1fn": 4, "float6_e2m3fn": 6, "float6_e3m2fn": 6},
    **{f"float8_{kind}": 8 for kind in ("e3m4", "e4m3", "e4m3fn", "e4m3fnuz", "e4m3b11fnuz")},
    **{f"float8_{kind}": 8 for kind in ("e5m2", "e5m2fnuz", "e8m0fnu")},
    **{"bfloat16": 16, "float16": 16, "float32": 32, "float64": 64},
    **{"complex64": 64, "complex128": 128},
}

# Bytes. Arrays whose memory is not their content are converted in blocks of this size, so that
# no thread ever holds a second copy of a leaf; one block fits a second-level cache.
BLOCK = 1 << 20

# Bytes. A leaf of this size or more is worth handing to another thread (a millisecond of work
# against some ten microseconds).
LARGE = 1 << 20


class PathEntry(NamedTuple):
    """One step of a path: its kind ("index", "key" or "name") and an int or a str."""

    kind: str
    value: Any


type LeafPath = tuple[PathEntry, ...]


def named_leaves(tree: PyTree) -> list[tuple[LeafPath, Any]]:
    """Flatten a tree into (path, leaf) pairs, sorted by path.

    Paths compare entry by entry: kinds as "index" < "key" < "name", then integers by value and
    names by code point; a path comes before its continuations. The order of insertion does not
    count.

    **Same bits:** everywhere; paths are text and integers.

    Args:
        tree: Any pytree. Leaves are not looked at.

    Returns:
        A pair for each leaf, all paths different.

    Raises:
        LeafError: A dictionary key is neither str nor int, or two leaves have one path.

    Examples:
        >>> for path, leaf in named_leaves({"b": [10, 20], "a": 30}):
        ...     print(path_string(path), leaf)
        a 30
        b[0] 10
        b[1] 20
    """
    try:
        flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    except (TypeError, ValueError) as error:
        raise LeafError(
            "flatten",
            "the tree",
            expected="dictionaries whose keys can be sorted",
            got=f"{type(error).__name__}: {str(error).rstrip('.')}",
            do="Let the keys of each dictionary be all str or all int.",
        ) from error
    pairs = sorted(((_path(keys), leaf) for keys, leaf in flat), key=lambda pair: pair[0])
    for (path, _), (following, _) in pairwise(pairs):
        if path == following:
            raise LeafError(
                "digest",
                "the leaf",
                path=path_string(path),
                expected="one leaf of this name",
                got="two",
                do="Let the key paths of the custom container differ.",
            )
    return pairs


def path_string(path: LeafPath) -> str:
    """Write a path for people, so that different paths have different texts.

    **Same bits:** everywhere.

    Args:
        path: As from `named_leaves`.

    Returns:
        `params.hidden_0.kernel` where names are ASCII identifiers, `["a.b"]` for any other name
        (a JSON string), `[0]` for an index, `[key 0]` for an integer key, and `.` for the root.

    Examples:
        >>> for path, _ in named_leaves({"layers": [{"a.b": 1}, {7: 2}]}):
        ...     print(path_string(path))
        layers[0]["a.b"]
        layers[1][key 7]
    """
    return "".join(_entry_string(entry) for entry in path).removeprefix(".") or "."


def check_leaves(tree: PyTree) -> list[tuple[LeafPath, Any]]:
    """Refuse a tree that has a leaf without a digest, before anything is computed.

    Args:
        tree: Any pytree.

    Returns:
        What `named_leaves` returns.

    Raises:
        LeafError: As from `leaf_digests`.
    """
    # Every leaf is looked at before any is read: a refusal should not take seconds to come.
    leaves = named_leaves(tree)
    for path, leaf in leaves:
        _check_leaf(path, leaf)
    return leaves


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
            a traced value, a donated array, an array that this process does not see whole.

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


def _path(keys: Sequence[Any]) -> LeafPath:
    path: LeafPath = ()
    for key in keys:
        path += (_entry(key, path),)
    return path


def _entry(key: Any, parent: LeafPath) -> PathEntry:
    # Exactly str and int: True == 1 == 1.0 as a dictionary key, and a subclass can print itself
    # as anything. A lone surrogate is no text: it has no UTF-8.
    match key:
        case SequenceKey(idx=int(value)) | FlattenedIndexKey(key=int(value)):
            return PathEntry("index", value)
        case DictKey(key=value) if type(value) is int:
            return PathEntry("key", value)
        case DictKey(key=value) | GetAttrKey(name=value) if type(value) is str and _is_text(value):
            return PathEntry("name", value)
    value = getattr(key, "key", key)
    raise LeafError(
        "name",
        "a leaf",
        path=path_string(parent),
        expected="a plain str of valid text or a plain int as key",
        got=f"{value!r} of type {type(value).__name__}",
        do="Name the entry by a plain string or a plain integer.",
    )


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _entry_string(entry: PathEntry) -> str:
    if entry.kind == "index":
        return f"[{entry.value}]"
    if entry.kind == "key":
        return f"[key {entry.value}]"
    # Not str.isidentifier: what it accepts grows with each version of Unicode.
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", entry.value):
        return f".{entry.value}"
    return f"[{json.dumps(entry.value)}]"


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


def is_key(leaf: Any) -> bool:
    """Say whether a leaf is one typed key or an array of them.

    Args:
        leaf: Anything.
    """
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _check_leaf(path: LeafPath, leaf: Any) -> None:
    refused = _refusal(leaf)
    if refused:
        expected, got, do = refused
        where = path_string(path)
        raise LeafError("digest", "the leaf", path=where, expected=expected, got=got, do=do)


def _refusal(leaf: Any) -> tuple[str, str, str] | None:
    # Why a leaf has no digest, as (expected, got, what to do); None where it has one.
    array = "a JAX or NumPy array or a typed key"
    if isinstance(leaf, jax.core.Tracer):
        return (array, "a traced value", "Digest outside of jit, grad and vmap: what they return.")
    if isinstance(leaf, bool | int | float | complex) and not isinstance(leaf, np.generic):
        kind = type(leaf).__name__
        return (array, f"a Python {kind}", "State its dtype, for example np.float32(value).")
    if isinstance(leaf, np.ma.MaskedArray):
        return (array, "a masked array", "Put its data and its mask into the tree.")
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
        kind = type(leaf).__name__
        return (array, f"a value of type {kind}", "Convert it to an array or leave it out.")
    if not is_key(leaf) and leaf.dtype.name not in BITS:
        name = leaf.dtype.name
        return (
            "a number or bool dtype",
            f"dtype {name}",
            "Convert it with astype or leave it out.",
        )
    return _device_refusal(leaf) if isinstance(leaf, jax.Array) else None


def _device_refusal(leaf: jax.Array) -> tuple[str, str, str] | None:
    if leaf.is_deleted():
        do = "Digest before the call that donates it, or digest what that call returns."
        return ("an array that still exists", "a deleted (donated) array", do)
    here = leaf.is_fully_replicated and leaf.sharding.addressable_devices
    if not leaf.is_fully_addressable and not here:
        do = (
            "Take its fingerprint, or gather it first with "
            "jax.experimental.multihost_utils.process_allgather."
        )
        return ("an array this process sees whole", "one sharded over several processes", do)
    return None


def _leaf_digest(leaf: Any) -> bytes:
    data = jax.random.key_data(leaf) if is_key(leaf) else leaf
    array = _host_array(data)
    bits = BITS[array.dtype.name]
    shape = b"".join(size.to_bytes(8, "little") for size in leaf.shape)
    implementation = str(jax.random.key_impl(leaf)) if is_key(leaf) else ""
    header = (LEAF_TAG, array.dtype.name.encode(), shape, implementation.encode())
    digest = hashlib.sha256(b"".join(map(_field, header)) + array.nbytes.to_bytes(8, "little"))
    for chunk in _content(array, bits):
        digest.update(chunk)
    return digest.digest()


def _host_array(data: Any) -> np.ndarray[Any, Any]:
    # On CPU this is a view of JAX's own buffer. Elsewhere JAX keeps the host copy it makes for as
    # long as the array lives: read through a second array over the same buffers, so that the
    # copy goes when the digest is done. device_get, because it is also allowed where a transfer
    # guard refuses implicit transfers.
    if not isinstance(data, jax.Array):
        return np.asarray(data)
    if data.is_fully_replicated:
        alias = data.addressable_data(0)
    else:
        shards = [shard.data for shard in data.addressable_shards]
        alias = jax.make_array_from_single_device_arrays(data.shape, data.sharding, shards)
    return np.asarray(jax.device_get(alias))


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
        # By value: a NumPy bool may hold any byte that is not 0, an int4 anything above its bits.
        if bits == 1:
            words = np.minimum(words, 1)
        elif bits < 8:
            words = words & np.uint8((1 << bits) - 1)
        yield _bytes_of(words)


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
