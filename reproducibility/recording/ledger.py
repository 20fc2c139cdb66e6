"""What every step of a run was made of, a line a step, each continuing the chain of those before.

The rule: a line says what was computed and nothing of where or when, so a run has one ledger,
however often it was interrupted. What is computed twice is compared with the line that is there.
Chapter: docs/guide/flight_recorder.md

    {"chain":…,"every":1,"format":1,"from":0,"leaves":{"params":["w"],…},"level":"leaf","run":…}
    {"chain":…,"opt_state":…,"params":…,"step":0}
    {"batch":…,"chain":…,"gradients":…,"key":…,"loss":"0x1.8p+0",…,"step":1}

A header stands before the first line and wherever something in it changes: which steps have a line,
which leaves there are, and whether a stage is one fingerprint of 16 digits (level "group") or one
for each of its leaves, end to end (level "leaf").

A line holds `FIELDS` and nothing else: what is compared by nobody would be called the same. The
writer refuses other fields, and so does the reader.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from reproducibility.errors import LedgerError, RunSaveError, SetAsideWarning
from reproducibility.recording.lines import (
    FIELDS,
    LEDGER_FORMAT,
    LINE_FIELDS,
    Header,
    UnknownStageError,
    check_line,
    json_object,
    read_header,
)
from reproducibility.storage.files import (
    Chain,
    append_bytes,
    canonical_json,
    chained,
    flush,
    set_aside,
)

LEDGER = "ledger.jsonl"
_BEGIN = b'{"chain":"'  # of every line
# A line, without its chain, that tells nothing begins so: all fields come before the step.
EMPTY_LINE = b'{"step":'

type Losses = list[tuple[int, str | None, str | None]]


class Ledger:
    """The lines of a ledger, as far as they can be trusted; iterate for (step, line).

    Args:
        path: the file.
        run: the run it must belong to; by default the one that its first line names.

    Raises:
        LedgerError: there is no such file, or its first line is no header of this format.
    """

    def __init__(self, path: str | os.PathLike[str], run: str | None = None) -> None:
        self.path = Path(path)
        self.header = self._first()
        self.chain = Chain(self.path, self.header.run if run is None else run)
        other = run not in (None, self.header.run)
        self.foreign = other and any(True for _ in Chain(self.path, self.header.run))
        """Whether it belongs to another run, rather than that the name in it is damaged."""
        self.problem: str | None = None
        """What is wrong with the next line, once the others were read."""
        self.last: int | None = None
        """The step of the last line that was read."""
        self.at_once = 1
        """How many bytes to read together; with 1, `chain` always stands behind the last line."""
        self._next = -1  # the step that the next line must have

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield step and line, without its chain."""
        for bodies in self.chain.blocks(self.at_once):
            yield from self.take(bodies)
            if self.problem:
                return
        self.problem = self.chain.problem
        if self.foreign:
            self.problem = f"it is the ledger of run {self.header.run}"

    def take(self, bodies: list[bytes]) -> Iterator[tuple[int, bytes]]:
        """Read the lines that the chain has followed last.

        Args:
            bodies: the lines, without their chain.

        Yields:
            Step and line, without headers, up to the first that has a `problem`. `header` is
            always that of the line.
        """
        step, every, ending = self._next, self.header.every, b'"step":%d}' % self._next
        for number, body in enumerate(bodies, self.chain.number - len(bodies) + 1):
            if body.endswith(ending):  # a line ends with its step
                self.last = step
                self._next = step = step + every - step % every
                yield self.last, body
            elif self._is_header(body, number, step):
                self._next, every = self.header.first, self.header.every
                step = self._next
            else:
                return
            ending = b'"step":%d}' % step

    def follow(self, other: Ledger) -> None:
        """Stand where another ledger with the same lines so far stands. Same bits: no computation.

        Args:
            other: that ledger.
        """
        self.header, self.last = other.header, other.last
        self._next, self.problem = other._next, other.problem

    def _is_header(self, body: bytes, number: int, expected: int) -> bool:
        """Read a line that is not the one of the expected step; say what is wrong with it."""
        try:
            found = json.loads(body)
            if canonical_json(found) != body:  # a name twice, say, of which only one would be read
                raise ValueError("not as it is written")
            if isinstance(found, dict) and type(found.get("step")) is int:
                self.problem = f"line {number} {_out_of_place(found, expected)}"
                return False
            self.header = read_header(found)
        except UnknownStageError as error:
            self.problem = f"line {number} has {error}"
        except (ValueError, RecursionError):  # a chain can be computed of anything
            self.problem = f"line {number} is no line of a ledger"
        if not self.problem and self.last is not None and self.header.first <= self.last:
            self.problem = f"line {number} goes back to step {self.header.first}"
        return not self.problem

    def _first(self) -> Header:
        form = None
        try:
            if self.path.exists() and not self.path.is_file():  # a pipe would be waited for
                raise OSError(errno.EINVAL, "something that is not a plain file")
            with open(self.path, "rb") as file:
                found = json.loads(file.readline())
            form = found.get("format", LEDGER_FORMAT) if isinstance(found, dict) else LEDGER_FORMAT
            return read_header(found)
        except (OSError, ValueError, RecursionError) as error:
            got = getattr(error, "strerror", None) or "a first line that is no header of one"
            if form not in (None, LEDGER_FORMAT):
                got = f"format {form!r}"
            elif isinstance(error, UnknownStageError):
                got = f"format {LEDGER_FORMAT} with {error}"
            raise unreadable(self.path, got) from error


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
        self._given: Header | None = None  # with the last line
        self._lines: list[bytes] = []  # to be appended
        self._ahead: BinaryIO | None = None  # to be compared with
        if os.path.lexists(path):
            self._mend()
            self._find(first)

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
                if not self._is_there(raw, each):
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

    def part(self, why: str) -> None:
        """Keep the lines before `first`, and set the file with the others aside.

        Args:
            why: what is the matter with the others; part of the warning.
        """
        if self._ahead:
            with open(self.path, "rb") as file:
                set_aside(self.path, why, replacement=file.read(self._size))
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._ahead:
            self._ahead.close()
        self._ahead = None

    def _check(self, lines: Sequence[tuple[Header, dict[str, Any]]]) -> None:
        """Refuse what the reader would refuse, by the reader's own rules."""
        last, checked = self.last, None
        for header, line in lines:
            step = line.get("step")
            if type(step) is not int or step < 0 or (last is not None and step <= last):
                raise LedgerError(
                    "write",
                    "a line",
                    path=self.path,
                    got=f"step {step!r}",
                    expected=f"a whole number after {-1 if last is None else last} as its step",
                    do="Record each step once, in order.",
                )
            try:
                if header is not checked:  # there is one for many lines
                    read_header(dataclasses.replace(header, run=self.run, first=step).body())
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
            check_line(line, header, "write")
            last, checked = step, header

    def _mend(self) -> None:
        """Take away what cannot be trusted at the end of the file, and say so."""
        if is_torn_at_once(self.path):
            return self._cut(0)
        try:
            if self.path.is_symlink():
                raise unreadable(self.path, "a link")
            ledger = Ledger(self.path, self.run)
        except LedgerError as error:
            # Only what is called a ledger can be a spoilt one; anything else is somebody's file.
            if error.got.startswith("format") or self.path.name != LEDGER:
                raise
            set_aside(self.path, f"{error.got}.")
            return None
        if ledger.foreign:
            raise LedgerError(
                "continue",
                "the ledger",
                path=self.path,
                expected=f"one of run {self.run}",
                got=f"one of run {ledger.header.run}",
                do="Give it another path.",
            )
        good = max((ledger.chain.size for _ in ledger), default=0)
        if ledger.chain.torn:
            self._cut(ledger.chain.size)
        elif ledger.problem:
            with open(self.path, "rb") as file:
                set_aside(self.path, f"{ledger.problem}.", replacement=file.read(good))
        return None

    def _cut(self, size: int) -> None:
        lost = self.path.stat().st_size - size
        if not lost:  # it was made, and nothing was written
            return
        os.truncate(self.path, size)
        warnings.warn(
            f"Removed the last {lost} bytes of {self.path}: a line that was cut short when the "
            "process that wrote it ended. Its step is computed again.",
            SetAsideWarning,
            stacklevel=2,
        )

    def _find(self, first: int) -> None:
        """Stand behind the last line of a step before `first`; what follows is to be compared."""
        if not self.path.exists() or not self.path.stat().st_size:
            return
        ledger = Ledger(self.path, self.run)
        self.begins = ledger.header.first
        for step, _ in ledger:
            if step >= first:
                break
            self.header, self.last = ledger.header, step
            self._head, self._size = ledger.chain.head, ledger.chain.size
        if self._size < self.path.stat().st_size:
            self._ahead = open(self.path, "rb")  # noqa: SIM115
            self._ahead.seek(self._size)

    def _heading(self, header: Header, step: int) -> list[dict[str, Any]]:
        """Return the header that must stand before the line of a step, or nothing."""
        now, every = self.header, header.every
        follows = self.last is not None and step == self.last - self.last % every + every
        if now and follows and (header is self._given or now.describes(header)):
            self._given = header
            return []
        leaves = {**(now.leaves if now else {}), **header.leaves}
        self.header = dataclasses.replace(header, run=self.run, first=step, leaves=leaves)
        return [self.header.body()]

    def _is_there(self, raw: bytes, line: dict[str, Any]) -> bool:
        """Compare a line with the one that is there; where it differs, set the rest aside."""
        there = self._ahead.readline() if self._ahead else b""
        if there == raw:
            self._size += len(raw)
            return True
        if there:
            self.part(_why(json_object(there), line))
        self.close()
        return False


