"""A record is read as it was written, or refused; reading follows no link and executes nothing."""

import hashlib
import json
import platform
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import RecordDamagedError, RecordError, compare_records, record
from reproducibility.script.findings import findings_of
from reproducibility.script.reading import processes_of
from reproducibility.watch.writing import DIGEST, digest_of_document


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of a few calls."""
    place = tmp_path_factory.mktemp("records") / "whole"
    step = jax.jit(lambda w, x: w * 0.9 + x)
    with record(place):
        w = jnp.zeros(3)
        for i in range(5):
            w = step(w, np.float32(i))
    return place


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_what_was_written_is_read(whole: Path) -> None:
    """Each call has its number, program, arguments and results."""
    (process,) = processes_of(whole)
    (thread,) = process.threads
    calls = list(thread.calls())
    steps = [call for call in calls if call.pattern.program.called == "<lambda>"]
    assert [call.number for call in calls] == list(range(len(calls)))
    assert [call.values for call in steps] != [steps[0].values] * 5
    assert thread.name == "MainThread"
    assert process.problems == ()


def test_every_byte_counts(copy: Path, whole: Path) -> None:
    """A byte that is changed anywhere is found, in whatever file; the record is never the same."""
    for path in sorted(copy.rglob("*.txt")):
        data = path.read_bytes()
        for place in range(0, len(data), max(1, len(data) // 40)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(RecordDamagedError):
                compare_records(whole, copy)
        path.write_bytes(data)
    assert compare_records(whole, copy).verdict == "same"


def values_in(path: Path) -> dict[str, Any]:
    """Read a file of JSON values, without the digest that it has of them."""
    found: dict[str, Any] = json.loads(path.read_text())
    found.pop(DIGEST, None)
    return found


@pytest.mark.parametrize("name", ["start.json", "called.json", "end.json"])
def test_values_that_changed(copy: Path, whole: Path, name: str) -> None:
    """A bit that flipped in a name or a value is found, and an older record has no digest of it."""
    path = copy / "process-1" / name
    values = values_in(path)
    path.write_text(json.dumps({**values, DIGEST: digest_of_document({**values, "other": 1})}))
    with pytest.raises(RecordDamagedError, match=name):
        compare_records(whole, copy)
    path.write_text(json.dumps(values))
    assert compare_records(whole, copy).verdict == "same"


def test_what_is_cut_short(copy: Path, whole: Path) -> None:
    """A file that ends early is found."""
    (path,) = copy.rglob("thread-1.txt")
    data = path.read_bytes()
    for size in range(0, len(data), max(1, len(data) // 20)):
        path.write_bytes(data[:size])
        with pytest.raises(RecordDamagedError):
            compare_records(whole, copy)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda folder: (folder / "thread-1.txt").unlink(), RecordDamagedError),
        (lambda folder: (folder / "start.json").unlink(), RecordError),
        (lambda folder: (folder / "start.json").write_text("{"), RecordDamagedError),
        (lambda folder: (folder / "start.json").write_text('{"format": 2}'), RecordError),
        (lambda folder: (folder / "end.json").write_text("[]"), RecordDamagedError),
        (lambda folder: (folder / "end.json").write_text('{"files": 7}'), RecordDamagedError),
        (lambda folder: (folder / "thread-x.txt").write_text("?"), RecordDamagedError),
        (lambda folder: shutil.rmtree(folder), RecordError),
    ],
)
def test_what_is_no_record(
    copy: Path, whole: Path, spoil: Callable[[Path], None], error: type[Exception]
) -> None:
    """A file that lacks, or holds something else, is one sentence."""
    spoil(copy / "process-1")
    with pytest.raises(error, match="Cannot read a record"):
        compare_records(whole, copy)


def test_a_link_is_not_followed(copy: Path, whole: Path) -> None:
    """A file that is a link is no file of a record."""
    path = copy / "process-1" / "thread-1.txt"
    path.unlink()
    path.symlink_to(whole / "process-1" / "thread-1.txt")
    with pytest.raises(RecordDamagedError):
        compare_records(whole, copy)


def test_a_record_without_an_end(copy: Path, whole: Path) -> None:
    """A process that was killed leaves a record that can be read, and is never the same."""
    (copy / "process-1" / "end.json").unlink()
    compared = compare_records(whole, copy)
    assert compared.verdict == "cannot be told"
    assert "has no end" in compared.problems[0]
    assert (findings_of(whole).exit_code, findings_of(copy).exit_code) == (0, 3)
    assert "has no end" in findings_of(copy).intact


def test_what_a_killed_process_was_writing(copy: Path, whole: Path) -> None:
    """Of a process that was killed the calls count that a digest covers; it made the others too."""
    folder = copy / "process-1"
    (folder / "end.json").unlink()
    path = folder / "thread-1.txt"
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    begun = "".join(lines[:-3])
    seal = f"# {hashlib.sha256(begun.encode()).hexdigest()}\n"
    for cut in ("", lines[0], begun, begun + seal, begun + seal + lines[-3][:5], text[:-9]):
        path.write_text(cut)
        for pair in ((whole, copy), (copy, whole), (copy, copy)):
            compared = compare_records(*pair)
            assert (compared.verdict, compared.roots) == ("cannot be told", [])


def test_a_killed_process_that_did_not_call(copy: Path, whole: Path) -> None:
    """A process that never called JAX may be killed: nothing was missed."""
    for place in (copy, whole):
        other = place / "process-2"
        other.mkdir()
        (other / "start.json").write_text(json.dumps({"format": 1, "command": [place.name]}))
    assert compare_records(whole, copy).verdict == "same"
    (copy / "process-2" / "called.json").write_text("{}")
    assert compare_records(whole, copy).verdict == "cannot be told"
    shutil.rmtree(whole / "process-2")


def test_what_the_recorder_could_not_see(copy: Path, whole: Path) -> None:
    """A problem that the recorder wrote down is never "the same"."""
    path = copy / "process-1" / "end.json"
    end = values_in(path)
    path.write_text(json.dumps({**end, "problems": ["a call was missed"]}))
    compared = compare_records(whole, copy)
    assert (compared.verdict, compared.problems) == (
        "cannot be told",
        ["in the second run, a call was missed"],
    )


def test_what_both_runs_have_is_said_once(copy: Path, whole: Path) -> None:
    """What the recorder could not see in both runs is one problem, with the count for people."""
    for place in (copy, whole):
        path = place / "process-1" / "end.json"
        end = values_in(path)
        path.write_text(json.dumps({**end, "counts": {"calls in callbacks": 25746}}))
    problems = compare_records(whole, copy).problems
    path.write_text(json.dumps(end))
    assert problems == ["in both runs, 25,746 calls in callbacks were not recorded"]


def test_no_directory(tmp_path: Path) -> None:
    """What does not exist, is a file, or is empty is refused."""
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "file", "empty"):
        with pytest.raises(RecordError, match="a record of a script"):
            processes_of(tmp_path / name)
    (tmp_path / "store/00000001/arrays").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    (tmp_path / "else/process-1").touch()
    for name, what in (
        ("store", "a store of checkpoints"),
        ("else", "a directory of something el"),
    ):
        with pytest.raises(RecordError, match=f"got {what}"):
            processes_of(tmp_path / name)


def test_a_record_that_a_kill_cut(copy: Path, whole: Path) -> None:
    """Wherever a file ends and no end was written, it is read up to its last seal."""
    (copy / "process-1" / "end.json").unlink()
    (path,) = copy.rglob("thread-1.txt")
    data = path.read_bytes()
    for size in range(0, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:size])
        assert compare_records(whole, copy).verdict == "cannot be told"
    path.write_bytes(data + b"\xff unfinished")
    assert compare_records(whole, copy).verdict == "cannot be told"


def test_what_two_records_had_otherwise(copy: Path, whole: Path) -> None:
    """Versions and variables that differ are noted, and decide nothing."""
    path = copy / "process-1" / "end.json"
    end = values_in(path)
    path.write_text(json.dumps({**end, "versions": {**end["versions"], "jax": "0.6.2"}}))
    compared = compare_records(whole, copy)
    assert compared.verdict == "same"
    assert compared.notes == [f"jax is {jax.__version__} in the first run, 0.6.2 in the second"]


def test_what_two_machines_had_otherwise(copy: Path, whole: Path) -> None:
    """Processor, cores, devices and settings are noted where both records have them."""
    start, end = (copy / "process-1" / name for name in ("start.json", "end.json"))
    began, ended = values_in(start), values_in(end)
    assert began["processor"]["architecture"] == platform.machine()
    assert sum(int(kind.split()[0]) for kind in ended["kinds"]) == ended["devices"] >= 1
    settings = {**ended["settings"], "jax_default_matmul_precision": "highest"}
    end.write_text(json.dumps({**ended, "kinds": ["4 of TPU v4"], "settings": settings}))
    other = {**began["processor"], "model": "a processor", "instructions": "SSE4_2"}
    start.write_text(json.dumps({**began, "processor": other, "cores": list(range(96))}))
    notes = "\n".join(compare_records(whole, copy).notes)
    for name, second in (
        ("the processor", "a processor"),
        ("the instruction set", "SSE4_2"),
        ("the number of cores", "96"),
        ("the set of devices", "4 of TPU v4"),
        ("jax_default_matmul_precision", "highest"),
    ):
        assert re.search(rf"^{name} is .+ in the first run, {second} in the second$", notes, re.M)
    start.write_text(json.dumps({name: began[name] for name in began if name != "processor"}))
    end.write_text(json.dumps({name: ended[name] for name in ended if name != "kinds"}))
    assert compare_records(whole, copy).notes == []


def test_records_of_different_scripts(whole: Path, copy: Path) -> None:
    """That they ran something else is the first note; another argument of the script is none."""
    start = copy / "process-1" / "start.json"
    facts = values_in(start)
    notes = []
    for command in (["a.py", "1"], ["-X", "dev", "a.py", "2"], ["b.py"], ["-m", "b.c"]):
        start.write_text(json.dumps({**facts, "command": ["python", *command]}))
        other = Path(shutil.copytree(copy, copy.parent / f"other-{len(notes)}"))
        notes.append(compare_records(copy.parent / "other-0", other).notes)
    assert notes[0] == notes[1] == []
    assert notes[2][0] == "the records are of different scripts: a.py and b.py"
    assert notes[3][0] == "the records are of different scripts: a.py and -m b.c"
