"""A resumed loop: what passes, what fails, and which part nobody reads."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import (
    CheckpointMismatchError,
    LeafError,
    root_key,
    step_key,
    tree_digest,
)
from reproducibility.testing import assert_resumable, fresh, resumable
from tests.failing import KEYS, X, failure


class Pair(NamedTuple):
    """A container with attributes."""

    left: Any
    right: Any


GRADIENT = jnp.array([1.0, -2.0, 0.5])


def begin() -> dict[str, Any]:
    """Return the state of a loop in which every part counts."""
    return {"step": np.uint32(0), "w": jnp.zeros(3), "momentum": jnp.zeros(3), "key": root_key(7)}


def one(state: dict[str, Any]) -> dict[str, Any]:
    """Make one update, with momentum and noise."""
    noise = jax.random.uniform(step_key(state["key"], int(state["step"])), (3,))
    momentum = 0.9 * state["momentum"] + GRADIENT * noise
    w = state["w"] - 0.1 * momentum
    return {**state, "step": np.uint32(state["step"] + 1), "w": w, "momentum": momentum}


def loop(update: Callable[[Any], Any]) -> Callable[[Any, int], Any]:
    """Make the loop of an update."""

    def advance(state: Any, n: int) -> Any:
        for _ in range(n):
            state = update(state)
        return state

    return advance


def vacuous(part: str) -> str:
    """Return how the failure begins if nothing depends on a part."""
    return f"Nothing depends on part {part}: a resume that forgets it would pass this test."


def test_sound_loop_passes() -> None:
    """A loop whose state is whole passes, at any stop."""
    assert_resumable(loop(one), begin())
    assert_resumable(loop(one), begin(), steps=5, stop=1)


def test_counts_of_updates() -> None:
    """It asks for all updates, for those before the stop, and for the rest, once a part."""
    asked = []

    def advance(state: Any, n: int) -> Any:
        asked.append(n)
        return loop(one)(state, n)

    assert_resumable(advance, begin(), steps=5, stop=2)
    assert asked == [5, 2, 3, 3, 3, 3, 3]


def test_state_outside_of_the_state() -> None:
    """A loop that keeps its momentum elsewhere fails, by the leaf that differs."""
    hidden = {"momentum": np.zeros(3, np.float32)}

    def update(state: dict[str, Any]) -> dict[str, Any]:
        hidden["momentum"] = 0.9 * hidden["momentum"] + np.float32([1, 2, 3])
        return {"w": state["w"] - hidden["momentum"]}

    said = failure(assert_resumable, loop(update), {"w": np.zeros(3, np.float32)})
    assert said.startswith("Resumed after 3 of 6 updates, the end differs: leaf w: 3 of 3 elem")


@pytest.mark.parametrize("part", ["w", "momentum", "step", "key"])
def test_lost_in_the_checkpoint(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resumed state is what a store restores: one that loses a part is found out."""
    from reproducibility import CheckpointStore

    restore = CheckpointStore.restore

    def forgetful(self: Any, like: Any) -> Any:
        other = {"key": root_key(8)}.get(part, begin()[part])
        return {**restore(self, like), part: other}

    monkeypatch.setattr(CheckpointStore, "restore", forgetful)
    said = failure(assert_resumable, loop(one), begin())
    assert said.startswith(
        f"Saved after 3 updates, the checkpoint gave back another state: leaf {part}"
    )


def test_state_that_no_store_restores() -> None:
    """A loop that changes a dtype on its way cannot be resumed, and the leaf is named."""
    with pytest.raises(CheckpointMismatchError, match="leaf w"):
        assert_resumable(loop(lambda s: {"w": s["w"].astype(jnp.bfloat16) + 1}), {"w": X})


def test_key_that_nobody_draws_from() -> None:
    """A constant key without a draw makes the proof vacuous."""
    said = failure(assert_resumable, loop(lambda s: {**s, "w": s["w"] + 1}), {"w": X, "k": KEYS})
    assert said.startswith(vacuous("k"))


