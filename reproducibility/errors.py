"""Every exception that this package raises on purpose, and every exit code.

The rule: say what cannot be done, what was expected, what came instead, and what to do about it.
Chapter: docs/reference/errors.md

    ReproducibilityError
    ├── ConfigError               a setting or an ambient option was refused
    ├── KeyTypeError              not one typed JAX key
    ├── LeafError                 a leaf of a tree that has no digest
    ├── CheckpointError           no such checkpoint, or one that is there already
    │   ├── CheckpointMismatchError   it holds another tree than the one asked for
    │   ├── CheckpointDamagedError    its bytes are not those that were sealed
    │   ├── CheckpointReadError       it could not be read, and nothing says that it is damaged
    │   └── CheckpointSaveError       it could not be written
    ├── RunError                  a path that is not (or not yet) a usable run
    │   ├── IdentityMismatchError     the directory belongs to a run with other settings
    │   ├── RunDamagedError           a file of the run is not as it was written
    │   ├── NotReproducedError        a run was computed again and has other bits
    │   ├── RunSaveError              a file of a run could not be written
    │   ├── RunLockedError            another process is working on this run
    │   ├── ResultError               a file that is not a result of a run
    │   ├── LedgerError               a file that is not a ledger, or not the one that was meant
    │   └── ReplayError               a step that cannot be computed again here
    ├── ProcessError              a process is missing, was lost, or cannot be reached
    │   └── ProcessMismatchError      two processes have other settings, versions or programs
    ├── EvidenceError             something that cannot be audited, or not against that commitment
    └── RecordError               a directory that is no record of a script
        └── RecordDamagedError        a record is not as it was written

A class exists where a caller could sensibly catch it; every other refusal is a `ValueError` with
the same wording. `SetAsideWarning` is a warning: something was damaged, and work goes on without.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = "docs/reference/errors.md"


class ExitCode(enum.IntEnum):
    """What every command ends with."""

    SAME = 0
    """Done, the same, intact."""
    DIFFERENT = 1
    """Different, damaged, computes wrong values."""
    REFUSED = 2
    """The command, a setting or an input was refused."""
    CANNOT_BE_TOLD = 3
    """It could not be checked, which is never a pass."""
    FAILED = 4
    """It failed while it ran: a full disk, a lock, a process that was lost."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM; what was saved before is intact."""

    @classmethod
    def of(cls, verdict: str) -> ExitCode:
        """Return the code of "same", "different" or "cannot be told"."""
        return cls[verdict.upper().replace(" ", "_")]


class ReproducibilityError(Exception):
    """Base of every error here: catch it to catch them all.

    `expected`, `got` and whatever else a class knows are attributes as well as words in the
    message. A note on the exception (shown under a traceback) names the section of the errors
    page. `exit_code` is what the command line ends with.

    Same bits: the wording is a function of the arguments, on every machine.
    """

    exit_code = ExitCode.REFUSED

    def __init__(
        self,
        verb: str,
        thing: str,
        *,
        expected: Any,
        got: Any,
        do: str,
        path: str | Path | None = None,
        step: int | None = None,
    ) -> None:
        """Put the words in order: what cannot be done, where, what was expected, what to do."""
        where = "" if path is None else f" at {path}"
        where += "" if step is None else f", step {step}"
        super().__init__(f"Cannot {verb} {thing}{where}: expected {expected}, got {got}. {do}")
        self.thing, self.expected, self.got, self.path, self.step = thing, expected, got, path, step
        self.add_note(f"See {PAGE}#{type(self).__name__.lower()}")


class ConfigError(ReproducibilityError):
    """A setting, or an ambient JAX option that changes draws, was refused."""


class KeyTypeError(ReproducibilityError):
    """Something other than one typed JAX key was given where a key is meant."""


class LeafError(ReproducibilityError):
    """A leaf of a tree has no digest: it is no array, or its bytes cannot be seen from here."""


class CheckpointError(ReproducibilityError):
    """There is no such checkpoint, or there is one already where one should be written."""


class CheckpointMismatchError(CheckpointError):
    """A checkpoint holds another tree than the one asked for: a name, shape, dtype or key type."""


class CheckpointDamagedError(CheckpointError):
    """A checkpoint's bytes are not those that were sealed: missing, cut short or altered.

    `files` and `leaves` name which.
    """

    exit_code = ExitCode.DIFFERENT
    files: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()


class CheckpointReadError(CheckpointError):
    """A checkpoint could not be read or restored, and its bytes are not to blame.

    `leaves` names those that came back with other values than were sealed.
    """

    exit_code = ExitCode.FAILED
    leaves: tuple[str, ...] = ()


class CheckpointSaveError(CheckpointError):
    """A checkpoint could not be written; those before it are untouched."""

    exit_code = ExitCode.FAILED


class RunError(ReproducibilityError):
    """A path is not, or not yet, a run that can be used."""


class IdentityMismatchError(RunError):
    """A run directory belongs to a run with other settings; `settings` names them."""

    settings: tuple[str, ...] = ()


class RunDamagedError(RunError):
    """A file of a run is not as it was written."""

    exit_code = ExitCode.DIFFERENT


class NotReproducedError(RunError):
    """What has to have the same bits has not: a run that was computed again, or two devices."""

    exit_code = ExitCode.DIFFERENT


class RunSaveError(RunError):
    """A file of a run, or a copy of its result, could not be written; the one before stays."""

    exit_code = ExitCode.FAILED


class RunLockedError(RunError):
    """Another process is working on this run."""

    exit_code = ExitCode.FAILED


class ResultError(RunError):
    """A file is not a result of a run: missing, empty, cut short, altered, or something else."""


class LedgerError(RunError):
    """A file is no ledger, or one of another format or of another run."""


class ReplayError(RunError):
    """A step of a run cannot be computed again here, so nothing can be told about it."""

    exit_code = ExitCode.CANNOT_BE_TOLD


class ProcessError(ReproducibilityError):
    """A process of a run is missing, was lost, or cannot be reached."""

    exit_code = ExitCode.FAILED


class ProcessMismatchError(ProcessError):
    """Two processes of one run do not have the same settings, versions or programs."""

    exit_code = ExitCode.REFUSED


class EvidenceError(ReproducibilityError):
    """A run, a bundle, a commitment or a proof is none that can be audited."""


class RecordError(ReproducibilityError):
    """A directory is no record of a script, or one of another format."""


class RecordDamagedError(RecordError):
    """A file of a record is not as it was written, so nothing can be told from it."""

    exit_code = ExitCode.CANNOT_BE_TOLD


class SetAsideWarning(UserWarning):
    """Something damaged was renamed, and work goes on without it."""


class DtypeDriftWarning(UserWarning):
    """A leaf of a training has another dtype than in the step before."""


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def and_more(names: Sequence[str], shown: int = 1) -> str:
    """Name the first few: "a, b and 3 more"."""
    rest = len(names) - shown
    return ", ".join(map(on_one_line, names[:shown])) + (f" and {rest} more" if rest > 0 else "")


def on_one_line(text: str) -> str:
    """Write a text without what a terminal obeys: names come from files that others made."""
    return text.translate(_CONTROLS)


def first_line(error: BaseException) -> str:
    """Return what another library says first, to stand inside of a sentence of ours."""
    return (str(error).strip().splitlines() or ["nothing"])[0].rstrip(".")
