"""Save and restore the whole state; refuse what does not match.

The rule: a checkpoint is a directory that was renamed into place. What was not, never happened.
Chapter: docs/components/checkpoint_explained.md

    checkpoints/
      00000040/            40 completed updates
        leaves.json        every leaf's name, shape and dtype; every file's size
        arrays/            the bytes, written by Orbax under those names
      .tmp-00000080/       being written, or left by a process that was killed: never read

Orbax is asked for what it is good at, writing arrays in parallel and in the background. Names,
checks and the commit are ours: Orbax alone casts float32 to bfloat16 without a word when the
target asks for it, and it does not store arrays of size zero.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from reproducibility.errors import (
    CheckpointDamagedError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointSaveError,
    LeafError,
)
from reproducibility.hashing import named_leaves, path_string

FORMAT = 1
LEAVES = "leaves.json"
ARRAYS = "arrays"
_STEP = re.compile(r"\d{8,}")
_NOT_IN_ORBAX = ("int2", "uint2")  # tensorstore has no such type: kept as int8 and uint8


class CheckpointStore:
    """Checkpoints of any pytree, in one directory, of which the newest few are kept.

    `save` returns as soon as the values are safe from what the caller does next (donation
    included); writing goes on in the background, one checkpoint at a time. Use the store as a
    context manager, or call `wait` before the process ends.

    **Same bits:** what `restore` returns has the digest of what `save` was given, everywhere.

    Args:
        path: the directory; it is made at the first save.
        keep: how many of the newest checkpoints stay, at least 1.

    Raises:
        ValueError: `keep` is less than 1.

    Examples:
        >>> import tempfile
        >>> from reproducibility import root_key, tree_digest
        >>> state = {"w": jnp.arange(3.0), "key": root_key(7)}
        >>> with tempfile.TemporaryDirectory() as folder, CheckpointStore(folder) as store:
        ...     store.save(40, state)
        ...     store.wait()
        ...     tree_digest(store.restore(state, step=40)) == tree_digest(state)
        True
    """

    def __init__(self, path: str | os.PathLike[str], *, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(
                f"Cannot keep {keep} checkpoints: expected at least 1. The newest always stays."
            )
        self.path = Path(path).absolute()  # Orbax refuses relative paths
        self.keep = keep
        self._orbax = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        self._commits = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-commit")
        self._pending: Future[None] | None = None
        self._saving: int | None = None

    def steps(self) -> list[int]:
        """Return the steps of all committed checkpoints, oldest first.

        Same bits: not a computation.
        """
        return saved_steps(self.path)

    def save(self, step: int, tree: PyTree) -> None:
        """Start to save a tree as checkpoint `step`; wait only for the previous save.

        Same bits: every leaf is stored exactly, NaN payloads and -0.0 included.

        Args:
            step: completed updates, 0 or more.
            tree: any pytree of JAX arrays, NumPy arrays and scalars, and typed keys.

        Raises:
            CheckpointError: this checkpoint exists already.
            CheckpointSaveError: the directory cannot be written, or the *previous* save failed.
            LeafError: a leaf is no array, two leaves have one name, or a dictionary key is
                neither str nor int.
        """
        self.wait()
        final, temporary = self._folder(step), self.path / f".tmp-{step:08d}"
        if final.exists():
            raise CheckpointError(
                "save",
                "a checkpoint",
                path=final,
                step=step,
                expected="a step that is not there yet",
                got="a committed checkpoint",
                do="Go on from it, or use another directory.",
            )
        leaves = _named(tree)
        table = {"format": FORMAT, "step": step, "leaves": {n: _spec(v) for n, v in leaves.items()}}
        arrays = {name: _encode(leaf) for name, leaf in leaves.items() if _size(leaf)}
        self._saving = step
        try:
            for leftover in self.path.glob(".tmp-*"):
                shutil.rmtree(leftover)
            temporary.mkdir(parents=True)
            if arrays:  # Orbax refuses an empty tree
                self._orbax.save(temporary / ARRAYS, args=ocp.args.StandardSave(arrays))
        except OSError as error:
            raise self._save_error(error) from error
        self._pending = self._commits.submit(self._commit, temporary, final, table)

    def wait(self) -> None:
        """Return when the last save is committed.

        Same bits: not a computation.

        Raises:
            CheckpointSaveError: that save failed; the checkpoints before it are untouched.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except Exception as error:
            raise self._save_error(error) from error

    def restore(self, like: PyTree, *, step: int | None = None) -> PyTree:
        """Read a checkpoint back into the structure of `like`.

        **Same bits:** the digest of the tree that was saved, everywhere.

        Args:
            like: a tree with the names, shapes, dtypes and PRNG implementations to expect:
                arrays, or what `jax.eval_shape` returns. NumPy leaves come back as NumPy arrays,
                all others as JAX arrays, with the sharding of `like` where it has one.
            step: which checkpoint; by default the newest.

        Returns:
            A tree of the structure of `like`.

        Raises:
            CheckpointError: there is no such checkpoint.
            CheckpointDamagedError: its files cannot be read.
            CheckpointMismatchError: a leaf is missing, unknown, or of another shape, dtype or
                PRNG implementation; the message names the first one.
        """
        self.wait()
        step = self._newest() if step is None else step
        folder = self._folder(step)
        if not folder.is_dir():
            found = ", ".join(f"step {step}" for step in self.steps()) or "none"
            raise CheckpointError(
                "restore", "a checkpoint", path=self.path, step=step,
                expected="a committed checkpoint", got=found, do="Ask for one of those steps.",
            )  # fmt: skip
        wanted = _named(like)
        _compare(_read_table(folder, step), wanted, folder, step)
        arrays = self._read_arrays(folder, step, wanted)
        return _fill(like, {name: _decode(arrays.get(name), v) for name, v in wanted.items()})

    def close(self) -> None:
        """Wait for the last save, then release the threads. Same bits: not a computation."""
        try:
            self.wait()
        finally:
            self._commits.shutdown()
            self._orbax.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _save_error(self, error: Exception) -> CheckpointSaveError:
        return CheckpointSaveError(
            "save", "a checkpoint", path=self.path, step=self._saving,
            expected="room and permission to write", got=_first_line(error),
            do="Free some space or fix the permissions; earlier checkpoints are intact.",
        )  # fmt: skip

    def _folder(self, step: int) -> Path:
        return self.path / f"{step:08d}"

    def _newest(self) -> int:
        steps = self.steps()
        if not steps:
            raise CheckpointError(
                "restore", "the newest checkpoint", path=self.path, expected="at least one",
                got="none", do="Save one first, or check the path.",
            )  # fmt: skip
        return steps[-1]

    def _commit(self, temporary: Path, final: Path, table: dict[str, Any]) -> None:
        self._orbax.wait_until_finished()
        table["files"] = _sizes(temporary)
        (temporary / LEAVES).write_text(json.dumps(table, indent=1))
        # Every byte reaches the disk before the name does; then the name does.
        for folder, _, files in os.walk(temporary, topdown=False):
            for file in files:
                _flush(Path(folder, file))
            _flush(Path(folder))
        temporary.rename(final)
        _flush(self.path)
        for step in self.steps()[: -self.keep]:
            shutil.rmtree(self._folder(step))

    def _read_arrays(self, folder: Path, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
        targets = {name: _target(leaf) for name, leaf in wanted.items() if _size(leaf)}
        if not targets:
            return {}
        try:
            restored: dict[str, Any] = self._orbax.restore(
                folder / ARRAYS, args=ocp.args.StandardRestore(targets)
            )
        except Exception as error:  # Orbax and tensorstore raise many kinds for a damaged file
            raise CheckpointDamagedError(
                "read", "a checkpoint", path=folder, step=step, expected="intact files",
                got=_first_line(error), do="Restore an earlier step.",
            ) from error  # fmt: skip
        return restored


def saved_steps(path: Path) -> list[int]:
    """Return the steps of the checkpoints committed in a directory, oldest first.

    Same bits: not a computation.

    Args:
        path: a checkpoint directory; one that does not exist has none.
    """
    entries = path.iterdir() if path.is_dir() else ()
    return sorted(int(entry.name) for entry in entries if _is_step(entry))


def _is_step(entry: Path) -> bool:
    return bool(_STEP.fullmatch(entry.name)) and entry.is_dir() and not entry.is_symlink()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size in bytes of every file but the table itself, by its path in the folder."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != LEAVES)
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}


