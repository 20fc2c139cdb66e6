"""Promises of `reproducibility.reference.run`."""

import dataclasses
import functools
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reproducibility import (
    IdentityMismatchError,
    NotReproducedError,
    Result,
    ResultError,
    Run,
    RunDamagedError,
    RunError,
    RunLockedError,
    SetAsideWarning,
    read_result,
    write_result,
)
from reproducibility.reference.run import locked
from reproducibility.storage.files import canonical_json, with_digest

SETTINGS = {"seed": 7, "hidden": [8, 4], "learning_rate": 0.001}
RESULT = Result(
    run="a" * 64,
    steps=5,
    digest="b" * 64,
    params_digest="c" * 64,
    loss=0.1,
    accuracy=0.9,
    seconds=1.5,
)


def test_the_name_is_the_digest_of_run_json(tmp_path: Path) -> None:
    """A run's name is the SHA-256 of the bytes of run.json, which anyone can compute."""
    with Run.work(tmp_path / "run", SETTINGS) as run:
        content = (tmp_path / "run" / "run.json").read_bytes()
    body = b'{"format":1,"hidden":[8,4],"learning_rate":0.001,"seed":7}'
    own = hashlib.sha256(body).hexdigest().encode()
    assert content == body[:-1] + b',"sha256":"' + own + b'"}'
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
from reproducibility import Run
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
        '{"format":1}': "carries its own SHA-256, got one without",
        '{"format":1,"format":1}': "duplicate keys",
        '{"format":NaN}': "NaN",
        "[1]": "carries its own SHA-256, got one without",
    }.items():
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(RunDamagedError, match=got) as caught:
            Run.read(tmp_path)
        assert caught.value.exit_code == 1
    (tmp_path / "run.json").write_bytes(canonical_json(with_digest({"format": 2})))
    with pytest.raises(RunError, match="expected run format 1, got 2"):
        Run.read(tmp_path)


def test_attempts_are_a_chain(tmp_path: Path) -> None:
    """Each line continues the chain that the run's name begins, so none can be changed alone."""
    with Run.work(tmp_path, SETTINGS) as run:
        run.log(event="start", step=0)
        run.log(event="end", step=4)
    chain = run.name
    for line in run.attempts():
        recorded = line.pop("chain")
        chain = hashlib.sha256(chain.encode() + canonical_json(line)).hexdigest()
        assert recorded == chain
    assert [line["event"] for line in run.attempts()] == ["start", "end"]


