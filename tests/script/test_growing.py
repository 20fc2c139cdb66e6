"""A record that is being written is counted and compared; only a difference found twice counts."""

import hashlib
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import record
from reproducibility.script import growing
from reproducibility.script.growing import CountedCalls, GrowingComparison
from reproducibility.script.reading import processes_of


def recorded(place: Path, wrong: int = -1) -> Path:
    """Record ten steps; one has another batch."""
    step = jax.jit(lambda w, x: w * 0.9 + x)
    with record(place):
        w = jnp.zeros(3)
        for i in range(10):
            w = step(w, np.float32(i + 0.5 * (i == wrong)))
    return place


def cut(whole: Path, place: Path, lines: int) -> Path:
    """Copy a record as it was when its thread had so many lines, of which the last is half."""
    shutil.copytree(whole, place)
    (place / "process-1" / "end.json").unlink()
    path = place / "process-1" / "thread-1.txt"
    kept = [line for line in path.read_bytes().splitlines(keepends=True) if line[:1] != b"#"]
    sealed = b"".join(kept[:lines])
    seal = b"# " + hashlib.sha256(sealed).hexdigest().encode() + b"\n"
    path.write_bytes(sealed + seal + kept[lines][:3])
    return place


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare without a break."""
    monkeypatch.setattr(growing, "BEGINS_AFTER", 0)
    monkeypatch.setattr(growing, "LEAST_REST", 0)
    monkeypatch.setattr(growing, "REST", 0)


def test_calls_are_counted_as_they_come(tmp_path: Path) -> None:
    """Definitions and seals are no calls, and half a line is none yet."""
    whole = recorded(tmp_path / "whole")
    path = whole / "process-1" / "thread-1.txt"
    data = path.read_bytes()
    counted = CountedCalls(whole)
    for end in (0, len(data) // 3, len(data) // 2, len(data)):
        path.write_bytes(data[:end])
        counted.count()
    (process,) = processes_of(whole)
    assert counted.count() == sum(1 for thread in process.threads for _ in thread.calls())


def test_a_difference_counts_when_it_is_found_again(tmp_path: Path) -> None:
    """What is not sealed is not read; what agrees so far has not diverged."""
    whole = recorded(tmp_path / "whole")
    other = recorded(tmp_path / "other", wrong=6)
    early = GrowingComparison(whole, cut(other, tmp_path / "early", -8))
    assert [early.diverged() for _ in range(3)] == [False] * 3
    late = GrowingComparison(whole, cut(other, tmp_path / "late", -1))
    assert [late.diverged() for _ in range(2)] == [False, True]
    (tmp_path / "empty").mkdir()
    assert not GrowingComparison(whole, tmp_path / "empty").diverged()
