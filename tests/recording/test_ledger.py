"""Promises of `reproducibility.recording.ledger`: one ledger a run, whatever happens to its file.

Fingerprints are made up here; that they come from the training is in `test_recorder.py`.
"""

import dataclasses
import errno
import hashlib
import itertools
import json
import os
import random
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproducibility import (
    CheckpointSaveError,
    Ledger,
    LedgerError,
    RunSaveError,
    SetAsideWarning,
    TrainConfig,
    check,
    compare,
    read_entry,
    train,
)
from reproducibility.recording import ledger
from reproducibility.recording.ledger import Writer
from reproducibility.recording.lines import FINGERPRINT_DIGITS, STAGES, Header, differing
from reproducibility.recording.walk import Walk, walk_together
from reproducibility.same.fingerprint import combined
from reproducibility.storage.files import canonical_json, chained

Small = Callable[..., TrainConfig]
Line = tuple[Header, dict[str, Any]]

RUN = "the run"
LEAVES = {
    "batch": ["x", "y"],
    "key": ["dropout"],
    "gradients": ["b", "w"],
    "opt_state": ["count", "mu"],
    "params": ["b", "w"],
}
AFTER = ("opt_state", "params")  # what there is before the first step
STEPS = 7


def fingerprint(*words: object) -> str:
    """Make up a fingerprint."""
    return hashlib.sha256(repr(words).encode()).hexdigest()[:FINGERPRINT_DIGITS]


def line(
    step: int,
    level: str = "leaf",
    every: int = 1,
    leaves: dict[str, list[str]] = LEAVES,
    other: tuple[object, ...] = (),
    loss: float | None = None,
) -> Line:
    """Make up what a step was made of; `other` is a stage and leaf that comes out different."""
    stages = {stage: leaves[stage] for stage in leaves if step or stage in AFTER}
    body: dict[str, Any] = {"step": step}
    if step:
        body["loss"] = (1 / step if loss is None else loss).hex()
    for stage, names in stages.items():
        parts = [fingerprint(stage, n, step, (stage, n) == other) for n in names]
        body[stage] = "".join(parts) if level == "leaf" else combined(parts)
    return Header("", level, every, step, stages), body


def write(path: Path, lines: Iterable[Line], run: str = RUN, first: int = 0) -> str:
    """Write lines as a process would that starts at `first`; return the chain."""
    writer = Writer(path, run, first)
    try:
        writer.write(list(lines))
        return writer.flush()
    finally:
        writer.close()


def lines(first: int = 0, last: int = STEPS, **settings: Any) -> list[Line]:
    """Make up the lines of some steps."""
    every = settings.get("every", 1)
    return [line(step, **settings) for step in range(first, last + 1) if step % every == 0]


def craft(path: Path, *bodies: dict[str, Any] | bytes) -> Path:
    """Write lines of whatever content whose chain holds, as someone who means to deceive could."""
    head, content = RUN, b""
    for body in bodies:
        if isinstance(body, dict):
            raw, head = chained(head, body)
        else:  # what stands around the chain is no JSON
            head = hashlib.sha256(head.encode() + body).hexdigest()
            raw = body[:1] + f'"chain":"{head}",'.encode() + body[1:] + b"\n"
        content += raw
    path.write_bytes(content)
    return path


