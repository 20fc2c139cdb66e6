"""What an audit comes to, and the sentences for it.

The rule: "verified" names what was computed again and what follows from it, and no more.
Chapter: docs/guide/verification.md
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from reproducibility.errors import ExitCode
from reproducibility.machine.environment import Environment

type AuditVerdict = Literal["verified", "refuted", "unverifiable"]

# What no audit of a part, or of the whole, can check.
TAKEN_ON_TRUST = (
    "when, where and by whom the run was made, on what machine, and how long it took",
    "that no other run was made and thrown away",
    "that the data is what it is called",
    "that this machine computes what is right",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """What `audit` found.

    Same bits: "verified" means that the steps named in `recomputed` have the recorded bits here.
    """

    verdict: AuditVerdict
    """ "verified", "refuted" or "unverifiable"."""
    reason: str
    """The verdict in one sentence."""
    run: str
    """The name of the run."""
    steps: int
    """The last step of the run."""
    recomputed: tuple[tuple[int, int], ...] = ()
    """The stretches that were computed again and agree: completed updates before and after."""
    stretches: int = 0
    """How many stretches the run has."""
    lines: int = 0
    """Lines of the ledger that were compared, losses included."""
    chance: float | None = None
    """How likely one altered stretch was missed; None where the stretches were not drawn."""
    challenge: str | None = None
    """The text that decided which were drawn."""
    root: str | None = None
    """The root of the commitment to what was audited."""
    committed: bool = False
    """Whether that commitment was given."""
    result: bool = False
    """Whether the run has a result, which was computed again from the last checkpoint."""
    step: int | None = None
    """The first step that came out different."""
    stage: str | None = None
    """And the first stage of it."""
    leaf: str | None = None
    """And the first leaf of that."""
    settings: Environment = dataclasses.field(default_factory=dict)
    """The recorded settings under which it was computed, as far as they are unusual."""
    notes: tuple[str, ...] = ()
    """What limits the verdict."""
    on_trust: tuple[str, ...] = TAKEN_ON_TRUST
    """What was not checked, because no audit can."""

    @property
    def exit_code(self) -> int:
        """0 verified, 1 refuted, 3 unverifiable."""
        codes = (ExitCode.SAME, ExitCode.DIFFERENT, ExitCode.CANNOT_BE_TOLD)
        return dict(zip(("verified", "refuted", "unverifiable"), codes, strict=True))[self.verdict]

    @property
    def count(self) -> int:
        """How many steps were computed again and agree."""
        return sum(end - start for start, end in self.recomputed)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**dataclasses.asdict(self), "fraction": self.count / max(self.steps, 1)}


def words_of_success(found: Audit) -> str:
    """Say what was verified, and what follows from it for the rest.

    Same bits: everywhere.

    Args:
        found: the audit, without its reason.
    """
    share = f"{found.count} of {found.steps} steps"
    if found.count == found.steps:
        share = f"All {found.steps} steps"
    were = "was" if found.count == found.steps == 1 else "were"
    words = f"{share} {were} computed again here and have the recorded bits."
    if found.count == found.steps:
        return words
    if found.chance is None:
        return f"{words} Nothing follows for the others: they were not drawn at random."
    return (
        f"{words} If one stretch had been altered before the challenge was known, the chance of "
        f"missing it was {found.chance:.1%}."
    )


def rows_of_audit(found: Audit) -> list[tuple[str, str]]:
    """Return the lines of a table that says what was found.

    Same bits: everywhere.

    Args:
        found: the audit.
    """
    spans = ", ".join(f"{start}:{end}" for start, end in found.recomputed) or "none"
    rows = [
        ("verdict", found.verdict),
        ("reason", found.reason),
        ("run", found.run),
        ("steps", f"{found.count} of {found.steps} computed again"),
        ("stretches", f"{spans} (of {found.stretches})"),
        ("lines", f"{found.lines} of the ledger compared, losses included"),
    ]
    if found.challenge is not None:
        rows.append(("challenge", found.challenge))
    if found.root:
        given = "the one that was given" if found.committed else "none was given; this is its root"
        rows.append(("commitment", f"{found.root} ({given})"))
    place = [text for text in (found.stage, found.leaf) if text]
    if found.step is not None:
        rows.append(("differs", ", ".join([f"step {found.step}", *place])))
    rows += [("computed under", f"{name}={value}") for name, value in found.settings.items()]
    rows += [("note", note) for note in found.notes]
    return rows + [("not checked", text) for text in found.on_trust]
