"""Calls of two records that belong together, by what they take and return, and what is left over.

The rule: an array is found again if the other run has the same bits of the same type; what came
from the training, or has few elements, only if it has them between the same updates.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from reproducibility.script.graph import CallGraph, CallNode, Content, is_slight
from reproducibility.script.updates import FunctionKind, Updates, function_kind
from reproducibility.script.values import NO_VALUE

type _Windows = dict[int, list[int]]  # of one side: which of the other stand beside each


@dataclass
class Matched:
    """What two processes have in common.

    `pairs` are calls with equal inputs and results, by index; `updates` are pairs of updates that
    stand beside each other, equal or not. `turns` says how many updates of one side do what one of
    the other does, as in a loop that is one program: then only what the next one takes is compared,
    for what each returns besides is stacked. `loose` holds for each side the calls of which a
    result is not found in the other, unless all that takes it is found and the script reads it not.
    """

    sides: tuple[Updates, Updates]
    pairs: dict[int, int] = field(default_factory=dict)
    updates: list[tuple[int, int]] = field(default_factory=list)  # numbers from 1
    turns: tuple[int, int] = (1, 1)
    loose: tuple[dict[int, list[int]], dict[int, list[int]]] = ({}, {})
    arrays: tuple[set[str], set[str]] = (set(), set())  # all that were given or returned
    beside: tuple[_Windows, _Windows] = ({}, {})  # numbers of updates that stand beside each other

    def paired(self, side: int) -> set[int]:
        """Return the calls of one side that a call of the other equals.

        Args:
            side: 0 or 1.
        """
        return set(self.pairs.values() if side else self.pairs)

    def left(self, side: int) -> list[int]:
        """Return the calls of one side that no call of the other equals.

        Args:
            side: 0 or 1.
        """
        taken = self.paired(side)
        return [each.index for each in self.sides[side].graph.nodes if each.index not in taken]

    def loose_in_training(self, side: int) -> list[int]:
        """Return the loose calls of one side that the training depends on, in the loose result.

        A model that passes through its evaluation depends on that call, and not on the loss.

        Args:
            side: 0 or 1.
        """
        updates, nodes = self.sides[side], self.sides[side].graph.nodes
        carried = passed_on(updates)
        return [
            index
            for index, places in sorted(self.loose[side].items())
            if index in updates.core
            and (not places or any((function_kind(nodes[index]), p) in carried for p in places))
        ]

    def loose_beside(self, side: int) -> list[int]:
        """Return the other loose calls of one side.

        Args:
            side: 0 or 1.
        """
        return sorted(self.loose[side].keys() - set(self.loose_in_training(side)))


def passed_on(updates: Updates) -> set[tuple[FunctionKind, int]]:
    """Return which results of which functions the training goes on with, and all of the updates.

    Args:
        updates: those of one side.
    """
    graph = updates.graph
    found = {
        (function_kind(graph.nodes[index]), place)
        for index in updates.core
        for taker, place in graph.takers[index]
        if taker in updates.core
    }
    for index in updates.calls:
        node = graph.nodes[index]
        found |= {(function_kind(node), place) for place in range(len(node.results))}
    return found


def match(one: Updates, other: Updates, pairs: dict[int, int]) -> Matched:
    """Put calls together, and see which results the other side has as well.

    Args:
        one: the updates of the first process, with its graph.
        other: those of the second.
        pairs: calls with equal inputs and results.
    """
    found = Matched((one, other), pairs)
    found.turns = _turns(one, other)
    found.updates = _beside_each_other(found)
    found.arrays = tuple(_arrays_of(side.graph) for side in (one, other))  # type: ignore[assignment]
    windows = [_arrays_by_window(side) for side in (one, other)]
    found.beside = _windows_of_other(found)
    found.loose = tuple(  # type: ignore[assignment]
        _loose(
            found.sides[side],
            _Found(found.arrays[1 - side], windows[1 - side], found.beside[side]),
            found.paired(side),
            None if found.turns == (1, 1) else _carried(found.sides[side]),
        )
        for side in (0, 1)
    )
    return found


def pairs_of_calls(one: CallGraph, other: CallGraph) -> dict[int, int]:
    """Pair calls of equal content: of one name before others, and in their order.

    Args:
        one: the calls of the first run.
        other: those of the second.
    """
    waiting: dict[tuple[str, Content], list[int]] = {}
    for node in reversed(other.nodes):
        if node.is_known:
            waiting.setdefault((node.name, node.content), []).append(node.index)
    pairs, rest = {}, []
    for node in one.nodes:
        if same := waiting.get((node.name, node.content)):
            pairs[node.index] = same.pop()
        elif node.is_known:
            rest.append(node)
    renamed: dict[Content, list[int]] = {}
    for (_, content), indexes in waiting.items():
        renamed.setdefault(content, []).extend(indexes)
    for indexes in renamed.values():
        indexes.sort(reverse=True)
    for node in rest:
        if node.results and (same := renamed.get(node.content)):
            pairs[node.index] = same.pop()
    return pairs


def _beside_each_other(found: Matched) -> list[tuple[int, int]]:
    """Pair the numbers of updates: those that are equal, and what is left in its order."""
    one, other = found.sides
    if found.turns != (1, 1):
        last = (range(by, len(side.calls) + 1, by) for side, by in _with_turns(found))
        return list(zip(*last, strict=True))
    numbers = {index: number for number, index in enumerate(other.calls, 1)}
    equal = {
        number: numbers[found.pairs[index]]
        for number, index in enumerate(one.calls, 1)
        if found.pairs.get(index) in numbers
    }
    taken = set(equal.values())
    mine = [number for number in range(1, len(one.calls) + 1) if number not in equal]
    theirs = [number for number in range(1, len(other.calls) + 1) if number not in taken]
    return sorted([*equal.items(), *zip(mine, theirs, strict=False)])


def _with_turns(found: Matched) -> Iterator[tuple[Updates, int]]:
    return zip(found.sides, found.turns, strict=True)


def _turns(one: Updates, other: Updates) -> tuple[int, int]:
    """Return how many updates of one side do what one of the other does."""
    sizes = len(one.calls), len(other.calls)
    if not min(sizes) or sizes[0] == sizes[1] or max(sizes) % min(sizes):
        return 1, 1
    by = max(sizes) // min(sizes)
    fine, coarse = (one, other) if sizes[0] > sizes[1] else (other, one)
    whole = set(coarse.graph.nodes[coarse.calls[0]].results)
    first, last = (set(fine.graph.nodes[fine.calls[number]].results) for number in (0, by - 1))
    if not (whole & last) - first - {NO_VALUE}:
        return 1, 1
    return (by, 1) if fine is one else (1, by)


def _windows_of_other(found: Matched) -> tuple[_Windows, _Windows]:
    """Return which windows of one side are beside which of the other: 0 is before all updates."""
    ways: tuple[_Windows, _Windows] = ({0: [0]}, {0: [0]})
    for here, there in found.updates:
        mine, theirs = (
            range(number - by + 1, number + 1)
            for number, by in zip((here, there), found.turns, strict=True)
        )
        ways[0].update({each: [*theirs] for each in mine})
        ways[1].update({each: [*mine] for each in theirs})
    return ways


def _arrays_of(graph: CallGraph) -> set[str]:
    return {array for node in graph.nodes for array in (*node.inputs, *node.results)} - {NO_VALUE}


@dataclass
class _OfWindow:
    """What was returned between two updates, and what came from the host there."""

    results: set[str] = field(default_factory=set)
    host: set[str] = field(default_factory=set)


def _arrays_by_window(side: Updates) -> dict[int | None, _OfWindow]:
    found: dict[int | None, _OfWindow] = {}
    for node in side.graph.nodes:
        window = side.window(node.index)
        given = {
            array
            for array, parent in zip(node.inputs, node.parents, strict=True)
            if parent is None and array
        }
        for each in {window, window - 1} if window else {window}:  # it was there before the call
            found.setdefault(each, _OfWindow()).host.update(given)
        found[window].results.update({*node.results} - {NO_VALUE})
    return found


@dataclass
class _Found:
    """What the other side has: at any time, in each window, and which window is which."""

    anywhere: set[str]
    windows: dict[int | None, _OfWindow]
    beside: _Windows

    def has(self, array: str, window: int | None, *, strict: bool, returned: bool) -> bool:
        """Whether it has an array: where it belongs, or as a result, if that is asked for."""
        if not strict or window is None:
            return array in self.anywhere
        places = [*self.beside.get(window, ()), None]
        own = [self.windows[each] for each in places if each in self.windows]
        if any(array in each.results for each in own):
            return True
        return not returned and any(array in each.host for each in own)


def _loose(
    side: Updates, there: _Found, paired: Container[int], carried: Container[int] | None
) -> dict[int, list[int]]:
    """Return calls with results that are not found, unless all that takes them is found.

    That excuses none that the script reads, and none of which only a yes or no is made.
    """
    nodes = side.graph.nodes
    lacking: dict[int, list[int]] = {}
    updates = set(side.calls)
    for node in nodes:
        window, in_core = side.window(node.index), node.index in side.core
        places = [
            place
            for place, array in enumerate(node.results)
            if not (node.index in updates and carried is not None and place not in carried)
            and not there.has(
                array,
                window,
                strict=in_core or is_slight(array),
                returned=node.index in updates,
            )
        ]
        if places or (not node.results and node.index not in paired):
            lacking[node.index] = places
    loose: dict[int, list[int]] = {}
    for index in _from_the_last(side.graph, lacking):
        takers: dict[int, set[int]] = {}
        for taker, place in side.graph.takers[index]:
            takers.setdefault(place, set()).add(taker)
        name = nodes[index].name
        kept = [
            place
            for place in lacking[index]
            if (name, place) in side.graph.read
            or any(taker in loose for taker in takers.get(place, ()))
            or not any(nodes[taker].tells for taker in takers.get(place, ()))
        ]
        if (
            kept or not lacking[index]
        ):  # of a call that returns nothing, its inputs are all there is
            loose[index] = kept
    return loose


def _carried(updates: Updates) -> set[int]:
    """Return which results of the updates the next one takes.

    Of a single update nothing is known of that: all that the other side carries on is in it.
    """
    takers = updates.graph.takers
    return {
        place for each in updates.calls for taker, place in takers[each] if taker in updates.core
    }


def _from_the_last(graph: CallGraph, calls: Iterable[int]) -> list[int]:
    """Return calls so that each comes before those whose results it takes."""
    wanted = set(calls)
    order: list[int] = []
    state: dict[int, bool] = {}
    for start in wanted:
        stack = [(start, False)]
        while stack:
            index, done = stack.pop()
            if done:
                order.append(index)
            elif index not in state:
                state[index] = True
                stack.append((index, True))
                takers = {taker for taker, _ in graph.takers[index]}
                stack += [(each, False) for each in takers if each in wanted]
    return order


def in_their_order(nodes: Sequence[CallNode], calls: Iterable[int]) -> list[CallNode]:
    """Return calls in the order in which they began.

    Args:
        nodes: those of a graph.
        calls: indexes.
    """
    found = [nodes[each] for each in calls]
    return sorted(found, key=lambda each: (each.call.thread, each.call.number))
