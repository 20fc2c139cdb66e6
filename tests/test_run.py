"""Promises of `reproducibility.run`."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reproducibility.errors import IdentityMismatchError, ResultError, RunError, RunLockedError
from reproducibility.run import Result, Run, canonical_json, read_result, write_result

SETTINGS = {"seed": 7, "hidden": [8, 4], "learning_rate": 0.001}
RESULT = Result(
    run="a" * 64, steps=5, digest="b" * 64, params_digest="c" * 64,
    loss=0.1, accuracy=0.9, seconds=1.5,
)  # fmt: skip


def test_the_name_is_the_digest_of_run_json(tmp_path: Path) -> None:
    """A run's name is the SHA-256 of the bytes of run.json, which anyone can compute."""
    with Run.work(tmp_path / "run", SETTINGS) as run:
        content = (tmp_path / "run" / "run.json").read_bytes()
    assert content == b'{"format":1,"hidden":[8,4],"learning_rate":0.001,"seed":7}'
    assert run.name == hashlib.sha256(content).hexdigest() == Run.read(tmp_path / "run").name


def test_the_same_settings_continue_and_others_are_refused(tmp_path: Path) -> None:
    """A run is continued with its settings; with others each that differs is named."""
    with Run.work(tmp_path, SETTINGS):
        pass
    with Run.work(tmp_path, SETTINGS) as run:
        assert run.identity == {"format": 1, **SETTINGS}
    with (
        pytest.raises(IdentityMismatchError, match=r"expected seed=7, got seed=8\.") as caught,
        Run.work(tmp_path, {**SETTINGS, "seed": 8}),
    ):
        pass
    assert caught.value.settings == ("seed",)


def test_a_new_setting_makes_another_run(tmp_path: Path) -> None:
    """A setting that the recorded run did not have is a difference too."""
    with Run.work(tmp_path, SETTINGS):
        pass
    with (
        pytest.raises(IdentityMismatchError, match=r"momentum=None, got momentum=0\.9"),
        Run.work(tmp_path, {**SETTINGS, "momentum": 0.9}),
    ):
        pass


def test_one_process_works_on_a_run(tmp_path: Path) -> None:
    """A second process is refused while the first works, and let in once it has died."""
    code = """
import sys, time
from reproducibility.run import Run
with Run.work(sys.argv[1], {"seed": 7}):
    print("locked", flush=True)
    time.sleep(120)
"""
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout.readline() == "locked\n"
        with (
            pytest.raises(RunLockedError, match="expected no other process") as caught,
            Run.work(tmp_path, {"seed": 7}),
        ):
            pass
        assert caught.value.exit_code == 4
    finally:
        first.kill()
        first.wait(timeout=30)
        first.stdout.close()
    with Run.work(tmp_path, {"seed": 7}):
        pass


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """A path that is a file is refused, and the file stays."""
    (tmp_path / "file").write_text("precious")
    with (
        pytest.raises(RunError, match="expected a directory, got a file"),
        Run.work(tmp_path / "file", SETTINGS),
    ):
        pass
    assert (tmp_path / "file").read_text() == "precious"


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    """A directory that holds something else is refused by what it holds, and left as it was."""
    (tmp_path / "thesis.tex").write_text("precious")
    with (
        pytest.raises(RunError, match=r"got a directory that holds thesis\.tex"),
        Run.work(tmp_path, SETTINGS),
    ):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_place_that_cannot_be_written_is_refused() -> None:
    """Where no directory can be made, the operating system's reason is in the message."""
    with (
        pytest.raises(RunError, match="expected a directory this process may write to, got "),
        Run.work("/dev/null/run", SETTINGS),
    ):
        pass


def test_reading_what_is_no_run(tmp_path: Path) -> None:
    """A missing directory, an empty one, a damaged run.json and another format are refused."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(RunError, match=r"expected a run directory with run\.json"):
            Run.read(path)
    for content, got in {
        "": "an empty file",
        '{"format":1': "Expecting",
        '{"format":2}': "got 2",
        '{"format":1,"format":1}': "duplicate keys",
        '{"format":NaN}': "NaN",
        "[1]": "got 'list'",
    }.items():
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(RunError, match=got):
            Run.read(tmp_path)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    """A line that a killed process left half written does not hide the lines before it."""
    with Run.work(tmp_path, SETTINGS) as run:
        run.log(event="start", step=0)
        with open(tmp_path / "attempts.jsonl", "ab") as file:
            file.write(b'{"event":"en')
        assert run.attempts() == [{"event": "start", "step": 0}]


def test_a_line_after_a_torn_one_is_whole(tmp_path: Path) -> None:
    """The next attempt's line does not run into the torn one."""
    with Run.work(tmp_path, SETTINGS) as run:
        with open(tmp_path / "attempts.jsonl", "ab") as file:
            file.write(b'{"event":"en')
        run.log(event="start", step=4)
        assert run.attempts() == [{"event": "start", "step": 4}]


def test_a_result_comes_back(tmp_path: Path) -> None:
    """A result is read as it was written, and its SHA-256 is that of its canonical JSON."""
    write_result(tmp_path / "result.json", RESULT)
    assert read_result(tmp_path / "result.json") == RESULT
    written = json.loads((tmp_path / "result.json").read_bytes())
    recorded = written.pop("sha256")
    assert recorded == hashlib.sha256(canonical_json(written)).hexdigest()
    assert written == {"format": 1, **dataclasses.asdict(RESULT)}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Result)])
def test_an_altered_result_is_not_trusted(tmp_path: Path, name: str) -> None:
    """Whatever is altered in a result, its SHA-256 gives it away."""
    write_result(tmp_path / "result.json", RESULT)
    altered = json.loads((tmp_path / "result.json").read_bytes())
    altered[name] = 6 if not isinstance(altered[name], str) else "d" * 64
    (tmp_path / "result.json").write_text(json.dumps(altered))
    with pytest.raises(ResultError, match="Cannot trust a result"):
        read_result(tmp_path / "result.json")


FOREIGN = {
    "": "an empty file",
    "{}": "an object with nothing in it",
    '{"accuracy": 1.0}': "an object with accuracy",
    "[]": "another value",
    "not json": "Expecting value",
    '{"run": "a': "Unterminated string",
}


@pytest.mark.parametrize("content", FOREIGN)
def test_what_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    """An empty, truncated or foreign file is refused with what it holds; `{}` too."""
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ResultError, match=FOREIGN[content]) as caught:
        read_result(tmp_path / "result.json")
    assert caught.value.exit_code == 2


def test_a_missing_result_is_refused(tmp_path: Path) -> None:
    """A file that is not there is refused with its path."""
    with pytest.raises(ResultError, match=r"at .*nothing\.json: .*No such file"):
        read_result(tmp_path / "nothing.json")


def test_writing_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a result cannot be written, the one before stays and no temporary file is left."""
    path = tmp_path / "result.json"
    write_result(path, RESULT)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="got No space left on device"):
        write_result(path, dataclasses.replace(RESULT, steps=6))
    assert read_result(path) == RESULT
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_canonical_json_is_one_text() -> None:
    """Order, white space and non-ASCII text do not change it; NaN has none."""
    assert canonical_json({"b": 1, "a": "é"}) == b'{"a":"\\u00e9","b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"loss": float("nan")})
