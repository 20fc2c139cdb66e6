"""The calls of two records of different commands as two lanes: what each call is to the other run.

The rule: a call differs only where a difference was found, from the call on in which it begins;
what has no counterpart before that, or is of a function that the other run never calls, is of one
side only.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reproducibility.script.descent import Beginning
from reproducibility.script.graph import CallNode
from reproducibility.script.matched import Matched

PARTS_OF_LANE = 500  # of a lane, so that a page of a million calls is small
AGREES, DIFFERS, ALONE = "agrees", "differs", "alone"
_ORDER = (AGREES, ALONE, DIFFERS)  # what is shown of calls that are too near to be told apart


@dataclass(frozen=True)
class AlignedMark:
    """A call of each run, or of one, at which a difference begins: its place, from 0."""

    text: str
    places: tuple[int | None, int | None]


@dataclass(frozen=True)
class AlignedLanes:
    """The calls of a process in A, and of its counterpart in B.

    `stretches` are rows of calls of one kind: the first, the one behind the last, and the kind.
    """

    command: str
    calls: tuple[int, int]
    stretches: tuple[tuple[tuple[int, int, str], ...], tuple[tuple[int, int, str], ...]]
    marks: tuple[AlignedMark, ...] = ()


def lanes_of_process(
    matched: Matched, command: str, first: tuple[CallNode, CallNode] | None, begins: list[Beginning]
) -> AlignedLanes:
    """Return the lanes of two processes.

    Args:
        matched: what both have in common.
        command: what they ran.
        first: the first update that differs.
        begins: where a difference begins.
    """
    pairs = [(each.one, each.two) for each in begins]
    pairs += [first] if first else []
    stretches = [_stretches(matched, side, [pair[side] for pair in pairs]) for side in (0, 1)]
    texts = [f"{number}" for number in range(1, len(begins) + 1)] + ["update"] * bool(first)
    marks = [
        AlignedMark(text, (_place_of(one), _place_of(two)))
        for text, (one, two) in zip(texts, pairs, strict=True)
    ]
    nodes = [side.graph.nodes for side in matched.sides]
    calls = len(nodes[0]), len(nodes[1])
    return AlignedLanes(command, calls, (stretches[0], stretches[1]), tuple(marks))


def _place_of(node: CallNode | None) -> int | None:
    return None if node is None else node.index


def _stretches(
    matched: Matched, side: int, differing: Sequence[CallNode | None]
) -> tuple[tuple[int, int, str], ...]:
    nodes, paired = matched.sides[side].graph.nodes, matched.paired(side)
    begins = min((node.index for node in differing if node is not None), default=len(nodes))
    if all(node is None for node in differing):
        begins = len(nodes)
    of_other = {node.name for node in matched.sides[1 - side].graph.nodes}
    size = max(1, -(-len(nodes) // PARTS_OF_LANE))
    found: list[tuple[int, int, str]] = []
    for start in range(0, len(nodes), size):
        end = min(start + size, len(nodes))
        kind = max(
            (
                AGREES
                if node.index in paired
                else DIFFERS
                if node.index >= begins and node.name in of_other
                else ALONE
                for node in nodes[start:end]
            ),
            key=_ORDER.index,
        )
        if found and found[-1][2] == kind:
            found[-1] = (found[-1][0], end, kind)
        else:
            found.append((start, end, kind))
    return tuple(found)
