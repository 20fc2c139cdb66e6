"""What is written of a process: without secrets, and a disk that is full disturbs no script."""

import os
import time
from pathlib import Path

import pytest

from reproducibility.watch import begin, writing


def test_a_secret_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is that of a variable, though its name begins as one that is written down."""
    monkeypatch.setenv("TF_TOKEN_example", "hush")
    assert "hush" not in str(begin._facts())


def test_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script is not held up, the record lacks its end, and one line says so."""
    monkeypatch.setattr(writing, "PENDING", 20)
    monkeypatch.setattr(writing, "SEAL_EVERY", 0.01)
    record = writing.Writing(tmp_path, {})

    def full(*anything: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing._File, "flush", full)
    monkeypatch.setattr(writing, "_write_json", full)
    for number in range(100):
        record.line("thread-1.txt", str(number))
        if number == 50:
            time.sleep(0.1)
    record.end()
    assert not os.path.exists(tmp_path / "process-1" / "end.json")
    (line,) = capsys.readouterr().err.splitlines()
    assert "the record is not whole" in line
