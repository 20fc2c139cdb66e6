"""The page that `--html` writes: it shows what was found, and asks nobody for anything."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from reproducibility.cli.scripts import InterruptCommand, SweepCommand, TwiceCommand
from reproducibility.errors import ConfigError
from reproducibility.script import diverging
from reproducibility.script.diverging import Alignment, Lane, Root
from reproducibility.script.drawn import Found, page_of, write_found
from reproducibility.script.reading import Event, SourceLine
from reproducibility.script.resumption import Before, Resumption, compare_process
from reproducibility.script.sides import AlignedRecords, CallsOfLine
from reproducibility.script.swept import Row, Sweep
from reproducibility.script.twice import Twice
from tests.script.test_interrupt import a_loop, made_run

LINE = SourceLine("/home/user/train.py", 15, "<module>")
COMMAND = ["python", "train.py", "<script>alert(1)</script>"]


def root(call: int, kind: diverging.RootKind = "host", line: int = 15) -> Root:
    """Return where a difference begins."""
    site = (SourceLine("/home/user/train.py", line, "<module>"),)
    return Root(kind, "", ("batch",), "step", site, (), "process-1", "MainThread", call)


def found_by_twice() -> Twice:
    """Return two runs of 100 calls that differ from call 28 on, in every second one."""
    lane = Lane("process-1", "MainThread", compared=100)
    for call in range(27, 100, 2):
        lane.differs(call)
        lane.passed["step"] += call > 29
    compared = Alignment([root(27), root(29, line=16)], 100, 37, lanes=[lane])
    event = Event(1, "entropy", "np.random.default_rng(), <unseeded>", (LINE,))
    return Twice(
        "different",
        compared.reason,
        compared,
        "entropy",
        confirmed=True,
        sources=(event,),
        remark="line 3 of what they print differs: '1' and '2'",
    )


def of_resumption(slow: int) -> Resumption:
    """Return a resumed run that has a part of another step, or none if `slow` is 4."""
    run, other = made_run(a_loop(0, 6, 0)), made_run(a_loop(4, 6, slow), process=2)
    return compare_process(run, other, Before())


def swept() -> Sweep:
    """Return what a sweep of three inputs may find."""
    rows = [
        Row("hash", "the hash salt", "different", "1", "pin it", root=root(3), line=LINE),
        Row("user", "the <user>", "same", "somebody", ways=2),
        Row("workers", "the order of workers", "left out", why="there are none"),
    ]
    return Sweep(rows, calls=10, runs=5)


FOUND: list[Found] = [
    found_by_twice(),
    Twice("same", "All 7 calls of JAX agree.", Alignment(lanes=[Lane("p", "t", 7)], calls=7)),
    Twice("cannot be told", "It failed.", Alignment(problems=["it failed <badly>"])),
    of_resumption(0),
    of_resumption(4),
    Resumption(problems=["nothing was recorded"]),
    swept(),
    Sweep(problem="it does not repeat", repeated=found_by_twice()),
    found_by_twice().compared,
    AlignedRecords((7, 7), 7, commands="<x> in A", in_order=True),
    AlignedRecords(only=([CallsOfLine("<eval>", LINE, 3)], []), problems=["it failed <badly>"]),
]


def body(page: str) -> ElementTree.Element:
    """Return the body of a page; it is well-formed."""
    return ElementTree.fromstring("<body>" + page.partition("<body>")[2].partition("</html>")[0])


@pytest.mark.parametrize("found", FOUND, ids=lambda each: f"{type(each).__name__} {each.verdict}")
def test_each_answer_is_a_page_of_its_own(found: Found) -> None:
    """Text of a run stays text, nothing is asked for, and the verdict comes first."""
    page = page_of(found, COMMAND)
    tree = body(page)
    assert next(iter(tree.iter("h1"))).find("span") is not None
    assert found.verdict.capitalize() in "".join(next(iter(tree.iter("h1"))).itertext())
    assert {each.tag for each in tree.iter()} & {"script", "img", "link", "iframe"} == set()
    assert re.findall(r"https?://|src=|url\((?!#hatch)", page) == []
    assert "<script>" not in page
    assert found.reason in "".join(tree.itertext())
    names = [each.get("id") for each in tree.iter() if each.get("id")]
    assert len(names) == len(set(names))
    assert page == page_of(found, COMMAND)


def test_the_way_goes_from_the_cause_to_what_is_printed() -> None:
    """The source, the call where it enters, the functions that pass it on, and the output."""
    tree = body(page_of(found_by_twice(), COMMAND))
    way = next(each for each in tree.iter("ol") if each.get("class") == "way")
    boxes = ["".join(each.itertext()) for each in way]
    heads = [("comes from", "default_rng"), ("begins", "call 28"), ("is passed on", "35 calls")]
    heads += [("shows", "line 3 of what they print")]
    assert len(boxes) == len(heads)
    for box, (head, words) in zip(boxes, heads, strict=True):
        assert box.startswith(head)
        assert words in box


def test_what_is_not_confirmed_only_may_be_the_source() -> None:
    """A page claims no more than the report."""
    found = found_by_twice()
    found.confirmed = False
    assert "may come from" in page_of(found, COMMAND)
    assert "<b>comes from" not in page_of(found, COMMAND)


def test_calls_are_drawn_where_they_are() -> None:
    """What agrees is drawn up to the first call that differs, and marked there."""
    lane = Lane("process-1", "MainThread", compared=80)
    for call in (*range(40, 60), 79):
        lane.differs(call)
    assert lane.stretches == [(40, 59), (79, 79)]
    compared = Alignment([root(40)], 80, 21, of=160, lanes=[lane])
    tree = body(page_of(Twice("different", "They diverge.", compared), COMMAND))
    drawn = [
        (each.get("class"), each.get("x"), each.get("width"))
        for each in next(iter(tree.iter("figure"))).iter("rect")
        if each.get("y")
    ]
    one = [
        ("agreed", "0.00%", "50.00%"),
        ("unknown", "50.00%", "50.00%"),
        ("parted", "25.00%", "12.50%"),
        ("parted", "49.38%", "0.62%"),
    ]
    assert drawn == [*one, *one]
    marks = [each.get("x1") for each in tree.iter("line") if each.get("class") == "mark"]
    assert marks == ["25.00%"]


def test_a_long_run_is_a_small_page() -> None:
    """Of a million calls that differ by turns, no more is kept and drawn than can be seen."""
    lane = Lane("process-1", "MainThread", compared=10**6)
    for call in range(0, 10**6, 2):
        lane.differs(call)
    assert len(lane.stretches) == diverging.STRETCHES
    assert lane.stretches[-1][1] == 10**6 - 2
    found = Twice(
        "different", "They diverge.", Alignment([root(0)], 10**6, 10**6 // 2, lanes=[lane])
    )
    assert len(page_of(found, COMMAND)) < 200_000


def test_each_input_has_its_dots() -> None:
    """An input is drawn at the steps that had its value: a ring where it belongs, or a dot."""
    run = made_run([("step", 6, [f"p{i}", f"m{i}", f"b{i}", "k"], ["q"]) for i in range(8)])
    steps = [("step", 6, [f"p{i}", f"m{i}", f"b{i - 2}", "k"], ["q"]) for i in range(4, 8)]
    found = compare_process(run, made_run(steps, process=2), Before())
    tree = body(page_of(found, COMMAND))
    circles = [(each.get("class"), each.get("cx")) for each in tree.iter("circle")]
    assert circles == [("ring", "56.25%"), ("ring", "56.25%"), ("dot", "31.25%")]
    assert "".join(tree.itertext()).count("step 5") >= 1


@pytest.mark.parametrize("command", [TwiceCommand, InterruptCommand, SweepCommand])
def test_a_page_that_cannot_be_written_is_refused_before_any_run(
    tmp_path: Path, command: type[TwiceCommand | InterruptCommand | SweepCommand]
) -> None:
    """Nobody waits for hours to hear that a folder does not exist."""
    for path in (tmp_path / "nowhere" / "page.html", tmp_path):
        with pytest.raises(ConfigError, match="Choose another file"):
            command(html=path)([str(tmp_path / "never run")])


def test_it_is_written_into_one_file(tmp_path: Path) -> None:
    """What stands there is the page; names of files that are no text do no harm."""
    write_found(tmp_path / "page.html", found_by_twice(), ["python", "a\udcff.py"])
    assert "a\\udcff.py" in (tmp_path / "page.html").read_text("utf-8")
