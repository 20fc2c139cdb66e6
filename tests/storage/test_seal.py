"""Promises of `reproducibility.storage.seal`: what a checkpoint was sealed with is what is used."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest

from reproducibility import (
    CheckpointDamagedError,
    CheckpointMismatchError,
    CheckpointStore,
    leaf_digests,
    root_key,
    tree_digest,
)
from reproducibility.storage.files import readable_json, saved_steps, with_digest
from tests.storage.test_checkpoint import SAVED
from tests.storage.test_orbax import EVERY_KIND


def test_a_checkpoint_under_another_step_is_refused(tmp_path: Path) -> None:
    """The seal says of which step it is: a directory that was renamed is not believed."""
    with CheckpointStore(tmp_path) as store:
        store.save(4, SAVED)
        store.wait()
        (tmp_path / "00000004").rename(tmp_path / "00000008")
        with pytest.raises(CheckpointDamagedError, match="step 8: expected seal") as caught:
            store.restore(SAVED, step=8)
    assert caught.value.files == ("seal.json",)


MISMATCHES = [
    ({"w": SAVED["w"], "bias": SAVED["b"]}, r"leaf bias .*expected float32\[3\], got no such leaf"),
    ({"w": SAVED["w"]}, r"leaf b .*expected no such leaf, got float32\[3\]"),
    ({**SAVED, "w": np.zeros((3, 2), np.float32)}, r"leaf w .*float32\[3,2\], got float32\[2,3\]"),
    ({**SAVED, "b": np.zeros(3, ml_dtypes.bfloat16)}, r"leaf b .*bfloat16\[3\], got float32\[3\]"),
    ({"a": SAVED}, r"leaf a\.b "),
]


@pytest.mark.parametrize(("like", "message"), MISMATCHES)
def test_another_tree_is_refused_by_leaf(tmp_path: Path, like: Any, message: str) -> None:
    """A missing, unknown or renamed leaf, another shape or dtype is refused by the leaf's name."""
    with CheckpointStore(tmp_path) as store:
        store.save(7, SAVED)
        with pytest.raises(CheckpointMismatchError, match=message) as caught:
            store.restore(like)
    assert "step 7" in str(caught.value)


def test_a_renamed_leaf_is_guessed(tmp_path: Path) -> None:
    """Where a leaf was renamed, the message names the one it probably was."""
    with CheckpointStore(tmp_path) as store:
        store.save(0, {"kernel_1": np.zeros(3)})
        with pytest.raises(CheckpointMismatchError, match="but an unknown kernel_1"):
            store.restore({"kernel_one": np.zeros(3)})


def test_another_prng_is_refused(tmp_path: Path) -> None:
    """A key of another PRNG implementation is refused, not reinterpreted."""
    with CheckpointStore(tmp_path) as store:
        store.save(0, {"key": root_key(1)})
        with pytest.raises(CheckpointMismatchError, match=r"leaf key .*key<rbg>.*got key<fry>"):
            store.restore({"key": jax.random.key(1, impl="rbg")})


def another_format(folder: Path) -> None:
    """Write a seal of a format to come."""
    (folder / "seal.json").write_bytes(readable_json(with_digest({"format": 2, "step": 0})))


def test_another_format_is_no_damage(tmp_path: Path) -> None:
    """A checkpoint of a format to come is refused, and not set aside."""
    with CheckpointStore(tmp_path) as store:
        store.save(0, SAVED)
        store.wait()
        another_format(tmp_path / "00000000")
        with pytest.raises(CheckpointMismatchError, match="expected format 1, got 2"):
            store.resume(SAVED)
    assert saved_steps(tmp_path) == [0]


def test_the_seal_says_what_was_saved(tmp_path: Path) -> None:
    """The seal holds run, step, the digests anyone can compute, and a SHA-256 of every file."""
    tree = {name: make() for name, make in EVERY_KIND.items()}
    with CheckpointStore(tmp_path, run="a run") as store:
        store.save(3, tree)
        store.wait()
        seal = store.verify(3)
    assert (seal["run"], seal["step"], seal["digest"]) == ("a run", 3, tree_digest(tree))
    assert {n: leaf["digest"] for n, leaf in seal["leaves"].items()} == leaf_digests(tree)
    folder = tmp_path / "00000003"
    files = {path for path in folder.rglob("*") if path.is_file()} - {folder / "seal.json"}
    assert {folder / name for name in seal["files"]} == files
    for name, entry in seal["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
