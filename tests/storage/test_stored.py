"""Promises of `reproducibility.storage` of what is at a path: what it is, what is in it, and if
that is as it was written."""

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import save_file

from reproducibility import (
    CheckpointDamagedError,
    CheckpointError,
    CheckpointStore,
    LeafError,
    check,
    leaf_digests,
    root_key,
    tree_digest,
)
from reproducibility.explain.checkpoints import compare_stored
from reproducibility.storage.files import file_table
from reproducibility.storage.found import arrays_at, path_words
from reproducibility.storage.stored import Stored, arrays_of, whole_digest
from tests.storage.test_checkpoint import alter, largest

STATE = {"params": {"w": jnp.arange(999.0)}, "layers": [np.ones(2)], "key": root_key(7)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, folders of Orbax's and files of arrays, with the same state in all of them."""
    folder = tmp_path_factory.mktemp("stored")
    with CheckpointStore(folder / "mine/checkpoints") as store:
        for step in (1, 20):
            store.save(step, STATE)
        leaves = store.restore()
    with ocp.StandardCheckpointer() as orbax:
        orbax.save(folder / "orbax", STATE)
    options = ocp.CheckpointManagerOptions(step_prefix="ckpt")
    with ocp.CheckpointManager(folder / "manager", options=options) as manager:
        manager.save(3, args=ocp.args.StandardSave(STATE))
    with ocp.CheckpointManager(folder / "items", item_names=("state", "data")) as manager:
        for step in (1, 2):
            items = {"state": ocp.args.StandardSave(STATE), "data": ocp.args.JsonSave({"at": step})}
            manager.save(step, args=ocp.args.Composite(**items))
    shutil.copytree(folder / "mine/checkpoints/00000020", folder / "best")
    np.savez(folder / "w.npz", **leaves)
    np.savez(folder / "none.npz")
    save_file(leaves, folder / "w.safetensors")
    np.save(folder / "w.npy", leaves["params.w"])
    (folder / "empty").mkdir()
    (folder / "text").write_text("text")
    return folder


KINDS = {
    "mine": "a store of checkpoints",
    "mine/checkpoints": "a store of checkpoints",
    "mine/checkpoints/00000020": "one checkpoint of a store",
    "best": "one checkpoint of a store",
    "orbax": "an Orbax checkpoint",
    "manager": "a directory of Orbax checkpoints",
    "manager/ckpt_3": "an Orbax checkpoint",
    "manager/ckpt_3/default": "an Orbax checkpoint",
    "items": "a directory of Orbax checkpoints",
    "w.npz": "a file of arrays",
    "w.safetensors": "a file of arrays",
    "w.npy": "a file of arrays",
    "empty": "an empty directory",
    "text": "a file",
    "missing": "no such file",
    ".": "a directory of something else",
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_at_a_path_is_told_by_names(written: Path, name: str) -> None:
    """Whatever has arrays in it is known by the names of its files; nothing else is."""
    assert path_words(written / name) == KINDS[name]
    found = arrays_at(written / name)
    assert (found.words if found else None) == (KINDS[name] if found else None)


def read(path: Path, step: int | None = None) -> Stored:
    """Return the arrays at a path."""
    found = arrays_at(path)
    assert found
    return arrays_of(found, step)


AS_DATA = {**STATE, "key": np.asarray(jax.random.key_data(STATE["key"]))}


@pytest.mark.parametrize(
    ("name", "tree"),
    [
        ("mine", STATE),
        ("best", STATE),
        ("orbax", AS_DATA),
        ("manager", AS_DATA),
        ("manager/ckpt_3/default", AS_DATA),
    ],
)
def test_the_digest_is_that_of_the_tree(written: Path, name: str, tree: Any) -> None:
    """Of a tree that is kept as one, digest and names are those that Python gives for it. Orbax
    keeps the data of keys."""
    stored = read(written / name)
    assert whole_digest(stored) == tree_digest(tree)
    assert {n: leaf.digest for n, leaf in stored.leaves.items()} == leaf_digests(tree)


def test_files_of_arrays_hold_the_same_under_their_own_names(written: Path) -> None:
    """The leaves of a checkpoint, written into files, have the digests that they had."""
    ours = {name: leaf.digest for name, leaf in read(written / "orbax").leaves.items()}
    for name in ("w.npz", "w.safetensors"):
        assert {n: leaf.digest for n, leaf in read(written / name).leaves.items()} == ours
    assert read(written / "w.npy").leaves["."].digest == ours["params.w"]


def test_items_of_orbax_have_their_names(written: Path) -> None:
    """Where a checkpoint has several items, their names come first; JSON counts by its bytes."""
    one, two = (read(written / "items", step) for step in (1, 2))
    differ = [name for name in one.leaves if one.leaves[name].digest != two.leaves[name].digest]
    assert differ == ["data"]
    assert set(one.leaves) == {"data"} | {f"state.{name}" for name in leaf_digests(STATE)}


def test_what_is_no_array_is_said(written: Path, tmp_path: Path) -> None:
    """An item that cannot be read as arrays is named, and text has no digest of a tree."""
    shutil.copytree(written / "items/1", tmp_path / "1")
    (tmp_path / "1/other").mkdir()
    (tmp_path / "1/other/blob").write_bytes(b"\x00")
    assert read(tmp_path / "1").unread == ("other",)
    np.savez(tmp_path / "w.npz", a=np.ones(1), t=np.array(["x"]))
    stored = read(tmp_path / "w.npz")
    assert stored.digest is None
    with pytest.raises(LeafError, match="at t: expected a number or bool dtype"):
        whole_digest(stored)


def test_fields_of_other_names_or_types_are_not_the_same(tmp_path: Path) -> None:
    """Equal bytes are one thing only under equal fields; and no array hides behind another."""
    for name, kind in (("a", "<i4"), ("b", "<i4"), ("a", "<f4")):
        np.savez(tmp_path / f"{name}{kind[1]}.npz", w=np.zeros(2, [(name, kind)]))
    digests = {read(path).leaves["w"].digest for path in tmp_path.iterdir()}
    assert len(digests) == 3
    np.savez(tmp_path / "two.npz", **{"": np.ones(1), ".": np.zeros(1)})
    assert len(read(tmp_path / "two.npz").leaves) == 2


def test_a_step_that_is_not_there_is_said(written: Path) -> None:
    """A store says which steps it has; what is no store has none."""
    assert read(written / "mine", 1).seal.step == 1
    with pytest.raises(
        CheckpointError, match=r"step 2: expected a committed .* got step 1, step 20"
    ):
        read(written / "mine", 2)
    with pytest.raises(CheckpointError, match="expected a store of checkpoints, got a file of arr"):
        read(written / "w.npz", 2)


CHECKED = {
    "mine": ("intact", 0, (1, 20), ""),
    "best": ("intact", 0, (20,), ""),
    "w.npz": ("intact", 0, (), ""),
    "none.npz": ("cannot be told", 3, (), "It holds no array"),
    "w.safetensors": ("cannot be told", 3, (), "a .safetensors file keeps no digest"),
    "w.npy": ("cannot be told", 3, (), "a .npy file keeps no digest"),
    "orbax": ("cannot be told", 3, (), "Orbax keeps no digest"),
    "items": ("cannot be told", 3, (1, 2), "Orbax keeps no digest"),
}


@pytest.mark.parametrize("name", CHECKED)
def test_only_what_vouches_for_itself_is_intact(written: Path, name: str) -> None:
    """A seal and checksums are checked; of anything else it is said that nothing can be told."""
    verdict, code, steps, why = CHECKED[name]
    before = file_table(written)
    found = check(written / name)
    assert (found.verdict, found.exit_code, found.checkpoints) == (verdict, code, steps)
    assert why in found.unknown
    assert found.files
    assert file_table(written) == before


def test_damage_is_found_and_repaired(written: Path, tmp_path: Path) -> None:
    """One bit of one checkpoint is damage, with its leaf; `repair` sets that one aside, and leaves
    what may be half written. The array of a `.npz` has its CRC-32."""
    shutil.copytree(written / "mine", tmp_path / "mine")
    store = tmp_path / "mine/checkpoints"
    (store / ".tmp-00000030").mkdir()
    (store / "notes").touch()
    alter(largest(store / "00000020"))
    kinds = {"00000020": "damaged", ".tmp-00000030": "left over", "notes": "foreign"}
    found = check(tmp_path / "mine")
    assert {finding.path: finding.kind for finding in found.findings} == kinds
    assert (found.exit_code, found.checkpoints, found.damaged[0].leaves) == (1, (1,), ("params.w",))
    with pytest.raises(CheckpointDamagedError, match=r"and with it params\.w"):
        read(tmp_path / "mine")
    assert read(tmp_path / "mine", 1).seal
    (store / "00000001/arrays/more").touch()  # changes no leaf
    with pytest.raises(CheckpointDamagedError, match="arrays/more altered"):
        read(tmp_path / "mine", 1)
    (store / "00000001/arrays/more").unlink()
    found = check(store, repair=True)
    assert (found.exit_code, [finding.path for finding in found.repaired]) == (0, ["00000020"])
    assert sorted(p.name for p in store.iterdir()) == sorted(
        [".tmp-00000030", "00000001", "damaged-00000020", "notes"]
    )
    content = bytearray((written / "w.npz").read_bytes())
    content[content.index(np.arange(999.0, dtype=np.float32).tobytes())] ^= 1
    (tmp_path / "w.npz").write_bytes(content)
    assert check(tmp_path / "w.npz").exit_code == 1
    with pytest.raises(CheckpointDamagedError, match="Bad CRC-32"):
        read(tmp_path / "w.npz")
    array = io.BytesIO()
    np.save(array, np.arange(9.0))
    with zipfile.ZipFile(tmp_path / "longer.npz", "w") as archive:
        archive.writestr("a.npy", array.getvalue() + b"more")
    with pytest.raises(CheckpointError, match="more bytes than its header says"):
        check(tmp_path / "longer.npz")


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt", "d/*"])
def test_a_damaged_checkpoint_of_orbax_is_named(tmp_path: Path, name: str) -> None:
    """It is damaged, and not no checkpoint; the other steps are compared, and noted once."""
    with ocp.StandardCheckpointer() as orbax:  # of one array: of several, TensorStore fails late
        orbax.save(tmp_path / "one", {"w": STATE["params"]["w"]})
    for run in ("a", "b"):
        for step in (1, 2, 3):
            shutil.copytree(tmp_path / "one", tmp_path / run / f"ckpt_{step}")
    (file,) = (tmp_path / "b/ckpt_2").glob(name)
    content = file.read_bytes()
    file.write_bytes(b"\0" * 40 + content[40:])
    found = check(tmp_path / "b")
    assert [(each.path, each.kind) for each in found.findings] == [("ckpt_2", "damaged")]
    assert found.exit_code == 1
    sides = [arrays_at(tmp_path / run) for run in ("a", "b")]
    assert sides[0] is not None
    assert sides[1] is not None
    compared = compare_stored(sides[0], sides[1])
    assert (compared.verdict, compared.step) == ("cannot be told", 3)
    assert "agrees at 2 steps, up to step 3; step 2 is damaged" in compared.reason
    assert sum("has no seal" in note for note in compared.notes) == 2
    assert any(note.startswith(f"Step 2 of {tmp_path / 'b'} is damaged") for note in compared.notes)


def test_a_file_too_many_spoils_no_leaf(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is damage, and the leaves are as they were: also where the path is a relative one."""
    shutil.copytree(written / "best", tmp_path / "best")
    (tmp_path / "best/notes").touch()
    monkeypatch.chdir(tmp_path)
    (found,) = check(Path("best")).damaged
    assert (found.detail, found.leaves) == ("notes altered, and no leaf spoilt", ())


def test_only_a_store_of_its_own_is_repaired(written: Path, tmp_path: Path) -> None:
    """What has no seal, one checkpoint, and the store of a run are refused: the run has a lock."""
    shutil.copytree(written / "mine", tmp_path / "run")
    (tmp_path / "run/run.json").touch()
    for path in (tmp_path / "run/checkpoints", written / "orbax", written / "best"):
        with pytest.raises(CheckpointError, match="Cannot repair "):
            check(path, repair=True)


def test_checkpoints_of_several_names_are_no_store(written: Path, tmp_path: Path) -> None:
    """Of `model_3` and `optimizer_3` not one alone is read: both are named, as are `3` and `03`."""
    for names in (("model_3", "optimizer_3"), ("model_3", "optimizer_4"), ("03", "3")):
        folder = tmp_path / names[0]
        for name in names:
            shutil.copytree(written / "manager/ckpt_3", folder / name)
        assert arrays_at(folder) is None
        assert path_words(folder) == f"Orbax checkpoints of several names, {' and '.join(names)}"
        assert arrays_at(folder / names[1]) is not None
        shutil.rmtree(folder)
