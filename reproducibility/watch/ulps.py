"""Two arrays that should be equal: how many of their numbers differ, and how far apart are they?

The rule: bits are compared, where the arrays lie; nothing waits but the thread that writes.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from . import hook
from .late import np
from .mixing import NARROW, folded_sum
from .settings import plain_settings

COMPARED_ON_HOST = 4096  # bytes of an array that is there: a device takes longer to begin


class Apart:
    """What differs between the results of one call; `finish` says it once devices know."""

    count = 1  # line of text

    def __init__(self) -> None:
        self.known: list[tuple[int, int, int]] = []  # result, how many, and by how much
        self.late: list[tuple[list[tuple[int, bool]], Any]] = []  # which, whether replicas; asked
        self.facts: dict[int, tuple[int, str]] = {}  # of each result: its numbers, and their type

    def small(self) -> list[Any]:
        """Wait for the devices; nothing of it is mixed."""
        return []

    def finish(self, sums: Any) -> list[str]:
        """Return what differs, as one word of JSON; why it is not known, if something failed."""
        try:
            return [json.dumps(self._differing(), separators=(",", ":"))]
        except Exception as error:  # where XLA executes later than it is asked, it fails here
            return [json.dumps(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}")]

    def _differing(self) -> list[list[Any]]:
        """Return result, numbers that differ, of how many, by at most what, and their type."""
        firsts: dict[int, list[int]] = {}
        others: dict[int, list[int]] = {}
        found = [(place, False, many, most) for place, many, most in self.known]
        for picks, asked in self.late:
            rows = np.asarray(asked).tolist()
            found += [(*pick, *row) for pick, row in zip(picks, rows)]  # noqa: B905 (Python 3.10)
        for place, replica, many, most in found:
            total = (others if replica else firsts).setdefault(place, [0, 0])
            total[0], total[1] = total[0] + many, max(total[1], most)
        for place, total in others.items():  # of replicas that differ, any tells
            mine = firsts.setdefault(place, [0, 0])
            mine[:] = [max(pair) for pair in zip(mine, total)]  # noqa: B905 (Python 3.10)
        return [
            [place, many, self.facts[place][0], most, self.facts[place][1]]
            for place, (many, most) in sorted(firsts.items())
            if many
        ]


class Comparing:
    """Programs that compare, compiled as needed."""

    def __init__(self) -> None:
        self._programs: dict[Any, Any] = {}

    def begin(self, ones: Sequence[Any], others: Sequence[Any]) -> Apart:
        """Start to compare arrays one by one.

        Raises:
            ValueError: two of them are not of one shape, type and sharding.
        """
        found = Apart()
        groups: dict[Any, list[tuple[int, bool, Any, Any]]] = {}
        for place, (one, other) in enumerate(zip(ones, others)):  # noqa: B905 (Python 3.10)
            if (one.shape, one.dtype, one.sharding) != (other.shape, other.dtype, other.sharding):
                raise ValueError("its results are of another kind the second time")
            found.facts[place] = (int(one.size), one.dtype.name)
            if not one.size:
                continue
            if _is_here(one) and _is_here(other):
                found.known.append((place, *_of_host(one, other)))
                continue
            for a, b in zip(one.addressable_shards, other.addressable_shards):  # noqa: B905
                part = (place, a.replica_id != 0, a.data, b.data)
                groups.setdefault(a.device, []).append(part)
        for device, parts in groups.items():
            arrays = [array for part in parts for array in part[2:]]
            asked = self._program(device, arrays)(*arrays)
            found.late.append(([part[:2] for part in parts], asked))
        return found

    def _program(self, device: Any, arrays: Sequence[Any]) -> Any:
        key = (device, *((each.shape, each.dtype, each.sharding) for each in arrays))
        found = self._programs.get(key)
        if found is None:
            found = self._programs[key] = _comparison_of(arrays)
        return found


def _comparison_of(arrays: Sequence[Any]) -> Any:
    import jax
    import jax.numpy as jnp

    def look(*arrays: Any) -> Any:
        pairs = zip(arrays[::2], arrays[1::2])  # noqa: B905 (Python 3.10)
        return jnp.stack([_apart_on_device(a, b) for a, b in pairs])

    described: Any = jax.ShapeDtypeStruct
    shapes = [described(each.shape, each.dtype, sharding=each.sharding) for each in arrays]
    with plain_settings():
        return hook.direct(jax.jit(look).lower(*shapes).compile())


def _is_here(array: Any) -> bool:
    """Whether Python can read an array without waiting, and knows its type."""
    dtype, devices = array.dtype, array.sharding.device_set
    return (
        array.nbytes <= COMPARED_ON_HOST
        and len(devices) == 1
        and next(iter(devices)).platform == "cpu"
        and dtype.kind in "biufc"
        and dtype.isbuiltin == 1  # not so of float8_e5m2, which says that it is of kind "f"
        and bool(array.is_ready())
    )


def _of_host(one: Any, other: Any) -> tuple[int, int]:
    """Return how many numbers of small arrays of a CPU differ, and by how much at most."""
    pair = [b"".join([each]) for each in (one, other)]
    if pair[0] == pair[1]:
        return 0, 0
    kind = "u1" if one.dtype == bool else f"u{min(one.dtype.itemsize, 8)}"
    if one.dtype.kind == "c":
        kind = f"u{one.dtype.itemsize // 2}"
    shape = (-1, 2) if one.dtype.kind == "c" else (-1,)
    a, b = (np.frombuffer(each, kind).reshape(shape) for each in pair)
    many, most = _apart(np, a, b, one.dtype)
    return int(many), int(most)


def _bits_of_jax(array: Any) -> Any:
    """Return the bits of numbers as integers without a sign; of a complex one, those of both."""
    import jax
    import jax.numpy as jnp

    if array.dtype.kind == "c":
        return jnp.stack([_bits_of_jax(array.real), _bits_of_jax(array.imag)], axis=-1)
    if array.dtype == bool:
        return array.astype(jnp.uint8)
    bits = NARROW.get(array.dtype.name, array.dtype.itemsize * 8)
    if bits < 8 and jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(jnp.uint8) & jnp.uint8((1 << bits) - 1)
    whole = jax.lax.bitcast_convert_type(array, f"uint{bits}")
    return whole.astype(jnp.uint8) if bits < 8 else whole


def _apart_on_device(a: Any, b: Any) -> Any:
    """Return what `_apart` does; how far apart numbers are is computed where any differ."""
    import jax
    import jax.numpy as jnp

    def look(a: Any, b: Any) -> Any:
        found = _apart(jnp, _bits_of_jax(a), _bits_of_jax(b), a.dtype)
        return jnp.stack([each.astype(jnp.uint64) for each in found])

    differing = folded_sum((_bits_of_jax(a) != _bits_of_jax(b)).astype(jnp.uint32))
    return jax.lax.cond(differing != 0, look, lambda *_: jnp.zeros(2, jnp.uint64), a, b)


def _apart(xp: Any, one: Any, other: Any, dtype: Any) -> tuple[Any, Any]:
    """Return how many numbers differ, and by how many steps of their type at most."""
    differ = one != other
    if dtype.kind == "c":
        differ = differ.any(axis=-1)
    places = [_rank(xp, bits, dtype) for bits in (one, other)]
    steps = xp.where(places[0] > places[1], places[0] - places[1], places[1] - places[0])
    return differ.sum(), steps.max()


def _rank(xp: Any, bits: Any, dtype: Any) -> Any:
    """Return which number of its type this is, counted from the least one."""
    name, word = dtype.name, bits.dtype.type
    width = NARROW.get(name, 8 * bits.dtype.itemsize)
    sign = word(1 << (width - 1))
    if name.startswith(("uint", "bool")) or "e8m0" in name:
        return bits
    if name.startswith("int"):
        return bits ^ sign
    whole = word((1 << width) - 1)
    return xp.where((bits & sign) != 0, whole ^ bits, bits | sign)