def _first_line(error: Exception) -> str:
    """Return the kind of an error and the two ends of its first line: what, and why."""
    line = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    line = line if len(line) <= 200 else f"{line[:80]} … {line[-110:]}"
    return f"{type(error).__name__}: {line}"


def _named(tree: PyTree) -> dict[str, Any]:
    """Return the leaves by name; refuse what is no array and describes none."""
    leaves = {path_string(path): leaf for path, leaf in named_leaves(tree)}
    for name, leaf in leaves.items():
        if not hasattr(leaf, "dtype") or isinstance(leaf, jax.core.Tracer):
            raise LeafError(
                "checkpoint", f"leaf {name}", expected="an array or a typed key",
                got=f"a value of type {type(leaf).__name__}",
                do="State its dtype, for example np.float32(value), outside of jit.",
            )  # fmt: skip
    return leaves


def _size(leaf: Any) -> int:
    return int(np.prod(leaf.shape))


def _spec(leaf: Any) -> dict[str, Any]:
    """Describe a leaf as `leaves.json` does; the dtype of a key, "key<fry>", tells its kind."""
    return {"dtype": leaf.dtype.name, "shape": list(leaf.shape)}


def _describe(spec: dict[str, Any]) -> str:
    return f"{spec['dtype']}[{','.join(map(str, spec['shape']))}]"