def walked(a: Path, b: Path) -> Walk:
    """Read two ledgers side by side."""
    return walk_together(Ledger(a), Ledger(b))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Write a ledger of steps 0 to 7."""
    write(tmp_path / "ledger.jsonl", lines())
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let thousands of small writes not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


GOLDEN = [
    '{"chain":"eb8c4306be8ea644452ba2b6606bcea7a58c7c35214caab6e7b1e8d74b4ed3f9",'
    '"every":1,"format":1,"from":0,"leaves":{"params":["w"]},"level":"leaf","run":"the run"}',
    '{"chain":"a479ce8ed42691be4512a55943e11bdda519c860b7aa2f106e72cf819600f937",'
    '"params":"0123456789abcdef","step":0}',
    '{"chain":"4d502c3f482b5119ceae5d1d880fdc4011da48f8d052dbf7bbacffb71f4323db",'
    '"loss":"0x1.8000000000000p+0","params":"fedcba9876543210","step":1}',
]


def test_known_bytes(tmp_path: Path) -> None:
    """These are the bytes of a ledger of format 1, for ever.

    They may never move: each checkpoint's seal and, through it, whatever was said about a run
    rests on the chain of its ledger, and the chain on these bytes.
    """
    header = Header("", "leaf", 1, 0, {"params": ["w"]})
    first = {"step": 0, "params": "0123456789abcdef"}
    second = {"step": 1, "params": "fedcba9876543210", "loss": (1.5).hex()}
    write(tmp_path / "ledger.jsonl", [(header, first), (header, second)])
    assert (tmp_path / "ledger.jsonl").read_text().splitlines() == GOLDEN


def test_the_chain_is_what_the_contract_says(whole: Path) -> None:
    """chain(n) is SHA-256 of chain(n-1) and the line without its chain; it begins with the run."""
    head = RUN
    for raw in whole.read_bytes().splitlines():
        body = json.loads(raw)
        chain = body.pop("chain")
        head = hashlib.sha256(head.encode() + canonical_json(body)).hexdigest()
        assert head == chain
    assert write(whole, lines()) == head


def test_a_line_is_read_back(tmp_path: Path) -> None:
    """Steps, stages, leaves and fingerprints come out as they went in, of either level."""
    for level in ("leaf", "group"):
        write(tmp_path / level, lines(level=level))
        read = Ledger(tmp_path / level, RUN)
        found = {step: read_entry(body, read.header) for step, body in read}
        assert list(found) == list(range(STEPS + 1))
        assert (read.problem, read.last, read.chain.number) == (None, STEPS, STEPS + 3)
        assert list(found[0]) == list(AFTER)
        assert list(found[3]) == [*STAGES, "loss"]
        assert found[3]["loss"] == {"": (1 / 3).hex()}
        parts = {name: fingerprint("params", name, 3, False) for name in LEAVES["params"]}
        group = {"": combined(list(parts.values()))}
        assert found[3]["params"] == (parts if level == "leaf" else group)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("level", ["leaf", "group"])
def test_resumed_equals_uninterrupted(tmp_path: Path, level: str, every: int) -> None:
    """Stopped after any step and gone on with from any step before it, the bytes are the same."""
    settings = {"level": level, "every": every}
    chain = write(tmp_path / "whole", lines(**settings))
    for stopped in range(STEPS + 1):
        for resumed in range(stopped + 2):
            path = tmp_path / f"{stopped}-{resumed}"
            write(path, lines(0, stopped, **settings))
            assert write(path, lines(resumed, **settings), first=resumed) == chain
            assert path.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_resume_that_stops_earlier_leaves_the_rest(whole: Path) -> None:
    """Lines beyond the last step that was computed again stay, and are compared later."""
    before = whole.read_bytes()
    write(whole, lines(3, 5), first=3)
    assert whole.read_bytes() == before


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


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda all: all[:4] + all[5:], "line 5 does not continue the chain"),
        (lambda all: all[:5] + all[4:], "line 6 does not continue the chain"),
        (lambda all: [*all[:4], all[5], all[4], *all[6:]], "line 5 does not continue the chain"),
        (lambda all: [*all[:4], b"{}\n", *all[4:]], "line 5 is no line of this file"),
        (lambda all: [*all[:4], b"\n", *all[4:]], "line 5 is no line of this file"),
    ],
    ids=["missing", "repeated", "swapped", "foreign", "empty"],
)
def test_lines_out_of_place(
    whole: Path, change: Callable[[list[bytes]], list[bytes]], problem: str
) -> None:
    """A line that is missing, repeated, swapped or inserted ends the reading, by number."""
    content = whole.read_bytes()
    whole.write_bytes(b"".join(change(content.splitlines(keepends=True))))
    read = Ledger(whole, RUN)
    number = int(problem.split()[1])
    assert [step for step, _ in read] == list(range(number - 2 - 1))
    assert read.problem == problem
    with pytest.warns(SetAsideWarning, match=problem):
        write(whole, lines())
    assert whole.read_bytes() == content


def header(first: int = 1, **others: Any) -> dict[str, Any]:
    """Make up a header of groups of parameters."""
    body = Header(RUN, "group", 1, first, {"params": ["b", "w"]}).body()
    return {**body, **others}


def step(number: int, **others: Any) -> dict[str, Any]:
    """Make up a line under that header."""
    return {"step": number, "params": fingerprint(number), **others}


@pytest.mark.parametrize(
    ("bodies", "problem"),
    [
        ([step(1), step(3)], "line 3 is of step 3, not 2"),
        ([step(1), step(1)], "line 3 is of step 1, not 2"),
        ([step(2)], "line 2 is of step 2, not 1"),
        ([step(1), header(1), step(1)], "line 3 goes back to step 1"),
        ([step(1), header(2, every=0), step(2)], "line 3 is no line of a ledger"),
        ([step(1), header(2, format=2), step(2)], "line 3 is no line of a ledger"),
        ([step(1), header(2, leaves=[]), step(2)], "line 3 is no line of a ledger"),
        ([step(1), header(2, leaves={"params": 2})], "line 3 is no line of a ledger"),
        ([step(1), {"run": RUN}], "line 3 is no line of a ledger"),
        ([step(1), {"step": "2", "z": 2.5}], "line 3 is no line of a ledger"),
        ([step(1), b"[2]"], "line 3 is no line of a ledger"),
        ([step(1), b'{"x":' + b"[" * 100_000 + b'"}'], "line 3 is no line of a ledger"),
        ([header(2, every=3), step(2), step(3), step(6), step(8)], "line 6 is of step 8, not 9"),
    ],
)
def test_a_chain_that_holds_is_not_enough(tmp_path: Path, bodies: list[Any], problem: str) -> None:
    """Anyone can compute a chain: lines that cannot be of one run still end the reading.

    What is gone on with has only the lines before them.
    """
    read = Ledger(craft(tmp_path / "ledger.jsonl", header(), *bodies))
    steps = [number for number, _ in read]
    assert read.problem == problem
    assert len(steps) == sum("step" in body for body in bodies[: int(problem.split()[1]) - 2])
    with pytest.warns(SetAsideWarning, match=problem):
        write(tmp_path / "ledger.jsonl", [], first=99)
    if steps:
        read = Ledger(tmp_path / "ledger.jsonl", RUN)
        assert ([number for number, _ in read], read.problem) == (steps, None)


@pytest.mark.parametrize(
    ("params", "got"),
    [(5, "5"), ("0" * 14, "'00000000000000'"), ("0" * 32, repr("0" * 32)), ("z" * 16, "'zzzz")],
)
def test_a_line_that_its_header_does_not_describe(tmp_path: Path, params: Any, got: str) -> None:
    """An entry of another form than the header says is refused by step and stage."""
    bad = craft(tmp_path / "bad", header(), step(1, params=params))
    good = craft(tmp_path / "good", header(), step(1))
    message = rf"Cannot read the params of a line, step 1: expected 1 fingerprints .*, got {got}"
    with pytest.raises(LedgerError, match=message):
        walked(bad, good)


def test_a_line_that_is_no_json(tmp_path: Path) -> None:
    """A line whose chain holds and that is nothing else is refused, and a run goes on without."""
    bad = craft(tmp_path / "bad", header(), b'{]"step":1}')
    good = craft(tmp_path / "good", header(), step(1, loss="0x1p+0"))
    with pytest.raises(LedgerError, match=r"Cannot read a line: .*, got no step"):
        walked(bad, good)
    with pytest.warns(SetAsideWarning, match="recorded in another form"):
        write(bad, [line(1, "group", leaves={"params": ["b", "w"]})])


# ---------------------------------------------------------------- what is written is read
NAMES = [*STAGES, "loss", "step", "chain", "run", "a", "stepping", "weights", "~", "", "\u00e9"]
VALUES = [
    "0" * 16,
    "0" * 32,
    "0x1.8p+0",
    "nan",
    "0x1p+9999",
    "",
    "z" * 16,
    "A" * 16,
    "0 " * 8,
    5,
    -1,
    1.5,
    True,
    None,
    [],
    {},
]


def bodies() -> st.SearchStrategy[dict[str, Any]]:
    """Make up lines: of step 3 as a rule, with fields of any name and value."""
    others = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=3)
    known = st.fixed_dictionaries({"step": st.just(3), "params": st.just("0" * 16)})
    return st.tuples(known, others).map(lambda both: {**both[0], **both[1]})


def headers() -> st.SearchStrategy[Header]:
    """Make up headers: of groups as a rule, with stages of any name."""
    stages = st.dictionaries(
        st.sampled_from(NAMES),
        st.sampled_from([["w"], ["b", "w"], [], "w", [1], ("w",)]),
        max_size=2,
    )
    return st.builds(
        Header,
        st.just(""),
        st.sampled_from(["group", "group", "leaf", "?"]),
        st.sampled_from([1, 1, 3, 0, True]),
        st.just(0),
        st.one_of(st.just({"params": ["w"]}), stages),
    )


@hypothesis.settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
@given(headers(), bodies())
def test_what_the_writer_accepts_the_reader_reads(about: Header, body: dict[str, Any]) -> None:
    """Whatever is written is refused by the writer, or read back whole; it is never damage.

    Names that sort after "step" and stages that nobody knows are among it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ledger.jsonl")
        try:
            write(path, [(about, body)])
        except LedgerError as refused:
            error = str(refused)
        if not path.exists():
            assert error.startswith("Cannot write ")
            return
        read = Ledger(path, RUN)
        [(step, raw)] = read
        assert (read.problem, step, json.loads(raw)) == (None, body["step"], body)
        entry = read_entry(raw, read.header)
        assert {*entry, "step"} == body.keys()
        assert entry.keys() - read.header.leaves.keys() <= {"loss"}
        write(path, [(about, {**body, "step": step + 1})], first=step + 1)
        assert len(list(Ledger(path, RUN))) == 2


