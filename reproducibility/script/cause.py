"""Why two runs diverge: what varies is held fixed, one thing at a time, until they agree.

The rule: a cause is confirmed if three runs agree once only that is held, others with nothing held
differ again, and two with it held in another way agree with each other and not with the three.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal, Protocol

from reproducibility.script.align import compare_records
from reproducibility.script.dataflow import (
    asked_by,
    calls_in,
    is_seeded,
    lines_behind,
    own_files,
    salted,
)
from reproducibility.script.diverging import Alignment, Root
from reproducibility.script.reading import Event, SourceLine, processes_of
from reproducibility.script.start import Finished

# What can be held fixed, and what it is called; the salt of hash() is held by a variable.
HOLDS = {
    "entropy": "a fixed stream for the system's entropy",
    "hash": "PYTHONHASHSEED=0",
    "listing": "folders listed in the order of names",
    "clock": "a fixed clock",
    "pid": "a fixed number of the process",
    "threads": "one processor and one thread",
    "addresses": "fixed addresses in memory",
}
# What to do about it; of threads it depends on what they compute.
CURES = {
    "entropy": "give each generator a seed",
    "hash": "sort what comes out of a set, and use hashlib instead of hash()",
    "listing": "sorted(...) around the listing",
    "clock": "take no seed and no decision from the clock",
    "pid": "name what a process does by its place in the job",
    "addresses": "sort by a name, and never by id() or the hash of an object",
}
ALWAYS = ("entropy", "hash", "listing", "clock")  # the others only if they are suspects
ONE_WAY = "threads"  # can be held in one way only
# Which of them each kind of host event makes a suspect.
OVERWRITTEN = "overwritten"  # the kind of event that says that memory was shared and changed
SUSPECTS = {"entropy": "entropy", "draws": "entropy", "clock": "clock", "listing": "listing"}
NOTHING = "nothing held"  # of the pair that shows that a held one agrees because it is held
AGAIN = 4  # runs with nothing held, of which one has to differ
OTHER_WAYS = 4  # in which a thing is held, until what comes out differs
ROUNDS = 4  # of repetitions, where runs have few outcomes and may agree by chance; else one
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")

type Judged = Literal["confirmed", "likely", "settled"]


@dataclass
class Cause:
    """What was found out.

    `name` has names of `HOLDS`, joined by "+", with which the runs agreed. `confirmed` says that
    they agreed because of it. `settled` says that four more runs with nothing held agreed, so that
    nothing can be confirmed. `sources` is what the script asked of the machine, an event a line, of
    which each may be the one; `traced` says that there is one only, and that it may have had a part
    in the call, by the names in the script. `tried` is all that was held without avail.
    """

    name: str = ""
    confirmed: bool = False
    settled: bool = False
    sources: tuple[Event, ...] = ()
    traced: bool = False
    tried: tuple[str, ...] = ()


class CanRun(Protocol):
    """What runs the command again; `reached` is where all runs are to end, or 0."""

    reached: int

    def again(self, number: int, hold: str, calls: int, place: int) -> Finished:
        """Run it as run 1 or 2 with something held; its record has a number of its own."""

    def record(self, number: int, hold: str) -> Path:
        """Return where a run's record is."""


def held_by(name: str) -> str:
    """Say in words what is held.

    Args:
        name: names of `HOLDS`, joined by "+".
    """
    return " and ".join(HOLDS.get(each, each) for each in name.split("+"))


def cure_of(name: str) -> str:
    """Say what to do about a cause; "" if that is not known.

    Args:
        name: names of `HOLDS`, joined by "+".
    """
    return "; ".join(CURES[each] for each in name.split("+") if each in CURES)


def variables_that_hold(hold: str) -> dict[str, str]:
    """Return the environment variables with which a run has something held.

    Args:
        hold: `NAME=WAY` for each name of `HOLDS`, joined by ","; or something else for nothing.
    """
    found, inside = {}, []
    for name, equals, way in (each.partition("=") for each in hold.split(",")):
        if name == "hash":
            found["PYTHONHASHSEED"] = way
        elif equals:
            inside.append(f"{name}={way}")
        if name == "threads":
            found.update(dict.fromkeys(_ONE_THREAD, "1"))
    return {**found, "REPRODUCIBILITY_HOLD": ",".join(inside)} if inside else found


