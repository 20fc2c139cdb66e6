"""Promises of `reproducibility.explain.checkpoints`: "same" only of bits that both sides have."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from reproducibility import (
    CheckpointDamagedError,
    CheckpointError,
    CheckpointStore,
    Recorder,
    RunError,
    check,
    compare,
)
from tests.same.test_state import Train
from tests.storage.test_checkpoint import alter, largest

type Tree = dict[str, Any]


def state(step: int) -> Tree:
    """Return the state after so many updates."""
    return {"w": np.arange(9, dtype=np.float32) + np.float32(step), "key": jax.random.key(7)}


def stored(folder: Path, steps: Any = (1, 2, 3), **changes: Any) -> Path:
    """Make a store in which each step has the state of that step, and `changes` from step 3 on."""
    with CheckpointStore(folder, keep=9) as store:
        for step in steps:
            store.save(step, {**state(step), **(changes if step >= 3 else {})})
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three steps."""
    return stored(tmp_path_factory.mktemp("one") / "checkpoints")


def test_two_stores_that_agree(one: Path, tmp_path: Path) -> None:
    """Every bit of each common step agrees: same, with the last one."""
    found = compare(one, stored(tmp_path))
    assert (found.verdict, found.exit_code, found.step, found.notes) == ("same", 0, 3, ())
    assert found.reason == "Every bit of their checkpoints agrees at 3 steps, up to step 3."
    assert found.digests[0] == found.digests[1]


def test_the_first_step_that_differs_is_named(one: Path, tmp_path: Path) -> None:
    """Where one bit differs, the last equal step, the first other one, the leaf and its distance
    are said, without any ledger; so is a step of one side alone."""
    w = state(3)["w"]
    w[4] = np.nextafter(w[4], np.float32(99))
    found = compare(one, stored(tmp_path, (1, 2, 3, 4), w=w))
    assert (found.verdict, found.exit_code, found.since, found.step) == ("different", 1, 2, 3)
    assert found.reason == "Their checkpoints agree at step 2 and differ at step 3, in w."
    assert str(found.distances["w"]) == "1 of 9 elements differ, by up to 1 ULP"
    assert found.notes == (f"Only {tmp_path} has step 4.",)
    found = compare(one / "00000003", tmp_path / "00000003")
    assert (found.verdict, found.reason, found.step) == ("different", "They differ, in w.", None)


