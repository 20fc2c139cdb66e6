"""Promises of `reproducibility.storage.files`."""

import builtins
import hashlib
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproducibility import ResultError, RunError, RunSaveError, SetAsideWarning, write_atomically
from reproducibility.storage.files import (
    append_line,
    canonical_json,
    file_table,
    read_lines,
    read_with_digest,
    readable_json,
    set_aside,
    with_digest,
)

BODY = {"format": 1, "seed": 7, "rate": 1e-05, "name": "é", "rest": [None, True, {"a": ""}]}


def test_canonical_json_is_one_text() -> None:
    """Order, white space and non-ASCII text do not change it; NaN has none."""
    assert canonical_json({"b": 1, "a": "é"}) == b'{"a":"\\u00e9","b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"loss": float("nan")})


@pytest.mark.parametrize("encode", [canonical_json, readable_json])
def test_no_bit_of_an_object_with_its_digest_can_be_changed(tmp_path: Path, encode: object) -> None:
    """An object comes back without its digest; with any one bit flipped or byte cut it does not."""
    file = tmp_path / "object.json"
    content = encode(with_digest(BODY))
    file.write_bytes(content)
    assert read_with_digest(file) == BODY
    for bit in range(8 * len(content)):
        altered = bytearray(content)
        altered[bit // 8] ^= 1 << bit % 8
        file.write_bytes(altered)
        with pytest.raises(RunError, match=r"Cannot (read|trust) object\.json at "):
            read_with_digest(file)
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(RunError):
            read_with_digest(file)


def test_the_digest_of_an_object_is_that_of_its_canonical_json() -> None:
    """Anyone can compute it without this package."""
    text = json.dumps(BODY, sort_keys=True, separators=(",", ":"))
    assert with_digest(BODY)["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_the_kind_of_error_is_the_callers(tmp_path: Path) -> None:
    """Whoever reads a result gets the error of a result."""
    with pytest.raises(ResultError, match="No such file"):
        read_with_digest(tmp_path / "nothing", ResultError)


def test_no_bit_of_a_chain_can_be_changed(tmp_path: Path) -> None:
    """With any bit flipped, the lines before it are kept and the one that it is in is named."""
    file = tmp_path / "lines"
    for number in range(3):
        append_line(file, "origin", {"number": number, "text": "é"})
    content = file.read_bytes()
    ends = [at + 1 for at, byte in enumerate(content) if byte == 10]
    assert read_lines(file, "origin")[1] is None
    assert read_lines(file, "another origin") == ([], "line 1 does not continue the chain")
    for bit in range(8 * len(content)):
        altered = bytearray(content)
        altered[bit // 8] ^= 1 << bit % 8
        file.write_bytes(altered)
        lines, problem = read_lines(file, "origin")
        first = sum(bit // 8 >= end for end in ends)
        assert [line["number"] for line in lines] == list(range(first))
        assert problem.startswith(f"line {first + 1} ")
    for length in set(range(len(content))) - {0, *ends}:
        file.write_bytes(content[:length])
        assert "cut short" in read_lines(file, "origin")[1]


def test_lines_cannot_be_moved_or_dropped(tmp_path: Path) -> None:
    """A line out of its place does not continue the chain."""
    file = tmp_path / "lines"
    for number in range(3):
        append_line(file, "origin", {"number": number})
    a, b, c = file.read_bytes().splitlines(keepends=True)
    for lines, kept in {(b, a, c): 0, (a, c): 1, (a, a, b, c): 1}.items():
        file.write_bytes(b"".join(lines))
        assert len(read_lines(file, "origin")[0]) == kept


@pytest.mark.parametrize("how", ["at its end", "in its middle"])
def test_a_line_that_does_not_fit_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """If the disk is full, the lines before stay as they were, without a torn one behind them."""
    file = tmp_path / "lines"
    append_line(file, "origin", {"number": 0})
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    class Short(io.FileIO):
        def write(self, content: bytes) -> int:
            return super().write(content[: len(content) // 2])

    if how == "at its end":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(builtins, "open", lambda path, mode, buffering=-1: Short(path, mode))
    with pytest.raises(OSError, match="No space left"):
        append_line(file, "origin", {"number": 1})
    monkeypatch.undo()
    assert file.read_bytes() == before


def test_no_lines_yet(tmp_path: Path) -> None:
    """A file that is not there has no lines, and nothing is wrong with it."""
    assert read_lines(tmp_path / "nothing", "origin") == ([], None)


@given(st.lists(st.binary(max_size=9), max_size=4))
def test_a_table_is_of_names_and_content(contents: list[bytes]) -> None:
    """The table of a directory holds size and SHA-256 of each file, by its path."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "below").mkdir()
        for number, content in enumerate(contents):
            (Path(folder) / "below" / str(number)).write_bytes(content)
        assert file_table(Path(folder)) == {
            f"below/{number}": {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for number, content in enumerate(contents)
        }


def test_a_table_follows_no_link(tmp_path: Path) -> None:
    """A link to a file or directory, and a pipe, have an entry and are not read."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("x")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "folder").symlink_to(tmp_path / "outside")
    (tmp_path / "inside" / "file").symlink_to(tmp_path / "outside" / "secret")
    os.mkfifo(tmp_path / "inside" / "pipe")
    table = file_table(tmp_path / "inside")
    assert set(table) == {"folder", "file", "pipe"}
    assert {entry["sha256"] for entry in table.values()} == {"not a plain file"}


def test_setting_aside_deletes_nothing(tmp_path: Path) -> None:
    """What is set aside gets a name that is free, a warning says so; a replacement can follow."""
    file = tmp_path / "file"
    for content in ("first", "second"):
        file.write_text(content)
        with pytest.warns(SetAsideWarning, match=r"file as damaged-file.*: torn\."):
            set_aside(file, "torn.")
        assert not file.exists()
    file.write_text("third")
    with pytest.warns(SetAsideWarning, match="damaged-file-3"):
        set_aside(file, "torn.", replacement=b"intact")
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {
        "damaged-file": "first",
        "damaged-file-2": "second",
        "damaged-file-3": "third",
        "file": "intact",
    }


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file cannot be moved into place, the one before stays and nothing is left over."""
    write_atomically(tmp_path / "file", b"old")

    def refused(self: Path, target: Path) -> Path:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(RunSaveError, match="got Input/output error"):
        write_atomically(tmp_path / "file", b"new")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"file": b"old"}


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, number: str) -> None:
    """What JSON reads as infinite, or does not know, is refused like any damage."""
    (tmp_path / "file").write_text(f'{{"loss": {number}, "sha256": "x"}}')
    with pytest.raises(RunError, match="Cannot read file at"):
        read_with_digest(tmp_path / "file")


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    """Reading what is no plain file is refused, rather than waited for."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="not a plain file"):
        read_with_digest(tmp_path / "pipe")


def test_what_the_disk_fails_to_read_is_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector is damage of that file; a file that others may read is not."""
    (tmp_path / "file").write_text("x")

    def fail(error: OSError) -> None:
        def digest(file: object, name: str) -> object:
            raise error

        monkeypatch.setattr(hashlib, "file_digest", digest)

    fail(OSError(5, "Input/output error"))
    assert file_table(tmp_path)["file"]["sha256"] == "unreadable: Input/output error"
    fail(PermissionError(13, "Permission denied"))
    with pytest.raises(PermissionError):
        file_table(tmp_path)