def look_for_the_cause(compared: Alignment, finished: Sequence[Finished], runs: CanRun) -> Cause:
    """Hold what may be the cause, one thing at a time, and look whether the runs agree.

    Args:
        compared: what came of the two runs that decide, of which `runs` has the records.
        finished: how they ended.
        runs: what runs the command again.
    """
    root = compared.roots[0] if compared.roots else None
    if root is None and len({run.code for run in finished}) == 1:
        return Cause()
    events = [_events_until(root, runs.record(number, "")) for number in (1, 2)]
    behind = _lines_behind(root)
    order = _order_of_holds(root, _first_behind(events[0], behind), behind)
    found = _Search(root, finished, runs).find(order)
    found.sources = _sources(found, events, root, behind)
    alone = len(found.sources) == 1 and "+" not in found.name
    found.traced = alone and _leads_to_the_call(found.sources[0], root, behind)
    return found


class _Search:
    """The runs that confirm, and what they say."""

    def __init__(self, root: Root | None, finished: Sequence[Finished], runs: CanRun) -> None:
        self._root, self._runs = root, runs
        placed = root is not None and root.kind != "end" and root.ordered
        self._calls = root.call + 1 if root and placed else runs.reached
        # Where one run makes fewer calls, all are run to their ends, which may come sooner.
        self._needed = self._calls if placed else 0
        self._failures = {_failure(run) for run in finished if not run.stopped} | {""}
        self._ended: dict[tuple[str, int], Finished] = {}

    def find(self, order: Sequence[str]) -> Cause:
        """Hold one thing after the other, then all together, and then as few as will do."""
        likely = ""
        for name in order:
            if self._agree(name, 3):
                judged = self._judged(name)
                if judged != "likely":
                    return _found_by(name, judged)
                likely = likely or name
        if likely:
            return Cause(likely)
        name = self._fewest(order)
        return _found_by(name, self._judged(name)) if name else Cause(tried=tuple(order))

    def _fewest(self, order: Sequence[str]) -> str:
        names = [name for name in order if name != ONE_WAY]
        if len(names) < 2 or not self._agree("+".join(names), 3):
            return ""
        for name in order[::-1]:
            rest = [each for each in names if each != name]
            if len(rest) > 1 and name in names and self._agree("+".join(rest), 3):
                names = rest
        return "+".join(names)

    def _judged(self, name: str) -> Judged:
        """Say whether runs with something held agree because it is held, and not by chance."""
        if self._agree(NOTHING, 2) and self._agree(NOTHING, AGAIN):
            # As with a file that the first run left, or a fault that shows now and then.
            return "settled"
        if name == ONE_WAY:
            return "confirmed" if self._agree(name, 3 + ROUNDS) else "likely"
        first = _way(name, 0)
        for way in range(1, OTHER_WAYS + 1):
            other = _way(name, way)
            self._run(other, 1)
            if self._reaches(other, 1) and not self._same((first, 1), (other, 1)):
                return "confirmed" if self._repeat(first, other) else "likely"
        return "likely"

    def _repeat(self, first: str, other: str) -> bool:
        """Whether each way of holding it gives its own outcome, again and again."""
        self._run(other, 2)
        if not self._same((other, 1), (other, 2), other=True):
            return False
        for place in range(ROUNDS if self._few() else 1):
            for hold, next_place in ((first, 4 + place), (other, 3 + place)):
                self._run(hold, next_place)
                if not self._same((hold, 1), (hold, next_place), other=hold == other):
                    return False
        return True

    def _few(self) -> bool:
        """Whether two of the four runs with nothing held came to the same."""
        free = [("", 1), ("", 2), (NOTHING, 1), (NOTHING, 2)]
        return any(self._alike(*pair) for pair in combinations(free, 2))

    def _alike(self, one: tuple[str, int], other: tuple[str, int]) -> bool:
        """Whether two runs are the same as far as the shorter of them was run."""
        compared = compare_records(self._record(one), self._record(other))
        ends = [root for root in compared.roots if root.kind == "end"]
        alike = all(root in ends and root.call >= self._calls for root in compared.roots)
        return alike and compared.calls >= self._needed

    def _agree(self, name: str, times: int) -> bool:
        """Whether so many runs with something held are the same up to the call."""
        hold = _way(name, 0) if name != NOTHING else name
        for place in range(1, times + 1):
            self._run(hold, place)
            if place > 1 and not self._same((hold, 1), (hold, place)):
                return False
        return self._reaches(hold, 1)

    def _run(self, hold: str, place: int) -> None:
        if (hold, place) not in self._ended:
            finished = self._runs.again(min(place, 2), hold, self._calls, place)
            self._ended[hold, place] = finished

    def _record(self, run: tuple[str, int]) -> Path:
        return self._runs.record(run[1], run[0])

    def _same(self, one: tuple[str, int], another: tuple[str, int], *, other: bool = False) -> bool:
        """Whether two runs were the same so far, and failed in no way of their own.

        Those with a thing held in another way may take another path.
        """
        failures = {_failure(self._ended[run]) for run in (one, another)}
        if len(failures) > 1 or not (failures <= self._failures):
            return False
        compared = compare_records(self._record(one), self._record(another))
        return compared.verdict == "same" and (other or compared.calls >= self._needed)

    def _reaches(self, hold: str, place: int) -> bool:
        """Whether a run did not fail in a way of its own."""
        return _failure(self._ended[hold, place]) in self._failures


