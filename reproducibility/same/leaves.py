"""What is a leaf of a tree, what is it called, and which bits are its value?

The rule: an array that says its own dtype and can be seen whole, or a typed key. Its name, dtype,
shape and every bit of its elements count: -0.0 is not 0.0, and a NaN is its bits. Whether it is of
NumPy or JAX, its device, its sharding, its byte order in memory and its weak type do not count.
Chapter: docs/components/hashing_explained.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey
from jaxtyping import PyTree

from reproducibility.errors import LeafError, and_more
from reproducibility.same.static import StaticDataError, key_text

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
HOST_ONLY = ("float6_e2m3fn", "float6_e3m2fn")  # JAX has no integers of six bits to read them by


class PathEntry(NamedTuple):
    """One step of a path: its kind ("index", "key", "name" or "other") and an int or a str."""

    kind: str
    value: Any


type LeafPath = tuple[PathEntry, ...]
type NamedLeaves = list[tuple[LeafPath, Any]]
type _Refusal = tuple[str, str, str]  # expected, got, what to do


def named_leaves(tree: PyTree) -> NamedLeaves:
    """Flatten a tree into (path, leaf) pairs, sorted by path.

    Paths compare entry by entry: kinds as "index" < "key" < "name" < "other", then integers by
    value and texts by code point; a path comes before its continuations. The order of insertion
    does not count.

    **Same bits:** everywhere; paths are text and integers.

    Args:
        tree: Any pytree. Leaves are not looked at.

    Returns:
        A pair for each leaf, all paths different.

    Raises:
        LeafError: A key does not say what it is, or two leaves have one path.

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
    except (RecursionError, SystemError) as error:  # SystemError: from inside of JAX
        raise LeafError(
            "flatten",
            "the tree",
            expected="a tree with an end",
            got="one that contains itself or is too deep",
            do="Give each part a place of its own.",
        ) from error
    pairs = sorted(((path_of(keys), leaf) for keys, leaf in flat), key=lambda pair: pair[0])
    for (path, _), (following, _) in pairwise(pairs):
        if path == following:
            do = "Let the key paths of the custom container differ."
            raise leaf_error("digest", path, ("one leaf of this name", "two", do))
    return pairs


