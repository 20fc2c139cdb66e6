"""The digest of a tree: what is in it, what is not, and what has none."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import tracemalloc
from typing import Any, NamedTuple
from unittest import mock

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import register_pytree_node

from reproducibility import LeafError, leaf_digests, tree_digest
from reproducibility.same import hashing
from reproducibility.same.leaves import BITS, named_leaves, path_string

properties = settings(derandomize=True, deadline=None, max_examples=100)

X = np.arange(3, dtype=np.float32)
Y = np.arange(4, dtype=np.int32)

# Value bits of every dtype that has a digest, written out again: this is the contract.
DTYPE_BITS = {
    "bool": 1,
    **{"int2": 2, "int4": 4, "int8": 8, "int16": 16, "int32": 32, "int64": 64},
    **{"uint2": 2, "uint4": 4, "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64},
    **{"float4_e2m1fn": 4, "float6_e2m3fn": 6, "float6_e3m2fn": 6},
    **{"float8_e3m4": 8, "float8_e4m3": 8, "float8_e4m3b11fnuz": 8, "float8_e4m3fn": 8},
    **{"float8_e4m3fnuz": 8, "float8_e5m2": 8, "float8_e5m2fnuz": 8, "float8_e8m0fnu": 8},
    **{"bfloat16": 16, "float16": 16, "float32": 32, "float64": 64},
    **{"complex64": 64, "complex128": 128},
}
# What a JAX array can hold without jax_enable_x64.
JAX_DTYPES = sorted(
    set(DTYPE_BITS) - {"int64", "uint64", "float64", "complex128", "float6_e2m3fn", "float6_e3m2fn"}
)


def dtype_of(name: str) -> np.dtype:
    """Return the dtype of this name, from NumPy or else from ml_dtypes."""
    return np.dtype(getattr(ml_dtypes, name, name))


def pattern(name: str, count: int = 24) -> np.ndarray:
    """Return elements whose bytes are all within their value bits and mostly different."""
    data = np.arange(3, 3 + count * dtype_of(name).itemsize, dtype=np.uint8)
    if DTYPE_BITS[name] < 8:
        data &= (1 << DTYPE_BITS[name]) - 1
    return data.view(dtype_of(name))


def as_list(tree: Any) -> list[str]:
    """Return the path strings of a tree, in order."""
    return [path_string(path) for path, _ in named_leaves(tree)]


# The reference: the encoding of the module's docstring once more, from struct and hashlib alone.


def field(content: bytes) -> bytes:
    """Encode a field: its length, then itself."""
    return struct.pack("<Q", len(content)) + content


def reference_leaf(dtype: str, shape: tuple[int, ...], content: bytes, impl: str = "") -> bytes:
    """Digest a leaf that is given by its fields."""
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    fields = (b"reproducibility leaf 1", dtype.encode(), sizes, impl.encode(), content)
    return hashlib.sha256(b"".join(map(field, fields))).digest()


def reference_tree(*leaves: tuple[list[tuple[str, int | str]], bytes]) -> str:
    """Digest a tree that is given by its sorted paths and leaf digests."""
    whole = field(b"reproducibility tree 1")
    for path, digest in leaves:
        entries = (field(kind.encode()) + field(str(value).encode()) for kind, value in path)
        whole += field(b"".join(entries)) + field(digest)
    return hashlib.sha256(whole).hexdigest()


# Known answers


@pytest.mark.parametrize("name", DTYPE_BITS)
def test_dtype_known_answer(name: str) -> None:
    """Every supported dtype digests to what the written encoding says."""
    array = pattern(name).reshape(2, 3, 4)
    expected = reference_leaf(name, (2, 3, 4), array.tobytes())
    assert leaf_digests(array) == {".": expected.hex()}


def test_supported_dtypes() -> None:
    """The dtypes that have a digest are exactly those of the list."""
    assert BITS == DTYPE_BITS


def test_tree_known_answer() -> None:
    """A tree digests to what the written encoding says, in the written order of paths."""
    key = jax.random.wrap_key_data(np.array([7, 9], np.uint32), impl="threefry2x32")
    tree = {"b": [X, {10: Y, 9: X}], "a.é": np.float32(-0.0), "B": key}
    x = reference_leaf("float32", (3,), struct.pack("<3f", 0, 1, 2))
    y = reference_leaf("int32", (4,), struct.pack("<4i", 0, 1, 2, 3))
    expected = reference_tree(
        ([("name", "B")], reference_leaf("uint32", (), struct.pack("<2I", 7, 9), "threefry2x32")),
        ([("name", "a.é")], reference_leaf("float32", (), b"\0\0\0\x80")),
        ([("name", "b"), ("index", 0)], x),
        ([("name", "b"), ("index", 1), ("key", 9)], x),
        ([("name", "b"), ("index", 1), ("key", 10)], y),
    )
    assert tree_digest(tree) == expected


FROZEN = {
    "empty tree": ({}, "4564d5e65d7d8d8a78d379ce355bc6cba0082162df7aeb44f3d6c4c971694cca"),
    "one scalar": (
        np.float32(1),
        "517fd75fda623014dc6383455a41d86edee15c4a6c9f091f7537258ff07cd11f",
    ),
    "names": ({"w": X, "b": Y}, "d6bd99c64c820260624350af884706530be64cfe8e2698409559782e82a48e26"),
    "indices": ([X, (Y, X)], "6ba4ded0727e8d2d295011d7848bccbc3793d20f9c3253cbce5484bbe9d1e689"),
    "bfloat16": (
        pattern("bfloat16"),
        "5200afb433538ebfb8cb9fb11fea6f6b731eb0cd649d9bf2e3d3f4d24c1c2763",
    ),
    "int4": (pattern("int4"), "14749a2f362adf0f691fab3e36aad49d19d64ca5933ceca20999ac91e478c658"),
    "typed key": (
        {0: jax.random.wrap_key_data(np.array([7, 9], np.uint32), impl="threefry2x32")},
        "9f295aa4c5e6b6c93c9577a9d061e2e668306c74c40d0fe931baf06e4cc7a2f7",
    ),
}


@pytest.mark.parametrize("case", FROZEN)
def test_frozen(case: str) -> None:
    """Digests written down by one release are the digests of every later one.

    They stand in result files and papers. One that moves makes every run that was ever recorded
    look different, so a new encoding needs a new format number in its tags, and a release that
    says so under "Changed bits".
    """
    tree, expected = FROZEN[case]
    assert tree_digest(tree) == expected


# What must differ


DIFFERENT_TREES = [
    {},
    X,
    {"a": X},
    {"b": X},
    {"A": X},
    {"": X},
    {"a": {"b": X}},
    {"a.b": X},
    {"a/b": X},
    {'a"]["b': X},
    {"a": [X]},
    {"a": {"0": X}},
    {"a": {0: X}},
    {"a": {"[0]": X}},
    {"a[0]": X},
    [X],
    {0: X},
    {"0": X},
    {-1: X},
    {"-1": X},
    [[X]],
    {"a": X, "b": Y},
    {"a": Y, "b": X},
    {"a": [X, Y]},
    {"a": [Y, X]},
    {"a": [X], "b": [Y]},
    {"a": X, "b": X},
    [X, Y],
    [None, X, Y],
]

_PAYLOADS = np.array([0x7FC00000, 0x7FC00001, 0xFFC00000, 0x7F800001, 0, 1 << 31], np.uint32)
_KEY_DATA = np.arange(4, dtype=np.uint32)
DIFFERENT_LEAVES = [
    *_PAYLOADS.view(np.float32),  # quiet, with a payload, negative, signalling; +0.0 and -0.0
    np.uint32(0),
    np.zeros((1,), np.uint32),
    *(np.zeros(shape, np.float32) for shape in [(0,), (0, 3), (3, 0), (1,), (1, 1), (6,)]),
    *(np.arange(6, dtype=np.float32).reshape(shape) for shape in [(6,), (2, 3), (3, 2)]),
    np.arange(6, dtype=np.float32).reshape(3, 2).T,
    np.array([1 + 2j], np.complex64),
    np.array([1, 2], np.float32),
    *(
        np.array([1, 0, 1], np.uint8).view(dtype_of(n))
        for n, bits in DTYPE_BITS.items()
        if bits <= 8
    ),
    np.array([1, 0, 1], np.uint16).view(ml_dtypes.bfloat16),
    np.array([1, 0, 1], np.uint16).view(np.float16),
    *(jax.random.wrap_key_data(_KEY_DATA, impl=impl) for impl in ["rbg", "unsafe_rbg"]),
    jax.random.wrap_key_data(_KEY_DATA, impl="threefry4x32"),
    jax.random.wrap_key_data(_KEY_DATA[:2], impl="threefry2x32"),
    jax.random.wrap_key_data(_KEY_DATA.reshape(2, 2), impl="threefry2x32"),
    _KEY_DATA,
    _KEY_DATA[:2],
]


def test_different_trees() -> None:
    """Names, kinds of names, nesting and positions are all in the digest."""
    assert len({tree_digest(tree) for tree in DIFFERENT_TREES}) == len(DIFFERENT_TREES)


def test_different_leaves() -> None:
    """Bits, dtype, shape and PRNG implementation are all in a leaf's digest."""
    found = collections.Counter(leaf_digests(leaf)["."] for leaf in DIFFERENT_LEAVES)
    assert set(found.values()) == {1}


