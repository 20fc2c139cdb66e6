"""What is written of a process: without secrets, and a disk that is full disturbs no script."""

import os
import time
from pathlib import Path

import pytest

from reproducibility.watch import begin, writing


@pytest.mark.parametrize(
    "words",
    [
        ["--api-key=hush"],
        ["--password", "hush"],
        ["token=hush"],
        ["--wandb.api_key", "hush"],
        ["--AWS-SECRET=hush"],
        ["https://me:hush@host/data"],
    ],
)
def test_a_secret_argument(words: list[str]) -> None:
    """The value of what is called a secret is not written down."""
    assert "hush" not in " ".join(begin.without_secrets(["python", "a.py", *words]))


def test_what_is_no_secret() -> None:
    """All else stays: two records are put together by their commands."""
    words = ["python", "train.py", "--seed=7", "--keys", "3", "--tokenizer=bpe", "http://h:80/a@b"]
    assert begin.without_secrets(words) == words


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
