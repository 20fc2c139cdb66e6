"""What the tests of ledgers begin with."""

import os
from pathlib import Path

import pytest

from tests.ledgers import lines, write


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Write a ledger of steps 0 to 7."""
    write(tmp_path / "ledger.jsonl", lines())
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let thousands of small writes not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
