"""Two records of one script: where a difference begins, and how many calls only pass it on.

The rule: a call whose inputs agree and whose results do not is a root; so is one with an input from
the host that differs. All else that differs follows. Threads are compared each with its own.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from reproducibility.errors import ExitCode
from reproducibility.script.origins import CameFrom, Differing, Following, Origins
from reproducibility.script.pairs import command_of, pairs_of, unlike
from reproducibility.script.programs import (
    ProgramDifference,
    ProgramsOfProcess,
    difference_of_programs,
)
from reproducibility.script.reading import (
    Call,
    CalledProgram,
    Process,
    SourceLine,
    Start,
    Thread,
    equal_calls,
    processes_of,
)

type RootKind = Literal["host", "program", "path", "end", "error"]
type RecordVerdict = Literal["same", "different", "cannot be told"]
RUNS = ("first", "second")


@dataclass(frozen=True)
class Root:
    """Where a difference begins.

    `kind` is "host" (an input that no earlier call made), "program" (equal inputs, other results),
    "path" (another function or shape), "end" (one run made more calls), or "error" (one call
    failed).
    """

    kind: RootKind
    what: str
    names: tuple[str, ...]
    program: str
    site: tuple[SourceLine, ...]
    other_site: tuple[SourceLine, ...]
    process: str
    thread: str
    call: int
    program_differs: ProgramDifference | None = None  # of a "program"
    places: tuple[int, ...] = ()  # of what is in `names`, among the arguments or the results

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; calls are counted from 1."""
        return {
            "kind": self.kind,
            "what": self.what,
            "names": list(self.names),
            "program": self.program,
            "call": self.call + 1,
            "lines": [str(line) for line in self.site],
            "other_lines": [str(line) for line in self.other_site],
            "process": self.process,
            "thread": self.thread,
            "program_differs": self.program_differs and self.program_differs.to_json(),
        }


@dataclass
class Alignment:
    """What came of comparing two records."""

    roots: list[Root] = field(default_factory=list)
    calls: int = 0
    differing: int = 0
    of: int = 0  # calls of the first run, if not all of them were compared
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    texts: bool = True  # whether a program with another text is a difference if its results agree

    @property
    def verdict(self) -> RecordVerdict:
        """What can be said of the two runs."""
        if self.roots:
            return "different"
        return "cannot be told" if self.problems else "same"

    @property
    def exit_code(self) -> ExitCode:
        """What the command ends with."""
        return ExitCode.of(self.verdict)

    @property
    def reason(self) -> str:
        """The verdict in a sentence."""
        if self.roots:
            # Where they took other ways, the calls behind are not counted.
            calls = self.of or (self.calls if self.roots[0].kind != "path" else 0)
            of = f" of {calls:,}" if calls else ""
            return f"They diverge at call {self.roots[0].call + 1:,}{of}."
        if self.problems:
            return f"{self.problems[0][0].upper()}{self.problems[0][1:]}."
        return f"All {self.calls:,} calls of JAX agree."

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "calls": self.calls,
            "differing": self.differing,
            "roots": [root.to_json() for root in self.roots],
            "problems": self.problems,
            "notes": self.notes,
        }


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
            _what_was_not_seen(found, process, run)
    _compare_pools(found, *([t for each in pool for t in each.threads] for pool in pools))
    for one, other in pairs_of(ones, others):
        ones.remove(one)
        others.remove(other)
        _align_processes(found, one, other)
    for processes, run in zip((ones, others), RUNS, strict=True):
        for each in processes:
            _alone(found, each, run)
    if not found.calls:
        found.problems.append("no call of JAX was recorded")
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


def _compare_pools(found: Alignment, one: Sequence[Thread], other: Sequence[Thread]) -> None:
    """Compare what the workers of pools did, whichever did it: how often each result came."""
    counts: list[Counter[object]] = [Counter(), Counter()]
    for threads, count in zip((one, other), counts, strict=True):
        for call in (call for thread in threads for call in thread.calls()):
            program = call.pattern.program
            text = found.texts and program.text
            count[program.name, text, call.results or call.values, call.error] += 1
    found.calls += counts[0].total()
    if counts[0] != counts[1]:
        found.problems.append("the workers of a pool did not find the same results in both runs")


