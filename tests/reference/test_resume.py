"""Promises of `reference.resume`: resumed equals uninterrupted, or is refused by name."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reproducibility import (
    PLANNED,
    CheckpointDamagedError,
    CheckpointMismatchError,
    ConfigError,
    IdentityMismatchError,
    Run,
    RunError,
    SetAsideWarning,
    TrainConfig,
    train,
)

Small = Callable[..., TrainConfig]


def interrupted(config: TrainConfig, folder: Path, *stops: int) -> str:
    """Train in stretches that end after `stops`, then to the end; return the digest."""
    for stop_after in stops:
        stretch = train(dataclasses.replace(config, stop_after=stop_after), run_dir=folder)
        assert (stretch.ended, int(stretch.state.step)) == ("stopped", stop_after)
    return train(config, run_dir=folder).digest


@pytest.mark.parametrize("dataset", ["synthetic", "digits"])
@pytest.mark.parametrize("stops", [(1,), (4,), (3, 5, 11)])
def test_resumed_equals_uninterrupted(
    small: Small, tmp_path: Path, dataset: str, stops: tuple[int, ...]
) -> None:
    """However often a run is interrupted, it ends with the digest of the uninterrupted one."""
    config = small(dataset=dataset)
    assert interrupted(config, tmp_path / "run", *stops) == train(config).digest


def test_a_run_longer_than_a_plan_resumes_anywhere(small: Small, tmp_path: Path) -> None:
    """Interrupted on and around the border of a plan, a run ends as the uninterrupted one."""
    config = small(steps=2 * PLANNED + 3, checkpoint_every=10**6)
    stops = (PLANNED - 1, PLANNED, PLANNED + 1, 2 * PLANNED)
    assert interrupted(config, tmp_path / "run", *stops) == train(config).digest


def test_another_identity_is_refused_by_name(small: Small, tmp_path: Path) -> None:
    """A directory of a run with other settings is refused, naming each, and left as it was."""
    train(small(stop_after=4), run_dir=tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    for name, value in {
        "seed": 8,
        "dataset": "digits",
        "batch_size": 64,
        "shards": 4,
        "hidden": (9,),
        "dropout": 0.5,
        "learning_rate": 0.1,
    }.items():
        with pytest.raises(IdentityMismatchError, match=name) as caught:
            train(small(**{name: value}), run_dir=tmp_path / "run")
        assert name in caught.value.settings
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_checkpoint_of_another_run_is_refused(small: Small, tmp_path: Path) -> None:
    """Checkpoints that were swapped for those of another run are refused by its name."""
    train(small(stop_after=4), run_dir=tmp_path / "a")
    train(small(stop_after=4, hidden=(9,)), run_dir=tmp_path / "b")
    shutil.rmtree(tmp_path / "a" / "checkpoints")
    shutil.copytree(tmp_path / "b" / "checkpoints", tmp_path / "a" / "checkpoints")
    name = Run.read(tmp_path / "b").name
    with pytest.raises(CheckpointMismatchError, match=f"got one of run {name}"):
        train(small(), run_dir=tmp_path / "a")


def test_resume_require_needs_a_checkpoint(small: Small, tmp_path: Path) -> None:
    """`resume="require"` with nothing to resume is refused."""
    with pytest.raises(RunError, match=r"Cannot resume the run .*expected a checkpoint, got none"):
        train(small(resume="require"), run_dir=tmp_path / "run")


def test_resume_never_overwrites_nothing(small: Small, tmp_path: Path) -> None:
    """`resume="never"` where there are checkpoints is refused, and they stay."""
    train(small(stop_after=4), run_dir=tmp_path / "run")
    with pytest.raises(RunError, match=r"expected no checkpoints, got one of step 4"):
        train(small(resume="never"), run_dir=tmp_path / "run")
    assert train(small(), run_dir=tmp_path / "run").digest == train(small()).digest


def test_a_run_cannot_shrink(small: Small, tmp_path: Path) -> None:
    """Fewer steps than are complete are refused."""
    train(small(), run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="steps: expected at least 12, which are complete, got 5"):
        train(small(steps=5), run_dir=tmp_path / "run")


@pytest.mark.parametrize("newest", [12, 8])
def test_a_damaged_checkpoint_is_set_aside(small: Small, tmp_path: Path, newest: int) -> None:
    """Training goes back to the newest intact checkpoint, says so, and ends with the same digest.

    Nothing is deleted. With none left it refuses, and renames nothing.
    """
    uninterrupted = train(small(), run_dir=tmp_path / "run").digest
    folder = tmp_path / "run" / "checkpoints"
    for step in (12, 8)[: (12, 8).index(newest) + 1]:
        seal = folder / f"{step:08d}" / "seal.json"
        seal.write_bytes(seal.read_bytes()[:-9])
    with pytest.warns(SetAsideWarning, match=f"Going on from step {newest - 4}"):
        assert train(small(), run_dir=tmp_path / "run").digest == uninterrupted
    assert (folder / f"damaged-{newest:08d}" / "arrays").is_dir()
    for path in folder.glob("0*/seal.json"):
        path.write_text("")
    before = sorted(folder.rglob("*"))
    with pytest.raises(CheckpointDamagedError, match=r"at least one intact, got damage in all"):
        train(small(), run_dir=tmp_path / "run")
    assert sorted(folder.rglob("*")) == before