def test_path_strings_differ() -> None:
    """No two of the adversarial trees print alike, where their paths differ."""
    texts = {tuple(as_list(tree)) for tree in DIFFERENT_TREES}
    paths = {tuple(path for path, _ in named_leaves(tree)) for tree in DIFFERENT_TREES}
    assert len(texts) == len(paths)


# What must be the same


class Pair(NamedTuple):
    """A named tuple with the names of the dictionary below."""

    b: Any
    a: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Record:
    """A dataclass with the same names, in the other order."""

    a: Any
    b: Any


class Opaque:
    """A container that tells JAX no names."""

    def __init__(self, *children: Any) -> None:
        self.children = children


register_pytree_node(Opaque, lambda node: (node.children, None), lambda _, new: Opaque(*new))


def test_same_names() -> None:
    """A dict, a dataclass and a named tuple with the same names have one digest."""
    trees = [{"a": X, "b": [Y]}, Record(a=X, b=[Y]), Pair(a=X, b=[Y])]
    assert len({tree_digest(tree) for tree in trees}) == 1


def test_same_positions() -> None:
    """A list, a tuple and a container without names have one digest."""
    assert len({tree_digest(tree) for tree in [[X, Y], (X, Y), Opaque(X, Y)]}) == 1


def test_no_leaves() -> None:
    """None and empty containers do not count."""
    assert tree_digest({"a": X, "b": None, "c": {}, "d": [(), None]}) == tree_digest({"a": X})


