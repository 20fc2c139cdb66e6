"""Was the answer of `reproducibility interrupt` about a planted fault right?

The rule: the judge knows what was planted and what was printed, and nothing of how it was found. A
part is right only together with the origin of its value, and with no other part beside it.
"""

from __future__ import annotations

import re
from typing import Any

from tests.faults.judge import Judgement, Outcome, of_the_same
from tests.faults.planted import ResumeFault

UNSEEN = "not in the whole run"
NOT_TAKEN = "not taken"  # the resumed step is another program, without these inputs
_NOT_TAKEN = re.compile(r"only the whole run has ([^.;]*)")
SHOWN = 4  # inputs that are shown to a reader
_INSTEAD = re.compile(r"(\d+) instead of (\d+)")


def judge_resumed(
    fault: ResumeFault, answer: dict[str, Any] | None, *, differed: bool
) -> Judgement:
    """Compare an answer with what was planted.

    Args:
        fault: what was planted.
        answer: what `interrupt --json` printed, and under "report" what it prints for a reader;
            None if it printed no JSON.
        differed: whether the plain resumed run had another result than the plain whole run.
    """
    if answer is None:
        return Judgement("no answer", "no JSON")
    wrong = wrong_inputs(answer, _belongs(fault))
    got = _in_words(answer, wrong)
    if answer["verdict"] == "same":
        return of_the_same(got, differed=differed)
    if fault.origin == "from zero" and "began from zero" in answer["reason"]:
        return Judgement("right", got)
    if answer["verdict"] == "cannot be told":
        return Judgement("cannot be told", got)
    return Judgement(_of_a_difference(fault, answer, wrong), got)


def _of_a_difference(
    fault: ResumeFault, answer: dict[str, Any], wrong: list[dict[str, Any]]
) -> Outcome:
    if fault.origin == NOT_TAKEN:
        told = _NOT_TAKEN.search(answer["reason"])
        return "right" if told and set(told[1].split(", ")) == set(fault.parts) else "wrong part"
    if _is_of_another_step(fault, answer):
        return "right"
    if not fault.parts:  # every input of the first resumed step is right
        return "right" if answer["continues_at"] else "wrong part"
    named = [each for each in wrong if any(_is_of(each["name"], part) for part in fault.parts)]
    all_named = all(any(_is_of(each["name"], part) for each in wrong) for part in fault.parts)
    if not all_named or len(named) != len(wrong):
        return "wrong part"
    said = "\n".join([answer["report"], *answer.get("rounded", [])])
    found = [_has_origin(each, fault, said) for each in named]
    # A small array, such as eight rewards, is that of another step by chance: one is enough there.
    enough = any(found) if fault.origin == UNSEEN else all(found)
    return "right" if enough else "wrong origin"


def _is_of_another_step(fault: ResumeFault, answer: dict[str, Any]) -> bool:
    """Whether all of a state is said to be that of another step than its label, by its end."""
    told = _INSTEAD.fullmatch(fault.origin)
    if fault.kind != "label off by one" or not told or answer["continues_at"] != int(told[1]):
        return False
    steps = int(told[2]) - int(told[1])
    ends = f"ends {steps} step " if steps > 0 else f"makes {-steps} step "
    return ends in answer["reason"]


def _belongs(fault: ResumeFault) -> int:
    """Return the step of the whole run whose inputs the first resumed step should have."""
    told = _INSTEAD.fullmatch(fault.origin)
    return int(told[2]) if told else fault.continues_at


def wrong_inputs(answer: dict[str, Any], belongs: int) -> list[dict[str, Any]]:
    """Return the inputs that an answer shows to be wrong.

    Args:
        answer: of a difference in a later call it holds those that differ; of one in the first
            resumed step it holds all.
        belongs: the step that this one should be.
    """

    def is_right(each: dict[str, Any]) -> bool:
        return each["kind"] in ("every", "unknown") or belongs in each["calls"]

    inputs: list[dict[str, Any]] = answer["inputs"]
    return inputs if answer["continues_at"] else [each for each in inputs if not is_right(each)]


def _is_of(name: str, part: str) -> bool:
    """Whether an argument is a part, or is in it."""
    return name == part or (name.startswith(part) and name[len(part)] in ".[")


def _has_origin(found: dict[str, Any], fault: ResumeFault, report: str) -> bool:
    """Whether the answer says where an input's value comes from as it was planted."""
    origin, other = fault.origin, found["other"] or ""
    if origin == "before step 1":
        return 1 in found["calls"]
    if told := _INSTEAD.fullmatch(origin):
        return int(told[1]) in found["calls"]
    if origin.startswith("rounded to "):
        return found["kind"] == "unseen" and origin in report
    if origin.startswith("swapped with "):
        return found["kind"] == "elsewhere" and _swaps(found["name"], other, fault)
    if origin.startswith("the value of "):
        return _holds(other, origin.removeprefix("the value of "))
    if origin == UNSEEN:
        return found["kind"] == "unseen"
    raise ValueError(f"{fault.id}: unknown origin {origin!r}")


def _swaps(name: str, other: str, fault: ResumeFault) -> bool:
    """Whether one of the two, and only one, is what a part was swapped with."""
    word = fault.origin.removeprefix("swapped with ")
    return _holds(name, word) != _holds(other, word)


def _holds(name: str, word: str) -> bool:
    """Whether a name holds a word."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", name) is not None


def _in_words(answer: dict[str, Any], wrong: list[dict[str, Any]]) -> str:
    """Say in a line what an answer had."""
    groups: dict[str, list[str]] = {}
    for each in wrong:
        calls = ", ".join(str(call) for call in each["calls"][:SHOWN])
        what = f"that of call {calls}" if calls else each["other"] or each["kind"]
        groups.setdefault(what, []).append(each["name"])
    parts = [
        f"{', '.join(names[:SHOWN])}{' …' if len(names) > SHOWN else ''}: {what}"
        for what, names in groups.items()
    ]
    return "; ".join([f"{answer['verdict']}: {answer['reason']}", *parts])
