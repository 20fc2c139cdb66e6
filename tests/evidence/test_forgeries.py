"""Many forgeries, and many honest runs: no forgery is verified, and no honest run is refuted."""

import random
import shutil
from pathlib import Path

import pytest

from reproducibility import Request
from reproducibility.evidence import audit as auditing
from tests.evidence.forging import FORGERIES, compute_here, honest, verdict_of

pytestmark = [pytest.mark.long, pytest.mark.nightly, pytest.mark.timeout(3000)]
EACH = 20  # of every kind: 300 in all


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compute in this process, and keep progress in a folder of the test."""
    monkeypatch.setattr(auditing, "in_environment", compute_here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", FORGERIES)
def test_no_forgery_is_verified(finished: Path, tmp_path: Path, kind: str) -> None:
    """Whatever is altered, an audit of all stretches refutes it or says what is missing."""
    found = {}
    for number in range(EACH):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        run = shutil.copytree(finished, folder / "run")
        FORGERIES[kind](run, random.Random(f"{kind} {number}"))
        found[number] = verdict_of(run, request=Request(random=99, challenge="all"))
        shutil.rmtree(folder)
    assert set(found.values()) <= {"refuted", "unverifiable", "refused"}, found


@pytest.mark.parametrize("kind", ["killed", "moved", "resumed", "grown"])
def test_no_honest_run_is_refuted(tmp_path: Path, kind: str) -> None:
    """25 runs of each kind, with a seed of their own, are verified whole."""
    for seed in range(100, 125):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        run = honest(folder / "run", kind, seed)
        asked = Request(random=99, challenge="all")
        assert verdict_of(run, request=asked) == "verified", seed