def test_chain_of_keys_that_nobody_draws_from() -> None:
    """A key that is split in each step and never used is not saved by being another at the end."""

    def update(state: tuple[Any, Any]) -> tuple[Any, Any]:
        return state[0] + 1, jax.random.split(state[1])[0]

    said = failure(assert_resumable, loop(update), (jnp.zeros(3), root_key(7)))
    assert said.startswith(vacuous("[1]"))


def test_chain_of_keys_that_is_used() -> None:
    """A chain of keys with draws passes, though the reuse of a key is an error in this suite."""

    def update(state: tuple[Any, Any]) -> tuple[Any, Any]:
        key, draw = jax.random.split(state[1])
        return state[0] + jax.random.uniform(draw, (3,)), key

    assert_resumable(loop(update), (jnp.zeros(3), root_key(7)))


def test_key_that_start_has_used() -> None:
    """A loop that begins with a key that is used up already is caught, as without the copies."""

    def update(state: tuple[Any, Any]) -> tuple[Any, Any]:
        key, draw = jax.random.split(state[1])
        return state[0] + jax.random.uniform(draw, (3,)), key

    key = root_key(7)
    start = (jax.random.uniform(key, (3,)), key)
    with pytest.raises(jax.errors.KeyReuseError):
        assert_resumable(loop(update), start)


def test_keys_beside_a_counter() -> None:
    """Keys are a part of their own: a counter beside them does not vouch for them."""

    def update(state: Pair) -> Pair:
        return Pair(state.left + 1, {**state.right, "count": state.right["count"] + 1})

    start = Pair(jnp.zeros(3), {"count": np.int32(0), "keys": KEYS})
    assert failure(assert_resumable, loop(update), start).startswith(vacuous("right (its keys)"))


def test_part_that_is_written_and_never_read() -> None:
    """A part that every update overwrites is no state: a resume may forget it."""

    def update(state: dict[str, Any]) -> dict[str, Any]:
        return {"w": state["w"] + 1, "last": state["w"]}

    said = failure(assert_resumable, loop(update), {"w": X, "last": X})
    assert said.startswith(vacuous("last"))


def test_constant_parts_are_skipped() -> None:
    """What never changes is not state that could be lost."""
    assert_resumable(loop(one), {**begin(), "rate": np.float32(0.1), "size": np.int32(64)})


@pytest.mark.parametrize("start", [{"rate": np.float32(0.1)}, {}])
def test_nothing_to_forget(start: Any) -> None:
    """A loop in which nothing changes proves nothing, and fails."""
    said = failure(assert_resumable, loop(lambda state: state), start)
    assert said.startswith("No part of the state changed in 3 updates, and none holds keys")


def test_a_state_of_one_array() -> None:
    """A state may be a single array; its part is the root."""
    assert_resumable(loop(lambda w: w * 2 + 1), X)
    assert failure(assert_resumable, lambda w, n: w * 0 + n, X).startswith("Resumed after 3 of 6")


def test_donated_and_overwritten_states() -> None:
    """The loop may take over its argument's memory, keys included, or write into it."""
    give: Any = jax.jit(lambda w, k: (w + jax.random.uniform(k, (3,)), k), donate_argnums=(0, 1))

    def update(state: dict[str, Any]) -> dict[str, Any]:
        w, key = give(state["w"], state["key"])
        assert state["w"].is_deleted(), "this test needs donation"
        state["n"] += 1
        state["key"], state["w"] = jax.random.clone(key), w * state["n"][0]
        return state

    start = {"n": np.zeros(1, np.float32), "w": jnp.ones(3), "key": root_key(7)}
    before = tree_digest(start)
    assert_resumable(loop(update), start)
    assert tree_digest(start) == before


def test_results_in_one_buffer() -> None:
    """A loop that returns one buffer, written over in each call, is not compared with itself."""
    calls, buffer = [], np.zeros(3, np.float32)

    def advance(state: np.ndarray, n: int) -> np.ndarray:
        calls.append(n)
        buffer[:] = state + len(calls)
        return buffer

    assert "the end differs" in failure(assert_resumable, advance, np.zeros(3, np.float32))


@pytest.mark.parametrize("stop", [0, 6, 7])
def test_refused_stop(stop: int) -> None:
    """A stop at an end of the run is refused."""
    with pytest.raises(ValueError, match=f"^Cannot resume after {stop} of 6 updates: choose 0 <"):
        assert_resumable(loop(one), begin(), stop=stop)


