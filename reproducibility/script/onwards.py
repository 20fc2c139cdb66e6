"""Two runs from one step on, call by call: where they diverge, and what only passes that on.

The rule: a call of the resumed run is left out only if the whole run made it as often, and it is no
step: what is done once in each process comes again after a resume. A call that only copies makes no
value, so it may stand in one run alone.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from reproducibility.script.backwards import calls_before, line_of
from reproducibility.script.steps import RunOfSteps, StepKind
from reproducibility.script.values import NO_VALUE, ValuedCall

type CallContent = tuple[str, tuple[str, ...], tuple[str, ...], str]
type DivergenceKind = Literal["inputs", "results", "path", "end", "more"]


@dataclass(frozen=True)
class Divergence:
    """Where a difference begins: a call of the whole run, and its counterpart.

    `kind` is "inputs" (those in `places` differ), "results" (equal inputs), "path" (another
    function or shape), "end" (the resumed run makes `left` calls less), or "more" (it makes them
    more).
    """

    kind: DivergenceKind
    one: ValuedCall | None
    two: ValuedCall | None
    places: tuple[int, ...] = ()
    left: int = 0


@dataclass
class Onwards:
    """What came of comparing two runs from one step on.

    `uncached` counts calls that only the whole run made, where both ran in one process: what JAX
    has traced in the first it does not trace again in the second.
    """

    compared: int = 0
    roots: list[Divergence] = field(default_factory=list)
    passed_on: int = 0
    uncached: int = 0
    unpaired: int = 0  # calls of other threads that have no counterpart
    untold: list[str] = field(default_factory=list)  # calls before the first step without one

    @property
    def last_equal(self) -> int:
        """How many calls were equal before the first difference."""
        return self.compared - self.passed_on - len(self.roots)


def compare_onwards(run: RunOfSteps, other: RunOfSteps, at: int, *, cut: bool = False) -> Onwards:
    """Compare each call of a resumed run with its counterpart in the whole one.

    Args:
        run: the whole run.
        other: the resumed one.
        at: the step of the whole run with which the resumed one begins, from 1.
        cut: whether the resumed run was ended before its end; it is compared up to its last step.
    """
    found = Onwards()
    once = run.process.start.get("pid") == other.process.start.get("pid")
    walk = _WalkOn(found, run, other, once=once, cut=cut)
    if at > 1:
        walk.back(run.steps[at - 1], other.steps[0])
    walk.go(run.steps[at - 1], other.steps[0])
    if cut:
        return found
    seen = {run.thread: other.thread}
    while waiting := [each for each in walk.taken if each not in seen]:
        thread = waiting[0]
        one, two = walk.taken[thread]
        seen[thread] = two.thread
        if at > 1:
            walk.back(one, two)
        walk.go(one, two, leftover=True)
    mine, theirs = set(seen), set(seen.values())
    found.unpaired += sum(each.thread not in mine for each in run.calls)
    found.unpaired += sum(each.thread not in theirs for each in other.calls)
    return found


class _WalkOn:
    """Walks along two threads; `taken` has where calls of others were taken first, by thread."""

    def __init__(
        self, found: Onwards, run: RunOfSteps, other: RunOfSteps, *, once: bool, cut: bool
    ) -> None:
        self._found, self._run, self._other, self._once, self._cut = found, run, other, once, cut
        self.taken: dict[int, tuple[ValuedCall, ValuedCall]] = {}
        self._bad: set[str] = set()
        self._step: StepKind = run.step
        self._by_place = [
            {(each.thread, each.number): each for each in side.calls} for side in (run, other)
        ]
        self._made = Counter(each.content for each in run.calls)

    def back(self, first: ValuedCall, second: ValuedCall) -> None:
        """Compare what comes before two calls in their turn of the loop.

        Args:
            first: a call of the whole run.
            second: its counterpart, the first one of the resumed run.
        """
        before = calls_before(self._run, self._other, first, second)
        for one, two in before.pairs:
            inputs = places_that_differ(one.values, two.values)
            if is_equal(one, two):
                self._note_taken(one, two)
            elif inputs and not any(one.values[i] and two.values[i] for i in inputs):
                before.unknown.append(two)
            else:
                self._differs(one, two)
        unknown, left_out = (
            [_call_in_line(each) for each in side if not self._only_copies(each)]
            for side in (before.unknown, before.left_out)
        )
        untold = [f"{each} is no call of the whole run" for each in unknown]
        if not self._once:
            untold += [f"{each} is left out" for each in left_out]
        self._found.untold += [f"before the first step, {each}" for each in untold]

    def go(self, first: ValuedCall, second: ValuedCall, *, leftover: bool = False) -> None:
        """Compare from two calls on to the ends of their threads.

        Args:
            first: a call of the whole run.
            second: its counterpart.
            leftover: whether calls at the end are no difference if nobody takes their results.
        """
        ours, theirs = _from(self._run, first), _from(self._other, second)
        if self._cut:  # what it does when it is to stop is its own
            last = self._other.steps[-1].number
            theirs = [each for each in theirs if each.number <= last]
        again = Counter(each.content for each in theirs)
        extra = {c for c, n in again.items() if n > self._made[c] or c[0] == self._step[0]}
        here, there = 0, 0
        while here < len(ours) and there < len(theirs):
            one, two = ours[here], theirs[there]
            if not is_equal(one, two):
                there += self._ahead(one, theirs[there:], extra)
                two = theirs[there]
            if is_equal(one, two):
                self._equal(one, two)
            elif signature(one) == signature(two):
                self._differs(one, two)
            elif self._only_copies(one):
                here += 1
                continue
            elif self._only_copies(two):
                there += 1
                continue
            elif self._once and one.kind != self._step:
                self._found.uncached += 1
                here += 1
                continue
            else:
                self._found.roots.append(Divergence("path", one, two))
                return
            here, there = here + 1, there + 1
        if not self._cut:
            self._ends(ours[here:], theirs[there:], extra, leftover=leftover)

    def _ahead(self, one: ValuedCall, theirs: Sequence[ValuedCall], extra: set[CallContent]) -> int:
        """Return how many calls may be left out before the counterpart of a call."""
        alike = 0
        for skipped, each in enumerate(theirs):
            if is_equal(one, each):
                return skipped
            if not alike and signature(one) == signature(each):
                alike = skipped + 1
            if not self._only_copies(each) and (each.content in extra or not each.is_known):
                break
        return max(alike - 1, 0)

    def _only_copies(self, call: ValuedCall) -> bool:
        """Whether a call makes no value: each result has the bits of an input.

        So it is where a restored array of NumPy is put on a device, and one of JAX lies there.
        """
        if call.kind == self._step or call.error or not call.is_known:
            return False
        return bool(call.results) and set(call.results) <= set(call.values)

    def _equal(self, one: ValuedCall, two: ValuedCall) -> None:
        self._found.compared += 1
        self._note_taken(one, two)

    def _note_taken(self, one: ValuedCall, two: ValuedCall) -> None:
        """Note which calls of other threads these take something from."""
        for mine, its in zip(one.origins, two.origins, strict=True):
            if mine and its and mine.thread != one.thread and its.thread != two.thread:
                pair = tuple(
                    side.get((each.thread, each.call))
                    for side, each in zip(self._by_place, (mine, its), strict=True)
                )
                if pair[0] and pair[1]:
                    self.taken.setdefault(mine.thread, (pair[0], pair[1]))

    def _differs(self, one: ValuedCall, two: ValuedCall) -> None:
        """Note a call that differs from its counterpart: it is a root, or passes something on."""
        found = self._found
        found.compared += 1
        inputs = places_that_differ(one.values, two.values)
        begins = [place for place in inputs if two.values[place] not in self._bad]
        results = places_that_differ(one.results, two.results)
        if begins:
            found.roots.append(Divergence("inputs", one, two, tuple(begins)))
        elif not inputs:
            found.roots.append(Divergence("results", one, two, tuple(results)))
        else:
            found.passed_on += 1
        self._bad |= {two.values[place] for place in inputs} - {NO_VALUE}
        self._bad |= {two.results[place] for place in results}

    def _ends(
        self,
        ours: Sequence[ValuedCall],
        theirs: Sequence[ValuedCall],
        extra: set[CallContent],
        *,
        leftover: bool,
    ) -> None:
        ours, theirs = ([e for e in side if not self._only_copies(e)] for side in (ours, theirs))
        more = [each for each in theirs if each.content in extra or not self._made[each.content]]
        if self._once and ours and all(each.kind != self._step for each in ours):
            self._found.uncached += len(ours)
            ours = []
        if leftover:  # a thread that works ahead ends where it happens to be
            ours = self._not_ahead(ours, self._run)
            more = self._not_ahead(more, self._other)
        if ours:
            self._found.roots.append(Divergence("end", ours[0], None, left=len(ours)))
        if more:
            self._found.roots.append(Divergence("more", None, more[0], left=len(more)))

    def _not_ahead(self, rest: Sequence[ValuedCall], side: RunOfSteps) -> list[ValuedCall]:
        """Return the calls at the end of a thread that are taken; count those nobody can judge.

        Nothing is missing where a thread only made more of what others had taken from it before.
        """
        taken = {
            (origin.thread, origin.call)
            for each in side.calls
            for origin in each.origins
            if origin is not None and each.thread != origin.thread
        }
        ahead: set[object] = set()  # functions of a pool may have name and line in common
        wanted = set(taken)
        for each in reversed(
            [each for each in side.calls if rest and each.thread == rest[0].thread]
        ):
            if (each.thread, each.number) in wanted:
                ahead.add((each.program, each.site))
                wanted |= {(o.thread, o.call) for o in each.origins if o is not None}
        found = [each for each in rest if (each.thread, each.number) in taken]
        self._found.unpaired += sum(
            (each.thread, each.number) not in taken and (each.program, each.site) not in ahead
            for each in rest
        )
        return found


def _from(run: RunOfSteps, first: ValuedCall) -> list[ValuedCall]:
    return [
        each for each in run.calls if each.thread == first.thread and each.number >= first.number
    ]


def _call_in_line(call: ValuedCall) -> str:
    return f"{call.program.called}, {line_of(call)}"


def is_equal(one: ValuedCall, other: ValuedCall) -> bool:
    """Whether two calls have the same inputs and results, all of them known.

    Args:
        one: a call.
        other: another.
    """
    return one.is_known and one.content == other.content and _same_shapes(one, other)


def signature(call: ValuedCall) -> tuple[str, int, int, str, tuple[str, ...]]:
    """Return what two calls have in common that can be compared argument by argument.

    Args:
        call: one of a run.
    """
    shapes = call.program.shapes
    return call.program.name, len(call.values), len(call.results), call.error, shapes


def _same_shapes(one: ValuedCall, other: ValuedCall) -> bool:
    """Whether two calls take arrays of the same types and shapes: their bytes may agree if not."""
    return one.program.shapes == other.program.shapes


def places_that_differ(ones: Sequence[str], others: Sequence[str]) -> list[int]:
    """Return the places in which two rows of values differ, or are unknown.

    Args:
        ones: values of a call.
        others: those of its counterpart.
    """
    pairs = enumerate(zip(ones, others, strict=True))
    return [place for place, (a, b) in pairs if a != b or not a]
