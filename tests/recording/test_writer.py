"""Promises of `reproducibility.recording.writer`: lines are written once, then compared."""

import dataclasses
import errno
import itertools
import json
import tempfile
from collections.abc import Callable
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
    read_entry,
    train,
)
from reproducibility.recording import writer
from reproducibility.recording.lines import STAGES, Header
from tests.ledgers import LEAVES, RUN, STEPS, line, lines, walked, write

Small = Callable[..., TrainConfig]


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


def test_a_ledger_of_which_only_the_header_is_left(tmp_path: Path, small: Small) -> None:
    """A run whose checkpoint is whole goes on from it, and its lines begin there."""
    run = tmp_path / "run"
    train(small(steps=2), run_dir=run)
    ledger = run / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().splitlines(keepends=True)[0])
    with pytest.warns(SetAsideWarning, match="recorded in another form"):
        result = train(small(steps=4), run_dir=run)
    assert result.digest == train(small(steps=4)).digest
    assert [step for step, _ in Ledger(ledger)] == [3, 4]


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
    assert walked(whole.parent / "damaged-ledger.jsonl", whole).divergence.step == 4


def test_a_full_disk_leaves_the_lines_before(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is not half written: the error says so, and the file is as it was."""
    before = whole.read_bytes()

    def full(*args: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    message = r"Cannot write the ledger at .*: expected room .*, got No space left on device\."
    for name in ("append_bytes", "flush"):
        with monkeypatch.context() as patch:
            patch.setattr(writer, name, full)
            with pytest.raises(RunSaveError, match=message):
                write(whole, lines(8, 9), first=8)
        if name == "append_bytes":
            assert whole.read_bytes() == before


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
        patch.setattr(writer, "append_bytes", full)
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
