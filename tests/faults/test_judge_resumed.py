"""The judge of resume faults: each wrong answer is called wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.faults.judge_resumed import judge_resumed
from tests.faults.planted import ResumeFault

FAULT = ResumeFault(
    script="resume/example",
    name="moments_lost",
    kind="part lost",
    edits=(),
    author="house",
    parts=("state.mu",),
    origin="before step 1",
    continues_at=9,
)


def an_input(name: str, *calls: int, kind: str = "calls", other: str | None = None) -> Any:
    """Return an input as `--json` has it."""
    return {"name": name, "kind": kind, "calls": list(calls), "other": other}


STEP = an_input("state.step", 9)
RATE = an_input("rate", kind="every")
LOST = an_input("state.mu['w']", 1)


def outcome(
    inputs: list[Any], fault: ResumeFault = FAULT, *, report: str = "", **facts: Any
) -> str:
    """Judge an answer about the first resumed step."""
    answer = {"verdict": "different", "reason": "It differs.", "continues_at": None}
    answer |= {"inputs": [RATE, *inputs], "report": report, **facts}
    return judge_resumed(fault, answer, differed=True).outcome


def with_origin(origin: str, *parts: str) -> ResumeFault:
    """Return a fault with another origin, and other parts."""
    return dataclasses.replace(FAULT, origin=origin, parts=parts or FAULT.parts)


def test_part_and_origin_are_both_needed() -> None:
    """The part that was lost, with the step that its value is of, and no other part."""
    assert outcome([STEP, LOST]) == "right"
    assert outcome([STEP, an_input("state.mu", 2)]) == "wrong origin"
    assert outcome([STEP]) == "wrong part"
    assert outcome([an_input("state.step", 8), LOST]) == "wrong part"
    assert outcome([STEP, LOST, an_input("state.mu['b']", 3)]) == "wrong origin"


def test_a_name_that_begins_alike_is_another() -> None:
    """An argument is named by its whole name, or by that of what holds it."""
    assert outcome([an_input("state.mule", 1)]) == "wrong part"
    assert outcome([LOST], with_origin("before step 1", "state")) == "right"


@pytest.mark.parametrize(
    ("origin", "right", "wrong"),
    [
        ("8 instead of 9", an_input("state.mu", 8), an_input("state.mu", 7)),
        ("not in the whole run", an_input("state.mu", kind="unseen"), an_input("state.mu", 7)),
        (
            "the value of ema",
            an_input("state.mu", kind="elsewhere", other="state.ema['w'] of call 9"),
            an_input("state.mu", kind="elsewhere", other="state.emacs of call 9"),
        ),
    ],
)
def test_origins(origin: str, right: Any, wrong: Any) -> None:
    """Each origin is the one that was planted."""
    assert outcome([STEP, right], with_origin(origin)) == "right"
    assert outcome([STEP, wrong], with_origin(origin)) == "wrong origin"


def test_what_was_rounded_is_said() -> None:
    """That a value is unseen does not say that it was rounded: a sentence has to."""
    fault, unseen = with_origin("rounded to bfloat16"), an_input("state.mu", kind="unseen")
    assert outcome([unseen], fault) == "wrong origin"
    assert outcome([unseen], fault, report="mu is rounded to bfloat16") == "right"
    assert outcome([unseen], fault, rounded=["state.mu: call 9, rounded to bfloat16"]) == "right"


def test_what_no_step_takes_is_said() -> None:
    """Of a program without an input, the input is named, and no other beside."""
    fault = with_origin("not taken", "key")
    assert outcome([], fault, reason="It takes 2, 1; only the whole run has key.") == "right"
    assert outcome([], fault, reason="It takes 2, 1; only the whole run has x, key.") != "right"
    assert outcome([], fault, reason="It takes 2, 1.") == "wrong part"


def test_a_label_may_show_at_the_end() -> None:
    """A state that is a step older than its label goes on from there, and ends too early."""
    fault = dataclasses.replace(with_origin("8 instead of 9"), kind="label off by one")
    early = "The resumed run ends 1 step (3 calls of JAX) before the whole run."
    assert outcome([], fault, continues_at=8, reason=early) == "right"
    assert outcome([], fault, continues_at=9, reason=early) != "right"
    assert outcome([], fault, continues_at=8) != "right"
    assert outcome([], with_origin("8 instead of 9"), continues_at=8, reason=early) != "right"


def test_what_was_swapped_is_said_of_both() -> None:
    """Two parts have each other's values."""
    fault = with_origin("swapped with ema", "params", "ema")
    swapped = [
        an_input("params", kind="elsewhere", other="ema of call 9"),
        an_input("ema", kind="elsewhere", other="params of call 9"),
    ]
    assert outcome(swapped, fault) == "right"
    assert outcome(swapped[:1], fault) == "wrong part"
    assert outcome([swapped[1] | {"other": "ema of call 3"}, swapped[0]], fault) == "wrong origin"


def test_a_later_difference() -> None:
    """What is listed of a later call is wrong there; without a part, no input of the first is."""
    assert outcome([LOST], continues_at=9) == "wrong part"  # the rate is listed as well
    program = with_origin("")
    program = dataclasses.replace(program, parts=())
    assert outcome([], program, continues_at=9) == "right"
    assert outcome([LOST], program) == "wrong part"


def test_what_is_not_told_is_not_right() -> None:
    """Runs that differ are not the same, and an answer that says nothing is no answer."""
    assert outcome([STEP, LOST], verdict="same") == "missed"
    assert outcome([STEP, LOST], verdict="cannot be told") == "cannot be told"
    assert judge_resumed(FAULT, None, differed=True).outcome == "no answer"
    zero = {"verdict": "cannot be told", "reason": "The second start began from zero."}
    assert outcome([LOST], with_origin("from zero"), **zero) == "right"
    assert outcome([LOST], **zero) == "cannot be told"
