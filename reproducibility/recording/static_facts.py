"""What a step was made of beside arrays: static data of the stages, in a file beside the ledger.

The rule: a ledger holds the bits of arrays, and equal ledgers are equal files. What a container
holds beside them (the epoch in a static field, the mode of a module) is written beside the ledger
once, and again when it changes; `compare` says where two differ in it.
Chapter: docs/guide/flight_recorder.md

`one.jsonl` has `one.jsonl.static`, if there is any: a line with the step from which on it was so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproducibility.errors import LeafError
from reproducibility.recording.lines import json_object
from reproducibility.storage.files import append_bytes, canonical_json

BESIDE = ".static"

type StaticFacts = dict[str, dict[str, Any]]  # of a node, by its stage and name


def static_facts(stages: Mapping[str, Any]) -> StaticFacts:
    """Return what the nodes of some stages hold beside arrays.

    What has no end, or contains itself, is noted as not compared.

    **Same bits:** everywhere.

    Args:
        stages: Pytrees by their names.
    """
    from reproducibility.same.state import static_data  # with JAX, which `compare` does not need

    found: StaticFacts = {}
    for stage, tree in stages.items():
        try:
            nodes = static_data(tree)[0]
        except LeafError as error:
            found[stage] = {"class": "static data", "not_compared": [f"{error.got} in {stage}"]}
            continue
        for name, node in nodes.items():
            place = stage if name == "." else f"{name} of {stage}"
            found[place] = {"class": node.kind, "data": node.data, "fields": node.fields}
            found[place] |= {"not_compared": list(node.not_compared)} if node.not_compared else {}
    return found


def note_static(ledger: Path, step: int, facts: StaticFacts) -> None:
    """Note from which step on static data is what it is, if it was something else before.

    Where it cannot be written, there is none of the ledger.

    Args:
        ledger: The file.
        step: The first step.
        facts: What `static_facts` returned.
    """
    known = static_beside(ledger)
    if [facts] == [line["static"] for line in known if line["from"] <= step][-1:] or not (
        facts or known
    ):
        return
    with contextlib.suppress(OSError):
        line = canonical_json({"from": step, "static": facts}) + b"\n"
        append_bytes(ledger.with_name(ledger.name + BESIDE), line, wait=False)


def static_beside(ledger: Path) -> list[dict[str, Any]]:
    """Return from which step on there was which static data, in the order of steps.

    A line that begins no later than one before it takes its place: the steps were recorded anew.

    Args:
        ledger: The file.
    """
    path = ledger.with_name(ledger.name + BESIDE)
    if not path.is_file() or path.is_symlink():
        return []
    found: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError):
        for line in map(json_object, path.read_bytes().splitlines()):
            if isinstance(line.get("from"), int) and isinstance(line.get("static"), dict):
                found = [other for other in found if other["from"] < line["from"]] + [line]
    return found


def static_divergence(one: Path, other: Path, last: int) -> tuple[int, str] | None:
    """Return from which step on two ledgers differ in static data, and where; None if nowhere.

    Where only one has any, the other may have been recorded without it.

    **Same bits:** everywhere.

    Args:
        one: A ledger.
        other: Another one.
        last: The last step that both have.
    """
    sides = [static_beside(ledger) for ledger in (one, other)]
    steps = {line["from"] for side in sides for line in side if line["from"] <= last}
    for step in sorted(steps) if all(sides) else ():
        before = [[line["static"] for line in side if line["from"] <= step] for side in sides]
        a, b = (lines[-1] if lines else {} for lines in before)
        found = [place for place in sorted({**a, **b}) if a.get(place) != b.get(place)]
        if found:
            more = f"; {len(found) - 1} more differ" if len(found) > 1 else ""
            return step, _node_difference(found[0], a.get(found[0]), b.get(found[0])) + more
    return None


def static_not_compared(ledger: Path) -> list[str]:
    """Return what of the static data beside a ledger has no text to be compared by.

    Args:
        ledger: The file.
    """
    nodes = [node for line in static_beside(ledger) for node in line["static"].values()]
    return sorted({what for node in nodes for what in node.get("not_compared", ())})


def _node_difference(place: str, one: Any, other: Any) -> str:
    if not (one and other) or one.get("class") != other.get("class"):
        words = [side["class"] if side else "nothing" for side in (one, other)]
        return f"{place} is {words[0]} against {words[1]}"
    fields = one.get("fields", {}), other.get("fields", {})
    for name in sorted({**fields[0], **fields[1]}):
        texts = [side.get(name, "nothing") for side in fields]
        if texts[0] != texts[1]:
            return f"{name} of {place} is {texts[0]} against {texts[1]}"
    return f"{place} is {one.get('data')} against {other.get('data')}"