def _what_was_not_seen(found: Alignment, process: Process, run: str) -> None:
    found.problems += [f"in the {run} run, {problem}" for problem in process.problems]
    if process.end is None and process.called and not process.stopped:
        found.problems.append(
            f"the record of the {run} run has no end: it was killed, or left by os._exit or exec"
        )
    for name, count in sorted((process.end or {}).get("counts", {}).items()):
        found.problems.append(f"in the {run} run, {count:,} {name} were not recorded")


def _align_processes(found: Alignment, a: Process, b: Process) -> None:
    for process, run in zip((a, b), RUNS, strict=True):
        _what_was_not_seen(found, process, run)
    found.notes += [note for note in unlike(a, b) if note not in found.notes]
    # A run that was ended at a call might have made more.
    ended = (_came_to_its_end(a), _came_to_its_end(b))
    sides = (_RecordSide(a), _RecordSide(b))
    # Which worker of a pool does a task is chance; so is which of several threads has which name.
    pools = [{each.name for each in side.threads.values() if each.pool} for side in sides]
    pooled = pools[0] | pools[1] | sides[0].doubled | sides[1].doubled
    _compare_pools(found, *([t for t in each.threads if t.name in pooled] for each in (a, b)))
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


def _came_to_its_end(process: Process) -> bool:
    return process.end is not None and "ended_at" not in process.end


class _RecordSide:
    """The threads of one run, and the values of what one thread may take from another."""

    def __init__(self, process: Process) -> None:
        threads = process.threads
        self.programs = ProgramsOfProcess(process)
        times = Counter(thread.name for thread in threads)
        self.doubled = {name for name, count in times.items() if count > 1}
        self.names = {
            thread.number: thread.name + f" {thread.number}" * (thread.name in self.doubled)
            for thread in threads
        }
        self.threads = {self.names[thread.number]: thread for thread in threads}
        self._by_name = {self.names[thread.number]: thread for thread in threads}

    def value(self, origin: CameFrom | None) -> str | None:
        """Return the fingerprint of an array, if it can be looked up."""
        call = self._by_name[origin.thread].at(origin.call) if origin else None
        if call is None or origin is None:
            return None
        if origin.kind == "r":
            return call.results[origin.place] if origin.place < len(call.results) else None
        return call.entered().get(origin.place)


class _Walk:
    """Two threads, call by call."""

    def __init__(
        self,
        found: Alignment,
        sides: tuple[_RecordSide, _RecordSide],
        threads: tuple[Thread, Thread],
        differing: Differing,
        process: str,
    ) -> None:
        self._found, self._sides, self._threads = found, sides, threads
        self._differing, self._process, self._name = differing, process, threads[0].name
        self._whys: dict[tuple[CalledProgram, CalledProgram], ProgramDifference] = {}
        self._following = [Following(self._name, side.names) for side in sides]

    def go(self, ended: tuple[bool, bool]) -> None:
        """Compare them until one takes another path, or until the record of a killed one stops."""
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
        self._found.differing += bool(host or passed or results or rewritten)
        return True

    def _program(self, a: Call, b: Call, results: list[int]) -> None:
        names = tuple(a.pattern.program.result(i) for i in results)
        one, other = a.pattern.program, b.pattern.program
        ones, others = (side.programs for side in self._sides)
        why = self._whys.get((one, other))
        if why is None:
            why = self._whys[one, other] = difference_of_programs(ones, one, others, other)
        what = why.what
        if why.kind == "same" and self._found.notes:
            what += "; what surrounds the runs differs, as noted below"
        self._root("program", a, what, names, b, why, results)

    def _inputs(
        self, a: Call, b: Call, mine: Origins, theirs: Origins
    ) -> tuple[list[int], list[int]]:
        """Return which arguments differ and come from the host, and which pass a difference on."""
        one, other = a.entered(), b.entered()
        host, passed = [], []
        for place, (x, y) in enumerate(zip_longest(mine, theirs)):
            if x == y and x is not None:
                if x in self._differing:
                    passed.append(place)
                continue
            # From the host, from a pool's worker, or from another call: equal if the values are.
            left = one.get(place) if x is None else self._sides[0].value(x)
            right = other.get(place) if y is None else self._sides[1].value(y)
            if left is None or left != right:
                host.append(place)
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
        self._found.roots.append(
            Root(
                kind,
                what,
                names,
                a.pattern.program.called,
                a.pattern.site,
                b.pattern.site if b else (),
                self._process,
                self._name,
                a.number,
                why,
                tuple(places),
            )
        )
