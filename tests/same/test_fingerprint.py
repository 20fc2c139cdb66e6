"""Promises of `reproducibility.same.fingerprint`."""

import functools
import itertools
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from reproducibility import LeafError, fingerprint, fingerprint_text, leaf_fingerprints, root_key
from reproducibility.same.fingerprint import combine
from reproducibility.same.leaves import BITS

Tree = Any
# What a JAX array can be where x64 is off, and what only a NumPy array can be.
ON_DEVICE = [name for name, bits in BITS.items() if bits <= 32 and "float6" not in name]
ON_DEVICE.append("complex64")
ON_HOST = list(BITS)
FLIPS = 400  # random bits a dtype and side, of arrays of this many elements:
SIZE = 67


def text(tree: Tree) -> str:
    """Return a fingerprint to compare."""
    return fingerprint_text(fingerprint(tree))


def sample(name: str) -> np.ndarray:
    """Return an array of random value bits of a dtype; of bools, random values."""
    dtype, bits = np.dtype(name), BITS[name]
    raw = np.random.RandomState(7).bytes(SIZE * dtype.itemsize)
    words = np.frombuffer(raw, np.uint8).copy()
    if bits < 8:
        words &= (1 << bits) - 1
    return words.view(dtype)


def flipped(array: np.ndarray, bits: int, number: int) -> np.ndarray:
    """Return a copy with one value bit flipped."""
    chance = np.random.RandomState(number)
    words = array.copy().view(np.uint8)
    if bits < 8:
        words[chance.randint(len(words))] ^= np.uint8(1 << chance.randint(bits))
    else:
        words[chance.randint(len(words))] ^= np.uint8(1 << chance.randint(8))
    return words.view(array.dtype)


@functools.cache
def program() -> Any:
    """Return the fingerprint, compiled."""
    return jax.jit(fingerprint)


@pytest.mark.parametrize("name", ON_DEVICE)
def test_no_flipped_bit_is_missed_on_the_device(name: str) -> None:
    """Of random bits of any dtype, each changes both words, whatever else the array holds."""
    array = sample(name)
    before = np.asarray(program()(jnp.asarray(array)))
    for number in range(FLIPS):
        after = np.asarray(program()(jnp.asarray(flipped(array, BITS[name], number))))
        assert (before != after).all(), number


@pytest.mark.parametrize("name", ON_HOST)
def test_no_flipped_bit_is_missed_on_the_host(name: str) -> None:
    """The same for NumPy arrays, among them the dtypes that JAX has only with x64."""
    array = sample(name)
    before = np.asarray(fingerprint(array))
    for number in range(20):
        after = np.asarray(fingerprint(flipped(array, BITS[name], number)))
        assert (before != after).all(), number


