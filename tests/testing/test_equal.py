"""Two trees: what passes, what fails, and what the failure says."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproducibility import (
    LeafError,
    tree_digest,
)
from reproducibility.testing import (
    assert_bitwise_equal,
)
from tests.failing import KEYS, X, failure

properties = settings(derandomize=True, deadline=None, max_examples=100)


def words(dtype: str, *values: int) -> np.ndarray:
    """Return elements of a dtype, given by their bits."""
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    return np.array(values, f"u{kind.itemsize}").view(kind)


OTHER_KEYS = jax.random.wrap_key_data(
    np.array([[0, 1], [2, 9], [4, 5], [8, 8]], np.uint32), impl="threefry2x32"
)
FOUR_WORDS = jax.random.wrap_key_data(np.zeros((4, 4), np.uint32), impl="threefry4x32")


class Pair(NamedTuple):
    """A container with attributes."""

    left: Any
    right: Any


def test_equal_trees_pass() -> None:
    """Equal bits pass, whether in NumPy or JAX, a list or a tuple, a NaN or a key."""
    a = {"x": X, "n": words("float32", 0x7FC00001), "k": [KEYS], "none": None, "i4": jnp.int4(3)}
    b = {"x": jnp.array(X), "n": words("float32", 0x7FC00001), "k": (KEYS,), "i4": jnp.int4(3)}
    assert_bitwise_equal(a, b)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (X, X.T, "leaf .: float32[2,3] against float32[3,2]."),
        (X, X.astype(np.float64), "leaf .: float32[2,3] against float64[2,3]."),
        ({"w": X}, {"v": X}, "leaf v: nothing against float32[2,3]; 1 other leaf differs."),
        ({"v": X}, {"w": X}, "leaf v: float32[2,3] against nothing; 1 other leaf differs."),
        ([X, X], [X], "leaf [1]: float32[2,3] against nothing."),
        (KEYS, FOUR_WORDS, "leaf .: key<fry>[4] against key<fry4>[4]."),
        (KEYS, jax.random.key_data(KEYS), "leaf .: key<fry>[4] against uint32[4,2]."),
        (KEYS, OTHER_KEYS, "leaf .: 2 of 4 keys differ."),
        (Pair(X, X), Pair(X, -X), "leaf right: 6 of 6 elements differ, by up to 2168455169 ULP."),
        (
            {"c": X, "a": [X, X], "b": X},
            {"c": -X, "a": [X, X + 1], "b": X + 1},
            "leaf a[1]: 6 of 6 elements differ, by up to 1065353216 ULP; 2 other leaves differ.",
        ),
    ],
)
def test_first_difference_is_named(a: Any, b: Any, said: str) -> None:
    """The first leaf in the order of paths is named, with what differs, and the others counted."""
    assert failure(assert_bitwise_equal, a, b) == f"Not the same bits: {said}"


def test_order_of_paths() -> None:
    """Leaves that one side lacks stand in the same order as the others."""
    said = failure(assert_bitwise_equal, {"b": X, "c": -X}, {"a": X, "b": X, "c": X})
    assert "leaf a: nothing against float32[2,3]; 1 other" in said


ONE = {"float64": 0x3FF0000000000000, "float32": 0x3F800000, "float16": 0x3C00, "bfloat16": 0x3F80}


@pytest.mark.parametrize("dtype", ONE)
@pytest.mark.parametrize("gap", [1, 7, 300])
def test_ulp_known_answers(dtype: str, gap: int) -> None:
    """The distance in ULP is the number of floats from one to the other; the largest is told."""
    one, sign = ONE[dtype], 1 << (8 * words(dtype, 0).itemsize - 1)
    a = words(dtype, one, one, sign + one, one)
    b = words(dtype, one, one + gap, sign + one + gap - 1, one)
    elements = 1 if gap == 1 else 2
    assert f"{elements} of 4 elements differ, by up to {gap} ULP." in failure(
        assert_bitwise_equal, a, b
    )


@given(
    st.lists(st.tuples(*[st.floats(width=32, allow_nan=False)] * 2), min_size=1, max_size=5),
)
@properties
def test_ulp_against_the_bits(pairs: list[tuple[float, float]]) -> None:
    """Of float32, the count and the distance are those of the bits, signs and infinities too."""

    def place(x: float) -> int:  # -0.0 has the place below 0.0
        [bits] = struct.unpack("<i", struct.pack("<f", x))
        return bits if bits >= 0 else -(bits & 0x7FFFFFFF) - 1

    a, b = (np.array(side, np.float32) for side in zip(*pairs, strict=True))
    gaps = [abs(place(x) - place(y)) for x, y in pairs]
    if tree_digest(a) == tree_digest(b):
        assert_bitwise_equal(a, b)
        assert max(gaps) == 0
    else:
        said = failure(assert_bitwise_equal, a, b)
        count = sum(map(bool, gaps))
        assert f"{count} of {len(pairs)} elements differ, by up to {max(gaps)} ULP." in said


EIGHT_BITS = ["e3m4", "e4m3", "e4m3fn", "e4m3fnuz", "e4m3b11fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"]


@pytest.mark.parametrize("kind", EIGHT_BITS)
def test_float8_neighbours(kind: str) -> None:
    """In every float8 type each value is 1 ULP from the next one, across zero as well."""
    values = words(f"float8_{kind}", *range(256))
    values = values[~np.isnan(values)]
    values = values[np.lexsort((~np.signbit(values.astype(np.float32)), values.astype(np.float32)))]
    said = failure(assert_bitwise_equal, values[:-1], values[1:])
    assert f"{len(values) - 1} of {len(values) - 1} elements differ, by up to 1 ULP." in said


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (np.float32(0), np.float32(-0.0), "1 of 1 elements differ, by up to 1 ULP."),
        (words("float32", 0x7FC00000), np.float32([1]), "differ, NaN against a number in 1."),
        (
            words("bfloat16", 0x7FC0, 0x7FC0, 0x3F80, 0x3F80),
            words("bfloat16", 0x7FC1, 0x3F80, 0xFFC0, 0x3F81),
            "4 of 4 elements differ, by up to 1 ULP, NaN against a number in 2, "
            "NaN against NaN with other bits in 1.",
        ),
        (
            words("float64", 0x7FF0000000000000),
            words("float64", 0xFFF0000000000000),
            "by up to 18437736874454810625 ULP.",
        ),
        (
            np.complex64([1 + 1j, 2]),
            np.complex64([1 + np.nextafter(np.float32(1), np.float32(2)) * 1j, 2]),
            "1 of 2 elements differ, by up to 1 ULP.",
        ),
        (
            np.complex64([complex(1, np.nan), 2]),
            np.complex64([complex(-1, 3), 2]),
            "1 of 2 elements differ, by up to 2130706433 ULP, NaN against a number in 1.",
        ),
        (np.array([1.0], ">f4"), np.float32([1.0000001]), "by up to 1 ULP."),
    ],
)
def test_special_floats(a: Any, b: Any, said: str) -> None:
    """Zeros of both signs are neighbours; NaN is told in words; parts of a complex count alone."""
    assert failure(assert_bitwise_equal, a, b).endswith(said)


ends = "elements differ, by up to"


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (np.int64([-(2**63), 5]), np.int64([2**63 - 1, 5]), f"1 of 2 {ends} {2**64 - 1}."),
        (np.uint64([0]), np.uint64([2**64 - 1]), f"by up to {2**64 - 1}."),
        (np.int8([-128, 3, 0]), np.int8([-120, 1, 0]), f"2 of 3 {ends} 8."),
        (jnp.array([-8, 1], jnp.int4), jnp.array([7, 1], jnp.int4), f"1 of 2 {ends} 15."),
        (words("int4", 0xF3, 0x01), words("int4", 0x03, 0x02), f"1 of 2 {ends} 1."),  # low bits
        (np.uint8(200), np.uint8(100), "by up to 100."),
        (np.array([True, False]), np.array([False, False]), "1 of 2 elements differ."),
    ],
)
def test_integers(a: Any, b: Any, said: str) -> None:
    """Of integers the largest difference is told, in full; of truth values only how many."""
    assert failure(assert_bitwise_equal, a, b).endswith(said)


def test_no_digest_no_verdict() -> None:
    """What has no digest is refused by name, equal or not."""
    with pytest.raises(LeafError, match=r"at step"):
        assert_bitwise_equal({"step": 3}, {"step": 3})
