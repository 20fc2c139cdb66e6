"""Calls of a record that were computed a second time: did each come to the same, bit for bit?

The rule: where nothing was computed a second time, nothing is said to repeat.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproducibility.script.reading import Process, SourceLine, Thread, processes_of
from reproducibility.script.report import line_and_text
from reproducibility.script.sites import own_first
from reproducibility.watch.second import SECOND

LINES_SHOWN = 4  # places where calls came to something else; --json has all
RESULTS_SHOWN = 3
LARGEST = 1_000_000  # steps between two numbers that are said as a number


@dataclass(frozen=True)
class ResultApart:
    """A result that was not the same the second time: how many numbers, and by how much."""

    name: str
    differing: int
    size: int
    steps: int  # between the two numbers that are furthest apart, in steps of their type
    dtype: str

    def __str__(self) -> str:
        name = self.name
        if self.dtype == "bool":
            return f"{name}: {self.differing:,} of {self.size:,} differ"
        unit = " ULP" if "float" in self.dtype or "complex" in self.dtype else ""
        far = f"{self.steps:,}{unit}" if self.steps < LARGEST else f"more than {LARGEST:,}{unit}"
        return f"{name}: {self.differing:,} of {self.size:,} numbers differ, by at most {far}"


@dataclass(frozen=True)
class UnlikeCall:
    """A call that came to something else when it was computed a second time."""

    process: str
    thread: int
    number: int
    called: str
    site: tuple[SourceLine, ...]
    results: tuple[ResultApart, ...]
    overwritten: bool  # whether NumPy wrote into the memory of an input since

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "process": self.process,
            "thread": self.thread,
            "call": self.number,
            "program": self.called,
            "lines": [str(line) for line in self.site],
            "results": [vars(each) for each in self.results],
            "overwritten": self.overwritten,
        }


@dataclass
class ComputedTwice:
    """What came of the calls of a record that were computed a second time."""

    every: int = 0  # of so many calls one was to be; 0 if none was
    calls: int = 0
    computed: int = 0
    unlike: list[UnlikeCall] = field(default_factory=list)
    not_computed: Counter[str] = field(default_factory=Counter)
    without_end: int = 0  # processes that were killed, and of which nobody knows what they did last

    @property
    def exit_code(self) -> int:
        """0 if all came to the same, 1 if one did not, 3 if none was computed a second time."""
        return 1 if self.unlike else 3 if self.every and not self.computed else 0

    @property
    def reason(self) -> str:
        """Why the exit code is not 0, in a sentence."""
        if self.unlike:
            first = self.unlike[0]
            return f"Call {first.number}, {first.called}, does not repeat from the same inputs."
        return "No call was computed a second time: it cannot be told whether they repeat."

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "exit_code": self.exit_code,
            "every": self.every,
            "calls": self.calls,
            "computed": self.computed,
            "unlike": [each.to_json() for each in self.unlike],
            "not_computed": dict(self.not_computed),
        }

    def lines(self) -> list[str]:
        """Return what is to be said of it: nothing if it was not asked for."""
        if not self.every:
            return []
        if not self.computed:
            found = [f"none of {self.calls:,} calls was computed a second time"]
        else:
            same = "all came to the same, bit for bit"
            other = f"{len(self.unlike):,} came to something else"
            what = other if self.unlike else same
            found = [f"{self.computed:,} of {self.calls:,} calls were computed twice; {what}"]
        found += _unlike_lines(self.unlike)
        for why, calls in self.not_computed.most_common():
            found.append(f"computed once: {calls:,} call{'s' * (calls > 1)}, because {why}")
        return found


def recomputed(record: Path) -> ComputedTwice:
    """Read which calls of a record were computed a second time, and what came of it.

    Args:
        record: the directory of a record.

    Raises:
        RecordError: it is none.
        RecordDamagedError: a file of it is not as it was written.
    """
    found = ComputedTwice()
    for process in processes_of(record):
        found.every = max(found.every, int(process.start.get("again") or 0))
        found.without_end += process.end is None and not process.stopped
        found.calls += sum(1 for thread in process.threads for _ in thread.calls())
        found.not_computed.update((process.end or {}).get("not again", {}))
        overwritten = {(e.thread, e.after) for e in process.events() if e.kind == "overwritten"}
        threads = {each.number: each for each in process.threads}
        for text in process.lines(SECOND):
            place, _, answer = text.partition(" ;>")
            differing = json.loads(answer)
            if isinstance(differing, str):
                error = differing.partition(":")[0]
                found.not_computed[f"the second computation failed ({error})"] += 1
                continue
            found.computed += 1
            if differing:
                thread, _, number = place.partition(":")
                where = int(thread), int(number)
                found.unlike.append(
                    _unlike(process, threads.get(where[0]), where, differing, where in overwritten)
                )
    return found


def _unlike(
    process: Process,
    thread: Thread | None,
    where: tuple[int, int],
    differing: Sequence[Any],
    overwritten: bool,
) -> UnlikeCall:
    """Say what did not repeat; of a process that was killed, its thread may not be written yet."""
    number = where[1]
    call = thread.at(number) if thread else None
    program = call.pattern.program if call else None
    results = tuple(
        ResultApart(program.result(place) if program else f"result {place}", many, size, most, kind)
        for place, many, size, most, kind in differing
    )
    called = program.called if program else "a call that the record lacks"
    site = call.pattern.site if call else ()
    name = process.path.name
    return UnlikeCall(name, where[0], number, called, site, results, overwritten)


def _unlike_lines(unlike: Sequence[UnlikeCall]) -> list[str]:
    """Say where calls came to something else, line by line."""
    groups: dict[Any, list[UnlikeCall]] = {}
    for each in unlike:
        groups.setdefault((each.called, each.site), []).append(each)
    found = []
    for (called, site), calls in list(groups.items())[:LINES_SHOWN]:
        more = f", and {len(calls) - 1:,} more of its calls" if len(calls) > 1 else ""
        found.append(f"call {calls[0].number}, {called}, came to something else{more}:")
        found += [f"    {line_and_text(line)}" for line in own_first(site)[:1]]
        results = calls[0].results
        found += [f"    {each}" for each in results[:RESULTS_SHOWN]]
        if len(results) > RESULTS_SHOWN:
            found.append(f"    and {len(results) - RESULTS_SHOWN} more results")
        if any(each.overwritten for each in calls):
            found.append(
                "    NumPy wrote into the memory of an input: it may be that, not the device"
            )
    if len(groups) > LINES_SHOWN:
        found.append(f"and on {len(groups) - LINES_SHOWN} more lines")
    return found