def leaves_by_name(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of a tree by path string, in the order of `named_leaves`.

    Args:
        tree: Any pytree. Leaves are not looked at.
    """
    return {path_string(path): leaf for path, leaf in named_leaves(tree)}


def path_string(path: LeafPath) -> str:
    """Write a path for people, so that different paths have different texts.

    **Same bits:** everywhere.

    Args:
        path: As from `named_leaves`.

    Returns:
        `params.hidden_0.kernel` where names are ASCII identifiers, `["a.b"]` for any other name
        (a JSON string), `[0]` for an index, `[key 0]` for an integer key, `[key ("a", 1)]`,
        `[key True]`, `[key np.int64(3)]`, `[key Mode.TRAIN]` for others, and `.` for the root.

    Examples:
        >>> for path, _ in named_leaves({"layers": [{"a.b": 1}, {7: 2}]}):
        ...     print(path_string(path))
        layers[0]["a.b"]
        layers[1][key 7]
    """
    return "".join(_entry_string(entry) for entry in path).removeprefix(".") or "."


def path_of(keys: Sequence[Any], parent: LeafPath = ()) -> LeafPath:
    """Return the path that JAX's keys lead along, from a node.

    Args:
        keys: As `jax.tree_util.tree_flatten_with_path` gives them.
        parent: Where they begin.

    Raises:
        LeafError: A key does not say what it is.
    """
    path: LeafPath = ()
    for key in keys:
        path += (_entry(key, parent + path),)
    return path


def _entry(key: Any, parent: LeafPath) -> PathEntry:
    # Exactly str and int: True == 1 == 1.0 as a dictionary key, and a subclass can print itself
    # as anything. A lone surrogate is no text: it has no UTF-8.
    match key:
        case SequenceKey(idx=value) | FlattenedIndexKey(key=value) if type(value) is int:
            return PathEntry("index", value)
        case DictKey(key=value) | GetAttrKey(name=value) | FlattenedIndexKey(key=value):
            pass
        case _:  # what a registered class calls a child
            value = key
    if type(value) is int:
        return PathEntry("key", value)
    if type(value) is str and _is_text(value):
        return PathEntry("name", value)
    try:
        return PathEntry("other", key_text(value))
    except StaticDataError as error:
        raise LeafError(
            "name",
            "a leaf",
            path=path_string(parent),
            expected="a key that says what it is",
            got=f"{error}, of type {type(value).__name__}",
            do="Let the key be a string, a number, an enum, or a tuple of those.",
        ) from error


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _entry_string(entry: PathEntry) -> str:
    if entry.kind == "index":
        return f"[{entry.value}]"
    if entry.kind in ("key", "other"):
        return f"[key {entry.value}]"
    # Not str.isidentifier: what it accepts grows with each version of Unicode.
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", entry.value):
        return f".{entry.value}"
    return f"[{json.dumps(entry.value)}]"


def is_key(leaf: Any) -> bool:
    """Say whether a leaf is one typed key or an array of them.

    Args:
        leaf: Anything.
    """
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_numpy(leaf: Any) -> bool:
    """Say whether a leaf is an array or a scalar of NumPy.

    Args:
        leaf: Anything.
    """
    return isinstance(leaf, np.ndarray | np.generic)


def is_array(leaf: Any) -> bool:
    """Say whether a leaf is an array of NumPy or JAX, traced ones and typed keys included.

    Args:
        leaf: Anything.
    """
    return isinstance(leaf, jax.Array) or is_numpy(leaf)


def key_implementation(leaf: Any) -> str:
    """Name the PRNG implementation of typed keys, such as "threefry2x32"; "" for anything else.

    Args:
        leaf: An array or typed keys.
    """
    return str(jax.random.key_impl(leaf)) if is_key(leaf) else ""


def kind_of(leaf: Any) -> str:
    """Say what a leaf is: "JAX array", "NumPy array", "NumPy scalar" or "Python float".

    Args:
        leaf: Anything.
    """
    if isinstance(leaf, jax.Array):
        return "JAX array"
    if isinstance(leaf, np.generic):
        return "NumPy scalar"
    if isinstance(leaf, np.ndarray):
        return "NumPy array"
    return f"Python {type(leaf).__name__}"


def is_weak(leaf: Any) -> bool:
    """Say whether the dtype of a leaf gives way to that of others, as that of a Python number.

    Args:
        leaf: Anything; what `jax.eval_shape` returns says it too.
    """
    return bool(getattr(leaf, "weak_type", False))


def key_data_or_leaf(leaf: Any) -> Any:
    """Return the array that holds the bits: of typed keys their words, of an array itself.

    Args:
        leaf: An array or typed keys.
    """
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def key_words(keys: Any) -> Any:
    """Return the array that typed keys are made of, at once; `jax.random.key_data` takes 20 µs.

    Args:
        keys: Typed keys that are not traced.
    """
    words = getattr(keys, "_base_array", None)  # a private name of JAX
    return jax.random.key_data(keys) if words is None else words


def kind_text(dtype: str, shape: Sequence[int]) -> str:
    """Write what a leaf is for people: "float32[64,32]", "key<fry>[]".

    Args:
        dtype: The name of its dtype.
        shape: Its shape.
    """
    return f"{dtype}[{','.join(map(str, shape))}]"


def check_leaves(tree: PyTree) -> NamedLeaves:
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
        if refusal := _digest_refusal(leaf):
            raise leaf_error("digest", path, refusal)
    for path, leaf in leaves:
        check_copies("digest", path, leaf)
    return leaves


def check_copies(verb: str, path: LeafPath, leaf: Any) -> None:
    """Refuse an array that JAX takes for replicated, and whose copies have other bits.

    Where several processes hold copies, each looks at its own.

    Args:
        verb: What cannot be done with it.
        path: Of the leaf.
        leaf: Anything that no program is being traced with.

    Raises:
        LeafError: It names the leaf, and the devices whose copies are not as the first one.
    """
    if not isinstance(leaf, jax.Array) or leaf.sharding.num_devices == 1:
        return
    first: dict[Any, Any] = {}
    others: list[Any] = []
    for shard in key_data_or_leaf(leaf).addressable_shards:
        kept = first.setdefault(str(shard.index), shard)
        if kept is not shard and not _same_bits(kept.data, shard.data):
            others.append((kept.device, shard.device))
    if others:
        devices = and_more([str(other) for _, other in others], 3)
        got = f"other bits on {devices} than on {others[0][0]}"
        do = "Add or average over the devices where the program forgot to (psum, pmean)."
        raise leaf_error(verb, path, ("copies with the same bits on all devices", got, do))


def _same_bits(one: Any, other: Any) -> bool:
    a, b = (np.asarray(jax.device_get(side)) for side in (one, other))
    bits, size = BITS[a.dtype.name], a.dtype.itemsize
    a, b = (np.ascontiguousarray(side).view(f"u{min(size, 8)}") for side in (a, b))
    return np.array_equal(a, b) or (
        bits < 8 and np.array_equal(value_bits(a, bits), value_bits(b, bits))
    )


def check_on_device(path: LeafPath, leaf: Any) -> None:
    """Refuse a leaf of which no fingerprint can be computed on the device.

    Args:
        path: Of the leaf.
        leaf: Anything; a traced value, or an array that no process sees whole, is none to refuse.

    Raises:
        LeafError: It is no array, or of a dtype that has no digest; or its copies on several
            devices differ, outside of `jit`.
    """
    refusal = _dtype_refusal(leaf) if is_array(leaf) else _value_refusal(leaf)
    if not refusal and not is_numpy(leaf) and leaf.dtype.name in HOST_ONLY:
        do = "Convert it with astype, for example to float32, which holds all of its values."
        refusal = ("a dtype whose bits a program of JAX can read", f"dtype {leaf.dtype.name}", do)
    if refusal:
        raise leaf_error("fingerprint", path, refusal)
    if not isinstance(leaf, jax.core.Tracer):
        check_copies("fingerprint", path, leaf)


def described_leaves(tree: PyTree) -> dict[str, Any]:
    """Return the leaves by name of a tree that says what to expect.

    Args:
        tree: A pytree of arrays and typed keys, or of what `jax.eval_shape` returns for such.

    Raises:
        LeafError: A leaf has no dtype, or is traced.
    """
    leaves = leaves_by_name(tree)
    for name, leaf in leaves.items():
        if not hasattr(leaf, "dtype") or isinstance(leaf, jax.core.Tracer):
            expected, got, do = _value_refusal(leaf)
            do = f"{do.removesuffix('.')}, outside of jit."
            raise LeafError("checkpoint", f"leaf {name}", expected=expected, got=got, do=do)
    return leaves


def leaf_error(verb: str, path: LeafPath, refusal: _Refusal) -> LeafError:
    """Say why a leaf is refused.

    Args:
        verb: What cannot be done with it.
        path: Of the leaf.
        refusal: What was expected, what came, and what to do.
    """
    expected, got, do = refusal
    where = path_string(path)
    return LeafError(verb, "the leaf", path=where, expected=expected, got=got, do=do)


def _digest_refusal(leaf: Any) -> _Refusal | None:
    # None where it has a digest.
    array = "a JAX or NumPy array or a typed key"
    if isinstance(leaf, jax.core.Tracer):
        return (array, "a traced value", "Digest outside of jit, grad and vmap: what they return.")
    if isinstance(leaf, bool | int | float | complex) and not isinstance(leaf, np.generic):
        kind = type(leaf).__name__
        return (array, f"a Python {kind}", "State its dtype, for example np.float32(value).")
    if isinstance(leaf, np.ma.MaskedArray):
        return (array, "a masked array", "Put its data and its mask into the tree.")
    if not is_array(leaf):
        kind = type(leaf).__name__
        return (array, f"a value of type {kind}", "Convert it to an array or leave it out.")
    return _dtype_refusal(leaf) or (_unseen(leaf) if isinstance(leaf, jax.Array) else None)


def _value_refusal(leaf: Any) -> _Refusal:
    kind, do = type(leaf).__name__, "State its dtype, for example np.float32(value)."
    return ("an array or a typed key", f"a value of type {kind}", do)


def _dtype_refusal(leaf: Any) -> _Refusal | None:
    if is_key(leaf) or leaf.dtype.name in BITS:
        return None
    do = "Convert it with astype or leave it out."
    return ("a number or bool dtype", f"dtype {leaf.dtype.name}", do)


def _unseen(leaf: jax.Array) -> _Refusal | None:
    if leaf.is_deleted():
        do = "Digest before the call that donates it, or digest what that call returns."
        return ("an array that still exists", "a deleted (donated) array", do)
    copied = leaf.is_fully_replicated and leaf.sharding.addressable_devices
    if not leaf.is_fully_addressable and not copied:
        do = (
            "Take its fingerprint, or gather it first with "
            "jax.experimental.multihost_utils.process_allgather."
        )
        return ("an array this process sees whole", "one sharded over several processes", do)
    return None


def host_array(array: Any) -> np.ndarray[Any, Any]:
    """Return an array on the host, of which no copy stays behind.

    Args:
        array: Of NumPy or JAX, one that this process sees whole; no typed keys.
    """
    # On CPU this is a view of JAX's own buffer. Elsewhere JAX keeps the host copy it makes for as
    # long as the array lives: read through a second array over the same buffers, so that the
    # copy goes when the digest is done. device_get, because it is also allowed where a transfer
    # guard refuses implicit transfers.
    if not isinstance(array, jax.Array):
        return np.asarray(array)
    if array.is_fully_replicated:
        alias = array.addressable_data(0)
        if may_share_memory(alias):
            return np.asarray(alias)  # no transfer there, and device_get takes 20 µs
    else:
        shards = [shard.data for shard in array.addressable_shards]
        alias = jax.make_array_from_single_device_arrays(array.shape, array.sharding, shards)
    return np.asarray(jax.device_get(alias))


def private_copies(leaves: Sequence[Any]) -> list[Any]:
    """Return leaves that nobody else can write to, when every value is in them.

    An array of JAX may lie in memory that NumPy writes to (`jax.device_put` does not always copy,
    dlpack never), and nothing tells which; so on a CPU each is copied. Elsewhere none can, and
    JAX writes into no buffer that is in use.

    **Same bits:** those of the leaves at the call.

    Args:
        leaves: Arrays and typed keys.

    Returns:
        NumPy arrays of NumPy leaves, JAX arrays of others, as they lie.
    """
    copies = [np.array(leaf) if is_numpy(leaf) else leaf for leaf in leaves]
    shared = [number for number, leaf in enumerate(leaves) if may_share_memory(leaf)]
    whole = [number for number in shared if _is_copied_whole(leaves[number])]
    for number in sorted({*shared} - {*whole}):
        copies[number] = jnp.copy(leaves[number])
    # All at once: one by one takes longer.
    copied = jax.device_put([leaves[number] for number in whole], may_alias=False)
    for number, copy in zip(whole, copied, strict=True):
        copies[number] = copy
    done: Any = jax.block_until_ready  # without types in JAX's own stubs
    done([copies[number] for number in shared])
    return copies


def _is_copied_whole(leaf: Any) -> bool:
    """Say whether `jax.device_put` copies a leaf: not of several processes, nor keys on devices."""
    many = len(leaf.sharding.device_set) > 1
    return bool(leaf.is_fully_addressable) and not (many and is_key(leaf))


def may_share_memory(leaf: Any) -> bool:
    """Say whether a JAX array may lie in memory that NumPy writes to.

    Args:
        leaf: Anything.
    """
    if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
        return False
    device: Any = next(iter(leaf.sharding.device_set))
    return bool(device.platform == "cpu")


def on_host(leaf: Any) -> Any:
    """Return a leaf to be digested later: an array of NumPy; of typed keys themselves.

    Args:
        leaf: One that nobody writes to, and that this process sees whole.
    """
    if is_numpy(leaf) or is_key(leaf):
        return leaf
    if not leaf.is_fully_addressable:  # and then replicated
        leaf = leaf.addressable_data(0)  # this process's own: nothing to wait for
    return np.asarray(jax.device_get(leaf))


def as_weak(leaf: jax.Array) -> jax.Array:
    """Return an array of the same bits whose dtype gives way to others.

    Args:
        leaf: An array.
    """
    # The primitive itself: no function of JAX gives a weak type to an array that is there.
    convert: Any = jax.lax.convert_element_type_p
    found: jax.Array = convert.bind(leaf, new_dtype=leaf.dtype, weak_type=True, sharding=None)
    return found


def value_bits(words: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """Return elements without what their bytes hold beside their value.

    A NumPy bool may hold any byte that is not 0, an int4 anything above its four bits.

    Args:
        words: An unsigned integer for each element.
        bits: Value bits of an element, from `BITS`.
    """
    if bits == 1:
        words = np.minimum(words, 1)
    elif bits < 8:
        words = words & np.uint8((1 << bits) - 1)
    return words
