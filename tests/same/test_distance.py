"""Promises of `same.distance`: every step from one number to the next counts as one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproducibility import Distance, distance, root_key, tree_digest
from reproducibility.same.leaves import BITS

FLOATS = [name for name in BITS if "float" in name]
INTEGERS = [name for name in BITS if "int" in name]
SMALL = [name for name in FLOATS if BITS[name] <= 16]
ALL = [name for name in BITS if "complex" not in name]


def words(dtype: str, *values: int) -> np.ndarray:
    """Make an array of a dtype from the words that its elements are stored in."""
    size = np.dtype(dtype).itemsize
    return np.array(values, f"u{size}").view(dtype)


def known(a: Any, b: Any, *expected: Any) -> None:
    """Compare in both directions with differing, ulp, nan and nan_bits."""
    found = distance(a, b)
    assert found == distance(b, a)
    assert (found.differing, found.ulp, found.nan, found.nan_bits) == expected
    assert found.dtype == a.dtype.name
    assert found.elements == a.size


@pytest.mark.parametrize("dtype", SMALL)
def test_every_neighbour_of_every_small_float(dtype: str) -> None:
    """In order of their values, all numbers of a dtype are 1 ULP apart, and add up from end to end.

    The order is that of the values as float64; -0.0 stands right before 0.0.
    """
    values = words(dtype, *range(1 << BITS[dtype]))
    with np.errstate(invalid="ignore"):  # of a signalling NaN
        wide = values.astype(np.float64)
    values, wide = values[~np.isnan(wide)], wide[~np.isnan(wide)]
    values = values[np.lexsort((~np.signbit(wide), wide))]
    for one, other in zip(values[:-1][:300], values[1:][:300], strict=True):
        assert distance(one, other) == Distance(dtype, 1, 1, 1)
    assert distance(values[:-1], values[1:]) == Distance(dtype, len(values) - 1, len(values) - 1, 1)
    assert distance(values[0], values[-1]).ulp == len(values) - 1
    for zero in np.flatnonzero(values == 0):
        assert distance(values[zero], values[-1]).ulp == len(values) - 1 - zero


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_floats(dtype: str) -> None:
    """Where nextafter goes is 1 ULP away, up and down, at every magnitude and across zero."""
    kind = np.dtype(dtype).type
    info = np.finfo(kind)
    ends = [0.0, info.smallest_subnormal, info.tiny, 1, 2, 1e10, info.max]
    values = np.array([*ends, *(-x for x in ends)], kind)
    for toward in (kind(np.inf), kind(-np.inf)):
        with np.errstate(all="ignore"):
            after = np.nextafter(values, toward)
        known(values, after, len(values), 2, 0, 0)  # from -0.0 to the other side, past 0.0
        away = values != 0
        known(values[away], after[away], away.sum(), 1, 0, 0)
    word = {name: int(kind(name).view(f"u{BITS[dtype] // 8}")) for name in ("1", "inf")}
    known(words(dtype, word["1"]), words(dtype, word["1"] + 12345), 1, 12345, 0, 0)
    known(kind(-1), kind(1), 1, 2 * word["1"] + 1, 0, 0)
    known(kind(-np.inf), kind(np.inf), 1, 2 * word["inf"] + 1, 0, 0)


NANS = {
    "bfloat16": (0x7FC0, 0xFF81),
    "float16": (0x7E00, 0xFC01),
    "float32": (0x7FC00000, 0xFF800001),
    "float64": (0x7FF8 << 48, (0xFFF0 << 48) + 1),
    "float8_e3m4": (0x7C, 0xFF),
    "float8_e4m3": (0x7C, 0xFF),
    "float8_e4m3fn": (0x7F, 0xFF),
    "float8_e4m3fnuz": (0x80,),
    "float8_e4m3b11fnuz": (0x80,),
    "float8_e5m2": (0x7E, 0xFF),
    "float8_e5m2fnuz": (0x80,),
    "float8_e8m0fnu": (0xFF,),
}


@pytest.mark.parametrize("dtype", NANS)
def test_nan_is_told_in_words(dtype: str) -> None:
    """NaN against a number has no distance; against other bits of NaN neither; both are counted."""
    nan, *other = NANS[dtype]
    known(words(dtype, nan), words(dtype, 3), 1, None, 1, 0)
    known(words(dtype, nan, 3), words(dtype, 4, nan), 2, None, 2, 0)
    known(words(dtype, nan), words(dtype, nan), 0, None, 0, 0)
    known(words(dtype, nan, 3), words(dtype, 4, 5), 2, 2, 1, 0)
    for also in other:
        known(words(dtype, nan), words(dtype, also), 1, None, 0, 1)
        known(words(dtype, nan, 3, 7), words(dtype, also, 5, also), 3, 2, 1, 1)


def test_which_floats_have_a_nan() -> None:
    """The list above is complete: the other types have no NaN."""
    without = {"float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"}
    assert set(FLOATS) == NANS.keys() | without
    for name in without:
        assert not np.isnan(words(name, *range(1 << BITS[name])).astype(np.float64)).any()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(dtype: str) -> None:
    """Of integers it is the largest difference, in full, whatever stands above their bits."""
    bits, signed = BITS[dtype], dtype.startswith("int")
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    wide = "int64" if signed else "uint64"
    ends = np.array([low, high, low, 1], wide).astype(dtype)
    other = ends[[1, 0, 0, 3]]
    known(ends, other, 2, (1 << bits) - 1, 0, 0)
    known(ends[[3]], ends[[0]], 1, 1 - low, 0, 0)
    if bits < 8:
        known(words(dtype, 1), words(dtype, 1 | 0xFF << bits & 0xFF), 0, None, 0, 0)


def test_truth_values() -> None:
    """Truth values differ or do not; any byte but 0 is true."""
    a, b = np.array([True, False, True]), np.array([True, True, False])
    known(a, b, 2, None, 0, 0)
    known(words("bool", 1, 0), words("bool", 2, 0), 0, None, 0, 0)
    assert tree_digest(words("bool", 1, 0)) == tree_digest(words("bool", 2, 0))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers(dtype: str) -> None:
    """An element is as far as the farther of its parts; NaN counts by part, elements by element."""
    kind = np.dtype(dtype).type(0).real.dtype.type
    up = kind(np.nextafter(kind(1), kind(2)))
    far = kind(np.nextafter(up, kind(2)))
    a = np.array([1 + 1j, 1 + 1j, 1 + 1j], dtype)
    b = np.array([1 + 1j, complex(up, far), complex(1, up)], dtype)
    known(a, b, 2, 2, 0, 0)
    known(a[0], np.array(complex(np.nan, up), dtype), 1, 1, 1, 0)


def test_keys(key: jax.Array) -> None:
    """Keys differ or do not; one key is one element, whatever it is made of."""
    a, b = jax.random.split(key, 4), jax.random.split(root_key(1), 4)
    known(a, b, 4, None, 0, 0)
    known(a, jnp.concatenate([a[:3], b[:1]]), 1, None, 0, 0)
    known(a, a, 0, None, 0, 0)
    with pytest.raises(ValueError, match=r"Cannot compare key<fry>\[4\] with key<rbg>\[4\]"):
        distance(a, jax.random.split(jax.random.key(0, impl="rbg"), 4))


@pytest.mark.parametrize("dtype", ALL)
def test_it_agrees_with_the_digest(dtype: str) -> None:
    """No element differs exactly if the digests are equal: one flipped bit is one element."""
    chance = np.random.RandomState(7)
    bits, size = BITS[dtype], np.dtype(dtype).itemsize
    stored = chance.randint(0, 256, (11, size)).astype(np.uint8)
    if bits < 8:
        stored &= (1 << bits) - 1
    array = stored.reshape(-1).view(dtype)
    for bit in range(bits):
        other = stored.copy()
        other[5, bit // 8] ^= 1 << bit % 8
        other = other.reshape(-1).view(dtype)
        assert distance(array, other).differing == 1
        assert tree_digest(array) != tree_digest(other)
    found = distance(array, array.copy())
    assert found == Distance(dtype, 11, 0, None)


finite = st.floats(width=32, allow_nan=False)


@given(finite, finite, finite)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_it_is_a_distance(a: float, b: float, c: float) -> None:
    """0 exactly for equal bits, the same in both directions, and additive along the line."""
    order = sorted((a, b, c), key=lambda value: (value, np.copysign(1, value)))
    x, y, z = map(np.float32, order)
    one, two, both = (distance(p, q).ulp or 0 for p, q in ((x, y), (y, z), (x, z)))
    assert one + two == both
    assert (one == 0) == (x.tobytes() == y.tobytes())
    assert distance(y, x).ulp == distance(x, y).ulp


def test_where_an_array_lives_does_not_count() -> None:
    """JAX and NumPy arrays, of either byte order and any layout, have one distance."""
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    b = np.nextafter(a, np.float32(9))
    expected = Distance("float32", 6, 6, 1)
    assert distance(a, b) == expected
    assert distance(jnp.asarray(a), b) == expected
    assert distance(a.astype(">f4"), jnp.asarray(b)) == expected
    assert distance(np.asfortranarray(a), b) == expected
    assert distance(a.T, b.T) == expected
    assert distance(a[0, 1], b[0, 1]) == Distance("float32", 1, 1, 1)


def test_empty_arrays() -> None:
    """Arrays without elements differ in none."""
    assert distance(np.zeros((0, 3)), np.zeros((0, 3))) == Distance("float64", 0, 0, None)
    assert distance(jnp.zeros(0), jnp.zeros(0)) == Distance("float32", 0, 0, None)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (np.zeros(3), np.zeros(4), r"float64\[3\] with float64\[4\]: expected arrays of one shape"),
        (np.zeros((1, 3)), np.zeros(3), r"float64\[1, 3\] with float64\[3\]"),
        (np.zeros(3), np.zeros(3, np.float32), r"float64\[3\] with float32\[3\]"),
        (np.array(["a"]), np.array(["a"]), r"str32\[1\] with str32\[1\]"),
        (np.zeros(1, object), np.zeros(1, object), r"object\[1\] with object\[1\]"),
        (1.0, 1.0, r"float\[\] with float\[\]: expected arrays .* dtype that has a digest"),
        (np.float32(1), 1.0, r"float32\[\] with float\[\]"),
        (None, None, r"NoneType\[\] with NoneType\[\]"),
    ],
)
def test_what_has_no_distance(a: Any, b: Any, said: str) -> None:
    """Other shapes and dtypes, and what has no digest, are refused by what they are."""
    with pytest.raises(ValueError, match=f"^Cannot compare {said}"):
        distance(a, b)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Distance("float32", 6, 2, 3), "2 of 6 elements differ, by up to 3 ULP"),
        (Distance("complex64", 6, 2, 3), "2 of 6 elements differ, by up to 3 ULP"),
        (Distance("int32", 6, 2, 3), "2 of 6 elements differ, by up to 3"),
        (Distance("bool", 6, 2, None), "2 of 6 elements differ"),
        (Distance("key<fry>", 6, 2, None), "2 of 6 keys differ"),
        (
            Distance("bfloat16", 6, 6, 3, 2, 1),
            "6 of 6 elements differ, by up to 3 ULP, NaN against a number in 2, "
            "NaN against NaN with other bits in 1",
        ),
    ],
)
def test_in_words(found: Distance, said: str) -> None:
    """A distance says what it is in one line."""
    assert str(found) == said
