"""Promises of `reproducibility.recording.mend`: what is not damaged of a ledger stays."""

import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from reproducibility import Ledger, LedgerError, SetAsideWarning, TrainConfig, train
from reproducibility.storage.files import canonical_json
from tests.ledgers import RUN, STEPS, craft, header, lines, write

Small = Callable[..., TrainConfig]


@pytest.mark.usefixtures("no_waiting")
def test_killed_at_any_byte(whole: Path) -> None:
    """Cut off at any byte at all, a ledger is gone on with to the same bytes, and that is said.

    Only what a kill can leave is removed without being kept: part of the last line.
    """
    content = whole.read_bytes()
    second, last = content.index(b"\n") + 200, content.rindex(b"\n", 0, -1) - 100
    for size in (*range(second), *range(second, last, 11), *range(last, len(content) + 1)):
        whole.write_bytes(content[:size])
        torn = size - content[:size].rfind(b"\n") - 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            write(whole, lines())
        expected = f"Removed the last {torn} bytes of {whole}: a line that was cut short"
        assert [str(each.message)[: len(expected)] for each in caught] == [expected] * bool(torn)
        assert {each.category for each in caught} <= {SetAsideWarning}
        assert whole.read_bytes() == content
    assert list(whole.parent.iterdir()) == [whole]


def test_torn_is_cut_before_what_follows(whole: Path) -> None:
    """Resumed after a checkpoint, only lines after it are asked for, and the bytes are the same."""
    content = whole.read_bytes()
    whole.write_bytes(content[:-9])
    with pytest.warns(SetAsideWarning, match="cut short when the process that wrote it ended"):
        write(whole, lines(4), first=4)
    assert whole.read_bytes() == content


@pytest.mark.usefixtures("no_waiting")
def test_any_flipped_bit_is_found(whole: Path) -> None:
    """No byte of a ledger can be other than written: reading ends before its line, and says so.

    Writing goes on from there, to the same bytes; what was there is set aside. A flip in the
    number of the format makes it a format that is not known, and that is left alone.
    """
    content = whole.read_bytes()
    chance = random.Random(0)
    intact = content.splitlines()
    head = len(intact[0]) + 2
    for place in (*range(head), *range(head, len(content), 3)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        whole.write_bytes(flipped)
        before = intact[: content[:place].count(b"\n")]
        try:
            read = Ledger(whole, RUN)
            steps = [body for _, body in read]
            problem = read.problem
        except LedgerError as error:
            steps, problem = [], error.got
        assert len(steps) == sum(b'"step":' in line for line in before)
        assert problem
        if place % 100 or problem.startswith("format"):
            continue
        with pytest.warns(SetAsideWarning, match=r"Set aside .* as damaged-ledger.jsonl: "):
            write(whole, lines())
        assert whole.read_bytes() == content
        assert (whole.parent / "damaged-ledger.jsonl").read_bytes() == flipped
        (whole.parent / "damaged-ledger.jsonl").unlink()


NO_HEADER = "a first line that is no header of one"


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", NO_HEADER),
        (b"\n", NO_HEADER),
        (b"garbage\n", NO_HEADER),
        (b"[]\n", NO_HEADER),
        (b"[" * 100_000 + b"\n", NO_HEADER),
        (b"\xff\xfe\n", NO_HEADER),
        (b'{"step":1}\n', NO_HEADER),
        (b'{"format":1,"leaves":{}}\n', NO_HEADER),
        (canonical_json(header(every=True)) + b"\n", NO_HEADER),
        (canonical_json(header(every=0)) + b"\n", NO_HEADER),
        (canonical_json(header(format=2)) + b"\n", "format 2"),
        (canonical_json(header(format="x")) + b"\n", "format 'x'"),
        (None, "No such file or directory"),
        ("folder", "something that is not a plain file"),
        ("pipe", "something that is not a plain file"),
    ],
)
def test_what_is_no_ledger(tmp_path: Path, content: bytes | str | None, got: str) -> None:
    """What does not begin as a ledger is refused in one sentence, and nothing waits for a pipe.

    A run that is recorded goes on without it: it is set aside, or stays if it is of another
    format, which another version of this package may have written.
    """
    path = tmp_path / "ledger.jsonl"
    if content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(LedgerError) as caught:
        Ledger(path)
    assert caught.value.got == got
    assert str(caught.value).startswith(f"Cannot read a ledger at {path}: expected a ledger of ")
    if got.startswith("format"):
        with pytest.raises(LedgerError, match="got format"):
            write(path, lines())
        assert path.read_bytes() == content
    elif content:
        with pytest.warns(SetAsideWarning, match="Set aside .* as damaged-ledger.jsonl: "):
            write(path, lines())
    else:  # empty: a kill, before a byte was written; nothing is lost
        write(path, lines())
    assert got.startswith("format") or len(list(Ledger(path, RUN))) == STEPS + 1


