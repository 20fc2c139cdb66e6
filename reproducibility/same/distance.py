"""How far two arrays are apart, in the steps between neighbouring numbers.

The rule: count, do not subtract. One unit in the last place (ULP) is the step from one number of a
dtype to the next; so 1 ULP is the least that two numbers can differ by, large or small.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from reproducibility.same.leaves import BITS, is_array, is_key, key_data_or_leaf, value_bits


@dataclasses.dataclass(frozen=True)
class Distance:
    """What `distance` found.

    Same bits: everywhere.
    """

    dtype: str
    """Of both arrays."""
    elements: int
    """How many each has."""
    differing: int
    """How many elements have other bits."""
    ulp: int | None
    """The largest distance of two numbers that differ: in ULP for floats, as such for integers.
    None for bool and keys, and where every difference has to do with NaN."""
    nan: int = 0
    """Elements in which one side has NaN and the other a number."""
    nan_bits: int = 0
    """Elements in which both sides have NaN, with other bits."""

    def __str__(self) -> str:
        """Say it in words."""
        kind = "keys" if self.dtype.startswith("key") else "elements"
        words = [f"{self.differing} of {self.elements} {kind} differ"]
        if self.ulp is not None:
            real = "float" in self.dtype or "complex" in self.dtype
            words.append(f"by up to {self.ulp}{' ULP' if real else ''}")
        if self.nan:
            words.append(f"NaN against a number in {self.nan}")
        if self.nan_bits:
            words.append(f"NaN against NaN with other bits in {self.nan_bits}")
        return ", ".join(words)


def distance(a: Any, b: Any) -> Distance:
    """Say how many elements of two arrays differ, and by how much at most.

    A complex element is as far as the farther of its two parts. -0.0 and 0.0 are 1 ULP apart.

    **Same bits:** everywhere; 0 elements differ exactly if every bit is equal.

    Args:
        a: a JAX or NumPy array or typed keys.
        b: another of the same shape and dtype.

    Returns:
        The distance.

    Raises:
        ValueError: the two are of different shapes or dtypes, or of one that has no digest.

    Examples:
        >>> one = np.float32([1.0, 2.0])
        >>> print(distance(one, np.nextafter(one, np.float32([1.0, 3.0]))))
        1 of 2 elements differ, by up to 1 ULP
    """
    if _dtype_and_shape(a) != _dtype_and_shape(b) or not (
        is_key(a) or _dtype_and_shape(a)[0] in BITS
    ):
        one, other = (
            f"{name}{list(shape)}" for name, shape in (_dtype_and_shape(a), _dtype_and_shape(b))
        )
        raise ValueError(
            f"Cannot compare {one} with {other}: expected arrays of one shape and dtype that has "
            "a digest. Compare what has the same."
        )
    if not a.size:
        return Distance(a.dtype.name, 0, 0, None)
    rows_a, rows_b = _row_per_element(a), _row_per_element(b)
    ranks_a, ranks_b, kind = _ranks(rows_a), _ranks(rows_b), rows_a.dtype.name
    differ = ranks_a != ranks_b
    found = Distance(a.dtype.name, a.size, int(differ.any(axis=1).sum()), None)
    if is_key(a) or kind == "bool" or not differ.any():
        return found
    gaps = (np.maximum(ranks_a, ranks_b) - np.minimum(ranks_a, ranks_b))[differ]
    isnan = np.isnan if "float" in kind else np.zeros_like
    with np.errstate(invalid="ignore"):  # a bfloat16 may signal that it is no number
        nans = isnan(rows_a[differ]).astype(int) + isnan(rows_b[differ]).astype(int)
    return dataclasses.replace(
        found,
        ulp=int(gaps[nans == 0].max()) if (nans == 0).any() else None,
        nan=int((nans == 1).sum()),
        nan_bits=int((nans == 2).sum()),
    )


def _dtype_and_shape(leaf: Any) -> tuple[str, tuple[int, ...]]:
    if is_array(leaf):
        return leaf.dtype.name, leaf.shape
    return type(leaf).__name__, ()


def _row_per_element(leaf: Any) -> Any:
    """Return one row an element: its number, both parts of a complex one, the words of a key."""
    data: Any = jax.device_get(key_data_or_leaf(leaf))
    data = np.ascontiguousarray(data, data.dtype.newbyteorder("="))
    return (data.view(data.real.dtype) if data.dtype.kind == "c" else data).reshape(leaf.size, -1)


def _ranks(array: Any) -> Any:
    """Number the values of a dtype in their order, as uint64: neighbours are 1 apart."""
    kind, bits = array.dtype.name, BITS[array.dtype.name]
    sign, mask = np.uint64(1 << bits - 1), np.uint64((1 << bits) - 1)
    words = value_bits(array.view(f"u{array.dtype.itemsize}"), bits).astype(np.uint64)
    if kind.startswith(("bool", "uint", "float8_e8m0")):  # have no sign
        return words
    # Negative floats are stored by magnitude: the larger word is the smaller number. Some 8-bit
    # types have no -0.0.
    reverse = -words if kind.endswith("fnuz") else ~words
    return np.where("float" in kind and words & sign > 0, reverse & mask, words ^ sign)
