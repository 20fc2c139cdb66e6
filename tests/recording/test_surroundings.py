"""Promises of `reproducibility.recording.surroundings`: bare ledgers say where they were made."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from reproducibility import Recorder, TrainConfig, compare, train
from reproducibility.recording.surroundings import (
    environments_beside,
    note_surroundings,
    surroundings,
)


def record(path: Path, value: float, **stages: jax.Array) -> Path:
    """Record two steps."""
    with Recorder(path) as recorder:
        for step in (1, 2):
            recorder.record(step, params=jnp.float32(value * step), **stages)
    return path


def test_a_setting_is_named_by_two_bare_ledgers(tmp_path: Path) -> None:
    """Where two ledgers differ, what differs in their environments is listed.

    The control: made in one environment, they list none, and say no less.
    """
    one, same = record(tmp_path / "one", 1), record(tmp_path / "same", 2)
    with jax.default_matmul_precision("float32"):
        other = record(tmp_path / "other", 2)
    assert one.read_bytes() != other.read_bytes()
    assert same.read_bytes() == other.read_bytes()  # nothing of it stands in a ledger
    assert compare(one, same).environment == ()
    [found] = compare(one, other).environment
    assert found.name == "config.jax_default_matmul_precision"
    assert compare(same, other).verdict == "same"


def test_an_environment_is_noted_once(tmp_path: Path) -> None:
    """A ledger that is written on in the same environment has one line; in another, two."""
    facts = surroundings()
    for step, known in ((1, facts), (5, facts), (9, {**facts, "xla_flags.new": "1"})):
        note_surroundings(tmp_path / "ledger", step, known)
    assert environments_beside(tmp_path / "ledger") == [facts, {**facts, "xla_flags.new": "1"}]


@pytest.mark.parametrize(
    "content", [b"", b"text\n", b'{"environment":5}\n', b'{"environment":{"a":{}}}\n']
)
def test_what_is_beside_a_ledger_decides_nothing(tmp_path: Path, content: bytes) -> None:
    """Without an environment, or with a damaged one, the verdict is as before, and it is said."""
    one, other = record(tmp_path / "one", 1), record(tmp_path / "other", 2)
    (tmp_path / "one.environments").write_bytes(content)
    found = compare(one, other)
    assert (found.verdict, found.environment) == ("different", ())
    assert f"No environment is recorded of {one}." in found.notes
    (tmp_path / "other.environments").unlink()
    assert not any("environment" in note for note in compare(one, other).notes)


def test_a_run_has_no_second_one(tmp_path: Path) -> None:
    """A run keeps the environment of each attempt already; no file is beside its ledger."""
    train(TrainConfig(seed=7, steps=1, shards=1, hidden=(4,)), run_dir=tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.environments"))


def test_stages_that_were_not_recorded_are_said(tmp_path: Path) -> None:
    """What might have differed before the first stage that does, and was not recorded, is said."""
    x = jnp.ones(2)
    one, other = record(tmp_path / "one", 1, batch=x), record(tmp_path / "other", 2, batch=x)
    said = "Of that step, key, gradients and opt_state were not recorded: it may have begun there."
    assert said in compare(one, other).notes
    key = jax.random.key(0)
    trees = {"batch": x, "key": key, "gradients": x, "opt_state": x}
    one, other = record(tmp_path / "1", 1, **trees), record(tmp_path / "2", 2, **trees)
    assert not any("not recorded" in note for note in compare(one, other).notes)
