"""The calls that only one of two records has, counted by function and line, and new names.

The rule: it says what was left over, and decides nothing.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections import Counter

from reproducibility.script.graph import CallNode
from reproducibility.script.matched import Matched, passed_on
from reproducibility.script.reading import SourceLine
from reproducibility.script.sides import CallsOfLine
from reproducibility.script.updates import function_kind


def only_of(
    matched: Matched, side: int, diverged: tuple[CallNode, CallNode] | None
) -> list[CallsOfLine]:
    """Count the calls that only one side makes, by function and line.

    Args:
        matched: what both have in common.
        side: 0 or 1.
        diverged: the first updates that differ, if nothing is equal from there on: then calls of
            one name are pairs, and so are those of the updates.
    """
    nodes = [each.graph.nodes for each in matched.sides]
    mine = _counted(matched, side)
    if diverged:
        renamed = {diverged[1 - side].name: diverged[side].name}
        names = (nodes[1 - side][each].name for each in matched.left(1 - side))
        theirs = Counter(renamed.get(name, name) for name in names)
        for key in sorted(mine, key=lambda each: mine[each]):
            both = min(mine[key], theirs[key[0]])
            mine[key] -= both
            theirs[key[0]] -= both
    of_user = {node.name for node in nodes[side] if node.is_of_user}
    found = [
        CallsOfLine(name, line, count, name in of_user)
        for (name, line), count in mine.items()
        if count
    ]
    return sorted(found, key=lambda each: (not each.of_user, -each.count))


def _counted(matched: Matched, side: int) -> Counter[tuple[str, SourceLine | None]]:
    nodes = matched.sides[side].graph.nodes
    beside = _updates_of_one_name(matched, side)
    left = [nodes[each] for each in matched.left(side) if each not in beside]
    return Counter((each.name, each.line) for each in left)


def _updates_of_one_name(matched: Matched, side: int) -> set[int]:
    """Return the updates of a side that have one of their name beside them, equal or not."""
    if matched.sides[0].name != matched.sides[1].name or matched.turns != (1, 1):
        return set()
    return {matched.sides[side].calls[pair[side] - 1] for pair in matched.updates}


def renamed_in(matched: Matched) -> list[tuple[str, str]]:
    """Return functions of the user that have another name on the other side.

    Args:
        matched: what both have in common.
    """
    found: dict[tuple[str, str], None] = {}
    nodes = [each.graph.nodes for each in matched.sides]
    for here, there in matched.pairs.items():
        one, two = nodes[0][here], nodes[1][there]
        if one.name != two.name and one.is_of_user and two.is_of_user:
            found[one.name, two.name] = None
    return list(found)


def more_results(matched: Matched) -> list[str]:
    """Name what the updates of one side return that the other does not have.

    Args:
        matched: what both have in common.
    """
    found: dict[str, None] = {}
    for side, name in zip((0, 1), "AB", strict=True):
        updates = matched.sides[side]
        for index in updates.calls:
            program = updates.graph.nodes[index].call.program
            for place in matched.loose[side].get(index, ()):
                found[f"{program.result(place)} in {name}"] = None
    return list(found)


def sometimes_loose(matched: Matched, side: int) -> CallNode | None:
    """Return a call that the training depends on whose results the other side lacks, not always.

    What one side computes in addition it computes in each turn. What only some turns lack is a
    difference that has no counterpart, such as an update that is not applied.

    Args:
        matched: what both have in common.
        side: 0 or 1.
    """
    updates, loose = matched.sides[side], matched.loose[side]
    found: dict[object, tuple[bool, CallNode]] = {}
    carried = passed_on(updates)
    for index in sorted(updates.core):
        node = updates.graph.nodes[index]
        for place in range(len(node.results)):
            key = function_kind(node), place
            lacks = place in loose.get(index, ())
            if key in carried and key in found and found[key][0] != lacks:
                return node if lacks else found[key][1]
            found.setdefault(key, (lacks, node))
    return None
