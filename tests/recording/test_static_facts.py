"""Static data of the stages stands beside a ledger, and decides where all arrays agree."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from reproducibility import Recorder, compare
from reproducibility.recording.static_facts import note_static, static_beside
from tests.same.test_state import Box, Hostile, Train


def recorded(path: Path, states: list[Any]) -> Path:
    """Record a step of each of these states."""
    with Recorder(path) as recorder:
        for step, state in enumerate(states, 1):
            recorder.record(step, params=state)
    return path


def trained(*epochs: int, mode: str = "train") -> list[Any]:
    """Return a state for each epoch, with arrays that are always the same."""
    return [{"t": Train(jnp.ones(2), epoch, mode)} for epoch in epochs]


def test_another_static_field_is_another_run(tmp_path: Path) -> None:
    """Where all arrays agree, the step and the field are named where static data differs."""
    one = recorded(tmp_path / "one", trained(0, 0, 3, 3))
    two = recorded(tmp_path / "two", trained(0, 0, 3, 3))
    other = recorded(tmp_path / "other", trained(0, 0, 0, 0))
    assert one.read_bytes() == other.read_bytes()
    assert (compare(one, two).verdict, compare(one, two).notes) == ("same", ())
    found = compare(one, other)
    assert (found.verdict, found.step, found.since, found.exit_code) == ("different", 3, 2, 1)
    assert found.reason == (
        "All arrays that both recorded agree; from step 3 on, static data differs: epoch of t of "
        "params is 3 against 0."
    )
    assert [line["from"] for line in static_beside(one)] == [1, 3]  # only where it changes


def test_more_than_one_and_other_classes(tmp_path: Path) -> None:
    """Another class, or none, is named; of several places the first, and how many more."""
    x = jnp.ones(2)
    one = recorded(tmp_path / "one", [{"a": Box(x, 1), "b": Box(x, 1)}])
    other = recorded(tmp_path / "other", [{"a": Box(x, 2), "b": Box(x, 2)}])
    none = recorded(tmp_path / "none", [{"a": (x,), "b": (x,)}])
    assert "data of a of params is 1 against 2; 1 more differ." in compare(one, other).reason
    assert not static_beside(none)
    found = compare(one, none)
    assert found.verdict == "same"
    assert found.notes == (f"Static data is noted of {one} alone: it was not compared.",)
    some = recorded(tmp_path / "some", [{"a": (x,), "b": Box(x, 1)}])
    assert "a of params is Box against nothing." in compare(one, some).reason


def test_what_is_not_compared_is_said(tmp_path: Path) -> None:
    """What has no text, or no end, is named by compare; the loop is not disturbed."""
    box = Box(jnp.ones(2), (1, Hostile()))
    one = recorded(tmp_path / "one", [box])
    assert compare(one, one).notes == ("Of static data, not compared: a Hostile.",)
    endless = recorded(tmp_path / "endless", [Box(jnp.ones(2), tuple(range(100_001)))])
    assert compare(endless, endless).notes == (
        "Of static data, not compared: more than 100,000 values in params.",
    )


def test_a_run_that_is_recorded_anew(tmp_path: Path) -> None:
    """A second run on one ledger replaces what was noted from its first step on."""
    path = recorded(tmp_path / "one", trained(0, 1, 2))
    recorded(path, trained(0, 1, 2))
    assert [line["from"] for line in static_beside(path)] == [1, 2, 3]
    note_static(path, 2, {"params": {"class": "T"}})
    assert [line["from"] for line in static_beside(path)] == [1, 2]
    (tmp_path / "one.static").write_bytes(b"not a line\n")
    assert static_beside(path) == []


def test_trees_without_static_data_have_no_file(tmp_path: Path) -> None:
    """Dictionaries, lists and named tuples hold nothing beside their leaves."""
    pair = collections.namedtuple("pair", "a b")
    states = [{"w": [jnp.ones(2)], "p": pair(jnp.ones(1), None)}]
    recorded(tmp_path / "one", states)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "one.environments"}
    with Recorder(tmp_path / "two", environment=False) as recorder:
        recorder.record(1, params=trained(1))
    assert not (tmp_path / "two.static").exists()