def test_someone_elses_file_is_not_emptied(tmp_path: Path) -> None:
    """What never was a ledger, and is not called one, is refused and left alone."""
    (tmp_path / "notes").write_text("precious")
    with pytest.raises(LedgerError, match="no header"):
        write(tmp_path / "notes", lines())
    with pytest.raises(LedgerError, match="not a plain file"):
        write(tmp_path, lines())
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
    assert (tmp_path / "notes").read_text() == "precious"
    (tmp_path / "ledger.jsonl").write_text("precious")
    with pytest.warns(SetAsideWarning, match="no header"):
        write(tmp_path / "ledger.jsonl", lines())
    assert (tmp_path / "damaged-ledger.jsonl").read_text() == "precious"


@pytest.mark.parametrize("content", ["precious", '{"chain":"'])
def test_a_link_is_not_followed(tmp_path: Path, content: str) -> None:
    """A link in the place of a ledger is set aside; what it leads to stays as it is, also where
    that is part of a first line, which would be cut away in a ledger."""
    (tmp_path / "elsewhere").write_text(content)
    (tmp_path / "ledger.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(SetAsideWarning, match="a link"):
        write(tmp_path / "ledger.jsonl", lines())
    assert (tmp_path / "elsewhere").read_text() == content
    assert not (tmp_path / "ledger.jsonl").is_symlink()


def test_the_ledger_of_another_run(whole: Path) -> None:
    """It is not gone on with, and tells nothing about this run; nothing is changed."""
    before = whole.read_bytes()
    with pytest.raises(LedgerError, match="expected one of run mine, got one of run the run"):
        write(whole, lines(), run="mine")
    read = Ledger(whole, "mine")
    assert (list(read), read.foreign, read.problem) == ([], True, f"it is the ledger of run {RUN}")
    assert whole.read_bytes() == before


def test_a_damaged_name_is_not_another_run(whole: Path) -> None:
    """Where only the name was changed, the chain tells that the ledger is damaged, not foreign."""
    content = whole.read_bytes()
    whole.write_bytes(content.replace(b"the run", b"the rum"))
    assert not Ledger(whole, RUN).foreign
    with pytest.warns(SetAsideWarning, match="line 1 does not continue the chain"):
        write(whole, lines())
    assert whole.read_bytes() == content


def test_a_ledger_with_a_stage_of_another_version_stays(tmp_path: Path) -> None:
    """It is not damaged, so a run that cannot go on with it leaves it as it is."""
    path = craft(tmp_path / "ledger.jsonl", header(leaves={"weights": ["w"]}))
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="with the stage 'weights'"):
        write(path, lines())
    assert path.read_bytes() == before


def test_a_run_that_was_killed_has_one_ledger(small: Small, tmp_path: Path) -> None:
    """Killed at any byte after its last checkpoint, a run leaves those bytes in the end."""
    train(small(), run_dir=tmp_path / "whole")
    whole = (tmp_path / "whole/ledger.jsonl").read_bytes()
    kept = whole.index(b'"step":8}\n') + len(b'"step":8}\n')
    chance = random.Random(0)
    for number, size in enumerate([kept, *chance.sample(range(kept + 1, len(whole)), 5)]):
        run = tmp_path / str(number)
        train(small(stop_after=8), run_dir=run)
        (run / "ledger.jsonl").write_bytes(whole[:size])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(small(), run_dir=run)
        assert [each.category for each in caught] == [SetAsideWarning] * (size > kept)
        assert (run / "ledger.jsonl").read_bytes() == whole
