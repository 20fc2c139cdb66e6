"""Two runs in; the first step, stage and leaf that differ out, how far, and what may explain it.

The rule: the verdict comes from digests and fingerprints alone. A difference of settings or
environment explains; it never decides.
Chapter: docs/guide/flight_recorder.md

What is on disk as text is compared without JAX. It is imported where arrays are: to compute a step
again, or to restore two states.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reproducibility.errors import ReplayError, RunError, and_more
from reproducibility.explain.comparison import Comparison, Recomputed, distances_of
from reproducibility.explain.sides import Side, environments_of, reach_of, side_at, what_may_explain
from reproducibility.recording.lines import FIELDS, differing
from reproducibility.recording.static_facts import (
    static_beside,
    static_divergence,
    static_not_compared,
)
from reproducibility.recording.walk import LedgerDivergence, Walk, walk_together

if TYPE_CHECKING:
    from reproducibility.explain.replay import Replay
    from reproducibility.same.distance import Distance


def compare(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    replay: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Compare two runs: run directories, ledgers, or result files that `train --out` wrote.

    Ledgers tell the first step, stage and leaf that differ. Without them, finished runs of the
    same length are compared by their results; others at the newest step of which both have a
    checkpoint.

    **Same bits:** "same" by digests means that every bit of both states is equal: parameters,
    optimiser state, step and key. By ledgers it means that all recorded fingerprints of 64 bits
    are, which other values have by chance once in 2**64.

    Args:
        a: a run directory, a `ledger.jsonl`, a result file, or what has arrays in it: a store of
            checkpoints, one of them, a folder of Orbax's, a `.npz`, `.npy` or `.safetensors` file.
        b: another one.
        replay: compute the first step that differs again for both runs, each in a process with its
            recorded environment, to tell how many elements differ and by how much.
        progress: called with what is being done.

    Returns:
        The verdict, where the two diverge, and what differs in settings and environment.

    Raises:
        RunError: one of the two is none of these; the message says which.

    Examples:
        >>> import tempfile
        >>> from reproducibility import TrainConfig, train
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, rate in {"a": 0.001, "b": 0.002}.items():
        ...     config = TrainConfig(seed=7, steps=2, shards=1, learning_rate=rate)
        ...     _ = train(config, run_dir=folder / name)
        >>> found = compare(folder / "a", folder / "b")
        >>> found.verdict, found.step, found.stage, found.settings
        ('different', 1, 'params', {'learning_rate': (0.001, 0.002)})
    """
    left, right = side_at(Path(a)), side_at(Path(b))
    if left.alone or right.alone:
        return _by_arrays(left, right, progress)
    walked = walk_together(left.ledger, right.ledger) if left.ledger and right.ledger else None
    found = _by_ledger(left, right, walked) if walked and walked.divergence else None
    if walked and found and replay:
        found = _recompute(found, left, right, walked, progress)
    settings, environment = what_may_explain(left, right)
    found = _with_static_data(found or _by_checkpoints(left, right, walked, progress), left, right)
    return dataclasses.replace(
        found,
        settings=settings,
        environment=environment,
        notes=(*left.notes, *right.notes, *_problems(left, right, walked), *found.notes),
        losses=walked.losses if walked else [],
    )


def _by_arrays(left: Side, right: Side, progress: Callable[[str], None] | None) -> Comparison:
    """Compare arrays, where one side has nothing else."""
    if not (left.arrays and right.arrays):
        side, other = (left, right) if right.alone else (right, left)
        thing = f"{side.words} with {other.words}"
        expected = "arrays on both sides, or records on both"
        got = f"{side.words} without checkpoints" if side.run else f"{side.words} alone"
        do = "Give two runs, two ledgers, two results, or two stores, checkpoints or files."
        raise RunError("compare", thing, path=side.path, expected=expected, got=got, do=do)
    from reproducibility.explain.checkpoints import compare_stored

    return compare_stored(left.arrays, right.arrays, progress)


def _by_checkpoints(
    left: Side, right: Side, walked: Walk | None, progress: Callable[[str], None] | None
) -> Comparison:
    """Compare checkpoints where no ledger tells where the two diverge."""
    runs = left.run and right.run
    found = _by_state(left, right, walked) if runs or not (left.arrays and right.arrays) else None
    if found and (walked or found.verdict == "same" or len(left.steps & right.steps) < 2):
        return found
    from reproducibility.explain.checkpoints import compare_stored

    stored = compare_stored(left.arrays, right.arrays, progress)  # type: ignore[arg-type]
    if found:
        return stored if stored.verdict == "different" else found
    if stored.step is None and not (left.arrays.steps.keys() & right.arrays.steps.keys()):  # type: ignore[union-attr]
        by_ledger = _by_state(left, right, walked)
        return dataclasses.replace(by_ledger, notes=(*stored.notes, stored.reason))
    return stored