def test_flax_state() -> None:
    """A Flax NNX module, its state and its plain dictionary hold the same leaves."""
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    state = nnx.state(model)
    plain = leaf_digests(nnx.to_pure_dict(state))
    assert list(plain) == ["bias", "kernel"]
    assert list(leaf_digests(state).values()) == list(plain.values())
    assert tree_digest(model) == tree_digest(state)


def layouts() -> dict[str, np.ndarray]:
    """Return one matrix of values in every layout of memory."""
    base = np.random.default_rng(0).integers(0, 1 << 32, (40, 30), np.uint32).view(np.float32)
    wide = np.zeros((40, 60), np.float32)
    wide.view(np.uint32)[:, ::2] = base.view(np.uint32)
    shifted = np.zeros(base.nbytes + 1, np.uint8)
    shifted[1:] = base.reshape(-1).view(np.uint8)
    frozen = base.copy()
    frozen.flags.writeable = False
    return {
        "contiguous": base,
        "Fortran order": np.asfortranarray(base),
        "every second column": wide[:, ::2],
        "reversed twice": base[::-1, ::-1].copy()[::-1, ::-1],
        "big-endian": base.view(np.uint32).astype(">u4").view(">f4"),
        "big-endian, Fortran order": np.asfortranarray(base.view(np.uint32).astype(">u4")).view(
            ">f4"
        ),
        "unaligned": shifted[1:].view(np.float32).reshape(40, 30),
        "read-only": frozen,
        "JAX": jax.device_put(base),
    }


@pytest.mark.parametrize("block", [4, 64, 1000, 1 << 20])
def test_layouts(block: int) -> None:
    """A digest is of values in C order, however they lie in memory."""
    with mock.patch.object(hashing, "BLOCK", block):
        digests = {name: tree_digest(array) for name, array in layouts().items()}
    assert set(digests.values()) == {tree_digest(layouts()["contiguous"])}, digests


def test_broadcast() -> None:
    """A broadcast view equals the array it stands for."""
    view = np.broadcast_to(X, (5, 3))
    assert tree_digest(view) == tree_digest(view.copy())


@pytest.mark.parametrize("name", [name for name, bits in DTYPE_BITS.items() if bits > 8])
def test_big_endian(name: str) -> None:
    """Every dtype of several bytes has one digest in both byte orders."""
    native = pattern(name)
    part = np.dtype(f"u{native.itemsize // (2 if 'complex' in name else 1)}")
    swapped = native.view(part).byteswap().view(native.dtype.newbyteorder(">"))
    for values in (slice(None), slice(None, None, 2), slice(0), 0):
        assert tree_digest(swapped[values]) == tree_digest(native[values])