def _found_by(name: str, judged: Judged) -> Cause:
    if judged == "settled":
        return Cause(settled=True)
    return Cause(name, confirmed=judged == "confirmed")


def _way(name: str, way: int) -> str:
    return ",".join(f"{each}={way}" for each in name.split("+"))


def _failure(run: Finished) -> str:
    """Return how a run failed: exit code and name of the error; nothing if it did not."""
    return f"{run.code} {run.last_words.partition(':')[0][:40]}" if run.code else ""


def _order_of_holds(
    root: Root | None, events: Iterable[Event], behind: dict[str, set[int]]
) -> list[str]:
    """Return what to hold, what is most likely first."""
    found = []
    if any(salted(file, lines) for file, lines in behind.items()):
        found.append("hash")
    found += [_hold_of(event) for event in events]
    if root is not None and root.kind == "program" and root.names:
        found.append("threads")
    found += ALWAYS
    if any(calls_in(file, lines) & {"id", "hash", "set"} for file, lines in behind.items()):
        found.append("addresses")
    return [name for name in dict.fromkeys(found) if name]


def _hold_of(event: Event) -> str:
    """Return what is held to see whether an event is the source."""
    if event.kind == "process":
        return "pid" if event.what.endswith("pid()") else ""
    return SUSPECTS.get(event.kind, "")


def _events_until(root: Root | None, record: Path) -> list[Event]:
    """Return what the script asked of the machine before a call, the latest first.

    And what the call's own callbacks asked, if the call is where equal inputs have other results.
    """
    found = []
    for process in processes_of(record):
        if root is None or process.path.name == root.process:
            found += [
                each
                for each in process.events()
                if not root
                or not root.ordered
                or each.after <= root.call
                or (each.after == root.call + 1 and _is_inside(each, root))
            ]
    return found[::-1]


def _is_inside(event: Event, root: Root | None) -> bool:
    """Whether an event is of the function that the diverging call calls on the host."""
    differs = root.program_differs if root is not None else None
    if differs is None or differs.kind != "callback":
        return False
    of_callbacks = {(line.file, line.function) for line in differs.lines}
    return any((line.file, line.function) in of_callbacks for line in event.site)