def _by_ledger(left: Side, right: Side, walked: Walk) -> Comparison:
    """Say where two ledgers diverge."""
    divergence: LedgerDivergence = walked.divergence  # type: ignore[assignment]
    when = f"step {divergence.step}" if divergence.step else "the start"
    first = max(divergence.since, 0) + 1
    if first < divergence.step:
        when = f"a step from {first} to {divergence.step}"
    where = f"{divergence.stage}{_stage_leaves(divergence.leaves)}"
    one, other = left.result, right.result
    digests = (one.digest if one else None, other.digest if other else None)
    return Comparison(
        "different",
        f"They diverge at {when}, first in {where}.",
        divergence.step,
        divergence.stage,
        divergence.stages,
        divergence.leaves,
        digests=digests,
        since=divergence.since,
    )


def _recompute(
    found: Comparison,
    left: Side,
    right: Side,
    walked: Walk,
    progress: Callable[[str], None] | None,
) -> Comparison:
    """Compute the first step that differs again on both sides, and measure the distance."""
    from reproducibility.explain.child import side_by_side
    from reproducibility.explain.replay import replay

    divergence: LedgerDivergence = walked.divergence  # type: ignore[assignment]
    if not (left.run and right.run):
        unknown = Recomputed("cannot be told", "A ledger alone cannot be computed again.")
        return dataclasses.replace(found, recomputed=(unknown, unknown))

    def both(step: int, since: int) -> list[Replay | Recomputed]:
        one = partial(_replayed, partial(replay, since=since, progress=progress), step)
        return side_by_side(one, (left.path, right.path), load="reproducibility.same.distance")

    sides = both(divergence.step, divergence.since)
    one, other = (Recomputed(side.answer, side.reason) for side in sides)
    found = dataclasses.replace(found, recomputed=(one, other))
    exact = _first_exact(sides)
    if exact and exact[0] != divergence.step:  # not every step is recorded
        sides = both(exact[0], exact[0] - 1)
    if not exact or any(isinstance(side, Recomputed) for side in sides):
        return found
    return _withdistances_of(found, exact, sides)


def _replayed(replay: Callable[[Path, int], Replay], step: int, path: Path) -> Replay | Recomputed:
    try:
        return replay(path, step)
    except ReplayError as error:
        return Recomputed("cannot be told", str(error))


def _first_exact(
    sides: Sequence[Replay | Recomputed],
) -> tuple[int, dict[str, tuple[str, ...]]] | None:
    """Return the first step of both that came out different now, and in what.

    Nothing, unless both came out as recorded: else these are not the runs that are compared.
    """
    if [side.answer for side in sides] != ["confirmed", "confirmed"]:
        return None
    one, other = (side.entries for side in sides)  # type: ignore[union-attr]
    for step in sorted(one.keys() & other.keys()):
        if stages := differing(one[step], other[step]):
            return step, stages
    return None


def _withdistances_of(
    found: Comparison, exact: tuple[int, dict[str, tuple[str, ...]]], sides: Any
) -> Comparison:
    """Say how far the leaves of the first stage are apart, from the arrays of both sides."""
    step, stages = exact
    stage = next(iter(stages))
    leaves = stages[stage]
    one, other = (side.values.get(stage, {}) for side in sides)  # of the loss there are none
    distances = distances_of(one, other, leaves)
    when = f"step {step}" if step else "the start"
    reason = f"They diverge at {when}, first in {stage}{_stage_leaves(leaves)}."
    return dataclasses.replace(
        found,
        reason=reason,
        step=step,
        since=step - 1,
        stage=stage,
        stages=tuple(stages),
        leaves=leaves,
        distances=distances,
    )


def _by_state(left: Side, right: Side, walked: Walk | None) -> Comparison:
    """Compare digests; where there are none in common, ledgers that agree are the answer."""
    step, digests, leaves, distances = _common_state(left, right)
    one, other = left.result, right.result
    if step is not None and digests[0] == digests[1]:
        if one and other and one.steps == other.steps and one.digest != other.digest:
            reason = f"The results differ after {one.steps} updates; the states agree at {step}."
            ends = one.digest, other.digest
            return Comparison("different", reason, one.steps, digests=ends, since=step)
        agreed = max(step, walked.last) if walked and not any(walked.problems) else step
        if agreed < (reach := min(reach_of(left), reach_of(right))):
            reason = (
                f"Every bit of both states agrees after {step} updates; both went on to step "
                f"{reach}, of which no common record tells."
            )
            return Comparison("cannot be told", reason, step, digests=digests)
        recorded = all(side.result and side.result.steps == step for side in (left, right))
        by = ", by their results" if recorded else ""
        reason = f"Every bit of both states agrees after {step} updates{by}."
        return Comparison("same", reason, step, digests=digests)
    if step is not None:
        since = f"; their ledgers agree up to step {walked.last}" if walked else ""
        reason = f"The states differ after {step} updates{_state_leaves(leaves)}{since}."
        return Comparison(
            "different", reason, step, leaves=leaves, distances=distances, digests=digests
        )
    if walked and not set.intersection(*_stages(left, right)):
        reason = "The two ledgers have no stage in common."
        return Comparison("cannot be told", reason, None, digests=digests)
    reach = min(reach_of(left), reach_of(right))
    if walked and 0 <= walked.last < max(reach, 1) and not any(walked.problems):
        reason = (
            f"What both recorded agrees, up to step {walked.last}; both went on to step {reach}, "
            "of which no common record tells."
        )
        return Comparison("cannot be told", reason, walked.last, digests=digests)
    if walked and walked.last >= 0 and not any(walked.problems):
        reason = f"All that both recorded agrees, up to step {walked.last}."
        return Comparison("same", reason, walked.last, digests=digests)
    if walked and walked.last >= 0:
        reason = f"A ledger is damaged; what both recorded before that agrees, to {walked.last}."
        return Comparison("cannot be told", reason, walked.last, digests=digests)
    reason = "The two have no step in common of which both states are known."
    return Comparison("cannot be told", reason, None, digests=digests)