def is_torn_at_once(path: Path) -> bool:
    """Say whether a file is less than the first line of a ledger, as a kill may leave it.

    Args:
        path: the file.
    """
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        line = file.readline()
    return not line.endswith(b"\n") and line[: len(_BEGIN)] == _BEGIN[: len(line)]


def unreadable(path: Path, got: str) -> LedgerError:
    """Say that something is no ledger.

    Args:
        path: where.
        got: what it is.
    """
    return LedgerError(
        "read",
        "a ledger",
        path=path,
        expected=f"a ledger of format {LEDGER_FORMAT}",
        got=got,
        do=f"Give a {LEDGER} that the Recorder or `train` wrote, or a path where nothing is yet.",
    )


def _why(there: dict[str, Any], line: dict[str, Any]) -> str:
    """Say what a line that was computed again has to do with the one that is there."""
    names = [name for name in FIELDS if there.get(name) != line.get(name)]
    if there.keys() != {"chain", *line} or not names:
        return "from here on it is recorded in another form."
    return (
        f"step {line['step']} was computed again and differs, first in {names[0]}: this machine "
        "did not reproduce itself, or the program has changed. The new lines stand in its place."
    )


def _out_of_place(line: dict[str, Any], expected: int) -> str:
    """Say why the line of a step is not the one that is read next."""
    if line["step"] != expected:
        return f"is of step {line['step']}, not {expected}"
    unknown = sorted(line.keys() - LINE_FIELDS)
    return f"has {unknown[0]!r}, which is none of {', '.join(FIELDS)}" if unknown else "is no line"


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
