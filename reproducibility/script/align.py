"""Two records of one script: where a difference begins, and how many calls only pass it on.

The rule: a call whose inputs agree and whose results do not is a root; so is one with an input from
the host that differs. All else that differs follows. Threads are compared each with its own.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

from reproducibility.script.diverging import RUNS, Alignment, Lane, Root, RootKind
from reproducibility.script.origins import Differing, Following, Origins
from reproducibility.script.pairs import command_of, pairs_of, unlike
from reproducibility.script.programs import (
    ProgramDifference,
    difference_of_programs,
)
from reproducibility.script.reading import (
    Call,
    CalledProgram,
    Process,
    Start,
    Thread,
    equal_calls,
    processes_of,
)
from reproducibility.script.unordered import (
    SideOfRecord,
    UnorderedCalls,
    UnorderedRoot,
    workers_of,
)


class HasProblems(Protocol):
    """What notes why something cannot be told."""

    problems: list[str]


A_POOL, CALLBACKS_DO = "the workers of a pool", "the functions that programs call"


def compare_records(a: str | Path, b: str | Path, *, texts: bool = True) -> Alignment:
    """Compare two records, call by call.

    **Same bits:** everywhere: it reads what two runs wrote.

    Args:
        a: a record's directory.
        b: that of another run of the same script.
        texts: whether a program with another text is a difference though its results agree.

    Raises:
        RecordError: a directory is no record.
        RecordDamagedError: a file of a record is not as it was written.
    """
    found = Alignment(texts=texts)
    ones, others = processes_of(Path(a)), processes_of(Path(b))
    pools = [[each for each in processes if each.pool] for processes in (ones, others)]
    for processes, pool, run in zip((ones, others), pools, RUNS, strict=True):
        for process in pool:
            processes.remove(process)
            what_was_not_seen(found, process, run)
    workers = [workers_of(map(SideOfRecord, pool)) for pool in pools]
    ended = all(came_to_its_end(each) for pool in pools for each in pool)
    _compare_unordered(found, UnorderedCalls(*workers, texts=texts), A_POOL, ended=ended)
    for one, other in pairs_of(ones, others):
        ones.remove(one)
        others.remove(other)
        _align_processes(found, one, other)
    for processes, run in zip((ones, others), RUNS, strict=True):
        for each in processes:
            _alone(found, each, run)
    if not found.calls:
        found.problems.append("no call of JAX was recorded")
    if found.differing and not found.roots:  # as where only the order of callbacks was another
        found.problems.append("calls differ, and it is not certain where that begins")
    found.problems = _of_both(found.problems)
    return found


def _of_both(problems: Sequence[str]) -> list[str]:
    """Say once what both runs have."""
    said: dict[str, None] = {}
    for problem in problems:
        mine, the_other = (f"in the {run} run, " for run in RUNS)
        if problem.startswith(the_other):
            mine, the_other = the_other, mine
        other = problem.replace(mine, the_other, 1)
        both = problem.startswith(mine) and other in problems
        said[problem.replace(mine, "in both runs, ", 1) if both else problem] = None
    return list(said)


def _alone(found: Alignment, process: Process, run: str) -> None:
    """Note a process without a counterpart, if JAX was called in it."""
    if process.called or process.problems:
        found.problems.append(f"only the {run} run started {command_of(process)}")


def _compare_unordered(
    found: Alignment, calls: UnorderedCalls, whose: str, *, ended: bool, begins: bool = True
) -> None:
    """Compare calls whose order is chance: how often each result came.

    Args:
        found: what is added to.
        calls: those of both runs.
        whose: who made them.
        ended: whether both runs came to their ends.
        begins: whether a difference can begin here.
    """
    found.calls += calls.total
    if calls.agree() or (not ended and whose == CALLBACKS_DO and calls.one_stopped_sooner()):
        return
    roots = calls.roots() if ended and begins else []
    found.roots += [_root_of_unordered(each) for each in roots]
    if not roots and begins:
        found.problems.append(f"{whose} did not find the same results in both runs")


def _root_of_unordered(root: UnorderedRoot) -> Root:
    one, other = root.one, root.other
    a, b = one.call.pattern.program, other.call.pattern.program
    places, kind, why = root.arguments, "host", None
    names = [a.argument(place) for place in places]
    if not places:
        pairs = enumerate(zip(one.call.results, other.call.results, strict=False))
        places, kind = tuple(i for i, (x, y) in pairs if x != y), "program"
        names = [a.result(place) for place in places]
        why = difference_of_programs(one.side.programs, a, other.side.programs, b)
    return Root(
        "program" if kind == "program" else "host",
        why.what if why else "",
        tuple(names),
        a.called,
        one.call.pattern.site,
        other.call.pattern.site,
        one.thread.path.parent.name,
        one.thread.name,
        one.call.number,
        why,
        places,
        ordered=False,
    )


def what_was_not_seen(found: HasProblems, process: Process, run: str) -> None:
    """Note what a record says that it does not hold.

    Args:
        found: what is added to.
        process: one of the record.
        run: which run it is of.
    """
    found.problems += [f"in the {run} run, {problem}" for problem in process.problems]
    if process.end is None and process.called and not process.stopped:
        found.problems.append(
            f"the record of the {run} run has no end: it was killed, or left by os._exit or exec"
        )
    for name, count in sorted((process.end or {}).get("counts", {}).items()):
        found.problems.append(f"in the {run} run, {count:,} {name} were not recorded")


def _align_processes(found: Alignment, a: Process, b: Process) -> None:
    for process, run in zip((a, b), RUNS, strict=True):
        what_was_not_seen(found, process, run)
    found.notes += [note for note in unlike(a, b) if note not in found.notes]
    # A run that was ended at a call might have made more.
    ended = (came_to_its_end(a), came_to_its_end(b))
    sides = (SideOfRecord(a), SideOfRecord(b))
    # Which worker of a pool does a task is chance; so is which of several threads has which name.
    pools = [{each.name for each in side.threads.values() if each.pool} for side in sides]
    called = {t.name for side in sides for t in side.threads.values() if t.function}
    pooled = (pools[0] | pools[1] | sides[0].doubled | sides[1].doubled) - called
    calls = UnorderedCalls(*(workers_of([side], pooled) for side in sides), texts=found.texts)
    _compare_unordered(found, calls, A_POOL, ended=all(ended))
    callbacks = UnorderedCalls(*(workers_of([side], called) for side in sides), texts=found.texts)
    pooled |= called
    differing = Differing()
    for name, thread in sides[0].threads.items():
        if thread.name in pooled:
            continue
        other = sides[1].threads.pop(name, None)
        if other is not None:
            _Walk(found, sides, (thread, other), differing, a.path.name).go(ended)
        else:
            found.problems.append(f"only the first run called JAX in the thread {name}")
    rest = [name for name, thread in sides[1].threads.items() if thread.name not in pooled]
    found.problems += [f"only the second run called JAX in the thread {name}" for name in rest]
    # What a program hands to a function of the host may differ because of what came before.
    _compare_unordered(found, callbacks, CALLBACKS_DO, ended=all(ended), begins=not found.roots)


def _other_way(one: CalledProgram, other: CalledProgram) -> str:
    """Say which functions were called, or if that is one, which argument was of another kind."""
    if one.called != other.called:
        return f"{one.called} in one run, {other.called} in the other"
    pairs = enumerate(zip_longest(one.shapes, other.shapes, fillvalue="not given"))
    place, shapes = next(((i, pair) for i, pair in pairs if pair[0] != pair[1]), (0, ("", "")))
    # Shapes are those of all arguments; names only of those that the program kept.
    named = len(one.shapes) == len(one.arguments)
    name = one.argument(place) if named else f"argument {place}"
    return f"{name} is {shapes[0]} in one run, {shapes[1]} in the other"


def came_to_its_end(process: Process) -> bool:
    """Whether a process ended by itself, and not at a call that was asked for.

    Args:
        process: one of a record.
    """
    return process.end is not None and "ended_at" not in process.end


class _Walk:
    """Two threads, call by call."""

    def __init__(
        self,
        found: Alignment,
        sides: tuple[SideOfRecord, SideOfRecord],
        threads: tuple[Thread, Thread],
        differing: Differing,
        process: str,
    ) -> None:
        self._found, self._sides, self._threads = found, sides, threads
        self._differing, self._process, self._name = differing, process, threads[0].name
        self._lane = Lane(process, threads[0].name)
        found.lanes.append(self._lane)
        self._whys: dict[tuple[CalledProgram, CalledProgram], ProgramDifference] = {}
        self._following = [Following(self._name, side.names) for side in sides]
        by_chance = any(not root.ordered for root in found.roots)
        self._by_chance = [side.unordered if by_chance else side.functions for side in sides]

    def go(self, ended: tuple[bool, bool]) -> None:
        """Compare them until one takes another path, or until the record of a killed one stops."""
        before = self._found.calls
        self._compare_all(ended)
        self._lane.compared = self._found.calls - before

    def _compare_all(self, ended: tuple[bool, bool]) -> None:
        starts = self._skip_what_is_equal()
        calls = [t.calls(start) for t, start in zip(self._threads, starts, strict=True)]
        for one, other in zip_longest(*calls):
            if (one is None and not ended[0]) or (other is None and not ended[1]):
                return
            self._found.calls += 1
            if one is None or other is None:
                self._root("end", one or other, "the other run made no such call")
                return
            if not self._compare(one, other):
                return

    def _skip_what_is_equal(self) -> tuple[Start | None, Start | None]:
        """Count the calls whose lines are equal, before anything differs; return where they end."""
        one = other = None
        if not self._differing:
            mine, theirs = self._following
            patterns = self._threads[1].patterns
            for number, pattern, one, other in equal_calls(*self._threads):  # noqa: B007
                mine.skip(pattern, number)
                theirs.skip(patterns[pattern.number], number)
                self._found.calls += 1
        return one, other

    def _compare(self, a: Call, b: Call) -> bool:
        """Compare two calls; False if nothing after them can be compared."""
        mine = self._following[0].of(a.pattern, a.number)
        theirs = self._following[1].of(b.pattern, b.number)
        one, other = a.pattern.program, b.pattern.program
        if one.name != other.name or one.shapes != other.shapes:
            self._root("path", a, _other_way(one, other), (), b)
            return False
        if (a.error, len(a.results)) != (b.error, len(b.results)):
            self._root("error", a, a.error or b.error or "another number of results", (), b)
            return False
        host, passed = self._inputs(a, b, mine, theirs)
        results = [i for i, (x, y) in enumerate(zip(a.results, b.results, strict=True)) if x != y]
        self._differing.add(self._name, a.number, "r", results)
        if host:
            self._root("host", a, "", tuple(one.argument(i) for i in host), b, places=host)
        rewritten = self._found.texts and one.text != other.text
        if rewritten:
            self._program(a, b, [])
        elif results and not host and not passed:
            self._program(a, b, results)
        if host or passed or results or rewritten:
            self._found.differing += 1
            self._lane.differs(a.number)
            if not host and not rewritten and passed:
                self._lane.passed[one.called] += 1
        return True

    def _program(self, a: Call, b: Call, results: list[int]) -> None:
        names = tuple(a.pattern.program.result(i) for i in results)
        one, other = a.pattern.program, b.pattern.program
        ones, others = (side.programs for side in self._sides)
        why = self._memory(a, b) if results else None
        why = why or self._whys.get((one, other))
        if why is None:
            why = self._whys[one, other] = difference_of_programs(ones, one, others, other)
        what = why.what
        if why.kind == "same" and self._found.notes:
            what += "; what surrounds the runs differs, as noted below"
        self._root("program", a, what, names, b, why, results)

    def _memory(self, a: Call, b: Call) -> ProgramDifference | None:
        """Say where memory of an argument was written to, in one of the runs."""
        for side, thread, call in zip(self._sides, self._threads, (a, b), strict=True):
            if event := side.overwritten(thread, call.number):
                what = f"{event.what}, while the call ran or after it"
                return ProgramDifference("memory", what, event.site[:2])
        return None

    def _inputs(
        self, a: Call, b: Call, mine: Origins, theirs: Origins
    ) -> tuple[list[int], list[int]]:
        """Return which arguments differ and come from the host, and which pass a difference on."""
        one, other = a.entered(), b.entered()
        host: list[int] = []
        passed: list[int] = []
        for place, (x, y) in enumerate(zip_longest(mine, theirs)):
            if x == y and x is not None and x.thread not in self._sides[0].unordered:
                if x in self._differing:
                    passed.append(place)
                continue
            # From the host, from a pool's worker, or from another call: equal if the values are.
            left = one.get(place) if x is None else self._sides[0].value(x)
            right = other.get(place) if y is None else self._sides[1].value(y)
            if left is None or left != right:
                made = [o and o.thread in m for o, m in zip((x, y), self._by_chance, strict=True)]
                (passed if all(made) else host).append(place)
        self._differing.add(self._name, a.number, "i", host)
        return host, passed

    def _root(
        self,
        kind: RootKind,
        a: Call | None,
        what: str,
        names: tuple[str, ...] = (),
        b: Call | None = None,
        why: ProgramDifference | None = None,
        places: Sequence[int] = (),
    ) -> None:
        assert a is not None
        other_site = b.pattern.site if b else ()
        called = a.pattern.program.called
        self._found.roots.append(
            Root(
                kind,
                what,
                names,
                called,
                a.pattern.site,
                other_site,
                self._process,
                self._name,
                a.number,
                why,
                tuple(places),
            )
        )