def test_many_flips_of_floats() -> None:
    """Each of all 32 x 4,096 single bits of an array changes both words."""
    array = jax.random.bits(root_key(7), (4096,))

    @jax.jit
    def changed(bit: jax.Array) -> jax.Array:
        one = array.at[bit // 32].set(array[bit // 32] ^ (jnp.uint32(1) << (bit % 32)))
        floats = [jax.lax.bitcast_convert_type(words, jnp.float32) for words in (array, one)]
        return (fingerprint(floats[0]) != fingerprint(floats[1])).all()

    assert bool(jax.lax.map(changed, jnp.arange(32 * 4096, dtype=jnp.uint32), batch_size=512).all())


@pytest.mark.parametrize("name", ["uint8", "bfloat16"])
def test_no_two_small_arrays_are_alike(name: str) -> None:
    """All 65,536 arrays of two bytes, or of one half, have fingerprints of their own."""
    count = 3 - np.dtype(name).itemsize
    every = np.arange(2**16, dtype=np.uint16).view(name).reshape(-1, count)
    words = np.asarray(jax.jit(jax.vmap(fingerprint))(jnp.asarray(every))).astype(np.uint64)
    assert len(set((words[:, 0] << np.uint64(32) | words[:, 1]).tolist())) == 2**16


def test_what_a_linear_sum_would_miss() -> None:
    """Two flipped signs, and numbers or rows that changed places, are seen in both words."""
    array = np.random.RandomState(7).standard_normal((8, 16)).astype(np.float32)
    array[0, 3], array[5, 3] = 1.25, -1.25

    def words(changed: np.ndarray) -> np.ndarray:
        return np.asarray(leaf_fingerprints({"w": jnp.asarray(changed)})["w"])

    before = words(array)
    for i, j in itertools.combinations(range(8), 2):
        rows, signs, values = array.copy(), array.copy(), array.copy()
        rows[[i, j]] = rows[[j, i]]
        signs[[i, j], 3] *= -1
        values[i, 3], values[j, 3] = values[j, 3], values[i, 3]
        for changed in (rows, signs, values):
            change = words(changed) - before
            assert change.all(), (i, j)  # in both words,
            assert change[0] != change[1]  # which are not one and the same


def test_two_words_of_one_element_are_told_apart() -> None:
    """Real and imaginary part that changed places are seen, also from one element to the next."""
    trees = [jnp.array(values, jnp.complex64) for values in ([1 + 2j, 3], [2 + 1j, 3], [1, 3 + 2j])]
    assert len({text(tree) for tree in [*trees, jnp.array([1 + 3j, 2], jnp.complex64)]}) == 4


def test_names_shapes_and_dtypes_count() -> None:
    """Trees of the same words under other names, shapes or dtypes, or with a part more, differ."""
    zeros = jnp.zeros(4)
    trees = [
        {"a": zeros},
        {"b": zeros},
        [zeros],
        {"a": {"a": zeros}},
        {"a": zeros, "b": zeros},
        {"a": zeros.reshape(2, 2)},
        {"a": zeros.reshape(4, 1)},
        {"a": zeros.astype(jnp.int32)},
        {"a": jnp.zeros(3)},
        {"a": jnp.zeros(0)},
        {},
        {"a": root_key(0)},
        {"a": jax.random.key(0, dtype="rbg")},
        {"a": jax.random.key_data(root_key(0))},
        {"a": jax.random.key(0, dtype="unsafe_rbg")},
        {"a": -zeros},
        {"a": jnp.zeros(())},
    ]
    assert len({text(tree) for tree in trees}) == len(trees)


def test_two_leaves_that_changed_places_are_seen() -> None:
    """The name of a leaf is mixed with its words, so a sum over leaves misses no exchange."""
    a, b = jax.random.normal(root_key(1), (5,)), jax.random.normal(root_key(2), (5,))
    assert text({"x": a, "y": b}) != text({"x": b, "y": a})
    assert text({"x": a, "y": b}) == text({"y": b, "x": a})


@pytest.mark.parametrize("name", ON_DEVICE)
def test_inside_and_outside_of_jit_and_on_the_host(name: str) -> None:
    """Compiled, eager, and of the same NumPy array, it is one and the same."""
    array = sample(name)
    assert (
        text(array) == text(jnp.asarray(array)) == fingerprint_text(program()(jnp.asarray(array)))
    )


def test_by_value_where_memory_holds_more() -> None:
    """Padding bits, byte order and the layout in memory do not count."""
    dirty = np.array([0xF3, 0x05], np.uint8)
    assert text(dirty.view(ml_dtypes.int4)) == text(jnp.array([3, 5], jnp.int4))
    assert text(np.array([2, 0], np.uint8).view(bool)) == text(jnp.array([True, False]))
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert text(array.astype(">f4")) == text(np.asfortranarray(array)) == text(jnp.asarray(array))
    assert text(np.float32(3)) == text(jnp.float32(3))


def test_known_answers() -> None:
    """These may never move: ledgers hold them. (If one must, the format of the ledger changes.)"""
    assert text({}) == "0000000000000000"
    assert text({"w": jnp.arange(5)}) == KNOWN["arange"]
    assert text({"w": jnp.array([0.0, -0.0], jnp.bfloat16), "key": root_key(7)}) == KNOWN["mixed"]


KNOWN = {"arange": "522cfad15a5e8fbe", "mixed": "017a87e88cd973de"}


def test_the_leaf_that_differs_is_found() -> None:
    """Each leaf has a fingerprint under its name, and all together make that of the tree."""
    a = {"w": jnp.zeros(3), "b": [jnp.ones(2)]}
    b = {"w": jnp.zeros(3), "b": [jnp.ones(2).at[1].set(2)]}
    one, other = leaf_fingerprints(a), leaf_fingerprints(b)
    assert list(one) == ["b[0]", "w"]
    assert [name for name in one if (one[name] != other[name]).any()] == ["b[0]"]
    assert fingerprint_text(combine(one)) == text(a)
    assert fingerprint_text(combine(dict(reversed(one.items())))) == text(a)


def by_hand(array: np.ndarray) -> str:
    """Return the fingerprint of a leaf of 32-bit words by the definition: mix, then one sum."""

    def mix(words: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
        a, first, b, second, c = (np.uint32(step) for step in steps)
        words = (words ^ (words >> a)) * first
        words = (words ^ (words >> b)) * second
        return words ^ (words >> c)

    murmur, lowbias = (16, 0x85EBCA6B, 13, 0xC2B2AE35, 16), (16, 0x7FEB352D, 15, 0x846CA68B, 16)
    words = array.reshape(-1).view(np.uint32)
    mixed = words ^ mix(np.arange(len(words), dtype=np.uint32), murmur)
    lanes = mix(mixed, murmur), mix(mixed * np.uint32(0x9E3779B9), lowbias)
    nothing = np.asarray(leaf_fingerprints({"w": np.zeros_like(array)})["w"])
    zeros = mix(np.arange(len(words), dtype=np.uint32), murmur)
    base = mix(zeros, murmur), mix(zeros * np.uint32(0x9E3779B9), lowbias)
    return fingerprint_text(
        nothing + (np.stack(lanes) - np.stack(base)).sum(axis=1, dtype=np.uint32)
    )


SHAPES = [
    (7,),
    (63,),
    (64,),
    (1000,),
    (40_000,),
    (8, 3),
    (13, 5),
    (16, 24),
    (4, 20, 6),
    (3, 2, 5),
    (1, 9),
    (0, 8),
    (9, 0),
    (2, 3, 17, 4),
]


@pytest.mark.parametrize("small", [0, 2**14])
@pytest.mark.parametrize("shape", SHAPES)
def test_however_the_rows_are_added_it_is_one_sum(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], small: int
) -> None:
    """For any shape, with rows left over or none, it is the sum that the definition says.

    So it is however small the arrays are of which rows are added first.
    """
    monkeypatch.setattr(sys.modules["reproducibility.same.fingerprint"], "SMALL", small)
    array = np.random.RandomState(7).standard_normal(shape).astype(np.float32)
    words = leaf_fingerprints({"w": jnp.asarray(array)})["w"]
    assert fingerprint_text(words) == by_hand(array)


SHARDED = """
import sys
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from reproducibility import fingerprint, fingerprint_text, root_key

key = root_key(7)
tree = {"w": jax.random.normal(key, (16, 24)), "b": jnp.arange(8, dtype=jnp.int8),
        "large": jnp.arange(2.0**15).reshape(512, 64), "long": jnp.arange(2.0**18)}
kinds = [AxisType.Auto, AxisType.Explicit]
layouts = [dict(w=("d",), b=("d",), large=("d",), long=("d",)),
           dict(w=(None, "d"), b=(), large=(None, "d"), long=()),
           dict(w=(), b=("d",), large=(), long=("d",))]
found, moved = set(), set()
for count in map(int, sys.argv[1:]):
    for kind in kinds[: 1 + (count == 8)]:
        mesh = jax.make_mesh((count,), ("d",), devices=jax.devices()[:count], axis_types=(kind,))
        for layout in layouts:
            where = {n: NamedSharding(mesh, PartitionSpec(*spec)) for n, spec in layout.items()}
            placed = jax.device_put(tree, where)
            program = jax.jit(fingerprint)
            found.add(fingerprint_text(program(placed)))
            if count == 8:
                text = program.lower({n: placed[n] for n in ("large", "long")}).compile().as_text()
                moved |= {n for n in ("all-gather", "all-to-all", "-permute") if n in text}
print(*found, *moved)
"""


@pytest.mark.nightly
@pytest.mark.parametrize("counts", ["8", pytest.param("1 2 4 8", marks=pytest.mark.long)])
def test_the_same_for_any_sharding(counts: str) -> None:
    """Replicated or sharded by rows or columns, on 1, 2, 4 and 8 devices: one fingerprint.

    And nothing is gathered: devices exchange sums only.
    """
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, *counts.split()],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
    )
    tree = {
        "w": jax.random.normal(root_key(7), (16, 24)),
        "b": jnp.arange(8, dtype=jnp.int8),
        "large": jnp.arange(2.0**15).reshape(512, 64),
        "long": jnp.arange(2.0**18),
    }
    assert done.stdout.split() == [text(tree)]


