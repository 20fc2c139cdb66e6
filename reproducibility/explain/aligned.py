"""Which operation, on which source line, first made the difference between two traces.

The rule: the first operation whose inputs agree and whose outputs differ is the cause; what
differs behind it is inherited. What only one program does is a cause if the results depend on it.
Chapter: docs/guide/trace.md

Two traces of one program are compared by number. Two programs are lined up first: what has the same
values on both sides, in order, and between that what is the same operation at the same place.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal

from reproducibility.errors import and_more
from reproducibility.explain.trace import Operation, Trace

LINING_UP = 20_000_000  # comparisons of two operations that lining up may take

type _Pair = tuple[int | None, int | None]  # numbers of one operation in two traces
type Kind = Literal["none", "inputs", "operation", "program"]


@dataclasses.dataclass(frozen=True)
class TraceDivergence:
    """Where two traces diverge."""

    kind: Kind
    """What comes first: nothing, the arguments, an operation, or that the programs are two."""
    number: int | None
    """Which operation it is, counted from 0: in the first trace, or in the second if only that has
    it."""
    a: Operation | None
    """That operation in the first trace."""
    b: Operation | None
    """And in the second."""
    reason: str
    """One sentence: what, where."""
    differing: int
    """Operations that both have, and that have other outputs, in all."""
    results_equal: bool = False
    """Whether all results are the same."""
    alone: tuple[int, int] = (0, 0)
    """How many operations only the first has, and only the second."""


def first_divergence(a: Trace, b: Trace) -> TraceDivergence:
    """Find what first made the difference between two traces.

    An operation with the same inputs and other outputs is a cause, even where the arguments differ
    too. Without one, it is the arguments, or the programs: other operations, or another constant.
    Two programs are lined up, and an operation that only one of them has is a cause only if the
    results depend on what it changes.

    **Same bits:** everywhere; it compares text. Source lines are reported and not compared.

    Args:
        a: a trace.
        b: another one, of the same function, as a rule.

    Returns:
        The cause, in one sentence, and the two operations.

    Examples:
        >>> import jax.numpy as jnp
        >>> from reproducibility import trace
        >>> a, b = (trace(lambda x, c=c: jnp.exp(x) * c, jnp.ones(3)) for c in (2.0, 3.0))
        >>> found = first_divergence(a, b)
        >>> found.kind, found.a.name, found.differing
        ('program', 'mul', 1)
    """
    if _one_program(a, b):
        return _of_one_program(_Sides(a, b, [(n, n) for n in range(len(a.operations))]))
    return _of_two_programs(_Sides(a, b, list(_lined_up(a.operations, b.operations))))


def unequal(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    """Return the names under which two have other values, or one has none.

    **Same bits:** everywhere.

    Args:
        a: texts by name.
        b: others.
    """
    return [path for path in {**a, **b} if a.get(path) != b.get(path)]


class _Sides:
    """Two traces, lined up."""

    def __init__(self, a: Trace, b: Trace, pairs: list[_Pair]) -> None:
        self.a, self.b, self.pairs = a, b, pairs
        self.both = [(x, y) for x, y in pairs if x is not None and y is not None]
        self.arguments = unequal(a.inputs, b.inputs)
        self.results = unequal(a.outputs, b.outputs)

    def operations(self, x: int | None, y: int | None) -> tuple[Operation | None, Operation | None]:
        return (
            None if x is None else self.a.operations[x],
            None if y is None else self.b.operations[y],
        )

    def divergence(self, kind: Kind, x: int | None, y: int | None, reason: str) -> TraceDivergence:
        a, b = self.a.operations, self.b.operations
        differing = sum(a[i].outputs != b[j].outputs for i, j in self.both)
        alone = (len(a) - len(self.both), len(b) - len(self.both))
        number, pair = (y if x is None else x), self.operations(x, y)
        return TraceDivergence(kind, number, *pair, reason, differing, not self.results, alone)

    def end(self) -> TraceDivergence:
        """Say what is the case where no operation is a cause."""
        if self.arguments:
            what = f"{and_more(self.arguments)}; no operation gives other outputs for the same"
            return self.divergence("inputs", None, None, f"The arguments differ: {what} inputs.")
        if self.results:
            what = f"{and_more(self.results)}; they are constants, or have another structure"
            reason = f"The results differ, no operation does: {what}."
            return self.divergence("program", None, None, reason)
        reason = f"All {len(self.both)} operations agree, and so do the results."
        return self.divergence("none", None, None, reason)

    def other_program(self, x: int | None, y: int | None) -> TraceDivergence:
        one, other = self.operations(x, y)
        too = f"; the arguments differ too: {and_more(self.arguments)}" if self.arguments else ""
        what = f"operation {y if x is None else x} is {one or 'missing'} in one, "
        what += f"{other or 'missing'} in the other"
        return self.divergence("program", x, y, f"The programs differ: {what}{too}.")


def _of_one_program(sides: _Sides) -> TraceDivergence:
    for number, _ in sides.both:
        x, y = sides.a.operations[number], sides.b.operations[number]
        if x.inputs == y.inputs and x.outputs != y.outputs:
            what = f"operation {number}, {x}"
            masked = "" if sides.results else "; the results are equal"
            reason = f"The same inputs give other outputs in {what}{masked}."
            return sides.divergence("operation", number, number, reason)
        if x.inputs != y.inputs and not sides.arguments:
            # Where the arguments agree, nothing differs before the first operation that gets other
            # inputs: what it got can only be a constant.
            what = f"{x} gets another input, and nothing before it differs"
            reason = f"A constant of the program differs: {what}."
            return sides.divergence("program", number, number, reason)
    return sides.end()


def _of_two_programs(sides: _Sides) -> TraceDivergence:
    a, b = sides.a, sides.b
    if not sides.results:
        return _equal_results(sides)
    used = _leading_to(a, sides.results), _leading_to(b, sides.results)
    gaps, pairs = _Gaps(sides.pairs, used), set(sides.pairs)
    for x, y in sides.pairs:
        if x is None or y is None:
            continue
        one, other = a.operations[x], b.operations[y]
        if (x not in used[0] and y not in used[1]) or one.outputs == other.outputs:
            continue
        if one.inputs == other.inputs:
            if not _same_parameters(one, other):
                return sides.other_program(x, y)
            reason = f"The same inputs give other outputs in operation {x}, {one}."
            return sides.divergence("operation", x, y, reason)
        for left, right in zip(one.inputs, other.inputs, strict=True):
            makers = _maker(a, left, x), _maker(b, right, y)
            if left == right or (makers in pairs and None not in makers):
                continue  # the same, or of one operation that was looked at before
            extra = gaps.of(*makers)
            if extra and not (sides.arguments and _in_a_loop(sides, *extra)):
                return sides.other_program(*extra)
            if not extra and not sides.arguments:
                constant = makers == (None, None)
                what = "A constant of the program differs" if constant else "The programs differ"
                reason = f"{what}: {one} gets another input, and nothing before it differs."
                return sides.divergence("program", x, y, reason)
    extra = gaps.first()
    if extra and not (sides.arguments and _in_a_loop(sides, *extra)):
        return sides.other_program(*extra)
    return sides.end()


def _in_a_loop(sides: _Sides, x: int | None, y: int | None) -> bool:
    """Say whether an operation that only one has may be there for the values of the arguments.

    A loop went on, or a branch was taken.
    """
    places = {operation.path if operation else "" for operation in sides.operations(x, y)}
    return places != {""}


def _equal_results(sides: _Sides) -> TraceDivergence:
    alone: list[list[str]] = [[], []]
    for x, y in sides.pairs:
        if x is None or y is None:
            one, other = sides.operations(x, y)
            alone[x is None].append(str(one or other))
    texts = [
        f"only the {which} has {and_more(names)}"
        for which, names in zip(("first", "second"), alone, strict=True)
        if names
    ]
    more = "; ".join(texts) or "operations have other parameters or constants"
    reason = f"The results are equal. The programs are two: {more}."
    return sides.divergence("none", None, None, reason)


class _Gaps:
    """The stretches in which two programs have nothing in common."""

    def __init__(self, pairs: Sequence[_Pair], used: tuple[set[int], set[int]]) -> None:
        self._gaps: list[tuple[list[int], list[int]]] = [([], [])]
        self._where: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for pair in pairs:
            if None not in pair:
                if any(self._gaps[-1]):
                    self._gaps.append(([], []))
                continue
            side = int(pair[0] is None)
            number: int = pair[side]  # type: ignore[assignment]
            if number in used[side]:
                self._where[side][number] = len(self._gaps) - 1
                self._gaps[-1][side].append(number)

    def of(self, x: int | None, y: int | None) -> _Pair | None:
        """Return the operations of the gap in which one of two operations stands."""
        for side, number in enumerate((x, y)):
            if number is not None and number in self._where[side]:
                return self._at(self._where[side][number])
        return None

    def first(self) -> _Pair | None:
        """Return the first operations that only one has, and that the results depend on."""
        return next((self._at(n) for n, gap in enumerate(self._gaps) if any(gap)), None)

    def _at(self, gap: int) -> _Pair:
        one, other = self._gaps[gap]
        return one[0] if one else None, other[0] if other else None


def _leading_to(trace: Trace, results: Sequence[str]) -> set[int]:
    """Return which operations some results depend on, as far as digests tell."""
    wanted: set[str] = set()
    _add(wanted, trace, [trace.outputs[path] for path in results if path in trace.outputs])
    found = set()
    for number in reversed(range(len(trace.operations))):
        operation = trace.operations[number]
        if not wanted.isdisjoint(operation.outputs):
            found.add(number)
            _add(wanted, trace, operation.inputs)
    return found


def _add(wanted: set[str], trace: Trace, digests: Sequence[str]) -> None:
    """Add values, and what they were taken out of or put together from."""
    left = list(digests)
    while left:
        digest = left.pop()
        if digest not in wanted:
            wanted.add(digest)
            left += trace.derived.get(digest, ())


def _maker(trace: Trace, digest: str, before: int) -> int | None:
    """Return the last operation before another that made a value; None if it was an input."""
    wanted: set[str] = set()
    _add(wanted, trace, [digest])
    for number in reversed(range(before)):
        if not wanted.isdisjoint(trace.operations[number].outputs):
            return number
    return None


def _lined_up(a: Sequence[Operation], b: Sequence[Operation]) -> Iterator[_Pair]:
    """Yield which operations are the same: first by their values, and between those by kind."""
    x = y = 0
    ends = [*_in_common(list(map(_values, a)), list(map(_values, b))), (len(a), len(b), 0)]
    for i, j, size in ends:
        yield from _between(a[x:i], b[y:j], x, y)
        yield from ((i + n, j + n) for n in range(size))
        x, y = i + size, j + size


def _between(a: Sequence[Operation], b: Sequence[Operation], x: int, y: int) -> Iterator[_Pair]:
    ends = [*_in_common(list(map(_kind_of, a)), list(map(_kind_of, b))), (len(a), len(b), 0)]
    i = j = 0
    for one, other, size in ends:
        yield from ((x + n, None) for n in range(i, one))
        yield from ((None, y + n) for n in range(j, other))
        yield from ((x + one + n, y + other + n) for n in range(size))
        i, j = one + size, other + size


def _in_common(a: list[Any], b: list[Any]) -> list[tuple[int, int, int]]:
    """Return what two lists have in common, in order: where in each, and how much."""
    head = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    if head is None:
        head = min(len(a), len(b))
    left, right = a[head:], b[head:]
    many = Counter(right)
    found = [(0, 0, head)] if head else []
    if sum(many[x] for x in left) > LINING_UP:
        return found
    matches = SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    return found + [(head + i, head + j, size) for i, j, size in matches if size]


def _one_program(a: Trace, b: Trace) -> bool:
    return len(a.operations) == len(b.operations) and all(
        _kind_of(x) == _kind_of(y) and _same_parameters(x, y)
        for x, y in zip(a.operations, b.operations, strict=True)
    )


def _kind_of(x: Operation) -> Any:
    return x.name, x.path, x.shapes, len(x.inputs)


def _values(x: Operation) -> Any:
    # On several devices each has its part of a batch, and together they have the same values.
    return x.name, x.path.removeprefix("shard_map").removeprefix("/"), x.inputs, x.outputs


def _same_parameters(x: Operation, y: Operation) -> bool:
    common = x.parameters.keys() & y.parameters.keys()  # a version of JAX may add a parameter
    return all(x.parameters[name] == y.parameters[name] for name in common)
