"""Save and restore the whole state, sealed; refuse what does not match.

The rule: a checkpoint is a directory that was renamed into place with its seal. What was not,
never happened; what does not match its seal any more is never used.
Chapter: docs/components/checkpoint_explained.md

    checkpoints/
      00000040/            40 completed updates
        seal.json          digest of every leaf and of the whole; size and SHA-256 of every file
        arrays/            the bytes, written by Orbax under the names of the leaves
      .tmp-00000080/       being written, or left by a process that was killed: never read
      damaged-00000020/    set aside, because it did not match its seal
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from reproducibility.errors import (
    CheckpointDamagedError,
    CheckpointError,
    CheckpointSaveError,
    RunSaveError,
)
from reproducibility.same.leaves import (
    check_leaves,
    described_leaves,
    is_weak,
    path_string,
)
from reproducibility.scale.agree import on_first, ticket
from reproducibility.scale.start import this_process
from reproducibility.storage.files import (
    TEMPORARY,
    discard,
    file_table,
    files_below,
    flush,
    saved_steps,
    set_aside,
)
from reproducibility.storage.moment import Copies
from reproducibility.storage.orbax import (
    ArrayFiles,
    encoded,
    refuse_arrays_of_one_process,
)
from reproducibility.storage.restoring import agreed, plain, read_leaves, read_tree, verified
from reproducibility.storage.seal import (
    Seal,
    SealedState,
    kind_and_first_line,
    refuse_other_step,
    seal_of,
    step_error,
)

THREADS_AT_EXIT = (3, 12, 3)  # the first Python that starts threads while a script ends
_unfinished: set[CheckpointStore] = set()  # those that were not asked whether their save succeeded
os.register_at_fork(after_in_child=_unfinished.clear)  # a child has no threads to wait for


class CheckpointStore(AbstractContextManager["CheckpointStore"]):
    """Checkpoints of any pytree, in one directory, of which the newest few are kept.

    `save` returns as soon as the values are safe from what the caller does next (donation
    included); hashing and writing go on in the background, one checkpoint at a time. Use the store
    as a context manager, or call `wait`: that is where a save that failed raises. A script that
    ends without either still waits for its last save; if it fails, it can only say so on stderr.

    One run writes to a directory at a time; a run directory's lock sees to that, a plain store
    leaves it to you. With several processes (see `initialize`) all of them make the
    same calls, with arrays that lie on the devices of all, and see the same directory. Each writes
    a part; process 0 seals and commits.

    **Same bits:** what `restore` returns has the digest of what `save` was given, everywhere.

    Args:
        path: the directory; it is made at the first save.
        keep: how many of the newest checkpoints stay, at least 1.
        run: the name of the run they belong to, part of their seals; a checkpoint of another run
            is refused. None accepts any.

    Raises:
        ValueError: `keep` is less than 1.

    Examples:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> from reproducibility import root_key, tree_digest
        >>> state = {"w": jnp.arange(3.0), "key": root_key(7)}
        >>> with tempfile.TemporaryDirectory() as folder, CheckpointStore(folder) as store:
        ...     store.save(40, state)
        ...     store.wait()
        ...     tree_digest(store.restore(state, step=40)) == tree_digest(state)
        True
    """

    def __init__(
        self, path: str | os.PathLike[str], *, keep: int = 3, run: str | None = None
    ) -> None:
        if keep < 1:
            raise ValueError(
                f"Cannot keep {keep} checkpoints: expected at least 1. The newest always stays."
            )
        self.path = Path(path).absolute()  # Orbax refuses relative paths
        self.keep, self.run = keep, run
        self.arrays = ArrayFiles()
        self._copies = Copies()
        self._commits = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-commit")
        self._pending: Future[None] | None = None
        self._saving: int | None = None

    def steps(self) -> list[int]:
        """Return the steps of all committed checkpoints, oldest first."""
        return saved_steps(self.path)

    def save(self, step: int, tree: PyTree, *, chain: Callable[[], str] | None = None) -> None:
        """Start to save a tree as checkpoint `step`; wait only for the previous save.

        Python 3.12.0 to 3.12.2 start no thread once a script has come to its end (CPython issue
        113964), and Orbax needs one: there it waits for this save.

        What is saved is the tree as it is at the call, whatever is written afterwards into arrays
        of NumPy or into memory that arrays of JAX share with them. On a CPU that takes one copy
        of it, whose memory the store keeps for the next save, until it is closed.

        Same bits: every leaf is stored exactly, NaN payloads and -0.0 included.

        Args:
            step: completed updates, 0 or more. If a leaf of the tree is called `step`, it has to
                say the same.
            tree: any pytree of JAX arrays, NumPy arrays and scalars, and typed keys.
            chain: called in the background before the checkpoint is committed; returns what
                the chain of the ledger has come to when it is on the disk up to this step.
                `Recorder.flush` gives it. It becomes part of the seal.

        Raises:
            CheckpointError: this checkpoint exists already, or the tree's own `step` is another.
            CheckpointSaveError: the directory cannot be written, or the *previous* save failed.
            LeafError: a leaf is no array, two leaves have one name, or a dictionary key is
                one that does not say what it is; copies of an array on several devices differ;
                static data has no end; or, with several processes, a leaf is on one of them alone.
        """
        self.wait()
        final, temporary = self._folder(step), self.path / f"{TEMPORARY}{step:08d}"
        if on_first(final.exists):
            expected, got = "a step that is not there yet", "a committed checkpoint"
            do = "Go on from it, or use another directory."
            raise step_error("save", final, step, expected, got, do)
        named = check_leaves(tree)
        refuse_arrays_of_one_process(named)
        state = SealedState.of(tree)
        moment = self._copies.take([leaf for _, leaf in named])
        copies = [(path, leaf) for (path, _), leaf in zip(named, moment.host, strict=True)]
        refuse_other_step(step, copies, final)
        weak = {path_string(path): is_weak(leaf) for path, leaf in named}
        self._saving = step

        def write() -> None:
            self.arrays.write(temporary, encoded(copies, moment.arrays()))

        later = moment.copied and jax.process_count() == 1
        try:
            on_first(lambda: self._prepare(temporary))
            if not later:  # what lies on a device may be donated; and several wait for each other
                write()
        except OSError as error:
            self._copies.forget()
            raise self._save_error(error) from error
        seal = functools.partial(seal_of, self.run, step, copies, weak, state)
        commit = functools.partial(self._commit, temporary, final, seal, chain)
        self._pending = self._commits.submit(
            self._finish, write if later else None, commit, ticket()
        )
        _unfinished.add(self)
        _wait_at_exit()
        if sys.version_info < THREADS_AT_EXIT:
            self.wait()

    def wait(self) -> None:
        """Return when the last save is committed.

        Raises:
            CheckpointSaveError: that save failed; the checkpoints before it are untouched.
            RunSaveError: `chain` could not be had, because the ledger could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        _unfinished.discard(self)
        finished = False
        try:
            pending.result()
            finished = True
        except RunSaveError:  # of the ledger, which says so
            raise
        except Exception as error:
            raise self._save_error(error) from error
        finally:
            if not finished:  # interrupted, too: its copy may still be read
                self._copies.forget()

    def restore(
        self,
        like: PyTree = None,
        *,
        step: int | None = None,
        static: bool = True,
        part: bool = False,
    ) -> PyTree:
        """Read a checkpoint back: into the structure of `like`, or all leaves by name.

        Without `like` no code is needed that knows the tree. Arrays come as plain NumPy arrays,
        scalars as those without dimensions, and typed keys as their key data, which
        `jax.random.wrap_key_data` makes keys of again. Weak types, static data and what is one
        object cannot be part of such a dictionary; `verify(step)` returns the seal, which has
        them under `leaves` and `state`, with the `prng` of each key.

        **Same bits:** the digest of the tree that was saved, everywhere; of each leaf by itself
        with `part`, and without `like`, where keys are their data.

        Args:
            like: a tree with the names, shapes, dtypes and PRNG implementations to expect:
                arrays, or what `jax.eval_shape` returns. NumPy leaves come back as NumPy arrays,
                all others as JAX arrays, with the sharding of `like` where it has one. Where it
                has none, they lie where JAX puts a new array; with several processes, on every
                device of all, as `save` takes them. Weak types, and leaves or nodes that are one
                object, come back as they were saved.
            step: which checkpoint; by default the newest.
            static: whether static data in `like` (fields that are no leaves, the shape of a
                sparse matrix, functions by name) has to be what it was; False takes that of
                `like`, whatever was saved.
            part: whether `like` may lack leaves that were saved. What it has is asked for as
                always, and only that is read; the files are checked as a whole.

        Returns:
            A tree of the structure of `like`; without it, a dictionary of arrays by the names
            that `leaf_digests` gives.

        Raises:
            CheckpointError: there is no such checkpoint.
            CheckpointDamagedError: its bytes are not those that were sealed; `leaves` names those
                that cannot be trusted, as far as they can be told. Nothing is renamed.
            CheckpointMismatchError: a leaf is missing, unknown, or of another shape, dtype or
                PRNG implementation; static data is another; names lead to one object in `like`
                and not in the checkpoint, or the reverse. The message names the first one.
            CheckpointReadError: its files cannot be read here, or every byte is as it was sealed
                and the leaves could not be restored from them.
            ProcessMismatchError: on all processes, where one finds something else than process 0.
            ValueError: `part` without a tree that says which.

        Examples:
            >>> import tempfile
            >>> import jax.numpy as jnp
            >>> state = {"params": {"w": jnp.arange(3)}, "step": jnp.uint32(40)}
            >>> with tempfile.TemporaryDirectory() as folder, CheckpointStore(folder) as store:
            ...     store.save(40, state)
            ...     list(store.restore().items())
            ...     store.restore({"step": jnp.uint32(0)}, part=True)
            [('params.w', array([0, 1, 2], dtype=int32)), ('step', array(40, dtype=uint32))]
            {'step': Array(40, dtype=uint32)}
        """
        if part and like is None:
            raise ValueError(
                "Cannot restore a part: expected a tree that says which, got none. Give one; or "
                "leave `part` out, and take what you need from all leaves."
            )
        self.wait()
        step = on_first(self._newest) if step is None else step
        folder = self._folder(step)
        if not folder.is_dir():
            found = ", ".join(f"step {step}" for step in self.steps()) or "none"
            expected, do = "a committed checkpoint", "Ask for one of those steps."
            raise step_error("restore", self.path, step, expected, found, do)
        wanted = None if like is None else described_leaves(like)
        seal = agreed(step, lambda: verified(folder, step, self.run), lambda seal: seal.digest)

        def read() -> PyTree:
            if wanted is None:
                leaves = read_leaves(self.arrays, folder, seal)
                return {name: plain(leaf) for name, leaf in leaves.items()}
            return read_tree(self.arrays, folder, seal, like, wanted, static=static, part=part)

        return agreed(step, read, lambda tree: "its leaves")

    def resume(self, start: PyTree, *, static: bool = True) -> PyTree:
        """Return the newest intact checkpoint, or `start` where there is none yet.

        Damaged checkpoints that are newer are set aside (renamed, not deleted) with a
        `SetAsideWarning`. What a killed process left half written is removed.

        **Same bits:** the digest of the tree that was saved, everywhere.

        Args:
            start: the tree to begin with; also says what to expect, as for `restore`.
            static: as for `restore`.

        Returns:
            A tree of the structure of `start`. Keep the step in it: it tells where you are.

        Raises:
            CheckpointDamagedError: there are checkpoints and none is intact; nothing is renamed.
            CheckpointMismatchError: the newest intact one holds another tree.
            CheckpointReadError: one cannot be read, and that is no damage; nothing is renamed.
        """
        self.wait()
        on_first(self._clear)
        damaged: list[CheckpointDamagedError] = []
        for step in reversed(on_first(self.steps)):
            try:
                tree = self.restore(start, step=step, static=static)
            except CheckpointDamagedError as error:
                damaged.append(error)
                continue
            on_first(lambda: self._set_aside(damaged, step))  # noqa: B023
            return tree
        if damaged:
            raise CheckpointDamagedError(
                "resume from",
                "a checkpoint",
                path=self.path,
                expected="at least one intact",
                got=f"damage in all {len(damaged)}; the newest: {damaged[0].got}",
                do="Take an intact copy; or set them aside with `reproducibility check --repair` "
                "(or by hand) to begin anew.",
            ) from damaged[0]
        return start

    def _set_aside(self, damaged: list[CheckpointDamagedError], step: int) -> None:
        for found in damaged:
            set_aside(Path(str(found.path)), f"{found.got}. Going on from step {step}.")

    def verify(self, step: int) -> dict[str, Any]:
        """Check every byte of a checkpoint against its seal, without restoring it.

        Args:
            step: which checkpoint.

        Returns:
            Its seal: "run", "step", "digest", "chain", "leaves" and "files", as in the file.

        Raises:
            CheckpointDamagedError: a byte is not as it was sealed; `files` and `leaves` say where.
            CheckpointMismatchError: it belongs to another run, or is of another format.
            CheckpointReadError: a file cannot be read here, which does not say that it is damaged.
        """
        return verified(self._folder(step), step, self.run).to_json()

    def close(self) -> None:
        """Wait for the last save, then release the threads."""
        try:
            self.wait()
        finally:
            self._commits.shutdown()
            self.arrays.close()
            self._copies.forget()

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _save_error(self, error: Exception) -> CheckpointSaveError:
        return CheckpointSaveError(
            "save",
            "a checkpoint",
            path=self.path,
            step=self._saving,
            expected="room and permission to write",
            got=kind_and_first_line(error),
            do="Free some space or fix the permissions; earlier checkpoints are intact.",
        )

    def _folder(self, step: int) -> Path:
        return self.path / f"{step:08d}"

    def _newest(self) -> int:
        steps = self.steps()
        if not steps:
            raise CheckpointError(
                "restore",
                "the newest checkpoint",
                path=self.path,
                expected="at least one",
                got="none",
                do="Save one first, or check the path.",
            )
        return steps[-1]

    def _prepare(self, temporary: Path) -> None:
        """Make room for a checkpoint."""
        self._clear()
        temporary.mkdir(parents=True)

    def _clear(self) -> None:
        """Remove what a killed process left half written or half deleted."""
        for leftover in self.path.glob(f"{TEMPORARY}*"):
            discard(leftover)

    def _finish(
        self, write: Callable[[], None] | None, commit: Callable[[], None], number: int
    ) -> None:
        """Commit in process 0; in the others, wait until it has."""
        if write:
            write()
        if this_process()[0]:
            self.arrays.wait()
        on_first(commit, number=number)

    def _commit(
        self,
        temporary: Path,
        final: Path,
        seal: Callable[[], Seal],
        chain: Callable[[], str] | None,
    ) -> None:
        content = seal()  # while Orbax writes
        self.arrays.wait()
        head = chain() if chain else None
        files = file_table(temporary)
        dataclasses.replace(content, chain=head, files=files).write(temporary)
        # Every byte reaches the disk before the name does; then the name does.
        for file in files_below(temporary):
            flush(file)
        for folder, _, _ in os.walk(temporary, topdown=False):
            flush(Path(folder))
        temporary.rename(final)
        flush(self.path)
        flush(self.path.parent)  # the directory may be new
        for old in self.steps()[: -self.keep]:
            # Under a name that is never read: a directory half deleted is not a damaged one.
            doomed = self.path / f"{TEMPORARY}{old:08d}"
            self._folder(old).rename(doomed)
            discard(doomed)


@functools.cache
def _wait_at_exit() -> None:
    """Have the interpreter wait for saves while there are threads that can do them.

    Orbax works in executors of `concurrent.futures`, which take nothing more when the main thread
    has ended; what `atexit` calls comes later still. Python has no public name for that moment.
    """
    getattr(threading, "_register_atexit", atexit.register)(_finish_saves)


def _finish_saves() -> None:
    """Wait for the saves that nobody waited for; say which failed."""
    for store in list(_unfinished):
        try:
            store.wait()
        except Exception as error:
            print(error, file=sys.stderr, flush=True)
