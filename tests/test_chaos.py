"""The short form of `make chaos`: kill a run at random moments, damage its files at random."""

from pathlib import Path

from tests import chaos


def test_a_killed_run_ends_with_the_same_digest(tmp_path: Path) -> None:
    """Killed again and again, also inside a save, a run ends as the uninterrupted one.

    It has the same ledger, byte for byte; it repeats little work, and leaves nothing behind that
    `check` complains about.
    """
    kills = chaos.kill_until_done(tmp_path / "killed", seed=1, steps=1_000, kills=2)
    chaos.check_killed(tmp_path / "killed", 1, 1_000, kills)
    assert len(kills) == 2


def test_no_damage_is_silent() -> None:
    """Whatever bit is flipped or end is cut off, `check` names the file and no run believes it."""
    counts = chaos.damage(seed=1, flips=45, cuts=15, resume_every=5)
    assert counts["seen by check"] == 60
    assert counts["the same digest, damage set aside"] > 0
