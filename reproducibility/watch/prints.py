"""The fingerprints of arrays: programs for those on a device, NumPy for what is small.

The rule: an array is looked at where it lies; nothing waits for a device but the thread that
writes, and no process for another.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import hook
from .late import np
from .mixing import (
    NARROW,
    hexadecimal,
    mixed_places_of,
    of_shard,
    strides_of,
    sums_of_host,
    sums_of_rows,
    words_of_jax,
    words_of_numpy,
)
from .settings import plain_settings
from .source import is_of_a_signal

FOR_THE_HOST = 256  # words of an array that are mixed on the host: a device takes longer to begin
MIXED_AT_ONCE = 1 << 17  # words of small arrays that the host mixes in one go


def on_device(array: Any) -> Any:
    """Return a copy of a NumPy array on the first device, whatever the settings."""
    import jax

    with plain_settings():
        copy: Any = jax.device_put(array, jax.local_devices()[0], may_alias=False)
        return copy.block_until_ready()  # before NumPy changes the array


class OfHost:
    """A NumPy array as it is now; `texts` mixes it."""

    __slots__ = ("_bytes", "_dtype")

    def __init__(self, array: Any) -> None:
        self._dtype = array.dtype
        if self._dtype.kind in "OSU" or self._dtype.names:
            raise TypeError(f"an array of dtype {self._dtype} has no fingerprint")
        self._bytes = array.tobytes()

    def small(self) -> list[tuple[Any, list[int]]]:
        """Return words that are mixed on the host, and how many of them are one array's."""
        planes = words_of_numpy(np.frombuffer(self._bytes, self._dtype))
        words = planes[0] if len(planes) == 1 else np.stack(planes, axis=-1).reshape(-1)
        return [(words, [words.size])]

    def finish(self, sums: Any) -> list[str]:
        """Turn sums into fingerprints."""
        return hexadecimal(sums)


class OfHosts:
    """Arrays of a CPU that are there, copied while a program waits: no device is asked."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._arrays = [OfHost(np.asarray(each)) for each in arrays]
        self.count = len(arrays)

    def small(self) -> list[tuple[Any, list[int]]]:
        """Return words that are mixed on the host, and how many of them are one array's."""
        return [part for each in self._arrays for part in each.small()]

    def finish(self, sums: Any) -> list[str]:
        """Turn sums into fingerprints."""
        return hexadecimal(sums)


def are_here(arrays: Sequence[Any]) -> bool:
    """Whether arrays can be read without waiting.

    Raises:
        TypeError: they do not lie on a CPU, so that to look at them may wait for what waits.
    """
    devices = {device for each in arrays for device in each.sharding.device_set}
    if any(device.platform != "cpu" for device in devices):
        raise TypeError("an array of a callback lies on another device than a CPU")
    return all(each.is_fully_addressable and each.is_ready() for each in arrays)


class Pending:
    """Fingerprints that devices compute; `texts` waits for them."""

    __slots__ = ("_found", "_plan", "unlike")

    def __init__(self, plan: Looking, found: list[Any]) -> None:
        self._plan, self._found = plan, found
        self.unlike = False  # whether replicas of an array differ, once `texts` has returned

    @property
    def count(self) -> int:
        """Of how many arrays."""
        return self._plan.count

    def small(self) -> list[tuple[Any, list[int]]]:
        """Wait; return words that are mixed on the host, and how many of them are one array's."""
        self._found = [[np.asarray(each) for each in found] for found in self._found]
        return [
            (found[0], group.sizes)
            for group, found in zip(self._plan.groups, self._found)  # noqa: B905 (Python 3.10)
            if group.sizes
        ]

    def finish(self, sums: Any) -> list[str]:
        """Turn sums of what was mixed on the host, and those of devices, into fingerprints."""
        plan, begin = self._plan, 0
        if plan.is_simple:
            return hexadecimal(sums)
        rows = np.zeros((len(plan.rows), 2), np.uint32)
        for group, found in zip(plan.groups, self._found):  # noqa: B905 (Python 3.10)
            rows[group.small] = sums[begin : begin + len(group.small)]
            begin += len(group.small)
            if group.large:
                rows[group.large] = found[-1]
        totals = np.zeros((plan.count, 2), np.uint32)
        for row, (number, first) in zip(rows, plan.rows):  # noqa: B905 (Python 3.10)
            if first is None:
                totals[number] += row
            elif (row != rows[first]).any():
                self.unlike = True
        return hexadecimal(totals)


class TakenBytes:
    """The bytes of small arrays that were there already; `texts` mixes them."""

    __slots__ = ("bytes", "plan")

    def __init__(self, plan: Looking, taken: bytes) -> None:
        self.plan, self.bytes = plan, taken


