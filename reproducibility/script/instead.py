"""Calls that only one of two records makes, and that may stand where the other makes its own.

The rule: between the same updates, calls of one function of the user's are counterparts; calls with
an array in common, or of one kind, may be.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reproducibility.script.graph import CallNode, is_slight, shown_type
from reproducibility.script.matched import Matched

type _Kind = tuple[object, ...]


class Instead:
    """The loose calls beside the updates of two processes, by the moment at which they stand."""

    def __init__(self, matched: Matched, is_idle: Callable[[int, int], bool]) -> None:
        """Find them.

        Args:
            matched: what both have in common.
            is_idle: says of a side and a call whether nothing is drawn from what comes of it.
        """
        self._m = matched
        self._at: tuple[dict[int, list[CallNode]], ...] = ({}, {})
        for side in (0, 1):
            updates = matched.sides[side]
            for index in matched.loose_beside(side):
                node = updates.graph.nodes[index]
                if node.is_known and node.results and not is_idle(side, index):
                    self._at[side].setdefault(self._moment(side, index), []).append(node)

    def counterparts(self) -> Iterator[tuple[CallNode, CallNode]]:
        """Yield calls of one function of the user's, with other arrays of the same types."""
        taken: set[int] = set()
        for one, there in self._beside():
            kind = _types_of_call(one)
            same = (n for n in there if n.index not in taken and _types_of_call(n) == kind)
            two = next(same, None) if one.is_of_user else None
            if two is not None:
                taken.add(two.index)
                yield one, two

    def may_be(self) -> tuple[CallNode, CallNode] | None:
        """Return the first two calls of which one may stand for the other, if there are such."""
        for one, there in self._beside():
            arrays, kinds = _larger_arrays_of(one), _kinds_of(one)
            for two in there:
                if arrays & _larger_arrays_of(two) or kinds & _kinds_of(two):
                    return one, two
        return None

    def _beside(self) -> Iterator[tuple[CallNode, list[CallNode]]]:
        """Yield the calls of the first side, each with those of the second between its updates."""
        for moment, nodes in sorted(self._at[0].items()):
            there = [
                node
                for each in self._m.beside[0].get(moment, ())
                for node in self._at[1].get(each, ())
            ]
            for one in nodes if there else ():
                yield one, there

    def _moment(self, side: int, index: int) -> int:
        """Return after how many updates a call stands; in another thread, which it depends on."""
        updates = self._m.sides[side]
        window = updates.window(index)
        if window is not None:
            return window
        ancestors = updates.graph.ancestors([index])
        return max((n for n, each in enumerate(updates.calls, 1) if each in ancestors), default=0)


def _types_of_call(node: CallNode) -> _Kind:
    types = (tuple(map(shown_type, arrays)) for arrays in (node.inputs, node.results))
    return node.name, *types


def _larger_arrays_of(node: CallNode) -> set[str]:
    """Return what a call takes, but numbers from the host, which may be equal by chance."""
    pairs = zip(node.inputs, node.parents, strict=True)
    return {array for array, parent in pairs if parent is not None or not is_slight(array)}


def _kinds_of(node: CallNode) -> set[_Kind]:
    """Return what makes two calls alike: the name, or of the user's the types of all arrays."""
    kinds: set[_Kind] = {("name", node.name)}
    return kinds | {_types_of_call(node)[1:]} if node.is_of_user else kinds
