"""How much of a ledger holds, what is wrong with the rest, and how it is mended.

The rule: what a kill explains is removed; whatever else is wrong is set aside and never deleted;
the lines before it stay. Looking, writing on and `check --repair` go by the same examination.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from reproducibility.errors import LedgerError, SetAsideWarning
from reproducibility.recording.ledger import LEDGER, Ledger, not_a_ledger
from reproducibility.storage.files import discard, set_aside, write_atomically

_BEGIN = b'{"chain":"'  # of every line


@dataclasses.dataclass(frozen=True)
class LedgerCondition:
    """What `examine_ledger` found."""

    problem: str | None
    """What is wrong with the first line that cannot be trusted, or None."""
    torn: bool = False
    """Whether that is the last line and has no end, as a kill leaves it."""
    whole_lines: int = 0
    """Bytes of the lines that hold, a header behind the last step included."""
    whole_steps: int = 0
    """Bytes up to the end of the last step that holds."""
    unreadable: LedgerError | None = None
    """Why there is no line of a ledger at all."""
    other_run: str | None = None
    """The run that it belongs to, if that is another one."""
    unmet_seals: tuple[int, ...] = ()
    """Steps of checkpoints whose seal the chain does not come to."""

    @property
    def other_format(self) -> bool:
        """Whether it may be intact, and this version cannot read it."""
        return self.unreadable is not None and self.unreadable.got.startswith("format")


def examine_ledger(
    path: Path, run: str, sealed: Mapping[int, str] | None = None, *, complete: bool = True
) -> LedgerCondition:
    """Read a ledger to its end, and say what is wrong with it; change nothing.

    Args:
        path: the file; there is one.
        run: the run it must belong to.
        sealed: what the chain had come to at steps of checkpoints, in order.
        complete: whether no line is known to be gone. Else a seal counts only where all lines
            from a gap up to it are there.

    Returns:
        Its condition.
    """
    try:
        if path.is_symlink():
            raise not_a_ledger(path, "a link")
        ledger = Ledger(path, run)
    except LedgerError as error:
        torn = _is_part_of_a_first_line(path)
        problem = "its first line was cut short" if torn else error.got
        return LedgerCondition(problem, torn, unreadable=error)
    whole_steps, unmet = _follow(ledger, sealed or {}, complete)
    return LedgerCondition(
        ledger.problem,
        ledger.chain.torn,
        ledger.chain.size,
        whole_steps,
        other_run=ledger.header.run if ledger.foreign else None,
        unmet_seals=unmet,
    )


def mend_ledger(path: Path, run: str) -> None:
    """Take away what cannot be trusted at the end of a ledger, for a writer to go on; say so.

    Args:
        path: the file; there is one.
        run: the run it must belong to.

    Raises:
        LedgerError: it is of another run or format, or was never a ledger.
    """
    found = examine_ledger(path, run)
    if found.torn:
        _cut_torn_line(path, found.whole_lines)
    elif found.unreadable:
        # Only what is called a ledger can be a spoilt one; anything else is somebody's file.
        if found.other_format or path.name != LEDGER:
            raise found.unreadable
        set_aside(path, f"{found.problem}.")
    elif found.other_run is not None:
        raise LedgerError(
            "continue",
            "the ledger",
            path=path,
            expected=f"one of run {run}",
            got=f"one of run {found.other_run}",
            do="Give it another path.",
        )
    elif found.problem:
        keep_first(path, found.whole_steps, f"{found.problem}.")


def repair_ledger(path: Path, run: str, damage: str | None) -> None:
    """Keep the steps that can be trusted, on request; say nothing of what a kill explains.

    Args:
        path: the file; there is one.
        run: the run it must belong to.
        damage: what is wrong with it beyond what a kill explains: all of it is set aside.
    """
    found = examine_ledger(path, run)
    # Where its lines hold, they are not those of the run.
    kept = path.read_bytes()[: found.whole_steps] if found.problem else b""
    if damage is not None:
        set_aside(path, damage, replacement=kept or None)
    elif kept:
        write_atomically(path, kept)
    else:
        discard(path)


def keep_first(path: Path, size: int, why: str) -> None:
    """Set a ledger aside, and keep its first bytes in its place.

    Args:
        path: the file.
        size: how many bytes to keep.
        why: what is the matter with the others; part of the warning.
    """
    with open(path, "rb") as file:
        set_aside(path, why, replacement=file.read(size))


def _follow(
    ledger: Ledger, sealed: Mapping[int, str], complete: bool
) -> tuple[int, tuple[int, ...]]:
    """Read a ledger to its end; return the bytes up to its last step, and the seals it misses."""
    heads, head, waiting = {}, "", sorted(sealed)
    size = following = gap = 0
    for step, _ in ledger:
        while waiting and waiting[0] < step:
            heads[waiting.pop(0)] = head
        head, size = ledger.chain.head, ledger.chain.size
        gap = step if step > following else gap
        following = step - step % ledger.header.every + ledger.header.every
    heads |= dict.fromkeys(waiting, head)
    unmet = [step for step in sealed if heads[step] != sealed[step]]
    if not complete:  # lines are known to be gone: before a gap, and at the end
        unmet = [step for step in unmet if gap <= step <= (ledger.last or 0)]
    return size, tuple(unmet)


def _is_part_of_a_first_line(path: Path) -> bool:
    """Say whether a file is less than the first line of a ledger, as a kill may leave it."""
    if not path.is_file() or path.is_symlink():
        return False
    with open(path, "rb") as file:
        line = file.readline()
    return not line.endswith(b"\n") and line[: len(_BEGIN)] == _BEGIN[: len(line)]


def _cut_torn_line(path: Path, size: int) -> None:
    lost = path.stat().st_size - size
    if not lost:  # it was made, and nothing was written
        return
    os.truncate(path, size)
    warnings.warn(
        f"Removed the last {lost} bytes of {path}: a line that was cut short when the "
        "process that wrote it ended. Its step is computed again.",
        SetAsideWarning,
        stacklevel=2,
    )
