"""What differs beside the updates of two records, and what only one of them has at all.

The rule: equal inputs and other results are a difference; so is an input that the other run never
has, of a function that both call. What only one run calls is no difference, unless the
other calls something else of the same there.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from reproducibility.script.descent import Beginning, Descent
from reproducibility.script.graph import CallNode, shown_type
from reproducibility.script.instead import Instead
from reproducibility.script.matched import Matched
from reproducibility.script.updates import function_kind

MOST_BEGINNINGS = 20


class Beside:
    """Finds what differs beside the updates: `beginnings`, `problems`, and `notes` on both."""

    def __init__(self, matched: Matched, descent: Descent) -> None:
        self._m, self._descent = matched, descent
        self._nodes = tuple(side.graph.nodes for side in matched.sides)
        self._left = tuple(set(matched.left(side)) for side in (0, 1))
        self.beginnings: list[Beginning] = []
        self.problems: list[str] = []
        self.notes: list[str] = []

    def find(self) -> None:
        """Find calls beside the updates that both make with equal inputs, to other results."""
        where: dict[object, list[CallNode]] = {}
        for index in sorted(self._left[1]):
            node = self._nodes[1][index]
            if node.is_known:
                where.setdefault((node.name, node.inputs), []).append(node)
        for index in sorted(self._left[0]):
            one = self._nodes[0][index]
            same = where.get((one.name, one.inputs)) if one.is_known else None
            two = same.pop(0) if same else None
            if two is not None and self._is_difference(one, two):
                self._add(one, two)
        self._renamed_and_changed()
        self._without_counterpart()
        self._read_otherwise()
        self._instead()

    def _read_otherwise(self) -> None:
        """Note a call that returns the same in another order, of which the scripts read others."""
        for index, other in self._m.pairs.items():
            both = self._nodes[0][index], self._nodes[1][other]
            if both[0].results == both[1].results:
                continue
            read = [self._m.sides[side].graph.read_of(node) for side, node in enumerate(both)]
            if not (read[0] <= read[1] or read[1] <= read[0]):
                self.problems.append(
                    f"the results of {both[0].name} come in another order ({both[0].line}), and "
                    "the scripts read others of them"
                )
                return

    def _instead(self) -> None:
        """Find what one side calls where the other calls it otherwise, or may do so."""
        instead = Instead(self._m, self._is_idle)
        for one, two in instead.counterparts():
            self._add(one, two)
        may_be = None if self.beginnings or self.problems else instead.may_be()
        if may_be:
            self._one_for_the_other(*may_be)

    def _one_for_the_other(self, one: CallNode, two: CallNode) -> None:
        texts = [f"{each.name} ({each.line})" for each in (one, two)]
        self.problems.append(
            f"only A calls {texts[0]}, and only B {texts[1]}, at the same place: one may stand for "
            "the other"
        )

    def _renamed_and_changed(self) -> None:
        """Find functions that only one side has, with equal inputs and other results."""
        one, two = (self._of_one_side(side) for side in (0, 1))
        where: dict[object, list[CallNode]] = {}
        for node in two:
            where.setdefault(tuple(sorted(node.inputs)), []).append(node)
        for node in one:
            if same := where.get(tuple(sorted(node.inputs))):
                self._add(node, same.pop(0))
        self._may_stand_for_each_other(one, two)

    def _of_one_side(self, side: int) -> list[CallNode]:
        """Return loose calls beside the updates, of functions that the other side never calls."""
        others = {node.name for node in self._nodes[1 - side]}
        nodes = [self._nodes[side][index] for index in self._m.loose_beside(side)]
        return [n for n in nodes if n.is_known and n.inputs and n.name not in others]

    def _may_stand_for_each_other(self, one: list[CallNode], two: list[CallNode]) -> None:
        """Note functions of either side that take an array in common: is one made of the other?"""
        takers = {array: node for node in two for array in _of_calls(node)}
        for node in one:
            other = next((takers[array] for array in _of_calls(node) if array in takers), None)
            if other is not None and not self.beginnings:
                texts = [f"{each.name} ({each.line})" for each in (node, other)]
                self.problems.append(
                    f"only A calls {texts[0]}, and only B {texts[1]}, with an array in common: one "
                    "may stand for the other"
                )
                return

    def _is_difference(self, one: CallNode, two: CallNode) -> bool:
        """Whether two calls of one name and equal inputs, with other results, are a difference."""
        if one.call.program.text == two.call.program.text:
            return True
        types = [list(map(shown_type, each.results)) for each in (one, two)]
        if one.is_of_user and types[0] == types[1]:
            return True
        return one.index in self._m.loose[0] and two.index in self._m.loose[1]

    def _without_counterpart(self) -> None:
        """Look at what begins beside the updates, and that the other side cannot have."""
        self._other_numbers()
        begin = [self._beginning_of_loose(side) for side in (0, 1)]
        waiting: dict[object, list[CallNode]] = {}
        for node in begin[1]:
            waiting.setdefault((node.name, len(node.inputs), len(node.results)), []).append(node)
        unpaired = []
        for one in begin[0]:
            same = waiting.get((one.name, len(one.inputs), len(one.results)))
            if not same:
                unpaired.append(one)
                continue
            self._add(one, same.pop(0))
        rest = [each for nodes in waiting.values() for each in nodes]
        if unpaired and rest and not self.beginnings:
            texts = [f"{each[0].name} ({each[0].line})" for each in (unpaired, rest)]
            self.problems.append(
                f"each side makes calls of what the other never has: {texts[0]}, {texts[1]}"
            )

    def _other_numbers(self) -> None:
        """Find calls that take equal arrays of other calls, and something else from the host."""
        where: dict[object, list[CallNode]] = {}
        for side in (1, 0):
            for index in self._m.loose_beside(side):
                node = self._nodes[side][index]
                made = tuple(
                    array if parent else None
                    for array, parent in zip(node.inputs, node.parents, strict=True)
                )
                if not any(made) or None not in made:
                    continue
                if side:
                    where.setdefault((node.name, made), []).append(node)
                elif same := where.get((node.name, made)):
                    self._add(node, same.pop(0))

    def _beginning_of_loose(self, side: int) -> list[CallNode]:
        """Return calls that are loose, beside the updates, and given what the other never has."""
        loose, other = self._m.loose[side], self._m.arrays[1 - side]
        found = []
        for index in self._m.loose_beside(side):
            node = self._nodes[side][index]
            behind = any(parent and parent[0] in loose for parent in node.parents)
            new = any(
                parent is None and array not in other
                for parent, array in zip(node.parents, node.inputs, strict=True)
            )
            if new and not behind and not self._is_idle(side, index):
                found.append(node)
        return found

    def _is_idle(self, side: int, index: int) -> bool:
        """Whether only keys come of it, of which nothing is drawn."""
        graph = self._m.sides[side].graph
        node = graph.nodes[index]
        if not (node.makes_keys or node.makes_a_number):
            return False
        after = graph.descendants([index]) - ({index} if node.makes_a_number else set())
        nodes = [graph.nodes[each] for each in after]
        if all(each.makes_keys for each in nodes) and any(each.derives_keys for each in nodes):
            line = node.line
            note = f"a key is made at {line}, and nothing is drawn from it"
            if note not in self.notes:
                self.notes.append(note)
            return True
        return False

    def _add(self, one: CallNode, two: CallNode) -> None:
        """Note where the difference of two calls begins, if that is no more than can be read."""
        if len(self.beginnings) >= MOST_BEGINNINGS:
            return
        known = {(each.kind, each.one and each.one.index) for each in self.beginnings}
        for each in self._descent.beginnings(one, two):
            if (each.kind, each.one and each.one.index) not in known:
                self.beginnings.append(each)

    def untold(self) -> None:
        """Note calls without a counterpart that build on each other, or are not known."""
        recurring = [self._recurring(side) for side in (0, 1)]
        if recurring[0] and recurring[1]:
            names = f"{recurring[0].name} in A, {recurring[1].name} in B"
            self.problems.append(f"calls that build on each other have no counterpart: {names}")
        nodes = [[self._nodes[side][index] for index in self._m.loose[side]] for side in (0, 1)]
        unknown = [next((node for node in each if not node.is_known), None) for each in nodes]
        if unknown[0] and unknown[1]:
            self.problems.append(f"the bits that {unknown[0].name} takes or returns are not known")

    def _recurring(self, side: int) -> CallNode | None:
        """Return a loose call that is made of what an earlier one of its function came to."""
        graph, loose = self._m.sides[side].graph, self._m.loose[side]
        kinds: dict[object, list[int]] = {}
        for index in self._m.loose_beside(side):
            kinds.setdefault(function_kind(graph.nodes[index]), []).append(index)
        for calls in kinds.values():
            if len(calls) > 1 and not graph.nodes[calls[0]].makes_keys:
                takers = {
                    t for each in calls for t, place in graph.takers[each] if place in loose[each]
                }
                if graph.descendants(takers).intersection(calls):
                    return graph.nodes[calls[0]]
        return None

    def has_of_its_own(self, side: int) -> bool:
        """Whether one side computes something of inputs that the other never has.

        Args:
            side: 0 or 1.
        """
        return bool(self._beginning_of_loose(side)) or any(
            not self._nodes[side][each].is_known for each in self._m.loose[side]
        )


def _of_calls(node: CallNode) -> list[str]:
    """Return the arrays that a call takes from others."""
    pairs = zip(node.inputs, node.parents, strict=True)
    return [array for array, parent in pairs if parent]
