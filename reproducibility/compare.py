"""Two runs in; whether they are the same out, and what can explain it if they are not.

The rule: the verdict comes from digests alone. A difference of settings or environment explains;
it never decides.
Chapter: docs/workflow/complete_flow.md
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path
from typing import Any, Literal, TypeAlias

from reproducibility.checkpoint import saved_steps
from reproducibility.environment import Difference, differences
from reproducibility.hashing import leaf_digests, tree_digest
from reproducibility.run import Result, Run, read_result
from reproducibility.training import restore_state

Verdict: TypeAlias = Literal["same", "different", "cannot be told"]
EXIT_CODES: dict[Verdict, int] = {"same": 0, "different": 1, "cannot be told": 3}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Same bits: decided by the digests of the two states alone.
    """

    verdict: Verdict
    """ "same", "different" or "cannot be told"."""
    reason: str
    """The verdict in one sentence."""
    step: int | None
    """Completed updates at which the two were compared."""
    digests: tuple[str | None, str | None]
    """The two digests that were compared."""
    leaves: tuple[str, ...]
    """Leaves that differ, where both states are on disk."""
    settings: dict[str, tuple[Any, Any]]
    """Settings of the identity that differ, where both are run directories."""
    environment: tuple[Difference, ...]
    """Recorded differences of the environment, those known to change bits first."""

    @property
    def exit_code(self) -> int:
        """0 the same, 1 different, 3 cannot be told."""
        return EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values.

        Same bits: everywhere.
        """
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class _Side:
    """One of the two things to compare: a run directory, or a result file alone."""

    run: Run | None
    result: Result | None

    @property
    def steps(self) -> set[int]:
        """Steps of which a state is on disk."""
        return set(saved_steps(self.run.checkpoints)) if self.run else set()


def compare(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Comparison:
    """Compare two runs: run directories, or result files that `train --out` wrote.

    Finished runs of the same length are compared by their results; others at the newest step of
    which both have a checkpoint.

    **Same bits:** the verdict "same" means that every bit of both states is equal: parameters,
    optimiser state, step and key.

    Args:
        a: a run directory or a result file.
        b: a run directory or a result file.

    Returns:
        The verdict, and what differs in settings and environment.

    Raises:
        RunError: one of the two is neither; the message says which.

    Examples:
        >>> import tempfile
        >>> from reproducibility import TrainConfig, train
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("a", "b"):
        ...     _ = train(TrainConfig(seed=7, steps=2, shards=1), run_dir=folder / name)
        >>> compare(folder / "a", folder / "b").verdict
        'same'
    """
    left, right = _open(a), _open(b)
    settings, environment = _explanations(left, right)
    step, digests, leaves = _common_state(left, right)
    if step is None:
        verdict: Verdict = "cannot be told"
        reason = "The two have no step in common of which both states are known."
    elif digests[0] == digests[1]:
        recorded = all(side.result and side.result.steps == step for side in (left, right))
        by = ", by their results" if recorded else ""
        verdict, reason = "same", f"Every bit of both states agrees after {step} updates{by}."
    else:
        verdict, reason = "different", f"The states differ after {step} updates{_of(leaves)}."
    return Comparison(verdict, reason, step, digests, leaves, settings, environment)


def _open(path: str | os.PathLike[str]) -> _Side:
    if Path(path).is_dir():
        run = Run.read(path)
        return _Side(run, run.result())
    return _Side(None, read_result(path))


def _common_state(
    left: _Side, right: _Side
) -> tuple[int | None, tuple[str | None, str | None], tuple[str, ...]]:
    """Find the newest step whose states both sides know; compare there."""
    a, b = left.result, right.result
    if a and b and a.steps == b.steps and (a.digest == b.digest or not (left.run and right.run)):
        return a.steps, (a.digest, b.digest), ()
    common = left.steps & right.steps
    if common and left.run and right.run:
        step = max(common)
        states = [restore_state(run, step=step) for run in (left.run, right.run)]
        digests = tree_digest(states[0]), tree_digest(states[1])
        first, second = map(leaf_digests, states)
        names = sorted(first.keys() | second.keys())
        return step, digests, tuple(n for n in names if first.get(n) != second.get(n))
    if a and b and a.steps == b.steps:
        return a.steps, (a.digest, b.digest), ()
    return None, (a.digest if a else None, b.digest if b else None), ()


def _explanations(
    left: _Side, right: _Side
) -> tuple[dict[str, tuple[Any, Any]], tuple[Difference, ...]]:
    """List the settings and the recorded environments that differ."""
    if not (left.run and right.run):
        return {}, ()
    a, b = left.run.identity, right.run.identity
    names = sorted(a.keys() | b.keys())
    settings = {n: (a.get(n), b.get(n)) for n in names if a.get(n) != b.get(n)}
    found = [
        difference
        for here, there in itertools.product(_environments(left.run), _environments(right.run))
        for difference in differences(here, there)
    ]
    return settings, tuple(dict.fromkeys(found))


def _environments(run: Run) -> list[Any]:
    """Return the recorded environment of each attempt on a run, without repeats."""
    starts = [line for line in run.attempts() if line.get("event") == "start"]
    unique: list[Any] = []
    for line in starts:
        if line["environment"] not in unique:
            unique.append(line["environment"])
    return unique


def _of(leaves: tuple[str, ...]) -> str:
    if not leaves:
        return ""
    rest = f" and {len(leaves) - 1} more" if len(leaves) > 1 else ""
    return f", in {leaves[0]}{rest}"
