"""From an array that differs back to where that begins: the call, the host, or the order.

The rule: go from a call to those that made its differing inputs, on both sides at once, until
inputs agree, come from the host, or are arrays that both runs have.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from reproducibility.script.graph import CallNode, shown_type
from reproducibility.script.matched import Matched
from reproducibility.script.programs import (
    ProgramDifference,
    ProgramsOfProcess,
    difference_of_programs,
)
from reproducibility.script.values import NO_VALUE

type BeginningKind = Literal["host", "program", "function", "order", "origin", "type", "end"]
type PlacePair = tuple[int, int]  # of an argument or a result, on each side


@dataclass(frozen=True)
class Beginning:
    """Where a difference between two commands begins: a call of each side.

    `kind` is "host" (an input from the host differs), "program" (equal inputs, other results),
    "function" (an array is made by another function), "order" (arrays that both runs have are
    taken in another order), "origin" (from the host in one run, from a call in the other), "type"
    (another type or shape), or "end" (one run makes no such call).
    """

    kind: BeginningKind
    one: CallNode | None
    two: CallNode | None
    places: tuple[PlacePair, ...] = ()
    what: str = ""
    why: ProgramDifference | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arguments, or of a program's results, that differ."""
        node = self.one or self.two
        assert node is not None
        program = node.call.program
        name = program.result if self.kind == "program" else program.argument
        side = 0 if self.one else 1
        return tuple(name(pair[side]) for pair in self.places)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; calls are counted from 1."""
        return {
            "kind": self.kind,
            "what": self.what,
            "names": list(self.names),
            "a": node_to_json(self.one),
            "b": node_to_json(self.two),
            "program_differs": self.why and self.why.to_json(),
        }


def node_to_json(node: CallNode | None) -> dict[str, Any] | None:
    """Return a call as JSON values.

    Args:
        node: a call, or none.
    """
    if node is None:
        return None
    lines = [str(line) for line in node.call.site]
    return {"call": node.call.number + 1, "function": node.name, "lines": lines}


def comparable_places(one: CallNode, two: CallNode) -> list[PlacePair]:
    """Return which arguments of two calls belong together: by name, else by place.

    Args:
        one: a call of the first run.
        two: a call of the second.
    """
    names = [list(each.call.program.arguments) for each in (one, two)]
    if all(len(set(each)) == len(each) for each in names) and names[0] != names[1]:
        return [(i, names[1].index(name)) for i, name in enumerate(names[0]) if name in names[1]]
    if len(one.inputs) == len(two.inputs):
        return [(place, place) for place in range(len(one.inputs))]
    return []


def _signature(node: CallNode) -> tuple[str, list[str]]:
    return node.name, [shown_type(array) for array in node.inputs]


def differing_inputs(one: CallNode, two: CallNode) -> list[PlacePair]:
    """Return the inputs of two calls that belong together and are not equal, or not known.

    Args:
        one: a call of the first run.
        two: a call of the second.
    """
    places = comparable_places(one, two)
    return [(i, j) for i, j in places if one.inputs[i] != two.inputs[j] or not one.inputs[i]]


def differing_results(one: CallNode, two: CallNode) -> list[PlacePair]:
    """Return the results of two calls that are not equal.

    Args:
        one: a call of the first run.
        two: a call of the second.
    """
    if len(one.results) == len(two.results):
        pairs = enumerate(zip(one.results, two.results, strict=True))
        return [(place, place) for place, (x, y) in pairs if x != y]
    return []


class Descent:
    """Goes back from calls that differ to where that begins."""

    def __init__(self, matched: Matched) -> None:
        self._matched = matched
        self._graphs = [side.graph for side in matched.sides]
        self._programs = [ProgramsOfProcess(graph.process) for graph in self._graphs]

    def beginnings(self, one: CallNode, two: CallNode) -> list[Beginning]:
        """Return where the difference of two calls begins, once for each place in the code.

        Args:
            one: a call of the first run.
            two: its counterpart.
        """
        found: dict[tuple[str, object, object], Beginning] = {}
        pairs: list[PlacePair | None] = [*differing_inputs(one, two)]
        for pair in pairs or [None]:
            each = self._from(one, two, pair)
            mine, theirs = (node and (node.name, node.line) for node in (each.one, each.two))
            key = each.kind, mine, theirs
            if key in found and each.one is found[key].one:
                places = dict.fromkeys((*found[key].places, *each.places))
                each = Beginning(
                    each.kind, each.one, each.two, tuple(places), found[key].what, each.why
                )
            found[key] = each
        order = sorted(found.values(), key=lambda each: each.one.call.number if each.one else 0)
        return order

    def _from(self, one: CallNode, two: CallNode, pair: PlacePair | None) -> Beginning:
        """Go back until it begins; `pair` is the input to follow, if one was chosen."""
        while True:
            if pair is None:
                differing = differing_inputs(one, two)
                if not differing:
                    return self._in_program(one, two)
                pair = self._to_follow(one, two, differing)
            i, j = pair
            if shown_type(one.inputs[i]) != shown_type(two.inputs[j]):
                types = (shown_type(one.inputs[i]), shown_type(two.inputs[j]))
                what = f"{types[0] or 'a type'} in A, {types[1] or 'another'} in B"
                if one.parents[i] is None or two.parents[j] is None:
                    return Beginning("type", one, two, (pair,), what)
            parents = one.parents[i], two.parents[j]
            if parents[0] is None or parents[1] is None:
                kind: BeginningKind = "host" if parents == (None, None) else "origin"
                return Beginning(kind, one, two, (pair,), self._of_host(one, two, pair))
            nodes = [graph.nodes[p[0]] for graph, p in zip(self._graphs, parents, strict=True)]  # type: ignore[index]
            if self._both_have(one.inputs[i], two.inputs[j]):
                return Beginning("order", one, two, (pair,), self._taken(nodes))
            one, two, pair = nodes[0], nodes[1], None
            if _signature(one) != _signature(two):
                pair = self._new_in_both(one, two)
                if pair is None:
                    return self._made_otherwise(one, two)

    def _to_follow(self, one: CallNode, two: CallNode, differing: list[PlacePair]) -> PlacePair:
        """Choose the input to follow: one that the other run never has, before one that it has."""
        new = [
            pair
            for pair in differing
            if not self._both_have(one.inputs[pair[0]], two.inputs[pair[1]])
        ]
        return (new or differing)[0]

    def _both_have(self, mine: str, theirs: str) -> bool:
        arrays = self._matched.arrays
        return NO_VALUE not in (mine, theirs) and mine in arrays[1] and theirs in arrays[0]

    def _new_in_both(self, one: CallNode, two: CallNode) -> PlacePair | None:
        """Return the first inputs of two functions that the other run never has, to go on with."""
        new = [
            [
                place
                for place, array in enumerate(node.inputs)
                if array not in self._matched.arrays[1 - side]
            ]
            for side, node in enumerate((one, two))
        ]
        go_on = new[0] and new[1] and differing_inputs(one, two)
        return (new[0][0], new[1][0]) if go_on else None

    def _made_otherwise(self, one: CallNode, two: CallNode) -> Beginning:
        """Two functions made what differs: say whether of equal arrays."""
        if sorted(one.inputs) == sorted(two.inputs) and one.is_known:
            return self._in_program(one, two)
        what = f"made by {one.name} in A, by {two.name} in B"
        if one.name == two.name:
            types = [", ".join(map(shown_type, node.inputs)) for node in (one, two)]
            what = f"{one.name} takes {types[0]} in A, {types[1]} in B"
        return Beginning("function", one, two, (), what)

    def _in_program(self, one: CallNode, two: CallNode) -> Beginning:
        programs = one.call.program, two.call.program
        why = difference_of_programs(self._programs[0], programs[0], self._programs[1], programs[1])
        what = why.what
        if one.name != two.name:
            what = f"{one.name} in A, {two.name} in B; {what}"
        return Beginning("program", one, two, tuple(differing_results(one, two)), what, why)

    def _taken(self, nodes: list[CallNode]) -> str:
        texts = [f"the result of {node.name}, call {node.call.number + 1:,}" for node in nodes]
        return f"{texts[0]} in A, {texts[1]} in B: arrays that both runs have"

    def _of_host(self, one: CallNode, two: CallNode, pair: PlacePair) -> str:
        """Say of an input from the host when the other run has its value, if it has it."""
        i, j = pair
        if one.parents[i] is not None or two.parents[j] is not None:
            made = [
                "from the host" if parent is None else f"from {graph.nodes[parent[0]].name}"
                for graph, parent in zip(
                    self._graphs, (one.parents[i], two.parents[j]), strict=True
                )
            ]
            return f"{made[0]} in A, {made[1]} in B"
        for graph, array, sides in ((1, one.inputs[i], "AB"), (0, two.inputs[j], "BA")):
            same = (n for n in self._graphs[graph].nodes if array and array in n.inputs)
            if node := next(same, None):
                return f"{sides[1]} is given {sides[0]}'s value in call {node.call.number + 1:,}"
        return ""