@pytest.mark.parametrize("name", ["weights", "a", "stepping"])
def test_the_writer_names_what_it_refuses(tmp_path: Path, name: str) -> None:
    """A field or stage that no reader would compare is refused by name, and nothing is written."""
    about, body = line(1)
    with pytest.raises(LedgerError, match=rf"write a line, step 1: .*params, loss, got {name}"):
        write(tmp_path / "a", [line(0), (about, {**body, name: "0" * 16})])
    strange = dataclasses.replace(about, leaves={**about.leaves, name: ["w"]})
    with pytest.raises(LedgerError, match=rf"step 1: .* got the stage '{name}', which is none of"):
        write(tmp_path / "a", [line(0), (strange, body)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("steps", [(1, 1), (2, 1), (-1,), (True,), ("1",), (None,), (1.0,)])
def test_the_writer_takes_steps_in_order(tmp_path: Path, steps: tuple[Any, ...]) -> None:
    """A step that is none, or comes again, would be damage to the reader: it is refused."""
    about, body = line(1)
    with pytest.raises(LedgerError, match=r"expected a whole number after -?[0-9] as its step"):
        write(tmp_path / "a", [(about, {**body, "step": step}) for step in steps])


@pytest.mark.parametrize("name", ["weights", "a"])
@pytest.mark.parametrize("value", ["0" * 16, 2])
def test_what_cannot_be_compared_is_not_the_same(tmp_path: Path, name: str, value: Any) -> None:
    """A field or stage that this version does not know is said by name, and is never "the same".

    The control: without it the two are.
    """
    body, other = {**step(1), name: value}, {**step(1), name: "1" * 16}
    a, b = craft(tmp_path / "a", header(), body), craft(tmp_path / "b", header(), other)
    said = f"{name!r}, which is none of batch"
    if name > "step":
        read = Ledger(a)
        assert (list(read), read.problem is not None and said in read.problem) == ([], True)
        assert compare(a, b).verdict == "cannot be told"
    else:
        with pytest.raises(LedgerError, match=rf"Cannot read a line, step 1: .*, got {name}\."):
            compare(a, b)
    strange = header(leaves={"params": ["b", "w"], name: ["w"]})
    a, b = (craft(tmp_path / n, strange, each) for n, each in (("a", body), ("b", other)))
    with pytest.raises(LedgerError, match=f"got format 1 with the stage {said}"):
        compare(a, b)
    a, b = (craft(tmp_path / n, header(), step(1)) for n in "ab")
    assert compare(a, b).verdict == "same"


def test_a_ledger_with_a_stage_of_another_version_stays(tmp_path: Path) -> None:
    """It is not damaged, so a run that cannot go on with it leaves it as it is."""
    path = craft(tmp_path / "ledger.jsonl", header(leaves={"weights": ["w"]}))
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="with the stage 'weights'"):
        write(path, lines())
    assert path.read_bytes() == before


@pytest.mark.parametrize("loss", [1.5, None, "one", "", "0x1p+9999", ["0x1p+0"]])
def test_a_loss_that_is_no_number_is_refused(tmp_path: Path, loss: Any) -> None:
    """A loss that cannot be compared is refused on both sides, instead of being left out."""
    about, body = line(1)
    with pytest.raises(LedgerError, match="Cannot write the loss of a line, step 1: "):
        write(tmp_path / "a", [(about, {**body, "loss": loss})])
    a = craft(tmp_path / "a", header(), step(1, loss=loss))
    b = craft(tmp_path / "b", header(), step(1, loss="0x1p+0"))
    with pytest.raises(LedgerError, match="Cannot read the loss of a line, step 1: "):
        compare(a, b)


def test_two_spellings_of_a_loss_are_one(tmp_path: Path) -> None:
    """A loss is compared as the number it is; what only one side has is no difference, and said."""
    paths = [
        craft(tmp_path / str(i), header(), step(1, **({"loss": loss} if loss else {})))
        for i, loss in enumerate(["0x1p+0", "0x1.0000000000000p+0", "0x1.0000000000001p+0", None])
    ]
    assert compare(paths[0], paths[1]).verdict == "same"
    assert compare(paths[0], paths[2]).stage == "loss"
    found = compare(paths[0], paths[3])
    assert (found.verdict, found.notes) == ("same", ("Only one of the two ledgers has loss.",))


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


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link in the place of a ledger is set aside; what it leads to stays as it is."""
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "ledger.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(SetAsideWarning, match="a link"):
        write(tmp_path / "ledger.jsonl", lines())
    assert (tmp_path / "elsewhere").read_text() == "precious"
    assert not (tmp_path / "ledger.jsonl").is_symlink()


def test_a_first_line_of_megabytes(tmp_path: Path) -> None:
    """A header may be as long as a network has leaves, and is still no torn line."""
    names = [f"layers.{number}.{'attention' * 5}" for number in range(30_000)]
    many = [line(0, "group", leaves={"params": names})]
    write(tmp_path / "ledger.jsonl", many)
    before = (tmp_path / "ledger.jsonl").read_bytes()
    assert before.index(b"\n") > 1 << 20
    write(tmp_path / "ledger.jsonl", many)
    assert (tmp_path / "ledger.jsonl").read_bytes() == before


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


CHANGES = [
    ({"level": "group"}, "from here on it is recorded in another form"),
    ({"every": 2}, "from here on it is recorded in another form"),
    ({"leaves": {"params": ["v"]}}, "from here on it is recorded in another form"),
]


@pytest.mark.parametrize(("change", "why"), CHANGES)
def test_another_form_from_here_on(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    """Gone on with at another level, every so many steps, or with other leaves: a header says so.

    Lines of steps that are computed again in the other form cannot be compared: set aside, said.
    """
    write(tmp_path / "a", lines(0, 4))
    write(tmp_path / "a", lines(5, 10, **change), first=5)
    read = Ledger(tmp_path / "a", RUN)
    heads = [(step, read.header.level, read.header.every) for step, _ in read]
    changed = Header(RUN, "leaf", 1, 0, {})
    changed = dataclasses.replace(changed, **{k: v for k, v in change.items() if k != "leaves"})
    steps = [step for step in range(5, 11) if step % changed.every == 0]
    assert heads[:5] == [(step, "leaf", 1) for step in range(5)]
    assert heads[5:] == [(step, changed.level, changed.every) for step in steps]
    assert read.problem is None

    write(tmp_path / "b", lines(0, 7))
    before = (tmp_path / "b").read_bytes()
    with pytest.warns(SetAsideWarning, match=why):
        write(tmp_path / "b", lines(5, 10, **change), first=5)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert (tmp_path / "damaged-b").read_bytes() == before


def test_a_gap_is_visible(tmp_path: Path) -> None:
    """Steps that were not recorded, for a time, leave a gap between two headers and no lines."""
    write(tmp_path / "ledger.jsonl", lines(0, 3))
    write(tmp_path / "ledger.jsonl", lines(6, 7), first=6)
    read = Ledger(tmp_path / "ledger.jsonl", RUN)
    assert [(step, read.header.first) for step, _ in read] == [
        (0, 0),
        (1, 1),
        (2, 1),
        (3, 1),
        (6, 6),
        (7, 6),
    ]
    assert read.problem is None


def test_a_start_between_two_multiples(tmp_path: Path) -> None:
    """After a first step that is no multiple of `every` come the multiples, under one header."""
    write(tmp_path / "ledger.jsonl", [line(step, every=3) for step in (2, 3, 6)])
    read = Ledger(tmp_path / "ledger.jsonl", RUN)
    assert [(step, read.header.first) for step, _ in read] == [(2, 2), (3, 2), (6, 2)]
    assert read.problem is None


def test_a_stage_that_comes_and_goes(tmp_path: Path) -> None:
    """A stage that some steps lack needs no header of its own, once there was one with it."""
    every = [line(1), line(2, leaves={"params": LEAVES["params"]}), line(3)]
    write(tmp_path / "ledger.jsonl", every)
    assert (tmp_path / "ledger.jsonl").read_bytes().count(b'"format"') == 1
    read = Ledger(tmp_path / "ledger.jsonl", RUN)
    assert [list(read_entry(body, read.header)) for _, body in read] == [
        [*STAGES, "loss"],
        ["params", "loss"],
        [*STAGES, "loss"],
    ]
    turns = [line(step, leaves={n: LEAVES[n] for n in [STAGES[step % 2]]}) for step in range(1, 7)]
    write(tmp_path / "turns", turns)
    assert (tmp_path / "turns").read_bytes().count(b'"format"') == 2
    with pytest.warns(SetAsideWarning, match="recorded in another form"):
        write(tmp_path / "ledger.jsonl", [line(1), line(2)])


@pytest.mark.parametrize("stage", [*STAGES, "loss"])
def test_a_step_that_did_not_repeat(whole: Path, stage: str) -> None:
    """Computed again to something else, a step is named with its first stage; nothing is lost."""
    before = whole.read_bytes()
    if stage == "loss":
        again = [line(4, loss=0.3), *lines(5)]
    else:
        later = list(itertools.dropwhile(lambda name: name != stage, STAGES))
        _, changed = line(4, loss=0.3)
        for name in later:
            _, other = line(4, other=(name, LEAVES[name][0]))
            changed[name] = other[name]
        again = [(line(4)[0], changed), *lines(5)]
    with pytest.warns(SetAsideWarning) as caught:
        write(whole, [line(3), *again], first=3)
    [said] = [str(each.message) for each in caught]
    assert f"step 4 was computed again and differs, first in {stage}: this machine did" in said
    assert (whole.parent / "damaged-ledger.jsonl").read_bytes() == before
    assert len(list(Ledger(whole, RUN))) == STEPS + 1
    assert walked(whole.parent / "damaged-ledger.jsonl", whole).parting.step == 4


def test_a_full_disk_leaves_the_lines_before(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is not half written: the error says so, and the file is as it was."""
    before = whole.read_bytes()

    def full(*args: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    message = r"Cannot write the ledger at .*: expected room .*, got No space left on device\."
    for name in ("append_bytes", "flush"):
        with monkeypatch.context() as patch:
            patch.setattr(ledger, name, full)
            with pytest.raises(RunSaveError, match=message):
                write(whole, lines(8, 9), first=8)
        if name == "append_bytes":
            assert whole.read_bytes() == before


def parted(a: Path, b: Path) -> tuple[Any, ...] | None:
    """Return where two ledgers part, the same in both directions."""
    one, other = walked(a, b), walked(b, a)
    assert one.parting == other.parting
    assert one.last == other.last
    return one.parting and dataclasses.astuple(one.parting)


def test_equal_ledgers_do_not_part(whole: Path, tmp_path: Path) -> None:
    """Equal steps do not part, of whatever level, frequency and length; the last common is told."""
    for number, settings in enumerate(
        [{}, {"level": "group"}, {"every": 3}, {"every": 2, "level": "group"}, {"last": 4}]
    ):
        other = tmp_path / str(number)
        write(other, lines(**settings))
        assert parted(whole, other) is None
        every = settings.get("every", 1)
        assert walked(whole, other).last == settings.get("last", STEPS - STEPS % every)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("levels", list(itertools.product(["leaf", "group"], repeat=2)))
def test_where_two_part(tmp_path: Path, levels: tuple[str, str], stage: str) -> None:
    """Step, stage and, where both record leaves, leaf of the first difference are named."""
    leaf = LEAVES[stage][-1]
    write(tmp_path / "a", lines(level=levels[0]))
    differs = [*lines(0, 3), line(4, levels[1], other=(stage, leaf)), *lines(5)]
    differs = [line(b["step"], levels[1]) if b["step"] != 4 else (h, b) for h, b in differs]
    write(tmp_path / "b", differs)
    leaves = (leaf,) if levels == ("leaf", "leaf") else ()
    assert parted(tmp_path / "a", tmp_path / "b") == (4, 3, stage, (stage,), leaves)


def test_a_range_where_not_every_step_is_recorded(tmp_path: Path) -> None:
    """With other frequencies the first common step is named, and the common one before it."""
    write(tmp_path / "a", lines(every=2, last=12))
    changed = [line(s, every=3, other=("params", "w") if s > 4 else ()) for s in range(0, 13, 3)]
    write(tmp_path / "b", changed)
    assert parted(tmp_path / "a", tmp_path / "b") == (6, 0, "params", ("params",), ("w",))
    assert walked(tmp_path / "a", tmp_path / "b").last == 12


def test_all_stages_that_differ(tmp_path: Path) -> None:
    """Of several stages the first in the order of cause and effect is named first."""
    header, body = line(4)
    for stage in ("params", "gradients", "opt_state"):
        body[stage] = line(4, other=(stage, LEAVES[stage][1]))[1][stage]
    write(tmp_path / "a", lines(0, 4))
    write(tmp_path / "b", [*lines(0, 3), (header, body)])
    assert parted(tmp_path / "a", tmp_path / "b") == (
        4,
        3,
        "gradients",
        ("gradients", "opt_state", "params"),
        ("w",),
    )


def test_only_the_loss(tmp_path: Path) -> None:
    """A loss that differs where no stage does is told as such."""
    write(tmp_path / "a", lines(0, 4))
    write(tmp_path / "b", [*lines(0, 3), line(4, loss=0.3)])
    assert parted(tmp_path / "a", tmp_path / "b") == (4, 3, "loss", ("loss",), ())


def test_another_network(tmp_path: Path) -> None:
    """Networks with other leaves part at the start, in those that one of them lacks."""
    write(tmp_path / "a", lines())
    write(tmp_path / "b", lines(leaves={**LEAVES, "params": ["b", "v"]}))
    assert parted(tmp_path / "a", tmp_path / "b") == (0, -1, "params", ("params",), ("v", "w"))
    write(tmp_path / "c", lines(level="group", leaves={**LEAVES, "params": ["b", "v"]}))
    assert parted(tmp_path / "a", tmp_path / "c") == (0, -1, "params", ("params",), ())


def test_a_stage_of_one_side_only_is_no_difference(tmp_path: Path) -> None:
    """What only one side records cannot be compared, and is no reason to call them different."""
    write(tmp_path / "a", lines())
    write(tmp_path / "b", lines(leaves={"params": LEAVES["params"]}))
    assert parted(tmp_path / "a", tmp_path / "b") is None


def test_no_step_in_common(tmp_path: Path) -> None:
    """Two that never record the same step do not part, and the last common one is none."""
    write(tmp_path / "a", lines(0, 2))
    write(tmp_path / "b", lines(3, 5), first=3)
    found = walked(tmp_path / "a", tmp_path / "b")
    assert (found.parting, found.last, found.losses) == (None, -1, [])


def test_a_damaged_side_counts_as_far_as_it_goes(tmp_path: Path) -> None:
    """What stands before the damage is compared, what stands after it is not, and it is said."""
    write(tmp_path / "a", lines())
    write(tmp_path / "b", [*lines(0, 4), line(5, other=("key", "dropout")), *lines(6)])
    content = (tmp_path / "b").read_bytes()
    place = content.index(b'"step":5')
    (tmp_path / "b").write_bytes(content[:place] + b'"step":4' + content[place + 8 :])
    found = walked(tmp_path / "a", tmp_path / "b")
    problem = "line 8 does not continue the chain"
    assert (found.parting, found.last, found.problems) == (None, 4, (None, problem))
    write(tmp_path / "short", lines(0, 2))  # damage beyond what both record is told as well
    assert walked(tmp_path / "b", tmp_path / "short").problems == (problem, None)
    assert walked(tmp_path / "short", tmp_path / "b").problems == (None, problem)
    told = compare(tmp_path / "a", tmp_path / "b")
    assert (told.verdict, told.step) == ("cannot be told", 4)
    assert problem in told.notes[0]


def test_losses_around_the_parting_and_ever_fewer_after(tmp_path: Path) -> None:
    """The last 64 losses before two part are told, all right after, and some of all the rest."""
    small = {"params": ["w"]}

    def losses(changed: bool) -> Iterator[Line]:
        for step in range(1, 3001):
            differs = changed and step >= 500
            yield line(step, leaves=small, loss=step + differs / 2)

    write(tmp_path / "a", losses(False))
    write(tmp_path / "b", losses(True))
    found = walked(tmp_path / "a", tmp_path / "b").losses
    steps = [step for step, _, _ in found]
    assert steps[:64] == list(range(437, 501))
    assert steps[64:90] == list(range(501, 527))
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    assert gaps == sorted(gaps)
    assert 2900 < steps[-1] <= 3000
    assert len(steps) < 300
    for step, one, other in found:
        assert float.fromhex(one) == step
        assert float.fromhex(other) == step + (step >= 500) / 2


def test_differing_ignores_what_one_side_lacks() -> None:
    """Stages come in the order of cause and effect; groups and leaves compare as groups."""
    leaf = {"params": {"b": "0" * 16, "w": "1" * 16}, "key": {"k": "2" * 16}}
    group = {"params": {"": combined(["0" * 16, "1" * 16])}, "batch": {"": "3" * 16}}
    assert differing(leaf, group) == {}
    other = {"params": {"b": "0" * 16, "w": "3" * 16}, "key": {"k": "3" * 16}}
    assert differing(leaf, other) == {"key": ("k",), "params": ("w",)}
    assert differing(other, group) == {"params": ()}


@pytest.mark.parametrize(("every", "stops"), [(1, (5,)), (3, (4, 8))])
def test_a_run_has_one_ledger(
    small: Small, tmp_path: Path, every: int, stops: tuple[int, ...]
) -> None:
    """Interrupted wherever it was, a run leaves the bytes of the uninterrupted one."""
    config = small(record_every=every)
    train(config, run_dir=tmp_path / "whole")
    for stop in stops:
        train(dataclasses.replace(config, stop_after=stop), run_dir=tmp_path / "run")
    train(config, run_dir=tmp_path / "run")
    whole, run = (tmp_path / name / "ledger.jsonl" for name in ("whole", "run"))
    assert run.read_bytes() == whole.read_bytes()
    assert [step for step, _ in Ledger(run)] == list(range(0, 13, every))


def test_a_run_may_be_recorded_in_another_way_later(small: Small, tmp_path: Path) -> None:
    """Level and frequency may change, or recording stop, with each attempt; all of it holds."""
    train(small(), run_dir=tmp_path / "whole")
    run = tmp_path / "run"
    train(small(stop_after=3, record="leaf"), run_dir=run)
    train(small(stop_after=6, record="off"), run_dir=run)
    train(small(stop_after=9, record="group"), run_dir=run)
    train(small(record="leaf", record_every=2), run_dir=run)
    read = Ledger(run / "ledger.jsonl")
    assert [(step, read.header.level, read.header.every) for step, _ in read] == [
        *((step, "leaf", 1) for step in range(4)),
        *((step, "group", 1) for step in range(7, 10)),
        *((step, "leaf", 2) for step in (10, 12)),
    ]
    assert check(run).findings == ()
    found = compare(tmp_path / "whole/ledger.jsonl", run / "ledger.jsonl")
    assert (found.verdict, found.step, found.notes) == ("same", 12, ())


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


def test_a_run_on_a_full_disk(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that cannot be written ends the run with its reason; then the run can go on."""
    from reproducibility.storage.files import append_bytes

    def full(path: Path, content: bytes, **settings: Any) -> None:
        if b'"step":6,' in content or b'"step":6}' in content:
            raise OSError(errno.ENOSPC, "No space left on device")
        append_bytes(path, content, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "append_bytes", full)
        message = r"Cannot write the ledger .*No space left"  # may be told by the checkpoint
        with pytest.raises((RunSaveError, CheckpointSaveError), match=message):
            train(small(), run_dir=tmp_path / "run")
    assert [step for step, _ in Ledger(tmp_path / "run/ledger.jsonl")] == list(range(5))
    done = train(small(), run_dir=tmp_path / "run")
    assert done.digest == train(small()).digest
    train(small(), run_dir=tmp_path / "whole")
    assert (tmp_path / "run/ledger.jsonl").read_bytes() == (
        tmp_path / "whole/ledger.jsonl"
    ).read_bytes()


def forge(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """Change the bytes of each line, whatever they are then, and compute the chain from scratch."""
    head, content = RUN, b""
    for line in path.read_bytes().splitlines():
        body = change(line[: line.find(b'"chain":')] + line[line.find(b'"chain":') + 75 :])
        head = hashlib.sha256(head.encode() + body).hexdigest()
        at = body.find(b'"every"') if b'"every"' in body else 1
        content += body[:at] + b'"chain":"%b",' % head.encode() + body[at:] + b"\n"
    forged = path.with_name("forged.jsonl")
    forged.write_bytes(content)
    return forged


FORGED = {
    "a name of a leaf twice": lambda line: line.replace(b'["b","w"]', b'["b","b","w"]').replace(
        b'"params":"', b'"params":"deadbeefdeadbeef'
    ),
    "a stage twice": lambda line: line.replace(b'"params":"', b'"params":"00","params":"'),
    "more in the header": lambda line: line.replace(b'"level"', b'"extra":1,"level"'),
    "leaves in another order": lambda line: line.replace(b'["b","w"]', b'["w","b"]'),
    "a space": lambda line: line.replace(b'"params":"', b'"params": "'),
}


@pytest.mark.parametrize("how", ["as it is", "nothing but steps", *FORGED])
def test_what_is_not_as_it_is_written_is_not_the_same(tmp_path: Path, how: str) -> None:
    """A ledger with bytes that no comparison looks at, whose chain was computed again, is refused
    or different: it is never the same as the one it was made of. The control: unchanged, it is."""
    header = Header("", "leaf", 1, 0, {"params": ["b", "w"]})
    lines = [(header, {"params": f"{step:032x}", "step": step}) for step in range(4)]
    write(tmp_path / "true.jsonl", lines)

    def emptied(line: bytes) -> bytes:
        step = json.loads(line).get("step")
        return line if step is None else b'{"step":%d}' % step

    changes = {"as it is": lambda line: line, "nothing but steps": emptied, **FORGED}
    forged = forge(tmp_path / "true.jsonl", changes[how])
    others = [tmp_path / "true.jsonl"]
    others += [forged] if how == "nothing but steps" else []  # which tell of no step that it agrees
    for other in others:
        try:
            verdict = compare(other, forged).verdict
        except LedgerError:
            verdict = "refused"
        assert (verdict == "same") == (how == "as it is")
