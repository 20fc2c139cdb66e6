"""What comparing two runs, or two checkpoints, comes to.

The rule: a verdict, the place where the two diverge, and how far they are apart there.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from reproducibility.errors import ExitCode
from reproducibility.machine.environment import Difference
from reproducibility.recording.walk import Losses

if TYPE_CHECKING:
    from reproducibility.same.distance import Distance

type Verdict = Literal["same", "different", "cannot be told"]


@dataclasses.dataclass(frozen=True)
class Recomputed:
    """What came of computing the first step that differs again, for one of the two runs."""

    answer: str
    """ "confirmed", "refuted" or "cannot be told"; see `replay`."""
    reason: str
    """The answer in one sentence."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Same bits: decided by digests and fingerprints alone.
    """

    verdict: Verdict
    """ "same", "different" or "cannot be told"."""
    reason: str
    """The verdict in one sentence."""
    step: int | None
    """Completed updates at which the two were found to differ, or were compared."""
    stage: str | None = None
    """The first stage of that step that differs, in the order of cause and effect: "batch",
    "key", "gradients", "opt_state" or "params"; None where no ledger tells."""
    stages: tuple[str, ...] = ()
    """All stages of that step that differ."""
    leaves: tuple[str, ...] = ()
    """Leaves that differ: of that stage, or of the whole state where there is no stage."""
    distances: Mapping[str, Distance] = dataclasses.field(default_factory=dict)
    """How far those leaves are apart, where the step was computed again or a state is on disk."""
    recomputed: tuple[Recomputed, Recomputed] | None = None
    """What came of computing the step again; None where it was not tried."""
    digests: tuple[str | None, str | None] = (None, None)
    """Digests of the two states that were compared, or of the last that are known."""
    settings: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
    """Settings of the identity that differ, where both are run directories."""
    environment: tuple[Difference, ...] = ()
    """Recorded differences of environment, layout and programs, the gravest first."""
    notes: tuple[str, ...] = ()
    """What limits the answer, such as a ledger that is damaged."""
    since: int = -1
    """The last step before `step` that was found to agree; -1 if there is none."""
    losses: Losses = dataclasses.field(default_factory=list)
    """Losses of both by step, as hexadecimal floats, around the diverging step and after it."""
    kinds: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """Dtype and shape of leaves that differ on either side, where they are not the same: "none"
    where one side has no such leaf."""

    @property
    def exit_code(self) -> int:
        """0 the same, 1 different, 3 cannot be told."""
        return ExitCode.of(self.verdict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values.

        Same bits: everywhere.
        """
        return dataclasses.asdict(self)


def distances_of(
    a: Mapping[str, Any], b: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Distance]:
    """Measure the leaves that both sides have, with one shape and dtype.

    Args:
        a: leaves by name.
        b: those of the other side.
        names: which of them to measure.
    """
    from reproducibility.same.distance import distance

    kinds = {n: [(x[n].shape, x[n].dtype.name) for x in (a, b) if n in x] for n in names}
    return {
        n: distance(a[n], b[n]) for n in names if len(kinds[n]) == 2 == kinds[n].count(kinds[n][0])
    }


def loss_of(text: str | None) -> float:
    """Read a loss of `Comparison.losses`; NaN where there is none, or no number.

    **Same bits:** everywhere.

    Args:
        text: a hexadecimal float or None.

    Examples:
        >>> loss_of("0x1.8p+1")
        3.0
    """
    try:
        return float.fromhex(text or "nan")
    except (TypeError, ValueError):  # a chain can be computed of anything
        return math.nan