def texts(pending: Sequence[Pending | OfHost | TakenBytes]) -> list[list[str] | Exception]:
    """Return the fingerprints of each, or why there are none; small arrays are mixed together."""
    found: list[Any] = [None] * len(pending)
    taken: dict[Looking, list[int]] = {}
    others = []
    for number, each in enumerate(pending):
        if type(each) is TakenBytes:
            taken.setdefault(each.plan, []).append(number)
        else:
            others.append(number)
    for plan, numbers in taken.items():
        together: list[Any] = [pending[number] for number in numbers]
        for number, answer in zip(numbers, plan.texts(together)):  # noqa: B905 (Python 3.10)
            found[number] = answer
    late: list[Any] = [pending[number] for number in others]
    for number, text in zip(others, _texts_of_others(late)):  # noqa: B905 (Python 3.10)
        found[number] = text
    return found


def _texts_of_others(pending: Sequence[Pending | OfHost]) -> list[list[str] | Exception]:
    found: list[list[str] | Exception] = []
    if not pending:  # the script may not have imported NumPy yet
        return found
    words: list[list[tuple[Any, list[int]]]] = []
    many = 0
    for each in pending:
        try:
            small = each.small()
        except Exception as error:  # a call that fails where its results are used first
            words.append([])
            found.append(error)
            continue
        many += sum(part.size for part, _ in small)
        words.append(small)
        found.append([])
        if many > MIXED_AT_ONCE:
            _mix_together(pending, words, found)
            many, words = 0, []
    _mix_together(pending, words, found)
    return found


def _mix_together(pending: Sequence[Any], words: list[Any], found: list[Any]) -> None:
    """Mix what was collected of the last `len(words)`."""
    sizes = [size for small in words for _, sizes in small for size in sizes]
    sums = sums_of_host([part for small in words for part, _ in small], sizes)
    begin, first = 0, len(found) - len(words)
    for number, small in enumerate(words, first):
        if isinstance(found[number], Exception):
            continue
        end = begin + sum(len(sizes) for _, sizes in small)
        found[number] = pending[number].finish(sums[begin:end])
        begin = end


class _Group:
    """What one device does of a plan."""

    def __init__(self) -> None:
        self.picks: list[tuple[int, int | None]] = []  # array, and which of its shards
        self.keys: list[Any] = []  # data, place of its first element, and how far neighbours are
        self.small: list[int] = []  # rows of the plan
        self.sizes: list[int] = []  # their words
        self.large: list[int] = []
        self.call: Any = None

    def look(self, arrays: Sequence[Any]) -> Any:
        """Start the device's program, which is compiled when it is first needed."""
        if self.call is None:
            order = {row: i for i, row in enumerate(sorted([*self.small, *self.large]))}
            self.call = _compiled(self.keys, {order[row] for row in self.small})
        return self.call(*arrays)


