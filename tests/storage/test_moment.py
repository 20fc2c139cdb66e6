"""Promises of `reproducibility.storage.moment`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import CheckpointSaveError, CheckpointStore, root_key, tree_digest
from reproducibility.storage.moment import ALIGNED, Copies


def state(value: float) -> dict[str, Any]:
    """Return a state with leaves of every kind, two of which are worth another thread."""
    return {
        "large": jnp.full((512, 513), value),
        "host": np.asfortranarray(np.full((513, 512), value, np.float32)),
        "narrow": jnp.full(3, value).astype(jnp.int4),
        "flags": np.array([True, False]),
        "swapped": np.arange(3, dtype=">i8"),
        "scalar": np.float64(value),
        "empty": jnp.zeros((0, 2)),
        "complex": jnp.full(2, value + 1j),
        "key": root_key(int(value)),
    }


def inside(memory: Any, address: int) -> bool:
    """Say whether an address lies in the memory of an array."""
    return bool(memory.ctypes.data <= address < memory.ctypes.data + memory.nbytes)


def test_a_moment_has_the_bits_of_the_leaves_and_lies_as_they_do() -> None:
    """A copy has the digest of what was copied, on the host and as JAX has it, in one memory."""
    copies, tree = Copies(), state(3.0)
    moment = copies.take(list(tree.values()))
    arrays = moment.arrays()
    for found in (moment.host, arrays):
        assert tree_digest(dict(zip(tree, found, strict=True))) == tree_digest(tree)
    assert moment.copied
    assert [isinstance(a, jax.Array) for a in arrays] == [
        isinstance(leaf, jax.Array) for leaf in tree.values()
    ]
    large = arrays[0]  # no second copy, and nothing of the caller's
    assert inside(copies._memory, large.unsafe_buffer_pointer())
    assert large.unsafe_buffer_pointer() % ALIGNED == 0
    assert large.unsafe_buffer_pointer() != tree["large"].unsafe_buffer_pointer()


def test_memory_is_used_again_and_holds_one_state() -> None:
    """The next copy of a state takes no new memory; that of a smaller state gives some back."""
    copies = Copies()
    one = copies.take(list(state(1.0).values())).host
    address, size = copies._memory.ctypes.data, copies._memory.nbytes
    two = copies.take(list(state(2.0).values())).host
    assert (copies._memory.ctypes.data, copies._memory.nbytes) == (address, size)
    assert np.shares_memory(one[0], two[0])
    sizes = [leaf.nbytes for name, leaf in state(1.0).items() if name != "key"]
    assert sum(sizes) <= size <= sum(sizes) + (len(sizes) + 1) * ALIGNED
    copies.take([np.ones(3)])
    assert copies._memory.nbytes <= 2 * ALIGNED
    copies.forget()
    assert copies._memory.nbytes == 0


def test_checkpoints_do_not_see_the_memory_of_those_after_them(tmp_path: Path) -> None:
    """Each of several checkpoints restores to what it was, in any order, and after the store."""
    digests = {step: tree_digest(state(float(step))) for step in range(3)}
    with CheckpointStore(tmp_path) as store:
        for step in digests:
            store.save(step, state(float(step)))
        for step in (0, 2, 1, 0):
            assert tree_digest(store.restore(state(9.0), step=step)) == digests[step]
        store.save(3, state(3.0))
        kept = store.restore(state(9.0), step=2)
        store.save(4, state(4.0))
        assert tree_digest(kept) == digests[2]
    assert store._copies._memory.nbytes == 0


def test_memory_that_may_still_be_read_is_not_written_over(tmp_path: Path) -> None:
    """After a save that failed, or whose end nobody saw, the next one takes other memory."""
    store, go = CheckpointStore(tmp_path), threading.Event()

    def failing() -> str:
        raise ValueError("no ledger")

    store.save(0, state(0.0), chain=failing)
    first = store._copies._memory
    with pytest.raises(CheckpointSaveError, match="no ledger"):
        store.wait()
    store.save(1, state(1.0))
    assert not np.shares_memory(first, store._copies._memory)
    store.wait()

    store._commits.submit(go.wait)
    store.save(2, state(2.0))
    second = store._copies._memory
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store._pending), "result", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.wait()
    store._copies.take(list(state(3.0).values()))
    assert not np.shares_memory(second, store._copies._memory)
    go.set()
    store.close()
    with CheckpointStore(tmp_path) as again:
        assert tree_digest(again.restore(state(9.0), step=2)) == tree_digest(state(2.0))


def _interrupted(self: Any, timeout: float | None = None) -> Any:
    raise KeyboardInterrupt


def test_what_cannot_be_written_in_the_background_is_raised_by_wait(tmp_path: Path) -> None:
    """Orbax writes behind the caller: what fails there is raised later, and nothing is lost."""
    with CheckpointStore(tmp_path) as store:
        store.save(0, state(0.0))
        store.wait()
        with pytest.MonkeyPatch.context() as patch:

            def full(folder: Path, arrays: Any) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(store.arrays, "write", full)
            store.save(1, state(1.0))
            with pytest.raises(CheckpointSaveError, match=r"step 1: .*No space left"):
                store.wait()
        assert store.steps() == [0]
        store.save(1, state(1.0))
        assert tree_digest(store.restore(state(9.0))) == tree_digest(state(1.0))