def _lines_behind(root: Root | None) -> dict[str, set[int]]:
    """Return the lines of each file that may have had a part in a call."""
    found: dict[str, set[int]] = {}
    for line in (*root.site, *root.other_site) if root else ():
        found.setdefault(line.file, set()).update(lines_behind(line.file, line.line))
    return found


def _first_behind(events: Sequence[Event], behind: dict[str, set[int]]) -> list[Event]:
    """Put events first whose line may have had a part in the call, and last those with a seed."""

    return sorted(events, key=lambda event: _how_likely(event, behind))


def _leads_to_the_call(event: Event, root: Root | None, behind: dict[str, set[int]]) -> bool:
    """Whether an event may have had a part in a call, and says itself what it asks for."""
    seeded, elsewhere, aside = _how_likely(event, behind)
    read = event.kind == "hash"  # in the script, and not seen to happen
    return _is_inside(event, root) or not (seeded or elsewhere or aside or read)


def _how_likely(event: Event, behind: dict[str, set[int]]) -> tuple[bool, bool, bool]:
    """Return what is first for an event that is more likely a source.

    A line that asks for entropy and does not say so may do it for a temporary name.
    """
    line = event.site[0] if event.site and event.kind == "entropy" else None
    seeded = line is not None and is_seeded(line.file, line.line)
    aside = line is not None and not asked_by(line.file, line.line, for_names=False)
    return seeded, not _is_behind(event, behind), aside


def _is_behind(event: Event, behind: dict[str, set[int]]) -> bool:
    return any(line.line in behind.get(line.file, ()) for line in event.site)


def _sources(
    found: Cause,
    events: Sequence[Sequence[Event]],
    root: Root | None,
    behind: dict[str, set[int]],
) -> tuple[Event, ...]:
    """Return what is most likely behind a cause, in the words of its line: an event a line.

    What the diverging call's own callback asked comes before what may have had a part in the call
    by the names in the script, and that before the last of all.
    """
    held = set(found.name.split("+")) - {""}
    mine = _first_behind([each for each in events[0] if _hold_of(each) in held], behind)
    if mine:
        inside = [each for each in mine if _is_inside(each, root)]
        near = [each for each in mine if _how_likely(each, behind) == _how_likely(mine[0], behind)]
        likely = inside or near
        return tuple(_in_words(each) for each in {each.site[:1]: each for each in likely}.values())
    if "hash" in held:
        own = own_files(behind)
        for file, lines in [*own.items(), *((file, None) for file in own)]:
            if line := salted(file, lines):
                what = "hash() or the order of a set, likely"
                return (Event(0, "hash", what, (SourceLine(file, line, "<module>"),)),)
    other = _overwritten(events)
    if other is None and not (found.name or found.settled):
        other = _read_otherwise(events)
    return (other,) if other else ()


def overwritten_remark(*records: Path) -> str:
    """Say where NumPy wrote into an array of JAX though the runs agree; nothing if it did not.

    Args:
        records: those of the runs.
    """
    event = _overwritten([_events_until(None, record) for record in records])
    if event is None:
        return ""
    lines = " and ".join(f"{each.file}:{each.line}" for each in event.site)
    return f"{event.what}, {lines}: what a call sees of it is chance"


def _overwritten(events: Sequence[Sequence[Event]]) -> Event | None:
    return next((each for run in events for each in run if each.kind == OVERWRITTEN), None)


def _read_otherwise(events: Sequence[Sequence[Event]]) -> Event | None:
    """Return the last file or folder that the two runs found otherwise."""
    others = {(each.kind, each.what): each for each in events[1][::-1]}
    for event in events[0]:
        other = others.get((event.kind, event.what))
        if other is not None and event.digest and event.digest != other.digest:
            return replace(event, what=f"what the runs read from {event.what} differs")
    return None


def _in_words(event: Event) -> Event:
    line = event.site[0] if event.site else None
    what = asked_by(line.file, line.line) if line and event.kind == "entropy" else ""
    return replace(event, what=what) if what else event
