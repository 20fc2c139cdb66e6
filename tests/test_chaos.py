"""The short form of `make chaos`: kill a run at random moments, damage its files at random."""

from pathlib import Path

import pytest

from reproducibility import TrainConfig
from tests import chaos


@pytest.mark.long
def test_a_killed_run_ends_with_the_same_digest(tmp_path: Path) -> None:
    """Killed again and again, also inside a save, a run ends as the uninterrupted one.

    It has the same ledger, byte for byte; it repeats little work, and leaves nothing behind that
    `check` complains about.
    """
    kills = chaos.kill_until_done(tmp_path / "killed", seed=1, steps=1_000, kills=2)
    chaos.check_killed(tmp_path / "killed", 1, 1_000, kills)
    assert len(kills) == 2


@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.timeout(900)  # four starts of several processes, which compile
def test_a_run_that_is_killed_and_moved_ends_with_the_same_digest(tmp_path: Path) -> None:
    """Killed and gone on with on another layout each time, a run is that of one device.

    It has the same ledger, byte for byte. Where one process of several is killed, the others end
    by themselves, with code 4.
    """
    config = TrainConfig(seed=2, steps=300, checkpoint_every=25, **chaos.MOVED)
    counts = chaos.move_until_done(tmp_path / "run", config, seed=2, kills=3)
    assert (counts["all"], counts["one of several"]) == (1, 2)
    chaos.check_moved(tmp_path / "run", config)


def test_no_damage_is_silent() -> None:
    """Whatever bit is flipped or end is cut off, `check` names the file and no run believes it."""
    counts = chaos.damage(seed=1, flips=24, cuts=8, resume_every=5)
    assert counts["seen by check"] == 32
    assert counts["the same digest, damage set aside"] > 0
