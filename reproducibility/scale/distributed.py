"""One run on many devices and processes: the same batch, keys, programs and order of sums.

The rule: nothing is computed in another way because there are more devices. The gradient of a
shard is a program of one device, and so is the update; the shards are added in one tree, wherever
they lie.
Chapter: docs/scale/scaling_out.md

With 8 shards the tree is ((0+1)+(2+3)) + ((4+5)+(6+7)). A device owns an aligned block of shards,
so every addition lies inside one device or between two. Between devices it is a butterfly: in round
r, device k and device k XOR 2**r exchange what they have and both add. Addition commutes, so both
get the same number, and after the last round every device has the sum without a broadcast.

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
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key, PyTree, Shaped

from reproducibility.errors import ConfigError, NotReproducedError, first_line
from reproducibility.keys import index_key
from reproducibility.same.fingerprint import fingerprint, fingerprint_text
from reproducibility.scale.processes import assert_same_facts

AXIS = "device"
_fingerprint = jax.jit(fingerprint)
type Parts = Sequence[PyTree]


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
        """Take some devices of each process.

        Args:
            devices: how many of each process; by default all. Where JAX computes on the CPU and
                has not begun, it can have as many as are asked for.

        Raises:
            ConfigError: there are not as many, or none of the platform that was asked for.
        """
        if devices is not None:
            _offer(devices)
        chosen: list[Any] = []
        try:
            found = jax.devices()
        except RuntimeError as error:
            raise ConfigError(
                "use",
                "devices",
                expected="a platform that JAX finds here",
                got=first_line(error),
                do="Look at JAX_PLATFORMS, and at which jaxlib is installed.",
            ) from error
        order = sorted(found, key=lambda device: (device.process_index, device.id))
        for process, group in itertools.groupby(order, key=lambda device: device.process_index):
            there = list(group)
            if devices is not None and len(there) < devices:
                raise ConfigError(
                    "use",
                    "devices",
                    expected=f"at most the {len(there)} of process {process}",
                    got=devices,
                    do="Ask for fewer. On the CPU, JAX must not have begun when they "
                    "are asked for.",
                )
            chosen += there[:devices]
        return cls(tuple(chosen))

    @property
    def single(self) -> bool:
        """Whether there is one device in all, and so nothing to do between devices."""
        return len(self.devices) == 1

    @functools.cached_property
    def local(self) -> tuple[Any, ...]:
        """The devices of this process."""
        here = jax.process_index()
        return tuple(device for device in self.devices if device.process_index == here)

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
        return NamedSharding(self.mesh, _partition())

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
            raise ConfigError(
                "use",
                "devices",
                expected=f"in all a divisor of the number of shards, {count}",
                got=f"{self.processes} x {len(self.local)} = {len(self.devices)}",
                do="Use 1, 2, 4, … of them; other shards would be another run.",
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
        spec = _partition(*[None] * axis, AXIS)
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

    def mean(self, parts: Parts) -> PyTree:
        """Add what the shards gave, neighbours first, and divide by their number.

        **Same bits:** whatever the layout: the tree is fixed by the number of shards, a power of
        two, so the division is exact.

        Args:
            parts: a tree for each shard of this process, in their order, on their devices.

        Returns:
            The mean over the shards of all processes, everywhere. Its dtypes do not depend on the
            number of shards: floating point stays as it is, booleans and integers become it.
        """
        if self.single:
            return _mean(tuple(parts)) if len(parts) > 1 else jax.tree.map(_inexact, parts[0])
        each = len(parts) // len(self.local)
        blocks = [tuple(parts[i : i + each]) for i in range(0, len(parts), each)]
        sums = [_flat_sum(block) for block in blocks]
        shapes = [(len(self.devices), *leaf.shape[1:]) for leaf in jax.tree.leaves(sums[0])]
        sharding = NamedSharding(self.mesh, _partition(AXIS))
        found = _across(self._assembled(sums, sharding, shapes), self.mesh)
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

    @functools.cached_property
    def _first(self) -> int:
        return self.devices.index(self.local[0])

    def _on_each(self, leaf: Any) -> list[Any]:
        if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
            there = {shard.device: shard.data for shard in leaf.addressable_shards}
            if all(device in there for device in self.local):
                return [there[device] for device in self.local]
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


def shard_gradients(
    loss_fn: Callable[..., Any],
    *,
    shards: int,
    layout: Layout | None = None,
    has_aux: bool = False,
) -> Callable[..., tuple[Any, PyTree]]:
    """Return a function that computes the mean loss of a batch and its gradient, on any layout.

    What `jax.value_and_grad` is to one device. Each shard's gradient is a program of one device,
    and the shards are added in one tree. Update with a program made by `Layout.each`.

    **Same bits:** one kind of device, instruction set and version of JAX, whatever the number of
    devices and processes; on the CPU, where a very large array is reduced, with one size of XLA's
    thread pool (`NPROC`). Another number of shards is another run.

    Args:
        loss_fn: `loss_fn(params, batch, key)` returns the mean loss of one shard, a scalar.
        shards: slices that the batch of all processes is cut into, a power of two.
        layout: which devices; by default all.
        has_aux: `loss_fn` returns the loss and a tree of arrays; the mean of that over the shards
            is returned as well. With any number of shards, one included, booleans and integers
            become floating point, as in `jnp.mean`, and every other dtype stays.

    Returns:
        A function of (params, batch, key). `params` are everywhere (`Layout.replicate`); `batch`
        is a tree whose arrays begin with this process's part of the examples (`Layout.part`);
        `key` is the same on all processes, and each shard gets `index_key(key, shard)` with its
        global number. Without a key, `loss_fn` gets none. Returns the mean loss (with `has_aux`,
        and the mean of the tree) and the gradient, everywhere.

    Raises:
        ConfigError: `shards` is no power of two, or the devices do not divide it. The function: a
            batch cannot be cut into the shards of this process.

    Examples:
        >>> def loss_fn(w, x):
        ...     return ((x @ w) ** 2).mean()
        >>> gradients = shard_gradients(loss_fn, shards=4)
        >>> loss, gradient = gradients(jnp.ones(3), np.ones((8, 3), np.float32))
        >>> float(loss), gradient.shape
        (9.0, (3,))

    References:
        Li et al., "EasyScale: elastic training with consistent accuracy", SC 2023.
    """
    layout = layout or Layout.of()
    mine = layout.shards(shards)
    each = len(mine) // len(layout.local)
    owners = [layout.local[i // each] for i in range(len(mine))]
    # On one device not tied to it: the first parameters are not, and JAX would compile for each.
    numbers = [jnp.uint32(shard) for shard in mine]
    if not layout.single:
        numbers = list(map(jax.device_put, numbers, owners))

    @jax.jit
    def program(params: PyTree, batch: PyTree, key: Key[Array, ""] | None, shard: Array) -> Any:
        keys = () if key is None else (index_key(key, shard),)
        return jax.value_and_grad(loss_fn, has_aux=has_aux)(params, batch, *keys)

    def gradients(
        params: PyTree, batch: PyTree, key: Key[Array, ""] | None = None
    ) -> tuple[Any, PyTree]:
        copies = layout.copies((params, key))
        parts = []
        for i, piece in enumerate(_cut(batch, len(mine))):
            local = piece if layout.single else jax.device_put(piece, owners[i])
            parts.append(program(copies[i // each][0], local, copies[i // each][1], numbers[i]))
        found: tuple[Any, PyTree] = layout.mean(parts)
        return found

    return gradients


def _cut(batch: PyTree, count: int) -> list[PyTree]:
    """Cut a part of a batch into its shards, on the host if it is there."""
    leaves = jax.tree.leaves(batch)
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in leaves}
    size = min(sizes, default=0)
    if len(sizes) != 1 or not size or size % count:
        raise ConfigError(
            "cut",
            "a batch",
            expected=f"a multiple of {count} examples in each array, for the "
            f"{count} shards of this process",
            got=", ".join(map(str, sorted(sizes))) or "none",
            do="Give each process its part of the batch: layout.part(size).",
        )
    on_device = any(isinstance(leaf, jax.Array) for leaf in leaves)
    # Copies: JAX may read them when the pipeline has written its next batch there.
    pieces: list[PyTree] = (
        _compiled_slices(batch, count)
        if on_device
        else jax.tree.map(np.array, _slices(batch, count))
    )
    return pieces


def _slices(batch: PyTree, count: int) -> list[PyTree]:
    def piece(i: int) -> PyTree:
        return jax.tree.map(lambda x: x[i * len(x) // count : (i + 1) * len(x) // count], batch)

    return [piece(i) for i in range(count)]


_compiled_slices: Any = jax.jit(_slices, static_argnums=1)


def _partition(*axes: str | None) -> Any:
    make: Any = PartitionSpec  # without types in JAX's own stubs
    return make(*axes)


def _pairwise_sum(parts: Parts) -> PyTree:
    """Add neighbours, then neighbours of those, and so on."""
    parts = [jax.tree.map(_inexact, part) for part in parts]
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [jax.tree.map(jnp.add, left, right) for left, right in pairs]
    return parts[0]


def _inexact(leaf: Array) -> Array:
    """Give a leaf the dtype of its mean, as `jnp.mean` does: before the sum, where two bytes of 200
    are 144 and two booleans one. Nor is a dtype left weak, as it could not be between devices."""
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        leaf = leaf / 1
    return leaf.astype(leaf.dtype) if leaf.weak_type else leaf


@jax.jit
def _mean(parts: Parts) -> PyTree:
    """The whole tree, where one device has all shards."""
    return jax.tree.map(functools.partial(_share, count=len(parts)), _pairwise_sum(parts))


def _share(total: Array, count: int) -> Array:
    """Divide by the number of shards, a power of two.

    The sum of two NaNs has the bits of one of them, and which one is up to the device: so that all
    devices agree, there is one NaN.
    """
    mean = total / count
    return jnp.where(jnp.isnan(mean), jnp.nan, mean).astype(mean.dtype)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["vectors"], meta_fields=["form"])
@dataclasses.dataclass(frozen=True)
class _Flat:
    """A tree as one vector for each dtype: an exchange between devices costs a call for each."""

    vectors: dict[str, Shaped[Array, "1 elements"]]
    form: tuple[Any, tuple[tuple[tuple[int, ...], str], ...], int]
    """Structure, shapes and dtypes of the tree, and how many shards were added on a device."""


@jax.jit
def _flat_sum(parts: Parts) -> _Flat:
    """The part of the tree inside of one device."""
    leaves, structure = jax.tree.flatten(_pairwise_sum(parts))
    kinds: dict[str, list[Array]] = {}
    for leaf in leaves:
        kinds.setdefault(leaf.dtype.name, []).append(leaf.reshape(1, -1))
    vectors = {kind: jnp.concatenate(same, axis=1) for kind, same in kinds.items()}
    form = (structure, tuple((leaf.shape, leaf.dtype.name) for leaf in leaves), len(parts))
    return _Flat(vectors, form)


@functools.partial(jax.jit, static_argnums=1)
def _across(sums: _Flat, mesh: Mesh) -> PyTree:
    """The part of the tree between devices; then the mean, as a tree again."""
    count = mesh.size
    exchange: Any = jax.lax.ppermute

    def butterfly(vector: Array) -> Array:
        distance = 1
        while distance < count:
            partners = [(device, device ^ distance) for device in range(count)]
            vector = vector + exchange(vector, AXIS, partners)
            distance *= 2
        return vector

    add = jax.shard_map(
        butterfly, mesh=mesh, in_specs=_partition(AXIS), out_specs=_partition(), check_vma=False
    )
    totals = {kind: add(vector)[0] for kind, vector in sums.vectors.items()}
    structure, shapes, shards = sums.form
    starts, leaves = dict.fromkeys(totals, 0), []
    for shape, kind in shapes:
        size = int(np.prod(shape))
        flat = jax.lax.slice_in_dim(totals[kind], starts[kind], starts[kind] + size)
        leaves.append(_share(flat.reshape(shape), shards * count))
        starts[kind] += size
    return jax.tree.unflatten(structure, leaves)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _own_part(tree: PyTree, device: Array, count: int, axis: int) -> PyTree:
    def part(leaf: Array) -> Array:
        size = leaf.shape[axis] // count
        found: Array = jax.lax.dynamic_slice_in_dim(leaf, device * size, size, axis)
        return found

    return jax.tree.map(part, tree)


def _offer(devices: int) -> None:
    """Have JAX make virtual devices of the CPU, if it has not begun; it takes no more than it has
    of any other kind."""
    if devices < 1:
        raise ConfigError("use", "devices", expected="1 or more", got=devices, do="Ask for one.")
    if devices > max(1, jax.config.values.get("jax_num_cpu_devices") or 0):
        update: Any = jax.config.update
        with contextlib.suppress(RuntimeError):  # it has begun
            update("jax_num_cpu_devices", devices)
