"""A ledger as it is read: its lines, as far as each continues the chain of those before.

The rule: a line says what was computed and nothing of where or when, so a run has one ledger,
however often it was interrupted. Reading ends before the first line that cannot be one of it.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reproducibility.errors import LedgerError
from reproducibility.recording.lines import (
    FIELDS,
    LEDGER_FORMAT,
    LINE_FIELDS,
    Header,
    UnknownStageError,
    read_header,
)
from reproducibility.storage.files import Chain, canonical_json

LEDGER = "ledger.jsonl"


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
            raise not_a_ledger(self.path, got) from error


def not_a_ledger(path: Path, got: str) -> LedgerError:
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


def _out_of_place(line: dict[str, Any], expected: int) -> str:
    """Say why the line of a step is not the one that is read next."""
    if line["step"] != expected:
        return f"is of step {line['step']}, not {expected}"
    unknown = sorted(line.keys() - LINE_FIELDS)
    return f"has {unknown[0]!r}, which is none of {', '.join(FIELDS)}" if unknown else "is no line"
