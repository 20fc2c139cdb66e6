"""Lines are written behind those of a ledger, or compared with the ones that are there.

The rule: what is computed twice is compared with the line that is there. It stays if it is the
same; where it differs, it is set aside with all behind it, and said.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from reproducibility.errors import LedgerError, RunSaveError
from reproducibility.recording.ledger import Ledger
from reproducibility.recording.lines import (
    FIELDS,
    LEDGER_FORMAT,
    Header,
    check_line,
    digits_of,
    json_object,
    read_header,
)
from reproducibility.recording.mend import keep_first, mend_ledger
from reproducibility.storage.files import append_bytes, chained, flush


class Writer:
    """Writes lines; where there are lines already, compares instead.

    Same bits: everywhere: the bytes are a function of what is written.

    Args:
        path: the file; it need not be there. A line that was torn by a kill is removed, with a
            `SetAsideWarning`; what is damaged otherwise is set aside, and the lines before stay.
        run: the name of the run.
        first: the first step to be written. Lines from there on are of steps that are about to be
            computed again: each is compared with the line that comes, and stays if it is the same.

    Raises:
        LedgerError: it is of another run or format.
    """

    def __init__(self, path: Path, run: str, first: int) -> None:
        self.path, self.run = path, run
        self.header: Header | None = None
        """The header in force."""
        self.last: int | None = None
        """The step of the last line."""
        self.begins: int | None = None
        """The step of the first line that is there."""
        self._head, self._size = run, 0
        self._last_given: Header | None = None  # with the last line
        self._lines: list[bytes] = []  # to be appended
        self._recorded: BinaryIO | None = None  # to be compared with
        if os.path.lexists(path):
            mend_ledger(path, run)
            self._find_first(first)

    def write(self, lines: Sequence[tuple[Header, dict[str, Any]]]) -> None:
        """Write lines, or find that they are there.

        Same bits: everywhere.

        Args:
            lines: each with its "step" and without its chain, beside a header that describes it,
                whatever the `run` and `first` in that.

        Raises:
            LedgerError: a line is one that `Ledger` and `read_entry` would not read; nothing is
                written.
            RunSaveError: they cannot be written; those before them are as they were.
        """
        self._check(lines)
        for header, line in lines:
            for each in (*self._heading(header, line["step"]), line):
                raw, self._head = chained(self._head, each)
                if not self._is_recorded(raw, each):
                    self._lines.append(raw)
            self.last = line["step"]
        content = b"".join(self._lines)
        self._lines.clear()
        with _saving(self.path):
            append_bytes(self.path, content, wait=False)

    def flush(self) -> str:
        """Wait until all lines have reached the disk; return the chain so far.

        Raises:
            RunSaveError: they do not reach it.
        """
        if self.path.exists():
            with _saving(self.path):
                flush(self.path)
        return self._head

    def set_rest_aside(self, why: str) -> None:
        """Keep the lines before `first`, and set the file with the others aside.

        Args:
            why: what is the matter with the others; part of the warning.
        """
        if self._recorded:
            keep_first(self.path, self._size, why)
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._recorded:
            self._recorded.close()
        self._recorded = None

    def _check(self, lines: Sequence[tuple[Header, dict[str, Any]]]) -> None:
        """Refuse what the reader would refuse, by the reader's own rules."""
        last, checked = self.last, None
        digits: dict[str, int] = {}
        for header, line in lines:
            step = line.get("step")
            if type(step) is not int or step < 0 or (last is not None and step <= last):
                after = -1 if last is None else last
                raise LedgerError(
                    "write",
                    "a line",
                    path=self.path,
                    expected=f"a whole number after {after} as its step",
                    got=f"step {step!r}",
                    do="Record each step once, in order.",
                )
            try:
                if header is not checked:  # there is one for many lines
                    read_header(dataclasses.replace(header, run=self.run, first=step).body())
                    digits = digits_of(header)
            except ValueError as error:
                raise LedgerError(
                    "write",
                    "a header",
                    path=self.path,
                    step=step,
                    got=str(error),
                    expected=f"one of format {LEDGER_FORMAT}",
                    do="Put it into a stage that there is.",
                ) from error
            check_line(line, header, "write", digits)
            last, checked = step, header

    def _find_first(self, first: int) -> None:
        """Stand behind the last line of a step before `first`; what follows is to be compared."""
        if not self.path.exists() or not self.path.stat().st_size:
            return
        ledger = Ledger(self.path, self.run)
        for step, _ in ledger:
            self.begins = ledger.header.first if self.begins is None else self.begins
            if step >= first:
                break
            self.header, self.last = ledger.header, step
            self._head, self._size = ledger.chain.head, ledger.chain.size
        if self._size < self.path.stat().st_size:
            self._recorded = open(self.path, "rb")  # noqa: SIM115
            self._recorded.seek(self._size)

    def _heading(self, header: Header, step: int) -> list[dict[str, Any]]:
        """Return the header that must stand before the line of a step, or nothing."""
        now, every = self.header, header.every
        follows = self.last is not None and step == self.last - self.last % every + every
        if now and follows and (header is self._last_given or now.describes(header)):
            self._last_given = header
            return []
        leaves = {**(now.leaves if now else {}), **header.leaves}
        self.header = dataclasses.replace(header, run=self.run, first=step, leaves=leaves)
        return [self.header.body()]

    def _is_recorded(self, raw: bytes, line: dict[str, Any]) -> bool:
        """Compare a line with the one that is there; where it differs, set the rest aside."""
        recorded = self._recorded.readline() if self._recorded else b""
        if recorded == raw:
            self._size += len(raw)
            return True
        if recorded:
            self.set_rest_aside(_difference(json_object(recorded), line))
        self.close()
        return False


def _difference(recorded: dict[str, Any], line: dict[str, Any]) -> str:
    """Say what a line that was computed again has to do with the one that is recorded."""
    names = [name for name in FIELDS if recorded.get(name) != line.get(name)]
    if recorded.keys() != {"chain", *line} or not names:
        return "from here on it is recorded in another form."
    return (
        f"step {line['step']} was computed again and differs, first in {names[0]}: this machine "
        "did not reproduce itself, or the program has changed. The new lines stand in its place."
    )


@contextlib.contextmanager
def _saving(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunSaveError(
            "write",
            "the ledger",
            path=path,
            expected="room and permission to write",
            got=error.strerror or str(error),
            do="Free some space, or use --record off.",
        ) from error
