"""The judge of planted faults: each wrong answer is called wrong."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from tests.faults.judge import judge, lines_of
from tests.faults.planted import Planted

SCRIPT = """\
import jax
import numpy as np

rng = np.random.default_rng()


@jax.jit
def step(params, batch):
    return params * batch


params = np.ones(3)
for i in range(3):
    batch = rng.normal(size=3)
    params = step(
        params,
        batch,
    )
print("result:", params)
"""
FAULT = Planted(
    script="example",
    name="unseeded",
    kind="unseeded generator",
    edits=(),
    cause="rng = np.random.default_rng()",
    enters="batch,",
    argument="batch",
    classes=("host",),
    causes=("entropy",),
    author="house",
)
ROOT: dict[str, Any] = {
    "kind": "host",
    "what": "",
    "names": ["batch"],
    "program": "step",
    "call": 2,
    "lines": ["/somewhere/script.py:15, in <module>"],
    "other_lines": ["/somewhere/script.py:15, in <module>"],
}
RIGHT: dict[str, Any] = {
    "verdict": "different",
    "reason": "They diverge at call 2 of 5.",
    "roots": [ROOT],
    "cause": "entropy",
    "confirmed": True,
    "settled": False,
    "source": {
        "what": "the system's entropy",
        "lines": ["/somewhere/script.py:4, in <module>"],
    },
}


def outcome(differed: bool = True, roots: list[dict[str, Any]] | None = None, **facts: Any) -> str:
    """Judge the right answer with something else in it."""
    answer = copy.deepcopy(RIGHT) | facts
    if roots is not None:
        answer["roots"] = [ROOT | root for root in roots]
    return judge(FAULT, SCRIPT, answer, differed=differed).outcome


ELSEWHERE: dict[str, Any] = {"names": ["params"], "lines": ["/somewhere/script.py:19, in <module>"]}
NO_SOURCE: dict[str, Any] = {"source": None, "cause": None, "confirmed": False}


def test_the_right_answer_is_right() -> None:
    """All that was expected is in it; a cause that is only likely is right as well."""
    assert outcome() == "right"
    assert outcome(confirmed=False) == "right"


@pytest.mark.parametrize(
    "root",
    [
        ROOT | {"lines": []},  # the argument alone
        ROOT | {"names": ["batch['image']"], "lines": []},
        ROOT | {"names": []},  # the line of the call alone
        ROOT | {"names": [], "lines": ["/lib/other.py:3, in f", "/somewhere/script.py:16, in g"]},
    ],
)
def test_a_line_or_the_argument_is_enough(root: dict[str, Any]) -> None:
    """One of them names the place, if the class is right; a call may have several lines."""
    assert outcome(roots=[root], **NO_SOURCE) == "right"


def test_the_line_of_the_cause_is_enough() -> None:
    """The line in which the value was asked for names the fault."""
    assert outcome(roots=[ELSEWHERE]) == "right"
    assert outcome(roots=[ELSEWHERE], **NO_SOURCE) == "wrong line"


def test_another_line_is_wrong() -> None:
    """A line that has nothing to do with the fault does not name it, nor does one of a library."""
    there = {"what": "", "lines": ["/somewhere/script.py:2, in <module>"]}
    library = {"what": "", "lines": ["/lib/other.py:4, in f"]}
    assert outcome(roots=[ELSEWHERE], source=there) == "wrong line"
    assert outcome(roots=[ELSEWHERE], source=library) == "wrong line"


@pytest.mark.parametrize("kind", ["program", "path", "end", "error"])
def test_another_class_is_wrong(kind: str) -> None:
    """The right line with the wrong class is no right answer."""
    assert outcome(roots=[ROOT | {"kind": kind}]) == "wrong class"


def test_class_and_place_belong_to_one_root() -> None:
    """The class of one root and the line of another do not add up to a right answer."""
    roots = [ROOT | {"kind": "program"}, ROOT | ELSEWHERE]
    assert outcome(roots=roots, **NO_SOURCE) == "wrong class"


def test_only_the_first_places_count() -> None:
    """A root that comes after three other places is not what a reader is led to."""
    other = [ROOT | ELSEWHERE | {"program": f"p{i}"} for i in range(3)]
    assert outcome(roots=[*other[:2], ROOT], **NO_SOURCE) == "right"
    assert outcome(roots=[*other, ROOT], **NO_SOURCE) == "wrong line"


@pytest.mark.parametrize("cause", ["clock", "hash", "listing", "anything"])
def test_another_confirmed_cause_is_fatal(cause: str) -> None:
    """A cause that was confirmed and is not the one is worse than none, whatever else is right."""
    assert outcome(cause=cause) == "wrongly confirmed"
    assert outcome(cause=cause, confirmed=False) == "right"


def test_a_confirmed_cause_that_comes_from_another_line_is_fatal() -> None:
    """What is said to be where the value comes from has to be it; a line that may be it has not."""
    source = {"what": "random.Random()", "lines": ["/somewhere/script.py:19, in <module>"]}
    assert outcome(source=source, traced=True) == "wrongly confirmed"
    assert outcome(source=source, traced=False) == "right"
    assert outcome(traced=True) == "right"


def test_what_a_cause_is_called() -> None:
    """An address is held with all others, and is the same cause."""
    fault = dataclasses.replace(FAULT, causes=("address",))
    answer = RIGHT | {"cause": "addresses"}
    assert judge(fault, SCRIPT, answer, differed=True).outcome == "right"
    both = dataclasses.replace(FAULT, causes=("hash+address",))
    answer = RIGHT | {"cause": "hash+addresses"}
    assert judge(both, SCRIPT, answer, differed=True).outcome == "right"
    assert outcome(cause="addresses") == "wrongly confirmed"


def test_the_same_is_missed() -> None:
    """Runs that printed different results are not the same; those that agreed by chance are."""
    same = {"verdict": "same", "roots": [], **NO_SOURCE}
    assert outcome(**same) == "missed"
    assert outcome(differed=False, **same) == "agreed by chance"


def test_a_line_of_a_cell() -> None:
    """The line of a notebook's cell names the fault, if it is that one."""
    fault = dataclasses.replace(FAULT, cell="<cell 2>:3")
    for line, found in (("<cell 2>:3", "right"), ("<cell 2>:33", "wrong line")):
        answer = RIGHT | {"roots": [ROOT | ELSEWHERE | {"lines": [f"{line}, in <module>"]}]}
        assert judge(fault, SCRIPT, answer | NO_SOURCE, differed=True).outcome == found


def test_what_cannot_be_told_is_not_right() -> None:
    """A tool that always answers so would be never wrong, and no use."""
    assert outcome(verdict="cannot be told", **NO_SOURCE) == "cannot be told"
    assert outcome(verdict="different", roots=[], **NO_SOURCE) == "cannot be told"
    assert judge(FAULT, SCRIPT, None, differed=True).outcome == "no answer"


def test_lines_of_a_statement() -> None:
    """A line stands for the statement that it is a part of, and for no body of another."""
    assert lines_of("batch,", SCRIPT) == {15, 16, 17, 18}
    assert lines_of("for i in range(3):", SCRIPT) == {13}
    assert lines_of("no such line", SCRIPT) == set()
    assert lines_of("", SCRIPT) == set()
