"""The command that asks this machine.

The rule: a question that could not be asked is never a yes.
Chapter: docs/guide/using_the_project.md
"""

from __future__ import annotations

import dataclasses

from reproducibility.cli.terminal import print_diagnosis, print_outcome, say_on_stderr


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorCommand:
    """Say whether this machine reproduces itself: train, repeat, interrupt, resume, compare.

    It also runs small programs that computed wrong values on some version or platform, after
    published issues, and says what this machine makes of them.

    Exit code: 0 it does, 1 it does not or computes wrong values, 2 refused, 3 cannot be told.

    Example: reproducibility doctor --accept xla-49176
    """

    accept: tuple[str, ...] = ()
    """Published faults, by name, that are reported and do not count."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> int:
        """Diagnose, print the environment and the answers."""
        from reproducibility.reference.doctor import diagnose

        found = diagnose(accept=self.accept, progress=lambda text: say_on_stderr(f"{text} …"))
        return print_outcome(found, print_diagnosis, found.reasons, as_json=self.json)