@pytest.mark.parametrize("name", [name for name, bits in DTYPE_BITS.items() if 1 < bits < 8])
def test_dirty_bits(name: str) -> None:
    """Bits of a byte above an element's own have no part in its digest."""
    clean = pattern(name)
    dirty = (clean.view(np.uint8) | (0xFF << DTYPE_BITS[name] & 0xFF)).view(clean.dtype)
    assert clean.tobytes() != dirty.tobytes()
    assert tree_digest(dirty) == tree_digest(clean)


def test_dirty_bool() -> None:
    """A NumPy bool holds True in any byte that is not zero."""
    dirty = np.array([0, 1, 2, 255], np.uint8).view(bool)
    assert tree_digest(dirty) == tree_digest(np.array([False, True, True, True]))


def test_scalars() -> None:
    """A NumPy scalar equals the array of no dimensions."""
    for name in DTYPE_BITS:
        array = pattern(name)[5:6].reshape(())
        assert tree_digest(array[()]) == tree_digest(array)


def test_key_as_key_data() -> None:
    """A batch of keys digests as their words, with the shape of the batch."""
    keys = jax.random.wrap_key_data(np.arange(6, dtype=np.uint32).reshape(3, 2))
    words = struct.pack("<6I", *range(6))
    assert leaf_digests(keys)["."] == reference_leaf("uint32", (3,), words, "threefry2x32").hex()


def test_digest_uses_no_key() -> None:
    """Digesting a key is no use of it: the key may still be drawn from, and digested after."""
    with jax.debug_key_reuse(True):
        key = jax.random.key(0)
        before = tree_digest(key)
        jax.random.bits(key)
        assert tree_digest(key) == before


def test_threads() -> None:
    """Large leaves hashed by threads and small ones hashed here give the same digests."""
    tree = {f"leaf {i}": np.full((i % 5, 7), i) for i in range(20)}
    inline = leaf_digests(tree)
    for large in (0, 100, 200):
        with mock.patch.object(hashing, "LARGE", large):
            assert leaf_digests(tree) == inline


def test_leaf_digest_has_no_path() -> None:
    """One array under two names has one leaf digest."""
    digests = leaf_digests({"a": X, "b": {"c": X}})
    assert digests["a"] == digests["b.c"]


# Properties


@st.composite
def arrays(draw: st.DrawFn, names: list[str] = list(DTYPE_BITS)) -> np.ndarray:  # noqa: B006
    """Draw an array of any dtype, shape and bits."""
    name = draw(st.sampled_from(names))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = dtype_of(name).itemsize * int(np.prod(shape))
    data = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    if DTYPE_BITS[name] < 8:
        data = data & np.uint8((1 << DTYPE_BITS[name]) - 1)
    return data.view(dtype_of(name)).reshape(shape)


@properties
@given(st.lists(arrays(), min_size=1, max_size=4), st.data())
def test_every_bit_counts(leaves: list[np.ndarray], data: st.DataObject) -> None:
    """Flipping any bit of any leaf changes that leaf's digest, the tree's, and no other."""
    tree = {f"leaf_{i}": leaf for i, leaf in enumerate(leaves) if leaf.size}
    if not tree:
        return
    name = data.draw(st.sampled_from(list(tree)))
    flat = tree[name].reshape(-1).view(np.uint8).copy()
    byte = data.draw(st.integers(0, flat.size - 1))
    flat[byte] ^= 1 << data.draw(st.integers(0, min(8, DTYPE_BITS[tree[name].dtype.name]) - 1))
    flipped = tree | {name: flat.view(tree[name].dtype).reshape(tree[name].shape)}
    before, after = leaf_digests(tree), leaf_digests(flipped)
    assert {path for path in before if before[path] != after[path]} == {name}
    assert tree_digest(tree) != tree_digest(flipped)


@properties
@given(st.dictionaries(st.text(max_size=4), arrays(), max_size=6), st.randoms())
def test_insertion_order(tree: dict[str, np.ndarray], random: Any) -> None:
    """The order in which a dictionary was filled does not count."""
    names = list(tree)
    random.shuffle(names)
    shuffled = collections.OrderedDict((name, tree[name]) for name in names)
    assert tree_digest(shuffled) == tree_digest(tree)
    assert list(leaf_digests(shuffled)) == list(leaf_digests(tree))


