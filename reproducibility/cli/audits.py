"""The commands that serve somebody else: a run is committed to, packed and audited.

The rule: a verdict says what was computed again, and never more.
Chapter: docs/guide/verification.md
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from reproducibility.cli.arguments import check_output_file, checked_step
from reproducibility.cli.terminal import (
    patient_progress,
    print_audit,
    print_outcome,
    say_on_stderr,
)
from reproducibility.errors import ConfigError, ExitCode
from reproducibility.storage.files import readable_json, write_atomically


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommitCommand:
    """Make a short statement of all that a run is, to publish before anyone says what to audit.

    It has one digest of the identity, the ledger, the checkpoints and the result. An audit that is
    given the statement sees any later change. It says nothing of how the run was made.

    Exit code: 0 done, 2 not a run, or one that is not as it was written, 4 a process is at work.

    Example: reproducibility commit runs/first --out first.commitment.json
    """

    run: Path
    """A run directory."""
    out: Path | None = None
    """Write it here; by default it is printed."""
    prove_step: int | None = None
    """Instead, prove that the line of this step is in the commitment."""
    prove_checkpoint: int | None = None
    """Instead, prove that the seal of this checkpoint is in it."""

    def __call__(self) -> int:
        """Read the run, print the statement or the proof."""
        from reproducibility.evidence.commitment import commit, prove

        if self.out:
            check_output_file("--out", self.out, {self.run: "the run"}, "nothing was written")
        asked = [step for step in (self.prove_step, self.prove_checkpoint) if step is not None]
        if len(asked) == 2:
            do = "Leave one out."
            raise ConfigError("use", "--prove-checkpoint", expected="it alone", got="both", do=do)
        if asked:
            checked_step(asked[0], "Name one that the run has.")
            found = prove(self.run, step=self.prove_step, checkpoint=self.prove_checkpoint)
        else:
            found = commit(self.run).to_json()
        return _give(found, self.out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditCommand:
    """Check a run of somebody else by computing a part of it again.

    Chain, seals, identity and result are checked whole. Stretches from one checkpoint to the next
    are computed again in the recorded environment, and compared with the ledger line by line,
    losses included. The verdict says how much that was, and what follows for the rest.

    An audit that was interrupted goes on with the same command.

    Exit code: 0 verified, 1 refuted, 2 nothing to audit, 3 unverifiable, 4 a process is at work.

    Example: reproducibility audit runs/first --random 5 --challenge "a text chosen afterwards"
    """

    run: Path
    """A run directory, or a proof that `commit` wrote."""
    steps: str | None = None
    """Compute the steps after A up to B again: A:B."""
    random: int | None = None
    """Or so many stretches, drawn by the challenge; 1 by default."""
    budget: str | None = None
    """Or as many as this time is enough for, such as 90s, 10m or 2h, drawn by the challenge."""
    challenge: str | None = None
    """A text that nobody knew when the run was made; by default it is drawn and printed."""
    commitment: Path | None = None
    """What `commit` wrote before: a run that was changed afterwards is refuted."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> int:
        """Audit, print the verdict and what it rests on."""
        from reproducibility.evidence.audit import audit
        from reproducibility.evidence.request import Request

        if self.run.is_file() and self.run.suffix == ".json":
            return self._of_a_proof()
        request = Request(
            steps=_asked_steps(self.steps),
            random=self.random,
            budget=_asked_seconds(self.budget),
            challenge=self.challenge,
        )
        found = audit(
            self.run, request=request, commitment=self.commitment, progress=patient_progress()
        )
        reasons = [found.reason] if found.exit_code else []
        return print_outcome(found, print_audit, reasons, as_json=self.json)

    def _of_a_proof(self) -> int:
        """Check a proof against a commitment."""
        from reproducibility.evidence.commitment import check_proof, read_commitment

        if not self.commitment:
            do = "Give the commitment that the proof is for."
            raise ConfigError("use", str(self.run), expected="--commitment", got="none", do=do)
        what, problem = check_proof(self.run, read_commitment(self.commitment))
        if problem:
            say_on_stderr(f"Refuted: {self.run} proves nothing of {what}: {problem}.")
            return ExitCode.DIFFERENT
        print(f"{what} is in the commitment. Nothing was computed again.")
        return ExitCode.SAME


def _asked_steps(text: str | None) -> tuple[int, int] | None:
    """Read A:B."""
    found = re.fullmatch(r"([0-9]{1,15}):([0-9]{1,15})", text or "")
    if text is not None and not found:
        do = "For example: --steps 400:500."
        raise ConfigError("use", "--steps", expected="A:B", got=repr(text), do=do)
    return (int(found[1]), int(found[2])) if found else None


def _asked_seconds(text: str | None) -> float | None:
    """Read a time such as 10m."""
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smh])", text or "")
    if text is not None and not found:
        expected, do = "a time with its unit, s, m or h", "For example: --budget 10m."
        raise ConfigError("use", "--budget", expected=expected, got=repr(text), do=do)
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else None


def _give(found: dict[str, Any], out: Path | None) -> int:
    """Write a statement, or print it."""
    if out:
        write_atomically(out, readable_json(found))
    else:
        print(json.dumps(found, indent=1))
    return ExitCode.SAME