def _read_table(folder: Path, step: int) -> dict[str, Any]:
    try:
        table = json.loads((folder / LEAVES).read_text())
        if table["format"] != FORMAT or table["step"] != step:
            raise ValueError(f"format {table['format']}, step {table['step']}")
        leaves: dict[str, Any] = table["leaves"]
        for spec in leaves.values():
            _describe(spec)
        # Looked at here, because Orbax leaves a traceback on stderr for a file that is cut short.
        sizes = _sizes(folder)
        for name, size in table["files"].items():
            if sizes.get(name) != size:
                raise ValueError(f"{name} of {sizes.get(name, 0)} bytes where {size} were written")
        return leaves
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointDamagedError(
            "read", "a checkpoint", path=folder, step=step,
            expected=f"{LEAVES} of format {FORMAT} and the files it lists", got=_first_line(error),
            do="Restore an earlier step.",
        ) from error  # fmt: skip


def _compare(saved: dict[str, Any], wanted: dict[str, Any], folder: Path, step: int) -> None:
    """Refuse the first leaf that is not in the checkpoint as `wanted` has it."""

    def refuse(name: str, expected: str, got: str, do: str) -> None:
        raise CheckpointMismatchError(
            "restore", f"leaf {name}", path=folder, step=step, expected=expected, got=got, do=do
        )

    for name, leaf in wanted.items():
        expected = _describe(_spec(leaf))
        if name not in saved:
            near = difflib.get_close_matches(name, set(saved) - set(wanted), n=1)
            got = f"no such leaf, but an unknown {near[0]}" if near else "no such leaf"
            refuse(name, expected, got, "Restore with the model that was saved.")
        got = _describe(saved[name])
        if got != expected:
            do = "Restore as it was saved; what is wanted instead, make from that."
            refuse(name, expected, got, do)
    for name in saved:
        if name not in wanted:
            refuse(name, "no such leaf", _describe(saved[name]), "Add it to the tree, or drop it "
                   "knowingly: restore all, then take what you need.")  # fmt: skip


def _stored(dtype: Any) -> Any:
    """Return the dtype under which Orbax keeps a leaf: its own, where tensorstore has it."""
    return np.dtype(dtype.name.replace("2", "8")) if dtype.name in _NOT_IN_ORBAX else dtype


def _encode(leaf: Any) -> Any:
    """Turn a leaf into something Orbax stores."""
    if isinstance(leaf, np.ndarray | np.generic):
        # A copy: the caller may write into theirs before it has reached the disk.
        return np.array(leaf, dtype=_stored(leaf.dtype).newbyteorder("="))
    return leaf.astype(_stored(leaf.dtype)) if leaf.dtype.name in _NOT_IN_ORBAX else leaf


def _target(leaf: Any) -> Any:
    """Say to Orbax what to read: NumPy stays NumPy, anything else becomes a JAX array."""
    if isinstance(leaf, np.ndarray | np.generic):
        return np.empty(leaf.shape, _stored(leaf.dtype).newbyteorder("="))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    sharding = getattr(leaf, "sharding", None) or device
    struct: Any = jax.ShapeDtypeStruct  # without types in JAX's own stubs
    return struct(leaf.shape, _stored(leaf.dtype), sharding=sharding)


def _decode(value: Any, leaf: Any) -> Any:
    """Undo `_encode` for the leaf that was asked for; a leaf of size zero was not stored."""
    if value is None:
        module: Any = np if isinstance(leaf, np.ndarray) else jnp
        return module.zeros(leaf.shape, leaf.dtype)
    return value if value.dtype == leaf.dtype else value.astype(leaf.dtype)


def _fill(like: PyTree, values: dict[str, Any]) -> PyTree:
    """Put values, by name, where `like` has its leaves."""
    structure = jax.tree.structure(like)
    numbered = jax.tree.unflatten(structure, range(len(values)))
    name_of = {number: path_string(path) for path, number in named_leaves(numbered)}
    return jax.tree.unflatten(structure, [values[name_of[n]] for n in sorted(name_of)])
