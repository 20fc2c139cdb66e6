"""64 bits of an array: the same wherever it lies, and another for each change."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.experimental.layout import Format, Layout

from reproducibility.same import fingerprint
from reproducibility.watch import hook, mixing, prints


def of_host(array: object) -> str:
    """Return the fingerprint of a NumPy array."""
    ((found,),) = prints.texts([prints.OfHost(array)])
    return found


def of_device(arrays: list[Any]) -> list[str]:
    """Return the fingerprints of JAX arrays."""
    with hook.unseen():
        (found,) = prints.texts([prints.Prints().of(arrays)])
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("name", ["float32", "int8", "bool", "bfloat16", "complex64", "int4"])
def test_fingerprints_on_host_and_device_agree(name: str) -> None:
    """NumPy and a device give the same 64 bits."""
    dtype = getattr(ml_dtypes, name, None) or np.dtype(name)
    array = (np.arange(48).reshape(8, 6) % 7).astype(dtype)
    assert of_device([jnp.asarray(array)]) == [of_host(array)]


KINDS = ("bool", "int8", "uint16", "float16", "float32", "complex64", "bfloat16", "int4")


@pytest.mark.parametrize("order", [KINDS, KINDS[::-1], ("float32", "int32"), *zip(KINDS)])
def test_small_arrays_are_taken_at_once(order: tuple[str, ...]) -> None:
    """What the host reads where it lies has the fingerprint that a device would have computed."""
    arrays = [jnp.arange(1, 7 + i).astype(name) for i, name in enumerate(order)]
    plan = prints.Prints().plan(jax.block_until_ready(arrays))
    both = [plan.take(arrays) for _ in range(2)]
    kind = prints.Pending if {"bfloat16", "int4"} & set(order) else prints.TakenBytes
    assert {type(each) for each in both} == {kind}
    expected = prints.texts([plan.begin(arrays)])
    assert prints.texts([both[0], plan.begin(arrays), both[1]]) == expected * 3
    other = [*arrays[:-1], jnp.zeros_like(arrays[-1])]
    assert prints.texts([plan.take(jax.block_until_ready(other))]) != expected


def test_what_cannot_be_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there yet is not waited for; what lies in another order is not misread."""
    y = jnp.arange(6.0).reshape(2, 3)
    plan = prints.Prints().plan([y])
    expected = prints.texts([plan.begin([y])])
    turned = jax.device_put(y, Format(Layout((1, 0)), y.sharding))
    with pytest.raises(ValueError, match="layout"):
        plan.take([jax.block_until_ready(turned)])
    plan = prints.Prints().plan([y])
    assert isinstance(plan.take([y]), prints.TakenBytes)
    monkeypatch.setattr(plan, "_is_ready", lambda array: False)
    late = plan.take([y])
    assert isinstance(late, prints.Pending)
    assert prints.texts([late]) == expected


def test_bits_that_change_change_the_fingerprint() -> None:
    """A sign, a place, and the last bit are seen; so are two signs that change together."""
    array = np.arange(1, 9, dtype=np.float32)
    others = [array.copy() for _ in range(4)]
    others[0][3] *= -1
    others[1][[0, 1]] = array[[1, 0]]
    others[2][7] = np.nextafter(array[7], np.float32(9))
    others[3][[0, 1]] *= -1
    found = {of_host(each) for each in (array, *others)}
    assert len(found) == 5


@pytest.mark.parametrize("size", [0, 1, 7, 8, 1023, 2**14, 2**14 + 5, 2**20 + 3])
def test_every_size(size: int) -> None:
    """However an array is cut for adding up, the sum is that of NumPy."""
    array = np.arange(size, dtype=np.uint32) * np.uint32(2654435761)
    shapes = [(size,)] + [(8, size // 8), (size // 8, 8)] * (size % 8 == 0 and size > 0)
    found = of_device([jnp.asarray(array.reshape(shape)) for shape in shapes])
    assert set(found) == {of_host(array)}


def test_the_mixing_is_that_of_the_fingerprint() -> None:
    """The numbers stand twice, because this room imports nothing of the package."""
    assert (mixing.FIRST_MIX, mixing.SECOND_MIX, mixing.ODD) == (
        fingerprint.MURMUR,
        fingerprint.LOWBIAS,
        fingerprint.GOLDEN,
    )


def test_small_and_large_arrays_together() -> None:
    """What the host mixes and what a device does come out in the order of the arrays."""
    arrays = [np.arange(size, dtype=np.float32) + size for size in (3, 300, 0, 256, 257, 1)]
    assert of_device([jnp.asarray(each) for each in arrays]) == [of_host(each) for each in arrays]
