"""Promises of `reproducibility.recording.ledger`: one ledger a run, read as far as it holds.

Fingerprints are made up here; that they come from the training is in `test_recorder.py`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproducibility import (
    Ledger,
    LedgerError,
    SetAsideWarning,
    TrainConfig,
    check,
    compare,
    read_entry,
    train,
)
from reproducibility.recording.lines import STAGES, Header
from reproducibility.same.fingerprint import combined
from reproducibility.storage.files import canonical_json
from tests.ledgers import (
    AFTER,
    LEAVES,
    RUN,
    STEPS,
    craft,
    fingerprint,
    header,
    line,
    lines,
    step,
    walked,
    write,
)

Small = Callable[..., TrainConfig]


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


def test_a_line_that_is_no_json(tmp_path: Path) -> None:
    """A line whose chain holds and that is nothing else is refused, and a run goes on without."""
    bad = craft(tmp_path / "bad", header(), b'{]"step":1}')
    good = craft(tmp_path / "good", header(), step(1, loss="0x1p+0"))
    with pytest.raises(LedgerError, match=r"Cannot read a line: .*, got no step"):
        walked(bad, good)
    with pytest.warns(SetAsideWarning, match="recorded in another form"):
        write(bad, [line(1, "group", leaves={"params": ["b", "w"]})])


def test_a_first_line_of_megabytes(tmp_path: Path) -> None:
    """A header may be as long as a network has leaves, and is still no torn line."""
    names = [f"layers.{number}.{'attention' * 5}" for number in range(30_000)]
    many = [line(0, "group", leaves={"params": names})]
    write(tmp_path / "ledger.jsonl", many)
    before = (tmp_path / "ledger.jsonl").read_bytes()
    assert before.index(b"\n") > 1 << 20
    write(tmp_path / "ledger.jsonl", many)
    assert (tmp_path / "ledger.jsonl").read_bytes() == before


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
