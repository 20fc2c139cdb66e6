"""Two records of different commands, aligned by function and by array, not by number.

The rule: "the same" is only said if every result that the updates depend on was found on both
sides; what is left unmatched is counted, and what may be a difference is none only if it is told
apart.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from reproducibility.script.align import came_to_its_end, compare_records, what_was_not_seen
from reproducibility.script.aligned_lanes import lanes_of_process
from reproducibility.script.beside import Beside
from reproducibility.script.descent import (
    Beginning,
    Descent,
    differing_inputs,
    differing_results,
)
from reproducibility.script.diverging import RUNS
from reproducibility.script.graph import CallGraph, CallNode, graphs_of, short_line, shown_type
from reproducibility.script.left_over import more_results, only_of, renamed_in, sometimes_loose
from reproducibility.script.matched import Matched, in_their_order, match, pairs_of_calls
from reproducibility.script.pairs import (
    OTHER_SCRIPTS,
    command_of,
    commands_differ,
    files_differ,
    pairs_of,
    unlike,
)
from reproducibility.script.reading import Process, first_process, processes_of
from reproducibility.script.sides import AlignedRecords, FirstUpdate
from reproducibility.script.updates import updates_of_both

NOT_OF_POOLS = "what the workers of a pool computed is compared by number only"


def are_of_one_command(a: str | Path, b: str | Path) -> bool:
    """Whether two records are of the same command, so that their calls can be compared by number.

    **Same bits:** everywhere: it reads what two runs wrote.

    Args:
        a: a record's directory.
        b: another.

    Returns:
        False if the words of the commands differ, or the files of the scripts; True if one of them
        cannot be read.
    """
    one, other = (first_process(Path(record)) for record in (a, b))
    if one is None or other is None:
        return True
    return not (commands_differ(one, other) or files_differ(one, other))


def compare_aligned(a: str | Path, b: str | Path) -> AlignedRecords:
    """Compare two records of different commands, or of different versions of a script.

    **Same bits:** everywhere: it reads what two runs wrote.

    Args:
        a: a record's directory.
        b: that of another command.

    Raises:
        RecordError: a directory is no record.
        RecordDamagedError: a file of a record is not as it was written.
    """
    found = AlignedRecords()
    in_order = compare_records(a, b)
    sides = tuple(
        [each for each in processes_of(Path(record)) if each.called or each.problems]
        for record in (a, b)
    )
    _note_what_differs(found, Path(a), Path(b))
    if in_order.verdict == "same":
        found.calls, found.paired = (in_order.calls,) * 2, in_order.calls
        found.in_order = True
        found.notes = [note for note in in_order.notes if not note.startswith(OTHER_SCRIPTS)]
        return found
    _align(found, *sides)
    return found


def _note_what_differs(found: AlignedRecords, a: Path, b: Path) -> None:
    """Note in which words the commands differ, and which files: of what was started first."""
    one, other = first_process(a), first_process(b)
    if one is not None and other is not None:
        found.commands, found.files = commands_differ(one, other), files_differ(one, other)
        sources = [(each.end or {}).get("sources") or {} for each in (one, other)]
        found.digests = frozenset(sources[0].values()), frozenset(sources[1].values())


def _align(found: AlignedRecords, ones: list[Process], others: list[Process]) -> None:
    for processes, run in zip((ones, others), RUNS, strict=True):
        for each in processes:
            what_was_not_seen(found, each, run)
    for processes in (ones, others):
        pool = [each for each in processes if each.pool]
        for each in pool:  # which worker did what is chance
            processes.remove(each)
        if pool and NOT_OF_POOLS not in found.problems:
            found.problems.append(NOT_OF_POOLS)
    for one, other in pairs_of(ones, others):
        ones.remove(one)
        others.remove(other)
        notes = [note for note in unlike(one, other) if not note.startswith(OTHER_SCRIPTS)]
        found.notes += [note for note in notes if note not in found.notes]
        align_graphs(found, *graphs_of(one, other))
    for rest, run in zip((ones, others), RUNS, strict=True):
        found.problems += [f"only the {run} run started {command_of(each)}" for each in rest]
    if not found.calls[0] or not found.calls[1]:
        found.problems.append("no call of JAX was recorded")


def align_graphs(found: AlignedRecords, one: CallGraph, other: CallGraph) -> None:
    """Align the calls of two processes.

    Args:
        found: what is added to.
        one: the calls of the first run's process.
        other: those of its counterpart.
    """
    _Alignment(found, one, other).go()


class _Alignment:
    """Aligns two processes."""

    def __init__(self, found: AlignedRecords, one: CallGraph, other: CallGraph) -> None:
        self._found = found
        graphs = (one, other)
        pairs = pairs_of_calls(*graphs)
        sides = updates_of_both(graphs, pairs)
        self._m: Matched = match(*sides, pairs)
        self._descent = Descent(self._m)
        self._beside = Beside(self._m, self._descent)
        self._nodes = tuple(side.graph.nodes for side in self._m.sides)
        self._left = tuple(set(self._m.left(side)) for side in (0, 1))

    def go(self) -> None:
        """Find the first update that differs, what differs beside them, and what is left."""
        found, m = self._found, self._m
        begun = len(found.beginnings)
        found.calls = tuple(  # type: ignore[assignment]
            count + len(nodes) for count, nodes in zip(found.calls, self._nodes, strict=True)
        )
        found.paired += len(m.pairs)
        first = self._first_update()
        if first is None:
            self._core()
            self._beside.find()
            found.beginnings += self._beside.beginnings
            self._ends()
        elif not found.first:
            self._note_first(*first)
        found.notes += self._beside.notes
        counts = tuple(len(side.calls) for side in m.sides)
        equal = first[0] - 1 if first is not None else min(counts)
        if equal >= found.equal:
            found.updates, found.equal = counts, equal  # type: ignore[assignment]
            found.names = (m.sides[0].name, m.sides[1].name)
        differing = (first[2], first[3]) if first is not None else None
        for each in found.beginnings[:1]:
            if differing is None and each.one and each.two:
                differing = each.one, each.two
        for side in (0, 1):
            found.only[side].extend(only_of(m, side, differing))
        found.renamed += renamed_in(m)
        command = command_of(m.sides[0].graph.process)
        updates = (first[2], first[3]) if first is not None else None
        found.lanes.append(lanes_of_process(m, command, updates, found.beginnings[begun:]))
        self._untold()

    def _pairs_of_updates(self) -> Iterator[tuple[int, int, CallNode, CallNode]]:
        one, other = self._m.sides
        for here, there in self._m.updates:
            mine, theirs = one.calls[here - 1], other.calls[there - 1]
            yield here, there, self._nodes[0][mine], self._nodes[1][theirs]

    def _first_update(self) -> tuple[int, int, CallNode, CallNode] | None:
        """Return the first pair of updates of which both come to something else.

        One may return more than the other; not so where both return as many arrays of the same
        types.
        """
        mine, theirs = self._m.loose
        for here, there, one, two in self._pairs_of_updates():
            types = [sorted(map(shown_type, each.results)) for each in (one, two)]
            stacked = self._m.turns != (1, 1)
            other = (
                not stacked and types[0] == types[1] and sorted(one.results) != sorted(two.results)
            )
            if other or (one.index in mine and two.index in theirs):
                return here, there, one, two
        return None

    def _note_first(self, here: int, there: int, one: CallNode, two: CallNode) -> None:
        counts = [len(side.calls) for side in self._m.sides]
        if one.name != two.name and counts[0] != counts[1]:  # their inputs are of other moments
            self._found.first = FirstUpdate((here, there), one, two, (), ())
            what = f"{counts[0]:,} calls of {one.name} in A, {counts[1]:,} of {two.name} in B"
            self._found.beginnings.append(Beginning("function", one, two, (), what))
            return
        inputs = tuple(
            (pair, self._origin(0, one, pair[0]), self._origin(1, two, pair[1]))
            for pair in differing_inputs(one, two)
        )
        results = tuple(differing_results(one, two))
        self._found.first = FirstUpdate((here, there), one, two, inputs, results)
        self._found.beginnings += self._descent.beginnings(one, two)

    def _origin(self, side: int, node: CallNode, place: int) -> str:
        """Say where an argument comes from."""
        parent = node.parents[place]
        if parent is None:
            line = node.line
            return f"the host, {short_line(line)}" if line else "the host"
        made = self._nodes[side][parent[0]]
        where = f", {short_line(made.line)}" if made.line else ""
        return f"{made.name}, call {made.call.number + 1:,}{where}"

    def _core(self) -> None:
        """Look at what the training depends on, where no update differs on both sides."""
        m = self._m
        loose = [m.loose_in_training(side) for side in (0, 1)]
        if loose[0] and loose[1]:
            self._found.beginnings += self._descent.beginnings(*self._first_alike(loose))
            return
        for _, _, one, two in self._pairs_of_updates():
            if (
                one.index in self._left[0]
                and one.name == two.name
                and (
                    pairs := [
                        (i, j)
                        for i, j in differing_inputs(one, two)
                        if shown_type(one.inputs[i]) == shown_type(two.inputs[j])
                    ]
                )
            ):
                names = ", ".join(one.call.program.argument(i) for i, _ in pairs[:3])
                found = self._descent.beginnings(one, two)
                self._found.beginnings += found
                self._found.notes.append(f"all updates come to the same, with other {names}")
                return

    def _first_alike(self, loose: Sequence[Sequence[int]]) -> tuple[CallNode, CallNode]:
        """Return the first calls of both sides that are of one function, or else the first."""
        mine, theirs = (in_their_order(self._nodes[side], loose[side]) for side in (0, 1))
        first: dict[tuple[str, int], CallNode] = {}
        for two in theirs:
            first.setdefault((two.name, len(two.inputs)), two)
        alike = ((one, first.get((one.name, len(one.inputs)))) for one in mine)
        return next(((one, two) for one, two in alike if two), (mine[0], theirs[0]))

    def _ends(self) -> None:
        """Say if one side makes more updates."""
        counts = [len(side.calls) for side in self._m.sides]
        if self._m.turns != (1, 1):
            sides = "AB" if self._m.turns[0] == 1 else "BA"
            what = (
                f"an update of {sides[0]} does {max(self._m.turns)} of {sides[1]}: what they return"
            )
            self._found.notes.append(f"{what} besides what the next one takes is not compared")
            return
        if counts[0] == counts[1] or not min(counts) or self._found.beginnings:
            return
        side = int(counts[1] > counts[0])
        if not came_to_its_end(self._m.sides[1 - side].graph.process):
            what = f"{'BA'[side]} was ended before its end, after {min(counts):,} updates"
            self._found.notes.append(what)
            return
        paired = {pair[side] for pair in self._m.updates}
        number = next(n for n in range(1, counts[side] + 1) if n not in paired)
        node = self._nodes[side][self._m.sides[side].calls[number - 1]]
        more = abs(counts[0] - counts[1])
        what = f"{'AB'[side]} makes {more:,} more"
        both = (node, None) if side == 0 else (None, node)
        self._found.beginnings.append(Beginning("end", both[0], both[1], (), what))

    def _in_both(self) -> str:
        """Return a function of which both sides have calls that the other lacks; "" if of none."""
        theirs = {each.function for each in self._found.only[1]}
        ours = (each.function for each in self._found.only[0])
        return next((name for name in ours if name in theirs), "")

    def _untold(self) -> None:
        """Note why it is not certain that the runs are the same, if it is not."""
        found, m = self._found, self._m
        if found.beginnings or found.first:
            return
        updates = [bool(side.calls) for side in m.sides]
        core = [bool(m.loose_in_training(side)) for side in (0, 1)]
        if updates[0] != updates[1]:
            with_updates = "AB"[updates[1]]
            found.problems.append(f"only {with_updates} makes updates ({m.sides[updates[1]].name})")
        elif not updates[0] and m.loose[0] and m.loose[1]:
            found.problems.append("no updates were found that build on each other")
        elif not updates[0] and (name := self._in_both()):
            what = "no updates were found that build on each other, and of the calls of"
            found.problems.append(f"{what} {name} in A some are not in B, and some of B not in A")
        for side in (0, 1):
            if core[side] and self._beside.has_of_its_own(1 - side):
                found.problems.append(
                    f"what the updates of {'AB'[side]} return is not in the other"
                )
        for side in (0, 1):
            if node := sometimes_loose(m, side):
                found.problems.append(
                    f"{'AB'[side]} comes to something of its own in {node.name}, call "
                    f"{node.call.number + 1:,}, and before to the same"
                )
        self._beside.untold()
        found.problems += self._beside.problems
        found.more += more_results(m)
