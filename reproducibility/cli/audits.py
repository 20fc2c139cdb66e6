"""The commands that serve somebody else: a run is committed to, packed and audited.

The rule: a verdict says what was computed again, and never more.
Chapter: docs/guide/verification.md
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from reproducibility.cli.arguments import check_output_file, checked_step
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


def _give(found: dict[str, Any], out: Path | None) -> int:
    """Write a statement, or print it."""
    if out:
        write_atomically(out, readable_json(found))
    else:
        print(json.dumps(found, indent=1))
    return ExitCode.SAME
