"""Is every byte of a store, of one checkpoint or of a file of arrays as it was written?

The rule: only what carries a seal or checksums can be intact. Of anything else it is said that
nothing vouches for it, which is no pass.
Chapter: docs/reference/cli.md
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from reproducibility.errors import (
    CheckpointDamagedError,
    CheckpointError,
    ExitCode,
    SetAsideWarning,
)
from reproducibility.storage.files import SET_ASIDE, TEMPORARY, files_below, set_aside
from reproducibility.storage.found import FoundArrays, unread_steps
from reproducibility.storage.stored import arrays_of

type FindingKind = Literal["damaged", "left over", "set aside", "foreign"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing in a run directory, or in a store, that is not an intact part of it."""

    path: str
    """Where, below the directory that is checked."""
    kind: FindingKind
    """ "damaged" (not as it was written), "left over" (by a process that was killed; never read),
    "set aside" (damaged, found earlier) or "foreign" (not part of a run)."""
    detail: str
    """What is wrong with it."""
    leaves: tuple[str, ...] = ()
    """The leaves of the state that can no longer be trusted, as far as they can be told."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What `check` found."""

    run: str | None
    """The name of the run; None where neither `run.json` nor a checkpoint tells it."""
    checkpoints: tuple[int, ...]
    """Steps of the checkpoints of which every byte is as it was sealed."""
    files: int
    """Files that were read and are as they were written."""
    bytes: int
    """Their size together."""
    findings: tuple[Finding, ...]
    """Everything else that is there now, what is damaged first."""
    repaired: tuple[Finding, ...] = ()
    """What was found and repaired."""
    what: str = "a run"
    """What was checked: "a run", "a store of checkpoints", "an Orbax checkpoint", …"""
    unknown: str = ""
    """Why nothing vouches for the bytes, where nothing does."""
    notes: tuple[str, ...] = ()
    """What limits the answer."""

    @property
    def verdict(self) -> str:
        """ "intact", "damaged" or "cannot be told"."""
        return "damaged" if self.damaged else "cannot be told" if self.unknown else "intact"

    @property
    def damaged(self) -> tuple[Finding, ...]:
        """The findings that say that something is not as it was written."""
        return tuple(finding for finding in self.findings if finding.kind == "damaged")

    @property
    def exit_code(self) -> int:
        """0 intact, 1 damaged, 3 cannot be told."""
        if self.damaged:
            return ExitCode.DIFFERENT
        return ExitCode.CANNOT_BE_TOLD if self.unknown else ExitCode.SAME

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values.

        Same bits: everywhere.
        """
        return dataclasses.asdict(self)


def check_stored(
    found: FoundArrays, *, repair: bool = False, progress: Callable[[str], None] = lambda text: None
) -> Report:
    """Check a store, one checkpoint, a folder of Orbax's or a file of arrays; change nothing.

    Every array is read, and those of a sealed checkpoint are compared with their seal.

    **Same bits:** everywhere, for the same files.

    Args:
        found: what is there.
        repair: set damaged checkpoints of a store aside. What a killed process may have left half
            written stays, because a store has no lock that says whether one is at work.
        progress: called with what is about to be read.

    Returns:
        What is intact, what is not, and why nothing can be told where nothing can.

    Raises:
        CheckpointError: it cannot be read, or `repair` is asked of what is no store of its own.
    """
    if repair and (found.kind != "store" or (found.path.parent / "run.json").exists()):
        raise CheckpointError(
            "repair",
            found.words,
            path=found.path,
            expected="a run, or a store that is no part of a run",
            got=found.words if found.kind != "store" else "the store of a run",
            do="Give the run directory." if found.kind == "store" else "Take an intact copy.",
        )
    report = _report(found, progress)
    if not (repair and report.damaged):
        return report
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SetAsideWarning)  # the report says it
        for finding in report.damaged:
            set_aside(found.path / finding.path, finding.detail)
    left = {step: path for step, path in found.steps.items() if path.exists()}
    again = _report(dataclasses.replace(found, steps=left), progress)
    return dataclasses.replace(again, repaired=report.damaged)


def _report(found: FoundArrays, progress: Callable[[str], None]) -> Report:
    findings = list(_strangers(found)) if found.kind == "store" else []
    steps, notes, read, arrays = [], [], [], 0
    for step, path in _each_checkpoint(found):
        progress(f"checking {path.name}")
        try:
            stored = arrays_of(found, step)
        except CheckpointDamagedError as error:
            name = path.name if found.steps else "."
            findings.append(Finding(name, "damaged", error.got, error.leaves))
            continue
        arrays += len(stored.leaves)
        read += [path] if path.is_file() else list(files_below(path))
        steps += [stored.seal.step] if stored.seal else [step] if step is not None else []
        notes += [f"{name} of {path} could not be read as arrays" for name in stored.unread]
    notes += [f"{name} of {found.path} could not be read" for name in unread_steps(found)]
    findings.sort(key=lambda finding: get_args(FindingKind.__value__).index(finding.kind))
    unknown, note = _what_vouches(found)
    if found.kind == "file" and not (arrays or findings):
        unknown, note = "It holds no array, so there is nothing to vouch for.", ()
    return Report(
        None,
        tuple(steps),
        len(read),
        sum(path.lstat().st_size for path in read),
        tuple(findings),
        what=found.words,
        unknown=unknown,
        notes=(*note, *notes),
    )


def _each_checkpoint(found: FoundArrays) -> list[tuple[int | None, Path]]:
    return [*found.steps.items()] if found.kind.endswith("store") else [(None, found.path)]


def _strangers(found: FoundArrays) -> Iterator[Finding]:
    """Name what is in a store and is none of its checkpoints; follow no link."""
    known = {path.name for path in found.steps.values()}
    for entry in sorted(found.path.iterdir()):
        if entry.name.startswith(TEMPORARY):
            detail = "half written, by a process that is at work or was ended; never read"
            yield Finding(entry.name, "left over", detail)
        elif entry.name.startswith(SET_ASIDE):
            yield Finding(entry.name, "set aside", "as damaged, earlier; never read")
        elif entry.name not in known:
            yield Finding(entry.name, "foreign", "not written by this package; not checked")


def _what_vouches(found: FoundArrays) -> tuple[str, tuple[str, ...]]:
    """Say why nothing can be told, and what limits the answer."""
    if found.kind == "checkpoint":
        return "", ()
    if found.kind == "store":
        beside = found.path.parent / "ledger.jsonl"
        return "", (f"{beside} was not checked",) if beside.exists() else ()
    if found.path.suffix == ".npz" and found.kind == "file":
        return "", ("by the CRC-32 of each array, which shows accidents and no forgery",)
    kind = f"a {found.path.suffix} file" if found.kind == "file" else "Orbax"
    return (
        f"Every array can be read, and nothing vouches for its values: {kind} keeps no digest.",
        (),
    )