@pytest.mark.parametrize(("leaf", "got"), [(0.1, "float"), ("x", "str"), (np.array(["x"]), "str")])
def test_what_has_no_bits_is_refused(leaf: object, got: str) -> None:
    """A Python number and text are refused by their name in the tree."""
    with pytest.raises(LeafError, match=rf"Cannot fingerprint the leaf at opt\.rate: .*{got}"):
        fingerprint({"opt": {"rate": leaf}})


def test_floats_of_six_bits_are_read_on_the_host() -> None:
    """No program of JAX reads the bits of its floats of six bits: that is said, with what to do."""
    array = np.arange(4, dtype=np.uint8).view("float6_e2m3fn")
    assert text({"w": array}) != text({"w": flipped(array, 6, 0)})
    for ask in (fingerprint, program()):
        with pytest.raises(LeafError) as caught:
            ask({"w": jnp.asarray(array)})
        assert caught.value.got == "dtype float6_e2m3fn"


def test_it_does_not_change_what_it_looks_at() -> None:
    """A step that also takes fingerprints computes the same bits."""
    x = jax.random.normal(root_key(7), (32, 32))

    def step(w: jax.Array) -> jax.Array:
        return w - 0.1 * jax.grad(lambda w: jnp.tanh(x @ w).sum())(w)

    watched = jax.jit(lambda w: (step(w), fingerprint(step(w))))
    assert text(jax.jit(step)(x)) == text(watched(x)[0]) == fingerprint_text(watched(x)[1])
