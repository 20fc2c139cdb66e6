"""The arrays of a checkpoint, written and read by Orbax under the names of their leaves.

The rule: what Orbax cannot store is stored as something that it can, and comes back as it was.
Whether that is what was sealed, others ask.
Chapter: docs/components/checkpoint_explained.md

Orbax is asked for what it is good at, writing arrays in parallel and in the background. Names,
checks and the commit are ours: Orbax alone restores a flipped bit without a word, casts float32 to
bfloat16 when the target asks for it, and does not store arrays of size zero.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reproducibility.errors import LeafError
from reproducibility.same.hashing import LARGE, leaf_digests
from reproducibility.same.leaves import NamedLeaves, is_numpy, path_string
from reproducibility.storage.files import files_below
from reproducibility.storage.found import ARRAYS
from reproducibility.storage.seal import SealedLeaf

# What tensorstore has no type for: integers are kept as wider ones, the bits of floats as uint8.
_KEPT_WIDER = {"int2": "int8", "uint2": "uint8", "uint4": "uint8"}
_KEPT_AS_BITS = ("float6_e2m3fn", "float6_e3m2fn", "float8_e4m3")


class ArrayFiles:
    """Writes and reads the arrays of checkpoints, one checkpoint at a time."""

    def __init__(self) -> None:
        self._reader = ocp.PyTreeCheckpointHandler()  # alone: waits for no other process
        self._writer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())

    def write(self, folder: Path, arrays: dict[str, Any]) -> None:
        """Begin to write arrays; return when what the caller does next cannot change them.

        Args:
            folder: of the checkpoint.
            arrays: what `encoded` returns.
        """
        if arrays:  # Orbax refuses an empty tree
            self._writer.save(folder / ARRAYS, args=ocp.args.StandardSave(arrays))

    def wait(self) -> None:
        """Return when all that was begun is written."""
        self._writer.wait_until_finished()

    def read(self, folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Read the arrays of these names, and of no others, as what is wanted.

        Args:
            folder: of the checkpoint.
            wanted: arrays, or what `jax.eval_shape` returns, by name.

        Returns:
            Arrays and typed keys by name. Whatever fails in Orbax, TensorStore or XLA is raised.
        """
        home = _home()
        put = {name: where for name, leaf in wanted.items() if (where := _put_at(leaf, home))}
        targets = {
            name: _target(leaf, home, on_host=name in put)
            for name, leaf in wanted.items()
            if math.prod(leaf.shape)
        }
        shardings = {name: getattr(target, "sharding", None) for name, target in targets.items()}
        how = ocp.checkpoint_utils.construct_restore_args(targets, shardings)
        args = ocp.args.PyTreeRestore(targets, how, partial_restore=True)
        stored = self._reader.restore(folder / ARRAYS, args=args) if targets else {}
        values = {name: _decode(stored.get(name), leaf, home) for name, leaf in wanted.items()}
        small = jax.device_put([values[n] for n in put], list(put.values()), may_alias=False)
        return {**values, **dict(zip(put, small, strict=True))}

    def close(self) -> None:
        """Release the threads."""
        self._writer.close()
        self._reader.close()


def encoded(leaves: NamedLeaves, arrays: Sequence[Any]) -> dict[str, Any]:
    """Turn leaves into what Orbax stores, by name; those of size zero it does not.

    Args:
        leaves: what to save, on the host.
        arrays: the same as they lie, in the same order. Nobody writes to them.
    """
    pairs = zip(leaves, arrays, strict=True)
    return {path_string(path): _encode(array) for (path, _), array in pairs if array.size}


class _NotCopied(np.ndarray):
    """An array of which Orbax makes no second copy: nobody else has the one that it is given."""

    def __deepcopy__(self, memo: Any) -> _NotCopied:
        """Return the array itself."""
        return self


def refuse_arrays_of_one_process(leaves: NamedLeaves) -> None:
    """Refuse, where there are several processes, an array of this one alone: which would be saved?

    Args:
        leaves: what to save.
    """
    for path, leaf in leaves if jax.process_count() > 1 else ():
        if isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
            raise LeafError(
                "save",
                f"leaf {path_string(path)}",
                expected="an array on devices of all processes",
                got="one of this process alone",
                do="Bring it there with Layout.replicate, or give a NumPy array.",
            )


def changed_leaves(folder: Path, sealed: Mapping[str, SealedLeaf]) -> list[str]:
    """Name the leaves that cannot be read any more or are not as they were sealed.

    Only to explain: the files decide. One at a time, because one bad leaf must not hide others.

    Args:
        folder: of the checkpoint.
        sealed: what its seal says of them.
    """
    folder = folder.absolute()  # Orbax refuses relative paths
    stored = {name: leaf for name, leaf in sealed.items() if math.prod(leaf.shape)}
    if any(map(_may_wait, files_below(folder))):
        return list(stored)
    orbax = ocp.PyTreeCheckpointHandler()  # alone: other processes may find nothing to explain
    names = [name for name, leaf in stored.items() if not _is_intact(orbax, folder, name, leaf)]
    orbax.close()
    return names