class Looking:
    """How arrays of certain shapes are looked at, where they lie.

    Of an array on several devices each part that this process holds is looked at where it is, and
    the words are added on the host: no device waits for another, and no process. What several
    devices hold a replica of counts once; the other replicas are compared with the first one.
    """

    def __init__(self, arrays: Sequence[Any]) -> None:
        self.count = len(arrays)
        self.rows: list[tuple[int, int | None]] = []  # array, and the row of which it is a replica
        groups: dict[Any, _Group] = {}
        for number, array in enumerate(arrays):
            firsts: dict[int, int] = {}
            for shard, device, data, start, steps in _shards(array):
                first = firsts.setdefault(start, len(self.rows))
                replica = first != len(self.rows)
                group = groups.setdefault(device, _Group())
                words = data.size * max(1, data.dtype.itemsize // 4)
                if shard is None and 0 < words <= FOR_THE_HOST:
                    group.small.append(len(self.rows))
                    group.sizes.append(words)
                else:
                    group.large.append(len(self.rows))
                self.rows.append((number, first if replica else None))
                group.picks.append((number, shard))
                group.keys.append((_shape_of(data, device), start, steps))
        self.groups = list(groups.values())
        whole = [(number, None) for number in range(self.count)]
        self._all_at_once = len(groups) == 1 and self.groups[0].picks == whole
        self.is_simple = self._all_at_once and not self.groups[0].large
        self._dtypes = [each.dtype for each in arrays]
        self._is_ready: Any = type(arrays[0]).is_ready
        self._can_be_taken = self.is_simple and all(map(_can_be_read, arrays))
        self._places: Any = None

    def take(self, arrays: Sequence[Any]) -> Pending | TakenBytes:
        """Do what `begin` does; of arrays that nobody else has yet, and that are there, at once."""
        if self._can_be_taken:
            try:
                if all(map(self._is_ready, arrays)):
                    return TakenBytes(self, b"".join(arrays))
            except Exception as error:  # they lie in another order, or what made them has failed
                if is_of_a_signal(error):
                    raise
                self._can_be_taken = False
        return self.begin(arrays)

    def texts(self, taken: Sequence[TakenBytes]) -> list[list[str]]:
        """Return the fingerprints of each."""
        if self._places is None:
            self._places = mixed_places_of(self.groups[0].sizes)
        rows = np.frombuffer(b"".join([each.bytes for each in taken]), np.uint8)
        words = self._words(rows.reshape(len(taken), -1))
        found = hexadecimal(sums_of_rows(words, *self._places))
        return [found[i : i + self.count] for i in range(0, len(found), self.count)]

    def _words(self, rows: Any) -> Any:
        """Return the words of arrays whose bytes follow each other in each row."""
        if all(dtype.itemsize >= 4 for dtype in self._dtypes):
            return rows.view("<u4")
        columns, begin = [], 0
        for dtype, words in zip(self._dtypes, self.groups[0].sizes):  # noqa: B905 (Python 3.10)
            end = begin + words * min(dtype.itemsize, 4)
            column = np.ascontiguousarray(rows[:, begin:end])
            column = (
                column != 0 if dtype.kind == "b" else column.view(f"<u{min(dtype.itemsize, 4)}")
            )
            columns.append(column.astype(np.uint32))
            begin = end
        return np.concatenate(columns, axis=1)

    def begin(self, arrays: Sequence[Any]) -> Pending:
        """Start to compute the fingerprints of such arrays."""
        if self._all_at_once:
            return Pending(self, [self.groups[0].look(arrays)])
        shards: dict[int, Any] = {}
        found = []
        for group in self.groups:
            data = []
            for number, shard in group.picks:
                if shard is None:
                    data.append(arrays[number])
                    continue
                if number not in shards:
                    shards[number] = arrays[number].addressable_shards
                data.append(shards[number][shard].data)
            found.append(group.look(data))
        return Pending(self, found)


class Prints:
    """Programs that compute the fingerprints of several arrays at once, compiled as needed."""

    def __init__(self) -> None:
        self._plans: dict[Any, Looking] = {}

    def of(self, arrays: Sequence[Any]) -> Pending:
        """Start to compute the fingerprints of JAX arrays."""
        return self.plan(arrays).begin(arrays)

    def plan(self, arrays: Sequence[Any]) -> Looking:
        """Return how such arrays are looked at."""
        key = tuple([(array.shape, array.dtype, array.sharding) for array in arrays])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = Looking(arrays)
        return plan


def _can_be_read(array: Any) -> bool:
    """Whether Python may read an array where it lies, and knows its type."""
    (device,) = array.sharding.device_set
    return (
        device.platform == "cpu" and array.dtype.kind in "biufc" and array.dtype.name not in NARROW
    )


def _compiled(keys: Sequence[Any], small: set[int]) -> Any:
    """Compile the program for arrays of these shapes; nothing but them is an argument.

    It returns the words of the small ones, and the sums of the others.
    """
    import jax
    import jax.numpy as jnp

    def look(*arrays: Any) -> Any:
        words, sums = [], []
        for number, (array, (start, steps)) in enumerate(
            zip(arrays, places)  # noqa: B905 (Python 3.10)
        ):
            if number in small:
                planes = words_of_jax(array)
                plane = planes[0] if len(planes) == 1 else jnp.stack(planes, axis=-1)
                words.append(plane.reshape(-1))
            else:
                apart = [jnp.uint32(step) for step in steps]
                sums.append(of_shard(array, jnp.uint32(start % 2**32), apart))
        joined = [jnp.concatenate(words)] if words else []
        return [*joined, jnp.stack(sums)] if sums else joined

    places = [(start, steps) for _, start, steps in keys]
    with plain_settings():
        return hook.direct(jax.jit(look).lower(*(shape for shape, _, _ in keys)).compile())


def _shape_of(data: Any, device: Any) -> Any:
    """Return what a program is compiled for: shape and type, on the device and in its memory."""
    import jax

    described: Any = jax.ShapeDtypeStruct
    return described(data.shape, data.dtype, sharding=_whole_on(device, data))


def _whole_on(device: Any, data: Any) -> Any:
    import jax

    kind = getattr(data.sharding, "memory_kind", None)
    return jax.sharding.SingleDeviceSharding(device, memory_kind=kind)


def _shards(array: Any) -> list[tuple[int | None, Any, Any, int, tuple[int, ...]]]:
    """Return what this process holds of an array, part by part.

    That is the part's number if it is not the whole, its device, its data, the place of its first
    element, and how far apart neighbours are along each axis.
    """
    devices, strides = array.sharding.device_set, strides_of(array.shape)
    if len(devices) == 1 and array.is_fully_addressable:
        (device,) = devices
        if _whole_on(device, array).is_equivalent_to(array.sharding, array.ndim):  # not of `pmap`
            return [(None, device, array, 0, strides)]
    found: list[tuple[int | None, Any, Any, int, tuple[int, ...]]] = []
    for number, shard in enumerate(array.addressable_shards):
        axes = list(zip(shard.index, strides))  # noqa: B905 (Python 3.10)
        cut = [(part if isinstance(part, int) else part.start or 0, step) for part, step in axes]
        place = sum(begin * step for begin, step in cut)
        steps = tuple(step for part, step in axes if not isinstance(part, int))
        found.append((number, shard.device, shard.data, place, steps))
    return found