@properties
@given(arrays(JAX_DTYPES))
def test_jax_equals_numpy(array: np.ndarray) -> None:
    """A JAX array has the digest of the NumPy array it was made from."""
    assert tree_digest(jax.device_put(array)) == tree_digest(array)


# Promises across processes, and of memory


CHILD = """
import numpy as np
from reproducibility import leaf_digests, tree_digest
names = {"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"}
tree = {name: np.full(3, len(name), np.int32) for name in names}
print(list(tree), tree_digest(tree), list(leaf_digests(tree).items()), sep="\\n")
"""


def test_fresh_process() -> None:
    """A fresh process with a hash seed, which fills a dictionary in another order, agrees."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    names = ["alpha", "beta", "delta", "epsilon", "eta", "gamma", "theta", "zeta"]
    tree = {name: np.full(3, len(name), np.int32) for name in names}
    order, *digests = done.stdout.splitlines()
    assert order != str(names)
    assert digests == [tree_digest(tree), str(list(leaf_digests(tree).items()))]


PEER = """
import json, sys, tracemalloc
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from reproducibility import LeafError, tree_digest

address, process = sys.argv[1], int(sys.argv[2])
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, 2, process)
values = np.arange(1 << 20, dtype=np.float32)

def place(values, devices, *spec):
    sharding = NamedSharding(Mesh(np.array(devices), ("x",)), PartitionSpec(*spec))
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

local = place(values, jax.local_devices(), "x")
replicated = place(values, jax.devices())
key = jax.random.wrap_key_data(place(np.array([1, 2], np.uint32), jax.devices()))
tree_digest(values)
tracemalloc.start()
found = {"local": tree_digest(local)}
found["kept"] = tracemalloc.get_traced_memory()[0]
tracemalloc.stop()
if process == 0:  # alone: a digest never waits for another process
    found |= {"replicated": tree_digest(replicated), "key": tree_digest(key)}
try:
    tree_digest({"w": place(values, jax.devices(), "x")})
except LeafError as error:
    found["error"] = str(error)
print(json.dumps(found), flush=True)
"""


def test_two_processes() -> None:
    """Sharded on one process, replicated on two: the digest of the values; else a refusal."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    peers = [
        subprocess.Popen(
            [sys.executable, "-c", PEER, address, str(process)],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        outputs = [peer.communicate(timeout=120) for peer in peers]
    finally:
        for peer in peers:
            peer.kill()
    assert [peer.returncode for peer in peers] == [0, 0], outputs
    found = [json.loads(stdout) for stdout, _ in outputs]
    expected = tree_digest(np.arange(1 << 20, dtype=np.float32))
    assert [one["local"] for one in found] == [expected, expected]
    assert found[0]["replicated"] == expected
    assert found[0]["key"] == tree_digest(jax.random.wrap_key_data(np.array([1, 2], np.uint32)))
    assert max(one["kept"] for one in found) < 1 << 21, "the host copy outlives the digest"
    assert found[1]["error"] == (
        "Cannot digest the leaf at w: expected an array this process sees whole, got one sharded "
        "over several processes. Take its fingerprint, or gather it first with "
        "jax.experimental.multihost_utils.process_allgather."
    )


@pytest.mark.parametrize(
    "layout", ["contiguous", "JAX", "transposed", "big-endian", "bool", "int4"]
)
def test_no_copy(layout: str) -> None:
    """No leaf is copied whole: a few blocks at most, and nothing where memory is content."""
    base = np.zeros((1 << 11, 1 << 13), np.int8)
    leaf = {
        "contiguous": lambda: base,
        "JAX": lambda: jax.device_put(base),
        "transposed": lambda: base.T,
        "big-endian": lambda: base.view(">i4"),
        "bool": lambda: base.view(bool),
        "int4": lambda: base.view(ml_dtypes.int4),
    }[layout]()
    tree_digest(leaf)
    tracemalloc.start()
    try:
        tree_digest(leaf)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (1 << 16 if layout in ("contiguous", "JAX") else 3 * hashing.BLOCK)


def test_refused_first() -> None:
    """A leaf that is refused is found before any other is read."""
    read = mock.patch.object(hashing, "_leaf_digest", side_effect=AssertionError("read"))
    with read, pytest.raises(LeafError):
        tree_digest({"a": X, "z": 1.0})
