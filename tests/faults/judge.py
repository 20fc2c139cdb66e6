"""Was the answer of `reproducibility twice` about a planted fault right?

The rule: the judge knows what was planted and what `--json` printed, and nothing of how it was
found. A line is right only together with its class.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any, Literal

from tests.faults.planted import Planted

type Outcome = Literal[
    "right",
    "wrong class",
    "wrong line",
    "wrong part",
    "wrong origin",
    "invented",
    "cannot be told",
    "missed",
    "wrongly confirmed",
    "no answer",
    "not a fault",
    "agreed by chance",
    # of a clean script
    "same",
    "different",
    "changed",
    "miscounted",
]
FATAL: tuple[Outcome, ...] = ("missed", "wrongly confirmed", "invented")
# What a cause is called in an answer, where the fault calls it otherwise.
CALLED = {"addresses": "address"}
PLACES = 3  # places in which a difference begins that are looked at; the report shows five
# What the roots of an answer are called, by the class of the fault.
KINDS = {
    "host": ("host",),
    "program": ("program",),
    "path": ("path", "end", "error"),
}


@dataclass(frozen=True)
class Judgement:
    """What is to be said of an answer, and what it had, for a reader."""

    outcome: Outcome
    got: str
    confirmed: bool = False


def judge(fault: Planted, text: str, answer: dict[str, Any] | None, *, differed: bool) -> Judgement:
    """Compare an answer with what was planted.

    Args:
        fault: what was planted.
        text: the script with the fault in it.
        answer: what `twice --json` printed; None if it printed no JSON.
        differed: whether the two runs that it compared printed different results.
    """
    if answer is None:
        return Judgement("no answer", "no JSON")
    got, confirmed = _in_words(answer, text), bool(answer["confirmed"])
    if confirmed and not _is_cause(fault, text, answer):
        return Judgement("wrongly confirmed", got, confirmed)
    if answer["verdict"] == "same":
        return of_the_same(got, differed=differed)
    if answer["verdict"] == "cannot be told" or not answer["roots"]:
        return Judgement("cannot be told", got, confirmed)
    return Judgement(_of_a_difference(fault, text, answer), got, confirmed)


def of_the_same(got: str, *, differed: bool) -> Judgement:
    """Judge an answer that calls two runs the same."""
    return Judgement("missed" if differed else "agreed by chance", got)


def _is_cause(fault: Planted, text: str, answer: dict[str, Any]) -> bool:
    """Whether what was confirmed is a cause, and the line that it is said to come from its line."""
    cause = "+".join(CALLED.get(each, each) for each in answer["cause"].split("+"))
    source = answer.get("source") if answer.get("traced") else None
    wanted = lines_of(fault.cause, text)
    asked = source["lines"] if source else []
    elsewhere = wanted and _numbers(asked) and not _numbers(asked) & wanted
    return cause in fault.causes and not (elsewhere and not _in_cell(asked, fault))


def _of_a_difference(fault: Planted, text: str, answer: dict[str, Any]) -> Outcome:
    wanted = lines_of(fault.cause, text) | lines_of(fault.enters, text)
    kinds = [kind for each in fault.classes for kind in KINDS[each]]
    roots = _first_places(answer["roots"])
    named = [
        root
        for root in roots
        if _names(root, fault) or _places(root) & wanted or _in_cell(root["lines"], fault)
    ]
    source = answer.get("source")
    asked = source["lines"] if source else []
    if _numbers(asked) & lines_of(fault.cause, text) or _in_cell(asked, fault):
        named.append(roots[0])
    if any(root["kind"] in kinds for root in named):
        return "right"
    return "wrong class" if named else "wrong line"


def _first_places(roots: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first root of each of the first places."""
    places: dict[object, dict[str, Any]] = {}
    for root in roots:
        places.setdefault((root["kind"], root["program"], *root["lines"][:1]), root)
    return list(places.values())[:PLACES]


def _names(root: dict[str, Any], fault: Planted) -> bool:
    """Whether a root names the argument, or a part of it."""
    names = {name for full in root["names"] for name in (full, re.split(r"[\[.]", full)[0])}
    return bool(fault.argument) and fault.argument in names


def _in_cell(lines: list[str], fault: Planted) -> bool:
    """Whether a line is that of the cause, in a cell of a notebook."""
    return bool(fault.cell) and any(line.startswith(f"{fault.cell}, in ") for line in lines)


def _places(root: dict[str, Any]) -> set[int]:
    """Return the numbers of the lines shown for a root: in both runs, and in the program."""
    of_the_other = root["other_lines"] if root["kind"] != "host" else []
    of_the_program = (root.get("program_differs") or {}).get("lines", [])
    return _numbers([*root["lines"], *of_the_other, *of_the_program])


def _numbers(lines: list[str]) -> set[int]:
    """Return the numbers of lines in the script: `.../script.py:12, in step`."""
    found = [re.search(r"script\.py:(\d+), in ", line) for line in lines]
    return {int(match[1]) for match in found if match}


def lines_of(wanted: str, text: str) -> set[int]:
    """Return the numbers of the lines of each simple statement, or head, that holds a line.

    Python says of a call over several lines in which it begins or which part of it is under way.
    """
    if not wanted:
        return set()
    first = wanted.strip().splitlines()[0].strip()
    exact = [i for i, line in enumerate(text.splitlines(), 1) if line.strip() == first]
    held = exact or [i for i, line in enumerate(text.splitlines(), 1) if first in line]
    found = set(held)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt):
            extent = _extent(node)
            found |= set(extent) if any(line in extent for line in held) else set()
    return found


def _extent(node: ast.stmt) -> range:
    """Return the lines of a statement without its body."""
    body = getattr(node, "body", None)
    if not body:
        return range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return range(node.lineno, max(body[0].lineno, node.lineno + 1))


def _in_words(answer: dict[str, Any], text: str) -> str:
    """Say in a line what an answer had."""
    lines = text.splitlines()

    def shown(places: list[str]) -> str:
        numbers = sorted(_numbers(places[:1])) or sorted(_numbers(places))
        at = [f"{n}: {lines[n - 1].strip()[:70]}" for n in numbers[:1] if n <= len(lines)]
        return at[0] if at else ", ".join(re.sub(r"^.*/", "", place) for place in places[:1])

    parts = [answer["verdict"] if answer["roots"] else f"{answer['verdict']}: {answer['reason']}"]
    if answer["cause"]:
        how = "confirmed" if answer["confirmed"] else "likely"
        source = answer.get("source")
        asked = f" `{shown(source['lines'])}`" if source else ""
        parts.append(f"{how} {answer['cause']}{asked}")
    if answer.get("settled"):
        parts.append("settled")
    for root in _first_places(answer["roots"]):
        names = ",".join(root["names"][:3])
        parts.append(f"{root['kind']} {root['program']}({names}) `{shown(root['lines'])}`")
    return "; ".join(parts)