CHANGES: dict[str, tuple[Tree, str, Tree]] = {
    "another key": ({"key": jax.random.key(8)}, "in key", {}),
    "another kind of key": (
        {"key": jax.random.key(7, impl="rbg")},
        "in key",
        {"key": ("key<fry>[]", "key<rbg>[]")},
    ),
    "another dtype": (
        {"w": state(3)["w"].astype(np.float64)},
        "in w",
        {"w": ("float32[9]", "float64[9]")},
    ),
    "another shape": (
        {"w": state(3)["w"].reshape(3, 3)},
        "in w",
        {"w": ("float32[9]", "float32[3,3]")},
    ),
    "one more leaf": ({"b": np.zeros(2)}, "in b", {"b": ("none", "float64[2]")}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_differs_is_a_difference(one: Path, tmp_path: Path, what: str) -> None:
    """A key, its kind, a dtype, a shape and a leaf more are differences, each with what it is."""
    changes, where, kinds = CHANGES[what]
    found = compare(one, stored(tmp_path, (3,), **changes))
    assert found.verdict == "different"
    assert where in found.reason
    assert {**found.kinds, **kinds} == found.kinds


def tied(*, one: bool) -> Any:
    """Return a module with one Variable under two names, or with two of the same value."""
    model = nnx.Dict(embed=nnx.Param(jnp.ones(2)), head=nnx.Param(jnp.ones(2)))
    if one:
        model.head = model.embed
    return model


BESIDE: dict[str, tuple[Callable[[bool], Any], str]] = {
    "weak type": (
        lambda b: jnp.asarray(0.5) if b else jnp.asarray(0.5, jnp.float32),
        "beside their bits, in leaf x: a weak type against a strong type",
    ),
    "static data": (
        lambda b: Train(np.ones(1), epoch=3 if b else 0),
        "static field x.epoch: 3 aga",
    ),
    "a tie": (lambda b: tied(one=b), "in x.embed and x.head: one object against several objects"),
}


@pytest.mark.parametrize("what", BESIDE)
def test_what_is_beside_the_bits_counts(tmp_path: Path, what: str) -> None:
    """Equal bits are not the same state where weak types, static data or ties are not equal."""
    make, said = BESIDE[what]
    for name, tree in (("a", make(True)), ("b", make(False)), ("c", make(True))):
        with CheckpointStore(tmp_path / name) as store:
            store.save(1, {"x": tree})
    found = compare(tmp_path / "a", tmp_path / "b")
    assert (found.verdict, found.leaves) == ("different", ())
    assert said in found.reason
    assert compare(tmp_path / "a/00000001", tmp_path / "b/00000001").verdict == "different"
    assert compare(tmp_path / "a", tmp_path / "c").verdict == "same"


def test_same_is_not_said_of_what_was_not_read(one: Path, tmp_path: Path) -> None:
    """A damaged step, no common step, and steps that both went on to are not the same."""
    spoilt = tmp_path / "spoilt"
    shutil.copytree(one, spoilt)
    alter(largest(spoilt / "00000002"))
    found = compare(one, spoilt)
    assert (found.verdict, found.exit_code, found.step) == ("cannot be told", 3, 3)
    assert found.reason.endswith("agrees at 2 steps, up to step 3; step 2 is damaged.")
    assert f"Step 2 of {spoilt} is damaged and was not compared" in found.notes[0]
    with pytest.raises(CheckpointDamagedError):
        compare(one / "00000002", spoilt / "00000002")
    assert compare(spoilt, spoilt).reason.endswith("; step 2 is damaged.")
    others = {
        "elsewhere": ((4, 5), "No step has a checkpoint in both.", None),
        "later": ((2, 5), "agrees at step 2; both went on to step 3, and no later step is in", 2),
    }
    for name, (steps, said, last) in others.items():
        found = compare(one, stored(tmp_path / name, steps))
        assert (found.verdict, found.step) == ("cannot be told", last), name
        assert said in found.reason
    assert compare(one, stored(tmp_path / "shorter", (1, 2))).verdict == "same"


def test_a_checkpoint_is_compared_with_its_step(one: Path, tmp_path: Path) -> None:
    """One checkpoint and a store are compared at that step; what says of no step is refused."""
    other = stored(tmp_path, w=np.zeros(9, np.float32))
    assert compare(one / "00000002", other).verdict == "same"
    assert compare(other, one / "00000003").verdict == "different"
    assert "a is step 2, and b is step 3." in compare(one / "00000002", one / "00000003").notes
    np.savez(tmp_path / "w.npz", w=np.ones(1))
    with pytest.raises(CheckpointError, match=r"Name one of its checkpoints, such as .*00000003"):
        compare(one, tmp_path / "w.npz")


def test_what_has_no_seal_is_compared_and_said(one: Path, tmp_path: Path) -> None:
    """Orbax and files of arrays are compared by name with the leaves of a checkpoint; keys by their
    data. The note says that nothing vouches for them; one other bit is a difference."""
    with CheckpointStore(one) as store:
        leaves = store.restore(step=3)
    np.savez(tmp_path / "w.npz", **leaves)
    with ocp.StandardCheckpointer() as orbax:
        orbax.save(tmp_path / "orbax", state(3))
        orbax.save(tmp_path / "other", {**state(3), "key": jax.random.key(8)})
    for name in ("w.npz", "orbax"):
        found = compare(one / "00000003", tmp_path / name)
        assert found.verdict == "same", name
        assert any("has no seal: nothing says" in note for note in found.notes)
        assert any("Keys are compared by their data" in note for note in found.notes)
    assert compare(tmp_path / "orbax", tmp_path / "w.npz").verdict == "same"
    for name in ("w.npz", "orbax", one / "00000003"):
        assert compare(tmp_path / "other", tmp_path / name).leaves == ("key",)


def test_what_cannot_be_read_as_arrays_is_not_the_same(tmp_path: Path) -> None:
    """An item of Orbax's that nobody can read leaves the answer open; one that differs decides."""
    for name in "ab":
        with ocp.CheckpointManager(tmp_path / name, item_names=("state", "data")) as manager:
            items = {"state": ocp.args.StandardSave(state(1)), "data": ocp.args.JsonSave([1])}
            manager.save(1, args=ocp.args.Composite(**items))
    assert compare(tmp_path / "a", tmp_path / "b").verdict == "same"
    for name in "ab":
        (tmp_path / name / "1/blob").mkdir()
        (tmp_path / name / "1/blob/bytes").write_bytes(name.encode())
    for a, b in (("a", "b"), ("a/1", "b/1")):
        found = compare(tmp_path / a, tmp_path / b)
        assert found.verdict == "cannot be told"
        assert any("blob in " in note for note in found.notes)
    data = tmp_path / "b/1/data/metadata"
    data.write_text(data.read_text().replace("1", "2"))
    assert compare(tmp_path / "a", tmp_path / "b").leaves == ("data",)


def test_a_step_of_orbax_that_cannot_be_read_is_not_left_out(tmp_path: Path) -> None:
    """A folder that has lost what names its arrays is said, on whichever side it is."""
    for name in "ab":
        with ocp.CheckpointManager(tmp_path / name) as manager:
            for step in (1, 2):
                manager.save(step, args=ocp.args.StandardSave(state(step)))
    assert compare(tmp_path / "a", tmp_path / "b").verdict == "same"
    (tmp_path / "b/2/default/_METADATA").unlink()
    for others in ("bb", "ab", "ba"):
        found = compare(*(tmp_path / name for name in others))
        assert found.verdict == "cannot be told", others
        assert any(note.startswith("2 of ") for note in found.notes)
    assert any(note.startswith("2 of ") for note in check(tmp_path / "b").notes)


def test_nothing_in_common_is_not_told(tmp_path: Path) -> None:
    """Two files without a common name, or without any array, are neither same nor different."""
    for name, arrays in {"a": {"x": np.ones(1)}, "b": {"y": np.ones(1)}, "c": {}}.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    for pair in ("ab", "ac", "cc"):
        found = compare(*(tmp_path / f"{name}.npz" for name in pair))
        assert (found.verdict, found.exit_code) == ("cannot be told", 3), pair
    assert "a.npz has x and" in compare(tmp_path / "a.npz", tmp_path / "b.npz").reason


def test_ledgers_decide_where_there_are_some(tmp_path: Path) -> None:
    """Beside checkpoints, ledgers that part name the stage; where they agree, the checkpoints are
    looked at too: what no ledger recorded can differ. A ledger alone has no arrays."""
    for name, value in {"a": 1.0, "b": 2.0, "c": 1.0}.items():
        other = np.zeros(1) if name == "c" else np.ones(1)
        stored(tmp_path / name / "checkpoints", (5,), other=other)
        with Recorder(tmp_path / name / "ledger.jsonl") as recorder:
            recorder.record(5, params={"w": jnp.full(3, value)})
    assert compare(tmp_path / "a", tmp_path / "b").stage == "params"
    found = compare(tmp_path / "a", tmp_path / "c")
    assert (found.verdict, found.leaves, found.step) == ("different", ("other",), 5)
    with pytest.raises(
        RunError, match="expected arrays on both sides, or records on both, got a l"
    ):
        compare(tmp_path / "a/ledger.jsonl", tmp_path / "b/checkpoints")