def test_state_without_digest() -> None:
    """A Python number in the state is refused by name."""
    with pytest.raises(LeafError, match="step"):
        assert_resumable(loop(lambda s: {**s, "w": s["w"] + 1}), {"w": X, "step": 0})


# What a state is beside its bits


@jax.tree_util.register_pytree_with_keys_class
class Box:
    """A container that a step can write to, with a mode beside its one array."""

    def __init__(self, value: Any, mode: Any = "train") -> None:
        self.value, self.mode = value, mode

    def tree_flatten_with_keys(self) -> Any:
        """Return its array by name, and its mode."""
        return ((jax.tree_util.GetAttrKey("value"), self.value),), self.mode

    @classmethod
    def tree_unflatten(cls, mode: Any, children: Any) -> Box:
        """Make one."""
        return cls(*children, mode)


def tied() -> dict[str, Any]:
    """Return a state in which two names lead to one object."""
    box = Box(jnp.ones(3))
    return {"embed": box, "head": box}


def write_one(state: dict[str, Any]) -> dict[str, Any]:
    """Write to what one name leads to, and read what the other does."""
    state["embed"].value = state["embed"].value * 2
    state["head"].value = state["head"].value + state["embed"].value
    return state


def restoring(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    """Have each store give back something else than was saved."""
    from reproducibility import CheckpointStore

    restore = CheckpointStore.restore
    monkeypatch.setattr(CheckpointStore, "restore", lambda self, like: change(restore(self, like)))


def retied(state: dict[str, Any]) -> dict[str, Any]:
    """Make two names lead to one object, whatever a store made of them."""
    return {**state, "head": state["embed"]}


def test_what_is_one_object_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is given copies in which two names lead to one object, as in the state to start
    with; and a checkpoint that unties them is found out."""
    given = []

    def advance(state: Any, n: int) -> Any:
        given.append(state["embed"] is state["head"])
        return loop(write_one)(state, n)

    start = tied()
    restoring(monkeypatch, retied)
    assert_resumable(advance, start)
    assert set(given) == {True}
    assert (start["embed"].value == 1).all()


def test_a_checkpoint_that_unties(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two objects where there was one are named, though all bits are the same."""
    restoring(monkeypatch, lambda state: {**state, "head": Box(state["embed"].value)})
    said = failure(assert_resumable, loop(write_one), tied())
    assert said.startswith("Saved after 3 updates, the checkpoint gave back another state: ")
    assert "embed and head: one object against several objects" in said


def test_a_checkpoint_of_another_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static data that does not come back is named, though all bits are the same."""
    restoring(monkeypatch, lambda box: Box(box.value, "test"))
    said = failure(assert_resumable, loop(lambda box: Box(box.value + 1, box.mode)), Box(X))
    assert said.startswith("Saved after 3 updates, the checkpoint gave back another state: ")
    assert '"train" against "test"' in said


def test_a_checkpoint_of_another_weak_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weak type that does not come back is named, and NumPy against JAX is no difference."""
    update = loop(lambda s: {"w": s["w"] * 2.0, "v": s["v"] + 1})
    weak = {"w": jnp.asarray(0.5), "v": jnp.ones(2)}
    with monkeypatch.context() as patch:
        restoring(patch, lambda s: {"w": jnp.asarray(4.0), "v": np.asarray(s["v"])})
        assert_resumable(update, weak)
    restoring(monkeypatch, lambda s: {"w": jnp.float32(4), "v": s["v"]})
    said = failure(assert_resumable, update, weak)
    assert said.endswith("another state: leaf w: a weak type against a strong type.")


def test_a_start_that_changes() -> None:
    """A loop that writes into static data, of which no copy can be made, is found out."""

    def update(box: Box) -> Box:
        box.mode.append(1)
        return Box(box.value + 1, box.mode)

    said = failure(assert_resumable, loop(update), Box(X, []))
    assert said.startswith("The loop changed the state to start with, though it was given copies: ")


def test_a_function_that_makes_the_start() -> None:
    """A function is called for each run, and nothing is copied."""
    made = []

    def start() -> dict[str, Any]:
        made.append(1)
        return begin()

    assert_resumable(loop(one), start)
    assert len(made) == 4


# In fresh processes

PROGRAM = """
import jax.numpy as jnp
mean = None

def start():
    return {"p": jnp.ones(())}

def fitted(state, n):
    global mean
    for _ in range(n):
        if mean is None:
            mean = float(state["p"]) * 0.5
        state = {"p": state["p"] - 0.1 * (state["p"] - mean)}
    return state

def sound(state, n):
    for _ in range(n):
        state = {"p": state["p"] - 0.1 * (state["p"] - 0.25)}
    return state

def counting(state, n):
    global mean
    mean = (mean or 0) + 1
    return {"p": state["p"] + (n if n > 3 else 3 if mean == 1 else 3.5)}

def idle(state, n):
    return state

def spoilt(state, n):
    return {"p": state["p"].astype(jnp.bfloat16)}
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a module that other processes find."""
    (tmp_path / "program_of_this_test.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("program_of_this_test")
    del sys.modules["program_of_this_test"]


@pytest.fixture
def _imitated_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what fresh processes are asked for in this one, where files are loaded anew for each."""

    @contextlib.contextmanager
    def asking(what: str, job: str, *task: Any, salt: int = 1) -> Any:
        fresh.load_file.cache_clear()
        kept = sys.modules.pop("program_of_this_test")
        name = job.partition(":")[2]
        answer = json.loads(json.dumps(getattr(resumable, name)(*task)))
        sys.modules["program_of_this_test"] = kept
        yield answer

    monkeypatch.setattr(resumable, "asking_fresh_process", asking)
    monkeypatch.setattr(resumable, "answer_of", lambda asked, timeout: asked)


@pytest.mark.usefixtures("_imitated_processes")
def test_what_a_process_keeps_in_memory(program: Any) -> None:
    """What is fitted once in a process passes in one, and is found where a fresh one resumes."""
    assert_resumable(program.sound, program.start, fresh_process=True)
    assert_resumable(program.fitted, program.start)
    said = failure(assert_resumable, program.fitted, program.start, fresh_process=True)
    assert said.startswith(
        "Resumed in a fresh process after 3 of 6 updates, the end differs: leaf p: float32[] with "
        "other bits. What the first process kept in memory is not in the state"
    )


@pytest.mark.usefixtures("_imitated_processes")
def test_controls_of_fresh_processes(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """There too a test that could not have failed fails, and so does a checkpoint that loses."""
    said = failure(assert_resumable, program.counting, program.start, fresh_process=True)
    assert said.startswith("Resumed twice in one process, the second end differs: leaf p")
    said = failure(assert_resumable, program.idle, program.start, fresh_process=True)
    assert said.startswith("No part of the state changed in 3 updates")
    restoring(monkeypatch, lambda state: {"p": state["p"] + 1})
    said = failure(assert_resumable, program.sound, program.start, fresh_process=True)
    assert said.startswith("Saved after 3 updates, the checkpoint gave back another state: leaf p")


@pytest.mark.long
def test_three_processes(program: Any) -> None:
    """Three fresh processes find what one keeps, and a state that no store restores is named."""
    assert_resumable(program.sound, program.start, fresh_process=True)
    said = failure(assert_resumable, program.fitted, program.start, fresh_process=True)
    assert said.startswith("Resumed in a fresh process after 3 of 6 updates, the end differs")
    said = failure(assert_resumable, program.spoilt, program.start, fresh_process=True)
    assert said.startswith(
        "Cannot tell whether it resumes in a fresh process: the resumed run failed: Cannot restore"
    )


def test_what_no_other_process_finds(program: Any) -> None:
    """A state instead of its function, and a function that no import finds, are refused."""
    with pytest.raises(ValueError, match=r"^Cannot make the state in a fresh process: exp"):
        assert_resumable(program.sound, program.start(), fresh_process=True)
    for advance, start in [(lambda s, n: s, program.start), (program.sound, lambda: X)]:
        with pytest.raises(ValueError, match=r"^Cannot call .*<lambda> in a fresh process: exp"):
            assert_resumable(advance, start, fresh_process=True)
