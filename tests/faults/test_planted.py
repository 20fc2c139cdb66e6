"""What is planted is what its expectation says, and what is committed is what the page shows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.faults.attempt import Attempt
from tests.faults.judge import lines_of
from tests.faults.planted import (
    KINDS,
    Clean,
    HiddenFault,
    Planted,
    all_faults,
    clean_of,
    faults_of,
    script_names,
)
from tests.faults.table import read_results, tables, write_results

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "planted_faults.md"


@pytest.mark.parametrize("script", [name for kind in KINDS for name in script_names(kind)])
def test_each_fault_fits_its_script(script: str) -> None:
    """Each replacement finds its one place, the script still parses, and the expected lines are
    in it."""
    clean, *others = [*clean_of(script), *faults_of(script)]
    for item in others:
        assert item.text != clean.text
        ast.parse(item.text)
        for line in (item.cause, item.enters) if isinstance(item, Planted) else ():
            assert not line or lines_of(line, item.text), f"{item.id} has no line {line!r}"
        if isinstance(item, HiddenFault):
            assert [each.strip() for each in item.text.splitlines()].count(item.line) == 1


def test_an_edit_that_fits_twice_is_refused() -> None:
    """Where a fault is must not be left to chance."""
    fault = Clean(script="s", edits=(("a", "b"),))
    assert fault.planted_in("xay") == "xby"
    for text in ("xy", "aa"):
        with pytest.raises(ValueError, match="places hold 'a'"):
            fault.planted_in(text)


def test_there_are_enough() -> None:
    """The matrix is as large as the page says: scripts, faults, kinds, and who planted them."""
    faults = all_faults()
    assert len({fault.id for fault in faults}) == len(faults)
    assert len(script_names()) >= 25
    assert len(faults) >= 150
    assert len({fault.kind for fault in faults}) >= 15
    for kind, at_least in (("resume", 60), ("hidden", 20)):
        names = [fault.id for fault in all_faults(kind)]
        assert len(set(names)) == len(names) >= at_least


def test_the_first_attempt_stays(tmp_path: Path) -> None:
    """What the tool answered before anybody mended it for a fault is never written over."""
    path = tmp_path / "results.json"
    missed, right = (Attempt("a.b", o, "", False, 3, "t", "p") for o in ("missed", "right"))
    for last, first in ((missed, missed), (right, missed), (right, None)):
        write_results([(last, first)], path)
    found = read_results(path)["faults"]["a.b"]
    assert (found["first"], found["outcome"]) == ("missed", "right")


def test_the_page_shows_what_is_committed() -> None:
    """The tables of the page are those of the results."""
    assert tables(read_results()) in PAGE.read_text(encoding="utf-8")
