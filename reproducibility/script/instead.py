"""Calls that only one of two records makes, and that may stand where the other makes its own.

The rule: between the same updates, calls of one function of the user's are counterparts; calls with
an array in common, or of one kind, may be.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from reproducibility.script.graph import CallNode, is_slight, shown_type
from reproducibility.script.matched import Matched

type _Mark = str | tuple[object, ...]


class Instead:
    """The loose calls beside the updates of two processes, by the moment at which they stand."""

    def __init__(self, matched: Matched, is_idle: Callable[[int, int], bool]) -> None:
        """Find them.

        Args:
            matched: what both have in common.
            is_idle: says of a side and a call whether nothing is drawn from what comes of it.
        """
        self._m = matched
        self._loose = tuple(set(matched.loose_beside(side)) for side in (0, 1))
        self._at: tuple[dict[int, list[CallNode]], ...] = ({}, {})
        for side in (0, 1):
            updates = matched.sides[side]
            for index in sorted(self._loose[side].union(self._repeating(side))):
                node = updates.graph.nodes[index]
                if node.is_known and node.results and not is_idle(side, index):
                    self._at[side].setdefault(self._moment(side, index), []).append(node)

    def _repeating(self, side: int) -> set[int]:
        """Return calls that repeat one of their run, once more than the other run makes it."""
        nodes = self._m.sides[side].graph.nodes
        known = {nodes[index].content for index in self._m.paired(side)}
        left = (nodes[index] for index in self._m.left(side))
        return {n.index for n in left if any(n.parents) and n.content in known}

    def counterparts(self) -> Iterator[tuple[CallNode, CallNode]]:
        """Yield calls of one function of the user's, with other arrays of the same types."""
        for nodes, there in self._beside(lambda node: [_types_of_call(node)]):
            for one in nodes:
                waiting = there.get(_types_of_call(one), []) if one.is_of_user else []
                if waiting:
                    yield one, waiting.pop(0)

    def may_be(self) -> tuple[CallNode, CallNode] | None:
        """Return the first two calls of which one may stand for the other, if there are such."""
        for nodes, there in self._beside(_marks_of):
            for one in nodes:
                for mark in _marks_of(one):
                    two = next(
                        (n for n in there.get(mark, ()) if self._is_either_loose(one, n)), None
                    )
                    if two is not None:
                        return one, two
        return None

    def _is_either_loose(self, one: CallNode, two: CallNode) -> bool:
        return one.index in self._loose[0] or two.index in self._loose[1]

    def _beside(
        self, marks: Callable[[CallNode], Iterable[_Mark]]
    ) -> Iterator[tuple[list[CallNode], dict[_Mark, list[CallNode]]]]:
        """Yield calls of the first side, and those of the second between its updates by marks."""
        for moment, nodes in sorted(self._at[0].items()):
            there: dict[_Mark, list[CallNode]] = {}
            for each in self._m.beside[0].get(moment, ()):
                for node in self._at[1].get(each, ()):
                    for mark in marks(node):
                        there.setdefault(mark, []).append(node)
            yield nodes, there

    def _moment(self, side: int, index: int) -> int:
        """Return after how many updates a call stands; in another thread, which it depends on."""
        updates = self._m.sides[side]
        window = updates.window(index)
        if window is not None:
            return window
        found, seen, left = 0, {index}, [index]
        while left:
            for parent in filter(None, updates.graph.nodes[left.pop()].parents):
                window = updates.window(parent[0])
                if window is not None:
                    found = max(found, window)
                elif parent[0] not in seen:
                    seen.add(parent[0])
                    left.append(parent[0])
        return found


def _types_of_call(node: CallNode) -> tuple[object, ...]:
    types = (tuple(map(shown_type, arrays)) for arrays in (node.inputs, node.results))
    return node.name, *types


def _marks_of(node: CallNode) -> list[_Mark]:
    """Return what makes two calls alike: arrays, but numbers from the host, which may be equal by
    chance; the name; or of the user's the types of all arrays."""
    pairs = zip(node.inputs, node.parents, strict=True)
    arrays = [array for array, parent in pairs if parent is not None or not is_slight(array)]
    return [*arrays, ("name", node.name), *([_types_of_call(node)[1:]] if node.is_of_user else [])]
