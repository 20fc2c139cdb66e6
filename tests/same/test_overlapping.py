"""Arrays that lie in one memory are found, compared, copied and restored as such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import CheckpointStore, describe, tree_digest
from reproducibility.same.overlapping import in_one_memory, overlapping_leaves
from reproducibility.same.state import differences, map_leaves, state_of
from reproducibility.testing.equal import account_of, copy_of, state_difference


def read_only(array: np.ndarray) -> np.ndarray:
    """Return a view that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return two arrays each that share elements."""
    a = np.arange(24.0)
    grid = np.arange(24, dtype=">i4").reshape(4, 6)
    return {
        "shifted": (a[:-1], a[1:]),
        "every second": (a, a[::2]),
        "backwards": (a[3:], a[::-1]),
        "read-only": (a, read_only(a)),
        "two views": (a[:], a[:]),
        "transposed": (grid, grid.T),
        "columns": (grid[:, :3], grid[1:, 2:5]),
        "repeated": (a, np.broadcast_to(a, (2, 24))),
        "bytes": (a.view(np.uint8)[3:40], a),
        "one element": (a[5:6], a[5:9]),
    }


@pytest.mark.parametrize("name", pairs())
def test_views_are_found_and_made_again(name: str) -> None:
    """Arrays that share elements are found; what is made of their values shares the same ones."""
    x, y = pairs()[name]
    tree = {"x": x, "y": y, "z": np.arange(3)}
    groups = overlapping_leaves(tree)
    assert [[view.name for view in group] for group in groups] == [["x", "y"]]
    copies = {key: np.array(leaf) for key, leaf in tree.items()}
    made = in_one_memory(copies, groups)
    assert overlapping_leaves({**copies, **made}) == groups
    for key, leaf in made.items():
        assert leaf.tobytes() == tree[key].tobytes()
        assert (leaf.dtype, leaf.flags.writeable) == (tree[key].dtype, tree[key].flags.writeable)
        assert leaf.flags.aligned or name == "bytes"
    if made["x"].flags.writeable:
        made["x"][...] = x[...] = 7  # seen through the other one, or not
        assert made["y"].tobytes() == y.tobytes()


def test_arrays_without_a_common_element_are_none() -> None:
    """Halves, and every second element, share nothing; nor does one object, nor an array of JAX."""
    a = np.arange(12.0)
    assert overlapping_leaves({"x": a[:6], "y": a[6:]}) == ()
    assert overlapping_leaves({"x": a[::2], "y": a[1::2]}) == ()
    assert overlapping_leaves({"x": a, "y": a}) == ()
    assert overlapping_leaves({"x": a, "y": jnp.asarray(a), "n": 1, "empty": a[:0]}) == ()
    many = {f"{n:03}": a[n % 6 :] for n in range(100)}  # too many to look at each pair
    assert [len(group) for group in overlapping_leaves(many)] == [100]


def ring() -> dict[str, Any]:
    """Return a state in which a window is a view of a buffer."""
    buffer = np.arange(6.0)
    return {"buffer": buffer, "window": buffer[2:5], "again": buffer, "w": jnp.ones(2)}


def test_a_copy_of_a_state_keeps_them_and_what_has_lost_them_is_another() -> None:
    """Whoever copies each array by itself has another state, and the arrays are named."""
    state, lost = ring(), map_leaves(lambda leaf: leaf.copy(), ring())
    assert state_difference(state, copy_of(state)) == ""
    copied = copy_of(state)
    assert copied["again"] is copied["buffer"]
    assert np.shares_memory(copied["buffer"], copied["window"])
    assert [str(found) for found in differences(state_of(state), state_of(lost))] == [
        "again and window: views of one memory against memory of their own"
    ]
    assert state_difference(lost, state).endswith(
        "memory of their own against views of one memory."
    )
    other = {**state, "window": state["buffer"][1:4]}
    found = [str(f) for f in differences(state_of(state), state_of(other))]
    assert found == ["again and window: views of one memory against other views of one"]
    assert "views of one memory: again and window" in describe(state)
    written = json.loads(json.dumps(account_of(state).to_json()))
    assert type(account_of(state)).from_json(written) == account_of(state)


def test_they_come_back_from_a_checkpoint(tmp_path: Path) -> None:
    """What lay in one memory does so again, whatever `like` has; else what was saved apart does."""
    state = ring()
    apart = map_leaves(lambda leaf: leaf.copy(), state)
    with CheckpointStore(tmp_path) as store:
        for step, (saved, like) in enumerate([(state, apart), (apart, state)]):
            store.save(step, saved)
            restored = store.restore(like)
            assert state_difference(saved, restored) == ""
            restored["buffer"][3] = -1.0
            assert (restored["window"][1] == -1.0) == (saved is state)
        part = {name: state[name] for name in ("window", "again")}
        restored = store.restore(part, step=0, part=True)
        assert np.shares_memory(restored["window"], restored["again"])
        assert tree_digest(store.restore({"window": state["window"]}, step=0, part=True)) == (
            tree_digest({"window": state["window"]})
        )