def _may_wait(path: Path) -> bool:
    """Whether to read this is to wait for somebody, as with a pipe in the place of a file."""
    try:
        mode = path.stat().st_mode
    except OSError:  # a link to nothing
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def stored_tree(folder: Path) -> Any:
    """Return the tree that Orbax stored in a folder, whoever wrote it, with arrays of NumPy.

    Whatever fails in Orbax, TensorStore or XLA is raised.

    Args:
        folder: that of the arrays, with the file `_METADATA`.
    """
    folder = folder.absolute()  # Orbax refuses relative paths
    handler = ocp.PyTreeCheckpointHandler()
    try:
        found: Any = handler.metadata(folder)
        wanted = jax.tree.map(_how_to_read, getattr(found, "tree", found))
        return handler.restore(folder, args=ocp.args.PyTreeRestore(restore_args=wanted))
    finally:
        handler.close()


def _how_to_read(leaf: Any) -> Any:
    """Have an array read as one of NumPy, wherever its shards were; a text stays a text."""
    text = getattr(leaf, "dtype", None) is None
    return ocp.RestoreArgs() if text else ocp.RestoreArgs(restore_type=np.ndarray)


def stored_digests(folder: Path) -> dict[str, str]:
    """Return a digest of each array that Orbax stored in a folder, whoever wrote it, by its name.

    Args:
        folder: that of the arrays, with the file `_METADATA`.
    """
    digests: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(stored_tree(folder)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        (digests[name],) = leaf_digests({"leaf": np.asarray(leaf)}).values()
    return digests


def _is_intact(
    orbax: ocp.PyTreeCheckpointHandler, folder: Path, name: str, sealed: SealedLeaf
) -> bool:
    how = ocp.RestoreArgs(np.ndarray)  # not JAX arrays: Orbax drops their failed reads unfinished
    args = ocp.args.PyTreeRestore({name: 0}, {name: how}, partial_restore=True)
    try:
        leaf = orbax.restore(folder / ARRAYS, args=args)[name]
        if sealed.prng:
            leaf = jax.random.wrap_key_data(leaf, impl=sealed.prng)
        else:
            leaf = _as_dtype(leaf, jnp.dtype(sealed.dtype))
        return leaf_digests({"leaf": leaf})["leaf"] == sealed.digest
    except Exception:  # whatever Orbax and tensorstore raise for a damaged file
        return False


def _stored(dtype: Any) -> Any:
    """Return the dtype under which Orbax keeps a leaf: its own, where tensorstore has it."""
    if dtype.name in _KEPT_AS_BITS:
        return np.dtype("uint8")
    return np.dtype(_KEPT_WIDER[dtype.name]) if dtype.name in _KEPT_WIDER else dtype


def _as_dtype(array: Any, dtype: Any) -> Any:
    """Return an array as the other of the two dtypes that Orbax and a leaf have for its values."""
    if array.dtype == dtype:
        return array
    if not {array.dtype.name, dtype.name} & {*_KEPT_AS_BITS}:
        return array.astype(dtype)
    if is_numpy(array):
        return array.view(dtype)
    return jax.lax.bitcast_convert_type(array, dtype)


def _encode(leaf: Any) -> Any:
    """Turn a leaf into something Orbax stores."""
    if is_numpy(leaf):
        native = leaf.astype(leaf.dtype.newbyteorder("="), copy=False)
        return _as_dtype(native, _stored(leaf.dtype)).view(_NotCopied)
    return _as_dtype(leaf, _stored(leaf.dtype))


def _put_at(leaf: Any, home: Any) -> Any:
    """Say where to put a leaf that is read by way of the host; None of any other.

    Of many small arrays of JAX, Orbax makes each by itself, which takes twice as long as to put
    all at once; a large one would be held twice. Of 64 bits JAX would take half, where it was
    not told to take all.
    """
    size = math.prod(leaf.shape) * leaf.dtype.itemsize
    if is_numpy(leaf) or not 0 < size < LARGE or not isinstance(leaf.dtype, np.dtype):
        return None
    place = getattr(leaf, "sharding", None) or home
    one = place.num_devices == 1 and place.is_fully_addressable
    return place if one and leaf.dtype.itemsize <= 4 else None


def _target(leaf: Any, home: Any, *, on_host: bool) -> Any:
    """Say to Orbax what to read: NumPy stays NumPy, anything else becomes a JAX array."""
    if on_host or is_numpy(leaf):
        return np.empty(leaf.shape, _stored(leaf.dtype).newbyteorder("="))
    struct: Any = jax.ShapeDtypeStruct  # without types in JAX's own stubs
    sharding = getattr(leaf, "sharding", None) or home
    return struct(leaf.shape, _stored(leaf.dtype), sharding=sharding)


def _home() -> Any:
    """Say where a leaf is to lie of which `like` does not: where this process makes an array.

    With several processes that is no place: they have no device in common, and `save` takes only
    what lies on the devices of all.
    """
    if jax.process_count() == 1:
        return jnp.zeros(()).sharding
    spec: Any = PartitionSpec  # without types in JAX's own stubs
    return NamedSharding(Mesh(np.array(jax.devices()), ("device",)), spec())


def _decode(value: Any, leaf: Any, home: Any) -> Any:
    """Undo `_encode` for the leaf that was asked for; a leaf of size zero was not stored."""
    if value is None:
        if isinstance(leaf, np.ndarray):
            return np.zeros(leaf.shape, leaf.dtype)
        sharding = getattr(leaf, "sharding", None) or home
        return jnp.zeros(leaf.shape, leaf.dtype, device=sharding)
    value = _as_dtype(value, leaf.dtype)
    # A scalar of NumPy cannot be written to: it does not become an array that can.
    return value[()] if isinstance(leaf, np.generic) else value
