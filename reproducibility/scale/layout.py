"""The devices of a run: which shards each owns, and how arrays lie on all of them.

The rule: nothing is computed in another way because there are more devices. Whatever is computed on
each is a program of one device.
Chapter: docs/scale/scaling_out.md

Cutting one program over the devices instead (what `jit` does with a sharded batch) compiles another
program for each number of devices, and its sums have another order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, PyTree

from reproducibility.errors import ConfigError, NotReproducedError, first_line
from reproducibility.same.fingerprint import fingerprint, fingerprint_text
from reproducibility.scale.agree import assert_same_facts
from reproducibility.scale.sum import (
    AXIS,
    Parts,
    Rows,
    mean_between_devices,
    mean_of_rows,
    mean_on_one_device,
    partition,
    sum_on_a_device,
    sum_rows_on_a_device,
)

_fingerprint = jax.jit(fingerprint)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The devices of a run, of all its processes, in the order in which they own the shards.

    A tree is *everywhere* when each device has a copy: what `replicate`, `mean` and programs made
    by `each` return. To JAX it is an array like any other, replicated over these devices.

    **Same bits:** whatever the layout, of what `each` and `mean` compute.

    Args:
        devices: one or more devices of every process, sorted by process.

    Examples:
        >>> layout = Layout.of()
        >>> layout.shards(8), layout.part(64)
        (range(0, 8), slice(0, 64, None))
    """

    devices: tuple[Any, ...]

    @classmethod
    def of(cls, devices: int | None = None) -> Layout:
        """Take some devices of each process; this may set an option of JAX for the whole process.

        Args:
            devices: how many of each process; by default all. Where JAX computes on the CPU and
                has not begun, it can have as many as are asked for: `jax_num_cpu_devices` is set.

        Raises:
            ConfigError: there are not as many, or none of the platform that was asked for.
        """
        if devices is not None:
            _set_cpu_devices(devices)
        chosen: list[Any] = []
        try:
            found = jax.devices()
        except RuntimeError as error:
            raise _cannot_use_devices(
                "a platform that JAX finds here",
                first_line(error),
                "Look at JAX_PLATFORMS, and at which jaxlib is installed.",
            ) from error
        order = sorted(found, key=lambda device: (device.process_index, device.id))
        for process, group in itertools.groupby(order, key=lambda device: device.process_index):
            own = list(group)
            if devices is not None and len(own) < devices:
                raise _cannot_use_devices(
                    f"at most the {len(own)} of process {process}",
                    devices,
                    "Ask for fewer. On the CPU, JAX must not have begun when they are asked for.",
                )
            chosen += own[:devices]
        return cls(tuple(chosen))

    @property
    def single(self) -> bool:
        """Whether there is one device in all, and so nothing to do between devices."""
        return len(self.devices) == 1

    @functools.cached_property
    def local(self) -> tuple[Any, ...]:
        """The devices of this process."""
        own = jax.process_index()
        return tuple(device for device in self.devices if device.process_index == own)

    @property
    def processes(self) -> int:
        """How many processes take part."""
        return len({device.process_index for device in self.devices})

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The devices as JAX wants them: along one axis, "device"."""
        return Mesh(np.array(self.devices), (AXIS,))

    @functools.cached_property
    def everywhere(self) -> NamedSharding:
        """The sharding of an array of which each device has a copy."""
        return NamedSharding(self.mesh, partition())

    def shards(self, count: int) -> range:
        """Return the global numbers of the shards that this process computes.

        **Same bits:** everywhere.

        Args:
            count: how many shards a batch has, a power of two.

        Raises:
            ConfigError: it is none, or the devices do not divide it.
        """
        if count < 1 or count & (count - 1):
            raise ConfigError(
                "use", "shards", expected="a power of two", got=count, do="Use 1, 2, 4, 8 or 16."
            )
        if count % len(self.devices):
            raise _cannot_use_devices(
                f"in all a divisor of the number of shards, {count}",
                f"{self.processes} x {len(self.local)} = {len(self.devices)}",
                "Use 1, 2, 4, … of them; other shards would be another run.",
            )
        each = count // len(self.devices)
        return range(self._first * each, (self._first + len(self.local)) * each)

    def part(self, size: int) -> slice:
        """Return the places of a batch that this process computes.

        **Same bits:** everywhere.

        Args:
            size: examples in the batch of all processes.

        Raises:
            ConfigError: the devices do not divide it.
        """
        each, rest = divmod(size, len(self.devices))
        if rest:
            raise ConfigError(
                "use",
                "a batch",
                expected=f"a multiple of the {len(self.devices)} devices",
                got=f"{size} examples",
                do="Use another size.",
            )
        return slice(self._first * each, (self._first + len(self.local)) * each)

    def copies(self, tree: PyTree) -> list[PyTree]:
        """Return the tree as each device of this process has it.

        **Same bits:** those of `tree`.

        Args:
            tree: everywhere; any other is copied to each device.
        """
        if self.single:
            return [tree]
        leaves, structure = jax.tree.flatten(tree)
        rows = zip(*map(self._on_each, leaves), strict=True) if leaves else [()] * len(self.local)
        return [jax.tree.unflatten(structure, row) for row in rows]

    def replicate(self, tree: PyTree) -> PyTree:
        """Bring a tree everywhere; every process gives the same.

        **Same bits:** those of `tree`.

        Args:
            tree: arrays. Where they lie on a device already, that copy is used: donating the
                result takes them too.
        """
        return tree if self.single else self._joined(self.copies(tree))

    def divide(self, tree: PyTree, axis: int) -> PyTree:
        """Cut arrays that are everywhere so that each device keeps the part of its shards.

        **Same bits:** those of `tree`.

        Args:
            tree: arrays that have an axis of shards.
            axis: which axis that is.
        """
        if self.single:
            return tree
        parts = [
            _own_part(copy, np.uint32(self._first + k), len(self.devices), axis)
            for k, copy in enumerate(self.copies(tree))
        ]
        spec = partition(*[None] * axis, AXIS)
        shapes = [leaf.shape for leaf in jax.tree.leaves(tree)]
        return self._assembled(parts, NamedSharding(self.mesh, spec), shapes)

    def each[T](
        self, function: Callable[..., T], *, donate_argnums: int | tuple[int, ...] = ()
    ) -> Callable[..., T]:
        """Compile a function for one device, and run it on every device.

        **Same bits:** as `jax.jit(function)` on one device, whatever the layout.

        Args:
            function: takes one or more trees that are everywhere, by position, and returns such a
                tree.
            donate_argnums: as for `jax.jit`.
        """
        if self.single:
            return jax.jit(function, donate_argnums=donate_argnums)
        # An argument says on which device to run, even one that nothing is computed from.
        program: Any = jax.jit(function, donate_argnums=donate_argnums, keep_unused=True)

        def run(*trees: PyTree) -> Any:
            rows = zip(*map(self.copies, trees), strict=True)
            return self._joined([program(*row) for row in rows])

        return run

    def mean(self, parts: Parts | Rows) -> PyTree:
        """Add what the shards gave, neighbours first, and divide by their number.

        **Same bits:** whatever the layout: the tree is fixed by the number of shards, a power of
        two, so the division is exact.

        Args:
            parts: a tree for each shard of this process, in their order, on their devices; or, of
                two or more shards, their `Rows`.

        Returns:
            The mean over the shards of all processes, everywhere. Its dtypes do not depend on the
            number of shards: floating point stays as it is, booleans and integers become it.
        """
        if self.single:
            if isinstance(parts, Rows):
                return mean_of_rows(parts.stacks[0])
            return mean_on_one_device(parts)
        sums = self._sums(parts)
        shapes = [(len(self.devices), *leaf.shape[1:]) for leaf in jax.tree.leaves(sums[0])]
        sharding = NamedSharding(self.mesh, partition(AXIS))
        found = mean_between_devices(self._assembled(sums, sharding, shapes), self.mesh)
        if self.devices[0].platform == "cpu":
            # More virtual devices than cores, each waiting in a sum: with many of them begun, XLA
            # can run out of threads for those it needs.
            jax.tree.map(lambda x: x.block_until_ready(), found)
        return found

    def assert_same_on_all_devices(self, tree: PyTree, *, step: int) -> None:
        """Check that all devices have the same bits of a tree that is everywhere.

        They computed them each for itself. A device that errs in silence is found here, at the
        latest when a checkpoint is saved. Every process calls it, in the same order.

        **Same bits:** this is what it says, by fingerprints.

        Args:
            tree: arrays.
            step: completed updates, for the message.

        Raises:
            NotReproducedError: a device of this process has others than its first.
            ProcessMismatchError: a process has others than process 0.
        """
        if self.single:
            return
        do = "Go on from the checkpoint before, on other devices, and test that one."
        words = [fingerprint_text(_fingerprint(copy)) for copy in self.copies(tree)]
        for device, word in zip(self.local, words, strict=True):
            if word != words[0]:
                raise NotReproducedError(
                    "go on",
                    "with the state",
                    step=step,
                    got=f"others on {device}",
                    expected=f"the bits that {self.local[0]} has",
                    do=do,
                )
        assert_same_facts({"fingerprint": words[0]}, thing=f"the state of step {step}", do=do)

    def _sums(self, parts: Parts | Rows) -> list[Any]:
        """Add the shards of each device of this process."""
        if isinstance(parts, Rows):
            each = parts.count // len(self.devices)
            firsts = [np.uint32((self._first + k) * each) for k in range(len(self.local))]
            pairs = zip(parts.stacks, firsts, strict=True)
            return [sum_rows_on_a_device(stack, first, each) for stack, first in pairs]
        each = len(parts) // len(self.local)
        return [sum_on_a_device(tuple(parts[i : i + each])) for i in range(0, len(parts), each)]

    @functools.cached_property
    def _first(self) -> int:
        return self.devices.index(self.local[0])

    def _on_each(self, leaf: Any) -> list[Any]:
        if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
            copies = {shard.device: shard.data for shard in leaf.addressable_shards}
            if all(device in copies for device in self.local):
                return [copies[device] for device in self.local]
        return [jax.device_put(leaf, device) for device in self.local]

    def _joined(self, copies: Sequence[PyTree]) -> Any:
        shapes = [leaf.shape for leaf in jax.tree.leaves(copies[0])]
        return self._assembled(copies, self.everywhere, shapes)

    def _assembled(
        self, parts: Sequence[PyTree], sharding: NamedSharding, shapes: Sequence[tuple[int, ...]]
    ) -> PyTree:
        """Make arrays of all devices from those that each device of this process has."""
        make = jax.make_array_from_single_device_arrays
        columns = zip(shapes, zip(*map(jax.tree.leaves, parts), strict=True), strict=True)
        leaves = [make(shape, sharding, list(column)) for shape, column in columns]
        return jax.tree.unflatten(jax.tree.structure(parts[0]), leaves)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _own_part(tree: PyTree, device: Array, count: int, axis: int) -> PyTree:
    def part(leaf: Array) -> Array:
        size = leaf.shape[axis] // count
        found: Array = jax.lax.dynamic_slice_in_dim(leaf, device * size, size, axis)
        return found

    return jax.tree.map(part, tree)


def _set_cpu_devices(devices: int) -> None:
    """Have JAX make virtual devices of the CPU: the option `jax_num_cpu_devices` of this process.

    It is too late where JAX has begun; and of any other kind it takes no more than there are.
    """
    if devices < 1:
        raise _cannot_use_devices("1 or more", devices, "Ask for one.")
    if devices > max(1, jax.config.values.get("jax_num_cpu_devices") or 0):
        update: Any = jax.config.update
        with contextlib.suppress(RuntimeError):  # it has begun
            update("jax_num_cpu_devices", devices)


def _cannot_use_devices(expected: str, got: object, do: str) -> ConfigError:
    return ConfigError("use", "devices", expected=expected, got=got, do=do)