def _common_state(
    left: Side, right: Side
) -> tuple[int | None, tuple[str | None, str | None], tuple[str, ...], dict[str, Distance]]:
    """Find the newest step whose states both sides know; compare there."""
    a, b = left.result, right.result
    digests = (a.digest if a else None, b.digest if b else None)
    alike = bool(a and b and a.steps == b.steps)
    common = left.steps & right.steps
    if a and alike and (digests[0] == digests[1] or not common):
        return a.steps, digests, (), {}
    if not (common and left.run and right.run):
        return None, digests, (), {}
    from reproducibility.reference.resume import restore_state
    from reproducibility.same.hashing import leaf_digests, tree_digest
    from reproducibility.same.leaves import leaves_by_name

    step = max(common)
    states = [restore_state(run, step=step) for run in (left.run, right.run)]
    first, second = map(leaf_digests, states)
    names = tuple(sorted(n for n in {**first, **second} if first.get(n) != second.get(n)))
    one, other = map(leaves_by_name, states)
    return (
        step,
        (tree_digest(states[0]), tree_digest(states[1])),
        names,
        distances_of(one, other, names),
    )


def _with_static_data(found: Comparison, left: Side, right: Side) -> Comparison:
    """Let two runs whose arrays agree be no more the same than their static data is."""
    differs = _static_divergence(left, right)
    if not differs or found.verdict != "same":
        return found
    step, where = differs
    reason = f"All arrays that both recorded agree; from step {step} on, static data differs: "
    return dataclasses.replace(
        found, verdict="different", reason=f"{reason}{where}.", step=step, since=step - 1
    )


def _static_divergence(left: Side, right: Side) -> tuple[int, str] | None:
    if not (left.ledger and right.ledger):
        return None
    last = min(side.ledger.last or 0 for side in (left, right) if side.ledger)
    return static_divergence(left.ledger.path, right.ledger.path, last)


def _static_words(left: Side, right: Side) -> list[str]:
    notes = []
    if differs := _static_divergence(left, right):
        notes.append("From step {} on, static data differs: {}.".format(*differs))
    alone = [side.path for side in (left, right) if side.ledger and static_beside(side.ledger.path)]
    if len(alone) == 1:
        notes.append(f"Static data is noted of {alone[0]} alone: it was not compared.")
    unknown = [static_not_compared(side.ledger.path) for side in (left, right) if side.ledger]
    if some := sorted({*unknown[0], *unknown[1]}):
        notes.append(f"Of static data, not compared: {', '.join(some)}.")
    return notes


def _problems(left: Side, right: Side, walked: Walk | None) -> list[str]:
    """Say up to where a ledger was used that is not intact, and what only one of the two has."""
    if not walked:
        return []
    notes = []
    for side, problem in zip((left, right), walked.problems, strict=True):
        last: int | None = side.ledger.last  # type: ignore[union-attr]
        upto = "not read" if last is None else f"read up to step {last}"
        notes += [f"The ledger of {side.path} was {upto}: {problem}."] if problem else []
    one, other = _stages(left, right)
    alone = [name for name in FIELDS if name in one ^ other | walked.alone]
    if alone and not any(walked.problems):
        notes.append(f"Only one of the two ledgers has {', '.join(alone)}.")
    notes += _static_words(left, right)
    divergence = walked.divergence
    if walked.missing:
        *some, last_one = walked.missing
        before = f"{', '.join(some)} and {last_one} were" if some else f"{last_one} was"
        notes.append(f"Of that step, {before} not recorded: it may have begun there.")
    known = [side.path for side in (left, right) if not environments_of(side)]
    if divergence and len(known) == 1:
        notes.append(f"No environment is recorded of {known[0]}.")
    return notes


def _stages(left: Side, right: Side) -> tuple[set[str], set[str]]:
    """Return what is recorded in each of two ledgers that were read."""
    one, other = (set(side.ledger.header.leaves) for side in (left, right) if side.ledger)
    return one, other


def _stage_leaves(leaves: tuple[str, ...]) -> str:
    """Name the leaves of a stage; a stage that is one bare array has no name to add."""
    return f", {and_more(leaves)}" if leaves and leaves != (".",) else ""


def _state_leaves(leaves: tuple[str, ...]) -> str:
    return f", in {and_more(leaves)}" if leaves else ""
