"""Calls whose order is chance, of a pool's workers or of callbacks, compared by their values.

The rule: what only one run found is a difference where the other run found something else in the
same line; where that begins is told by the inputs. Order alone, and how often, decide nothing.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from reproducibility.script.origins import CameFrom, Following, Origins
from reproducibility.script.programs import ProgramsOfProcess
from reproducibility.script.reading import Call, Event, Process, Thread

LOOKED_INTO = 1000  # calls of a run whose inputs are looked up


class SideOfRecord:
    """The threads of one run, and the values of what one thread may take from another."""

    def __init__(self, process: Process) -> None:
        threads, self._process = process.threads, process
        self.programs = ProgramsOfProcess(process)
        times = Counter(thread.name for thread in threads)
        self.doubled = {name for name, count in times.items() if count > 1}
        self.names = {
            thread.number: thread.name + f" {thread.number}" * (thread.name in self.doubled)
            for thread in threads
        }
        self.threads = {self.names[thread.number]: thread for thread in threads}
        self.functions = {self.names[t.number] for t in threads if t.function}
        self.unordered = {
            self.names[t.number] for t in threads if t.pool or t.function or t.name in self.doubled
        }
        self._by_name = {self.names[thread.number]: thread for thread in threads}

    @cached_property
    def _overwritten(self) -> dict[tuple[int, int], Event]:
        found = {}
        for event in self._process.events():
            if event.kind == "overwritten":
                found[event.thread, event.after] = event
        return found

    def overwritten(self, thread: Thread, call: int) -> Event | None:
        """Return how the memory of an argument was written to once a call had been given it."""
        return self._overwritten.get((thread.number, call))

    def value(self, origin: CameFrom | None) -> str | None:
        """Return the fingerprint of an array, if it can be looked up."""
        call = self._by_name[origin.thread].at(origin.call) if origin else None
        if call is None or origin is None:
            return None
        if origin.kind == "r":
            return call.results[origin.place] if origin.place < len(call.results) else None
        return call.entered().get(origin.place)


type WorkerThread = tuple[SideOfRecord, Thread]  # a side of a record, and one of its threads


def workers_of(
    sides: Iterable[SideOfRecord], names: Collection[str] | None = None
) -> list[WorkerThread]:
    """Return the threads of some names, or all, each with what it belongs to."""
    return [
        (side, thread)
        for side in sides
        for thread in side.threads.values()
        if names is None or thread.name in names
    ]


@dataclass(frozen=True)
class UnorderedCall:
    """A call that only one run made, and the values of its inputs."""

    call: Call
    thread: Thread
    side: SideOfRecord
    origins: tuple[CameFrom | None, ...]
    inputs: tuple[str | None, ...]


@dataclass(frozen=True)
class UnorderedRoot:
    """Where a difference begins: calls of one line, of which each run made another."""

    one: UnorderedCall
    other: UnorderedCall
    arguments: tuple[int, ...]  # that differ, and no recorded call made; else results do


class UnorderedCalls:
    """What the workers of two runs did, whichever did it."""

    def __init__(
        self, ones: Sequence[WorkerThread], others: Sequence[WorkerThread], *, texts: bool = True
    ) -> None:
        self._workers, self._texts = (ones, others), texts
        self._counts = [self._count(workers) for workers in self._workers]

    @property
    def total(self) -> int:
        """How many calls the first run made."""
        return self._counts[0].total()

    def agree(self) -> bool:
        """Whether the same calls came, and each as often."""
        return self._counts[0] == self._counts[1]

    def one_stopped_sooner(self) -> bool:
        """Whether one run made no call that the other one did not make as well."""
        one, other = self._counts
        return one <= other or other <= one

    def _count(self, workers: Sequence[WorkerThread]) -> Counter[object]:
        return Counter(self._key(call) for _, thread in workers for call in thread.calls())

    def _key(self, call: Call) -> object:
        """Return what is the same whichever worker made a call: not which array it saw first."""
        program, given = call.pattern.program, call.values[: call.pattern.from_host]
        text = self._texts and program.text
        return program.name, text, given, call.results or call.values, call.error

    def _by_line(
        self, workers: Sequence[WorkerThread], wanted: set[object]
    ) -> dict[object, list[UnorderedCall]]:
        """Return the calls that are wanted, by program and line, with their inputs."""
        found: dict[object, list[UnorderedCall]] = {}
        for number, each in enumerate(self._looked_up(workers, wanted)):
            if number >= LOOKED_INTO:
                break
            program, site = each.call.pattern.program, each.call.pattern.site
            found.setdefault((program.name, program.shapes, site[:1]), []).append(each)
        return found

    def _looked_up(
        self, workers: Sequence[WorkerThread], wanted: set[object]
    ) -> Iterator[UnorderedCall]:
        for side, thread in workers if wanted else ():
            following = Following(side.names[thread.number], side.names)
            for call in thread.calls():
                origins = following.of(call.pattern, call.number)
                if self._key(call) in wanted:
                    values = _inputs(side, call, origins)
                    yield UnorderedCall(call, thread, side, tuple(origins), values)

    def roots(self) -> list[UnorderedRoot]:
        """Return where the difference begins, one for each line; none if that is not certain."""
        one, other = self._counts
        ones = self._by_line(self._workers[0], {key for key in one if key not in other})
        others = self._by_line(self._workers[1], {key for key in other if key not in one})
        found = [_root_of(ones[line], others[line]) for line in ones if line in others]
        return [root for root in found if root is not None]


def _inputs(side: SideOfRecord, call: Call, origins: Origins) -> tuple[str | None, ...]:
    entered = call.entered()
    return tuple(
        entered.get(place) if origin is None else side.value(origin)
        for place, origin in enumerate(origins)
    )


def _root_of(
    ones: Sequence[UnorderedCall], others: Sequence[UnorderedCall]
) -> UnorderedRoot | None:
    """Say which inputs of a line's calls differ, or that equal inputs gave other results."""
    by_inputs = {each.inputs: each for each in ones if None not in each.inputs}
    for other in others:
        if (one := by_inputs.get(other.inputs)) is not None:
            return UnorderedRoot(one, other, ())
    places = []
    for place in range(min(len(each.inputs) for each in (*ones, *others))):
        values = [Counter(each.inputs[place] for each in calls) for calls in (ones, others)]
        came = {each.origins[place] for each in (*ones, *others)}
        if values[0] != values[1] and came == {None}:
            places.append(place)
    return UnorderedRoot(ones[0], others[0], tuple(places)) if places else None