def test_damaged_attempts_are_set_aside(tmp_path: Path) -> None:
    """The next to work on a run keeps the lines before the damage, sets the file aside, goes on."""
    with Run.work(tmp_path, SETTINGS) as run:
        run.log(event="start", step=0)
        whole = (tmp_path / "attempts.jsonl").read_bytes()
        (tmp_path / "attempts.jsonl").write_bytes(whole + b'{"event":"en')
        assert [line["event"] for line in run.attempts()] == ["start"]
    with pytest.warns(SetAsideWarning, match="line 2 was cut"), Run.work(tmp_path, SETTINGS):
        pass
    with Run.work(tmp_path, SETTINGS) as run:
        assert (tmp_path / "attempts.jsonl").read_bytes().startswith(whole)
        assert (tmp_path / "damaged-attempts.jsonl").read_bytes() == whole + b'{"event":"en'
        run.log(event="start", step=4)
        assert [line["event"] for line in run.attempts()] == ["start", "mended", "start"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Files that never got their name are gone when someone works on the run again."""
    with Run.work(tmp_path, SETTINGS):
        pass
    for name in (".tmp-run.json-1", ".tmp-damaged-result.json-2-34", ".tmp-mine"):
        (tmp_path / name).write_text("{")
    with Run.work(tmp_path, SETTINGS):
        assert {entry.name for entry in tmp_path.iterdir()} == {"lock", "run.json", ".tmp-mine"}


def test_nothing_is_touched_where_no_run_is(tmp_path: Path) -> None:
    """A directory with a `run.json` of something else, or temporary files of it, stays as it is."""
    for name in ("run.json", "other"):
        folder = tmp_path / name
        (folder / ".tmp-work").mkdir(parents=True)
        (folder / ".tmp-work" / "precious").write_text("x")
        (folder / name).write_text('{"scripts": {}}')
        with pytest.raises(RunError), Run.work(folder, SETTINGS):
            pass
        assert {e.name for e in folder.iterdir()} - {"lock"} == {".tmp-work", name}
        assert (folder / ".tmp-work" / "precious").read_text() == "x"


def test_a_missing_identity_is_written_anew_if_the_attempts_confirm_it(tmp_path: Path) -> None:
    """A `run.json` that is gone, or is a directory, is as good as a damaged one."""
    with Run.work(tmp_path, SETTINGS) as run:
        run.log(event="start", step=0)
    intact = (tmp_path / "run.json").read_bytes()
    (tmp_path / "run.json").unlink()
    with pytest.raises(RunError), Run.work(tmp_path, {**SETTINGS, "seed": 8}):
        pass
    with Run.work(tmp_path, SETTINGS):
        assert (tmp_path / "run.json").read_bytes() == intact
    (tmp_path / "run.json").unlink()
    (tmp_path / "run.json").mkdir()
    with pytest.warns(SetAsideWarning), Run.work(tmp_path, SETTINGS):
        assert (tmp_path / "run.json").read_bytes() == intact


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_attempts_that_are_no_file_are_set_aside(tmp_path: Path, make: object) -> None:
    """A directory or a pipe in the place of the attempts is damage: not read, and no hang."""
    with Run.work(tmp_path, SETTINGS):
        pass
    make(tmp_path / "attempts.jsonl")
    with pytest.warns(SetAsideWarning, match="not a plain file"), Run.work(tmp_path, SETTINGS):
        assert (tmp_path / "attempts.jsonl").is_file()


def test_a_result_is_not_replaced_by_one_of_other_bits(tmp_path: Path) -> None:
    """A run that was computed again and differs says so; a longer one replaces the result."""
    with Run.work(tmp_path, SETTINGS) as run:
        run.finish(RESULT)
        with pytest.raises(NotReproducedError, match=f"step 5: expected digest {'b' * 64}, "):
            run.finish(dataclasses.replace(RESULT, digest="d" * 64))
        assert run.result() == RESULT
        longer = dataclasses.replace(RESULT, steps=6, digest="d" * 64)
        run.finish(longer)
        assert run.result() == longer


def test_a_damaged_identity_is_written_anew_if_the_attempts_confirm_it(tmp_path: Path) -> None:
    """The chain of the attempts begins with the run's name: it tells whose settings they were."""
    with Run.work(tmp_path, SETTINGS) as run:
        run.log(event="start", step=0)
    intact = (tmp_path / "run.json").read_bytes()
    damaged = intact.replace(b'"seed":7', b'"seed":6')
    (tmp_path / "run.json").write_bytes(damaged)
    for settings in ({**SETTINGS, "seed": 6}, {**SETTINGS, "seed": 8}):
        with pytest.raises(RunDamagedError, match="SHA-256"), Run.work(tmp_path, settings):
            pass
    assert (tmp_path / "run.json").read_bytes() == damaged
    with pytest.warns(SetAsideWarning, match="written anew"), Run.work(tmp_path, SETTINGS):
        pass
    assert (tmp_path / "run.json").read_bytes() == intact
    assert (tmp_path / "damaged-run.json").read_bytes() == damaged


def test_a_damaged_identity_without_attempts_is_not_guessed(tmp_path: Path) -> None:
    """Where checkpoints are there and no line tells whose they are, nothing is written anew."""
    with Run.work(tmp_path, SETTINGS) as run:
        run.checkpoints.mkdir()
    (tmp_path / "run.json").write_bytes(b"{")
    (tmp_path / "attempts.jsonl").unlink(missing_ok=True)
    with pytest.raises(RunDamagedError), Run.work(tmp_path, SETTINGS):
        pass
    assert (tmp_path / "run.json").read_bytes() == b"{"


def test_readers_share_the_lock(tmp_path: Path) -> None:
    """Two may read at once; nobody reads while one works, nor works while one reads."""
    with Run.work(tmp_path, SETTINGS):
        pass
    reading, working = functools.partial(locked, tmp_path, shared=True), Run.work
    with reading(), reading(), pytest.raises(RunLockedError), working(tmp_path, SETTINGS):
        pass
    with working(tmp_path, SETTINGS), pytest.raises(RunLockedError), reading():
        pass


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
    with pytest.raises(ResultError, match=r"Cannot trust result\.json|expected format 1"):
        read_result(tmp_path / "result.json")


def test_a_result_of_another_format_is_refused(tmp_path: Path) -> None:
    """A result of a format to come is not read as one of this format, even if it is intact."""
    body = {**dataclasses.asdict(RESULT), "format": 2}
    (tmp_path / "result.json").write_bytes(canonical_json(with_digest(body)))
    with pytest.raises(ResultError, match=r"expected format 1, got another"):
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
