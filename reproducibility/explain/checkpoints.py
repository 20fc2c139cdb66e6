"""Two stores or files of arrays: the last step that agrees, and the first that differs.

The rule: "same" only of bits that were read on both sides. What has no seal, could not be read, or
is of one side alone is said.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reproducibility.errors import CheckpointDamagedError, CheckpointError, and_more
from reproducibility.explain.comparison import Comparison, distances_of
from reproducibility.same.hashing import leaf_digests
from reproducibility.same.leaves import is_key, kind_text
from reproducibility.same.state import StateDifference, static_differences, tie_differences
from reproducibility.storage.found import FoundArrays, unread_steps
from reproducibility.storage.restoring import plain
from reproducibility.storage.seal import Seal
from reproducibility.storage.stored import Stored, arrays_of, has_digest

STEPS_SHOWN = 5  # steps that are named


def compare_stored(
    left: FoundArrays, right: FoundArrays, progress: Callable[[str], None] | None = None
) -> Comparison:
    """Compare what has arrays in it: stores by their steps, all else array by array.

    **Same bits:** "same" means that every bit of every array that either side has is equal, at
    each step that both have, and what the seals say beside the bits.

    Args:
        left: a store, a checkpoint, a folder of Orbax's or a file of arrays.
        right: another.
        progress: called with what is being done.

    Raises:
        CheckpointError: one is a store and the other says of no step, or cannot be read.
        CheckpointDamagedError: what is compared is not as it was sealed.
    """
    say = progress or (lambda text: None)
    if left.steps and right.steps:
        return _Stores(left, right, say).compared()
    pairs = [(left, right), (right, left)]
    steps = [_step_of_other(found, other) if found.steps else None for found, other in pairs]
    say("reading the arrays of both")
    one, other = arrays_of(left, steps[0]), arrays_of(right, steps[1])
    found = differences_of(one, other)
    notes = _not_known(one, other)
    digests = one.digest, other.digest
    if not found.common:
        sides = (
            f"{side.path} has {and_more(list(side.leaves)) or 'none'}" for side in (one, other)
        )
        reason = f"No name of an array is in both: {' and '.join(sides)}."
        return Comparison("cannot be told", reason, None, digests=digests, notes=notes)
    if found.any:
        reason = f"They differ{found.words}."
        return found.comparison(reason, None, digests=digests, notes=notes)
    if one.unread or other.unread:
        reason = "All arrays that could be read agree, and not everything could be read."
        return Comparison("cannot be told", reason, None, digests=digests, notes=notes)
    count = f"all {len(one.leaves)} arrays" if len(one.leaves) > 1 else "the one array"
    return Comparison("same", f"Every bit of {count} agrees.", None, digests=digests, notes=notes)


@dataclasses.dataclass(frozen=True)
class Differences:
    """Where two sets of arrays differ."""

    leaves: tuple[str, ...]
    """Names of those that do not agree, or are on one side alone."""
    kinds: Mapping[str, tuple[str, str]]
    """Of those, what each side has, where dtype or shape are not the same."""
    distances: Mapping[str, Any]
    """Of the others, how far they are apart."""
    beside: tuple[StateDifference, ...]
    """What the seals say beside the bits, where that differs."""
    common: int
    """How many names are on both sides."""

    @property
    def any(self) -> bool:
        """Whether there is a difference."""
        return bool(self.leaves or self.beside)

    @property
    def words(self) -> str:
        """Where, to follow "differ"."""
        if self.leaves:
            return f", in {and_more(self.leaves)}"
        first = self.beside[0]
        return f" beside their bits, in {first.thing}: {first.a} against {first.b}"

    def comparison(self, reason: str, step: int | None, **more: Any) -> Comparison:
        """Return the comparison of which this is the answer."""
        found = Comparison("different", reason, step, leaves=self.leaves, **more)
        return dataclasses.replace(found, kinds=self.kinds, distances=self.distances)


def differences_of(one: Stored, other: Stored) -> Differences:
    """Compare two sets of arrays by name.

    Args:
        one: arrays that were read.
        other: those of the other side.
    """
    sides = [_as_data(one), _as_data(other)] if _one_has_keys(one, other) else [one, other]
    a, b = (side.leaves for side in sides)
    names = tuple(n for n in {**a, **b} if n not in a or n not in b or a[n].digest != b[n].digest)
    kinds = {n: tuple(_kind_at(side.leaves, n) for side in sides) for n in names}
    values = [
        {n: v for n, v in side.values.items() if n in names and has_digest(v)} for side in sides
    ]
    return Differences(
        names,
        {n: (k[0], k[1]) for n, k in kinds.items() if k[0] != k[1]},
        distances_of(values[0], values[1], names),
        tuple(_beside(one.seal, other.seal)) if one.seal and other.seal else (),
        len(a.keys() & b.keys()),
    )


class _Stores:
    """Two stores, read side by side up to the first step that differs."""

    def __init__(self, left: FoundArrays, right: FoundArrays, say: Callable[[str], None]) -> None:
        self.sides, self.say = (left, right), say
        self.common = sorted(left.steps.keys() & right.steps.keys())
        self.equal: list[int] = []
        self.damaged: list[int] = []
        self.notes: dict[str, None] = {}
        self.digests: tuple[str | None, str | None] = (None, None)
        names = [(side, name) for side in self.sides for name in unread_steps(side)]
        self.unread = bool(names)
        self.notes |= {f"{name} of {side.path} could not be read.": None for side, name in names}

    def compared(self) -> Comparison:
        """Return the last step that agrees and the first that differs."""
        for step in self.common:
            self.say(f"comparing step {step}")
            pair = self._read(step)
            if not pair:
                continue
            found = differences_of(*pair)
            self.digests = pair[0].digest, pair[1].digest
            self.notes |= dict.fromkeys(_not_known(*pair, self.sides))
            if not found.common:
                reason = f"At step {step}, no name of an array is in both."
                return self._answer("cannot be told", reason, step)
            if found.any:
                since = self.equal[-1] if self.equal else -1
                first = ", the first that both have" if since < 0 else ""
                agree = "" if since < 0 else f"agree at step {since} and "
                reason = f"Their checkpoints {agree}differ at step {step}{first}{found.words}."
                return found.comparison(
                    reason, step, since=since, digests=self.digests, notes=self._all_notes()
                )
            self.unread |= bool(pair[0].unread or pair[1].unread)
            self.equal.append(step)
        return self._agreeing()

    def _read(self, step: int) -> tuple[Stored, Stored] | None:
        """Return the arrays of both at a step; where one is damaged, say so and return nothing."""
        read: list[Stored] = []
        for side in self.sides:
            try:
                read.append(arrays_of(side, step))
            except CheckpointDamagedError as error:
                self.damaged += [step] if step not in self.damaged else []
                note = f"Step {step} of {side.path} is damaged and was not compared: {error.got}."
                self.notes[note] = None
            except CheckpointError as error:
                self.unread = True
                self.notes[f"Step {step} of {side.path} cannot be read: {error.got}."] = None
        return (read[0], read[1]) if len(read) == 2 else None

    def _agreeing(self) -> Comparison:
        """Say how far two stores are known to agree in which no step differs."""
        if not self.common:
            return self._answer("cannot be told", "No step has a checkpoint in both.", None)
        if not self.equal:
            reason = "Each step that both have is damaged in one of them."
            return self._answer("cannot be told", reason, None)
        last = self.equal[-1]
        which = "at step" if len(self.equal) == 1 else f"at {len(self.equal)} steps, up to step"
        reason = f"Every bit of their checkpoints agrees {which} {last}"
        if self.unread:
            reason = f"All that could be read agrees {which} {last}"
            return self._answer("cannot be told", f"{reason}, and not everything could be.", last)
        if self.damaged:
            steps = and_more([str(step) for step in self.damaged], STEPS_SHOWN)
            return self._answer("cannot be told", f"{reason}; step {steps} is damaged.", last)
        reach = min(max(side.steps) for side in self.sides)
        if reach > last:
            also = f"; both went on to step {reach}, and no later step is in both"
            return self._answer("cannot be told", f"{reason}{also}.", last)
        return self._answer("same", f"{reason}.", last)

    def _answer(self, verdict: Any, reason: str, step: int | None) -> Comparison:
        return Comparison(verdict, reason, step, digests=self.digests, notes=self._all_notes())

    def _all_notes(self) -> tuple[str, ...]:
        alone = []
        for side, other in (self.sides, self.sides[::-1]):
            steps = [str(step) for step in side.steps if step not in other.steps]
            if steps:
                alone.append(f"Only {side.path} has step {and_more(steps, STEPS_SHOWN)}.")
        return (*self.notes, *alone)


def _step_of_other(store: FoundArrays, other: FoundArrays) -> int:
    """Return the step of a store that a single checkpoint is compared with."""
    if other.kind == "checkpoint":
        seal = arrays_of(other).seal
        if seal and seal.step in store.steps:
            return seal.step
    some = list(store.steps.values())[-1]
    raise CheckpointError(
        "compare",
        store.words,
        path=store.path,
        expected=f"the step of {other.path} in it, or two stores",
        got=f"{and_more([f'step {step}' for step in store.steps], STEPS_SHOWN)}",
        do=f"Name one of its checkpoints, such as {some}.",
    )


def _not_known(
    one: Stored, other: Stored, stores: tuple[FoundArrays, FoundArrays] | None = None
) -> tuple[str, ...]:
    """Say what is not known of two sets of arrays; once of each store, if they are of stores."""
    notes = []
    if one.seal and other.seal and one.seal.step != other.seal.step:
        notes.append(f"a is step {one.seal.step}, and b is step {other.seal.step}.")
    paths = [each.path for each in stores] if stores else [one.path, other.path]
    for side, path in zip((one, other), paths, strict=True):
        if not side.seal:
            notes.append(f"{path} has no seal: nothing says whether it is as it was written.")
        elif not side.seal.state:
            notes.append(f"The seal of {side.path} does not say what there is beside the bits.")
        notes += [f"{name} in {side.path} could not be read as arrays." for name in side.unread]
        nodes = side.seal.state.nodes.items() if side.seal and side.seal.state else ()
        for name, node in nodes:
            notes += [f"Not compared in node {name}: {what}." for what in node.not_compared]
    if _one_has_keys(one, other):
        notes.append("Keys are compared by their data: one side does not say what kind they are.")
    return tuple(dict.fromkeys(notes))


def _beside(one: Seal, other: Seal) -> Iterator[StateDifference]:
    """Yield what two seals say beside the bits and do not have in common."""
    if not (one.state and other.state):
        return
    yield from tie_differences(one.state.tied, other.state.tied)
    yield from static_differences(one.state.nodes, other.state.nodes)
    for name in sorted(one.leaves.keys() & other.leaves.keys()):
        weak = [side.leaves[name].weak for side in (one, other)]
        if weak[0] != weak[1]:
            a, b = ("a weak type" if each else "a strong type" for each in weak)
            yield StateDifference(f"leaf {name}", a, b)


def _kind_at(leaves: Mapping[str, Any], name: str) -> str:
    return kind_text(leaves[name].dtype, leaves[name].shape) if name in leaves else "none"


def _one_has_keys(one: Stored, other: Stored) -> bool:
    """Say whether one side has typed keys, and the other cannot."""
    return bool(one.seal) != bool(other.seal) and any(
        is_key(value) for side in (one, other) for value in side.values.values()
    )


def _as_data(stored: Stored) -> Stored:
    """Return the same with the data of typed keys in their place."""
    values, leaves = dict(stored.values), dict(stored.leaves)
    for name in [name for name, value in values.items() if is_key(value)]:
        data = values[name] = plain(values[name])
        digest = leaf_digests([data])["[0]"]
        leaves[name] = dataclasses.replace(
            leaves[name], dtype=data.dtype.name, shape=data.shape, digest=digest, prng=""
        )
    return dataclasses.replace(stored, values=values, leaves=leaves)
