"""Which calls of a record are its updates: the largest function whose results come back to it.

The rule: an update depends on an update before it, or one after it depends on it; calls that only
derive keys are no updates.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from reproducibility.script.graph import CallGraph, CallNode, is_slight
from reproducibility.script.values import sizes_of_programs

FEW_TURNS = 4  # calls of a library's function that make no loop
CANDIDATES = 12  # functions that are tried, the largest first

type FunctionKind = tuple[str, int, str]  # its name, its arguments, and of a library's its line


@dataclass
class Updates:
    """The updates of one process, in their order, and what they depend on."""

    graph: CallGraph
    calls: list[int]  # indexes
    core: set[int]  # what they depend on, themselves, and what the last one passes on as before

    def __post_init__(self) -> None:
        nodes = self.graph.nodes
        self._thread = nodes[self.calls[0]].call.thread if self.calls else 0
        self._numbers = [nodes[each].call.number for each in self.calls]

    def window(self, index: int) -> int | None:
        """Return how many updates began before a call or with it; None in another thread.

        Args:
            index: a call.
        """
        call = self.graph.nodes[index].call
        if call.thread != self._thread:
            return None
        return bisect_right(self._numbers, call.number)

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.graph.nodes[self.calls[0]].name if self.calls else ""


def updates_of_both(
    graphs: tuple[CallGraph, CallGraph], pairs: Mapping[int, int]
) -> tuple[Updates, Updates]:
    """Find the updates of two processes: those of one are the counterpart of those of the other.

    Args:
        graphs: the calls of both.
        pairs: calls of them that are equal.
    """
    ways = (dict(pairs), {two: one for one, two in pairs.items()})
    found = [updates_of(graph) for graph in graphs]
    for side in (0, 1):
        mine = found[side]
        like = {ways[side][each] for each in mine.calls if each in ways[side]}
        theirs = updates_of(graphs[1 - side], mine.name, like)
        if mine.calls and (theirs.name == mine.name or like.intersection(theirs.calls)):
            found[1 - side] = theirs
            break
    for side in (0, 1):
        if not found[side].calls and found[1 - side].calls:
            found[side] = _updates_beside(graphs[side], found[1 - side])
    return found[0], found[1]


def updates_of(graph: CallGraph, named: str = "", like: Container[int] = ()) -> Updates:
    """Find the updates of a process.

    Args:
        graph: its calls.
        named: what the updates of its counterpart are called, which go before larger functions.
        like: calls that equal updates of its counterpart, whose functions go before all.
    """
    groups: dict[FunctionKind, list[int]] = {}
    for node in graph.nodes:
        groups.setdefault(function_kind(node), []).append(node.index)
    sizes = sizes_of_programs(graph.process)

    def rank(kind: FunctionKind) -> tuple[bool, bool, bool, bool, int]:
        node = graph.nodes[groups[kind][0]]
        size = max(sizes.get(graph.nodes[each].call.program.text, 0) for each in groups[kind][:50])
        unlike = not any(each in like for each in groups[kind])
        return node.makes_keys, unlike, node.name != named, not node.is_of_user, -size

    several = [
        kind
        for kind, calls in groups.items()
        if len(calls) >= (2 if graph.nodes[calls[0]].is_of_user else FEW_TURNS)
    ]
    for kind in sorted(several, key=rank)[:CANDIDATES]:
        if graph.nodes[groups[kind][0]].makes_keys:
            break
        if found := _in_a_chain(graph, groups[kind]):
            return Updates(graph, found, _core(graph, found))
    return Updates(graph, [], set())


def _updates_beside(graph: CallGraph, other: Updates) -> Updates:
    """Find the updates of a process whose updates do not build on each other, by those of another.

    So it is where weights go through the host, and where the whole loop is one program: the
    functions have a name or a result in common.

    Args:
        graph: the calls of the process.
        other: the updates that were found in its counterpart.
    """
    theirs = other.graph.nodes
    results = {array for each in other.calls[:1] for array in theirs[each].results}
    first = [node for node in graph.nodes if results and results <= {*node.results}]
    ends = {array for each in other.calls[-1:] for array in theirs[each].results}
    ends = {array for array in ends if array and not is_slight(array)}
    whole = [node for node in graph.nodes if ends.intersection(node.results)]
    named = [node for node in graph.nodes if node.name == other.name]
    like = next(iter(first or named or whole), None)
    if like is None:
        return Updates(graph, [], set())
    calls = [
        node.index
        for node in graph.nodes
        if function_kind(node) == function_kind(like) and node.call.thread == like.call.thread
    ]
    return Updates(graph, calls, graph.ancestors(calls))


def function_kind(node: CallNode) -> FunctionKind:
    """Return what calls of one function have in common; of a library's function the line too.

    Args:
        node: a call.
    """
    line = node.line or next(iter(node.call.site), None)
    where = "" if node.is_of_user or line is None else f"{line.file}:{line.line}"
    return node.name, len(node.inputs), where


def _in_a_chain(graph: CallGraph, calls: Sequence[int]) -> list[int]:
    """Return those that depend on another of them, or that another depends on."""
    nodes = graph.nodes
    behind = graph.descendants({taker for each in calls for taker, _ in graph.takers[each]})
    parents = {parent[0] for each in calls for parent in nodes[each].parents if parent is not None}
    ahead = graph.ancestors(parents)
    found = [each for each in calls if each in behind or each in ahead]
    threads = {nodes[each].call.thread for each in found}
    return found if len(threads) == 1 else []


def _core(graph: CallGraph, calls: Sequence[int]) -> set[int]:
    """Return what the training depends on; after the last update, what it did after the others."""
    core = graph.ancestors(calls)
    after = graph.descendants(calls)
    usual = {function_kind(graph.nodes[each]) for each in core & after}
    rest = graph.descendants(calls[-1:])
    return core | {each for each in rest if function_kind(graph.nodes[each]) in usual}
