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
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from reproducibility.errors import LedgerError, RunSaveError, SetAsideWarning
from reproducibility.storage.files import (
    AT_ONCE,
    Chain,
    append_bytes,
    canonical_json,
    chained,
    flush,
    in_common,
    set_aside,
)

FORMAT = 1
LEDGER = "ledger.jsonl"
STAGES = ("batch", "key", "gradients", "opt_state", "params")  # the order of cause and effect
LOSS = "loss"  # it decides only where no stage does
FIELDS = (*STAGES, LOSS)  # all that a line may hold beside its step
LEVELS = ("leaf", "group")
DIGITS = 16  # of a fingerprint
_HEX = "0123456789abcdef"
_KNOWN = {*FIELDS, "step"}
_BEGIN = b'{"chain":"'  # of every line
_EMPTY = b'{"step":'  # of a line, without its chain, that tells nothing: all fields come before it
_DO = {
    "read": "Something other than this version of the package wrote it.",
    "write": "Put it into the stage it belongs to, as fingerprints.",
}
RECENT = 64  # losses to keep of the time before the two runs part
GROWTH = 1.03  # of the distance between two losses to keep after that

type Entry = dict[str, dict[str, str]]
type Losses = list[tuple[int, str | None, str | None]]


@dataclasses.dataclass(frozen=True)
class Header:
    """How to read the lines that follow it."""

    run: str
    """The name of the run; what the chain begins with."""
    level: str
    """ "leaf" or "group": what a fingerprint is of."""
    every: int
    """Steps from one line to the next."""
    first: int
    """The step of the next line."""
    leaves: dict[str, list[str]]
    """Names of the leaves of each stage."""

    def body(self) -> dict[str, Any]:
        """Return the line, without its chain. Same bits: everywhere."""
        return {"format": FORMAT, "run": self.run, "level": self.level, "every": self.every,
                "from": self.first, "leaves": self.leaves}  # fmt: skip

    def reads_as(self, other: Header) -> bool:
        """Say whether a line means the same under both. Same bits: everywhere."""
        return self.level == other.level and self.leaves == other.leaves

    def describes(self, other: Header) -> bool:
        """Say whether lines of `other` can follow under this header. Same bits: everywhere."""
        mine = {stage: names for stage, names in self.leaves.items() if stage in other.leaves}
        return (mine, self.level, self.every) == (other.leaves, other.level, other.every)


@dataclasses.dataclass(frozen=True)
class Parting:
    """Where two ledgers part: the first step with other lines, and what is other in it.

    Same bits: equal lines mean equal bits, up to collisions of fingerprints.
    """

    step: int
    """The first step, of those that both record, whose lines differ."""
    since: int
    """The step before it that both record; -1 if there is none. They part after it."""
    stage: str
    """The first stage that differs, in the order of cause and effect; or "loss", if only it."""
    stages: tuple[str, ...]
    """All stages that differ in that step."""
    leaves: tuple[str, ...]
    """The leaves of the first one that differ; none where one side records groups."""


@dataclasses.dataclass(frozen=True)
class Walk:
    """What reading two ledgers side by side comes to.

    Same bits: everywhere, for the same files.
    """

    parting: Parting | None
    """Where they part, if they do."""
    last: int
    """The last step of which both tell something in common, -1 if there is none."""
    losses: Losses
    """Losses of both, by step: the last before they part, and ever fewer after that."""
    problems: tuple[str | None, str | None]
    """What is wrong with the first line that cannot be trusted, on either side."""
    alone: frozenset[str] = frozenset()
    """What only one side holds of a step that both record, up to where they part."""


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
            self.header = _header(found)
        except _UnknownStageError as error:
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
            form = found.get("format", FORMAT) if isinstance(found, dict) else FORMAT
            return _header(found)
        except (OSError, ValueError, RecursionError) as error:
            got = getattr(error, "strerror", None) or "a first line that is no header of one"
            if form not in (None, FORMAT):
                got = f"format {form!r}"
            elif isinstance(error, _UnknownStageError):
                got = f"format {FORMAT} with {error}"
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
                    "write", "a line", path=self.path, got=f"step {step!r}",
                    expected=f"a whole number after {-1 if last is None else last} as its step",
                    do="Record each step once, in order.",
                )  # fmt: skip
            try:
                if header is not checked:  # there is one for many lines
                    _header(dataclasses.replace(header, run=self.run, first=step).body())
            except ValueError as error:
                raise LedgerError(
                    "write", "a header", path=self.path, step=step, got=str(error),
                    expected=f"one of format {FORMAT}", do="Put it into a stage that there is.",
                ) from error  # fmt: skip
            _check_line(line, header, "write")
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
                "continue", "the ledger", path=self.path, expected=f"one of run {self.run}",
                got=f"one of run {ledger.header.run}", do="Give it another path.",
            )  # fmt: skip
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
            SetAsideWarning, stacklevel=2,
        )  # fmt: skip

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
            self.part(_why(_object(there), line))
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
        "read", "a ledger", path=path, expected=f"a ledger of format {FORMAT}", got=got,
        do=f"Give a {LEDGER} that the Recorder or `train` wrote, or a path where nothing is yet.",
    )  # fmt: skip


def read_entry(body: bytes, header: Header) -> Entry:
    """Take a line apart.

    **Same bits:** everywhere.

    Args:
        body: a line that `Ledger` yields.
        header: the header in force.

    Returns:
        Fingerprints by leaf, by stage; the leaf is "" where the level is "group". Then the "loss",
        as the hexadecimal float of leaf "".

    Raises:
        LedgerError: it is not what the header describes, or holds something else, though its chain
            holds.
    """
    line = _object(body)
    _check_line(line, header, "read")
    if canonical_json(line) != body:
        raise _refusal("a line", "each name once, as it is written", "another form", line, "read")
    found = {stage: _fingerprints(line, stage, header) for stage in STAGES if stage in line}
    return found if LOSS not in line else {**found, LOSS: {"": float.fromhex(line[LOSS]).hex()}}


def _check_line(line: dict[str, Any], header: Header, verb: str) -> None:
    """Refuse a line that its header does not describe, or with a field that nobody compares."""
    if not line.keys() <= _KNOWN or "step" not in line:
        got = min(line.keys() - _KNOWN, default="no step")
        raise _refusal("a line", f"a step and fields out of {', '.join(FIELDS)}", got, line, verb)
    for stage in STAGES:
        if stage in line:
            text, many = line[stage], len(_names(stage, header))
            good = isinstance(text, str) and len(text) == DIGITS * many and not text.strip(_HEX)
            if not good or stage not in header.leaves:
                expected = f"{many} fingerprints of {DIGITS} digits"
                raise _refusal(f"the {stage} of a line", expected, repr(text), line, verb)
    if LOSS in line:
        try:
            float.fromhex(line[LOSS])
        except (TypeError, ValueError, OverflowError):
            got = repr(line[LOSS])
            raise _refusal("the loss of a line", "a hexadecimal float", got, line, verb) from None


def _refusal(thing: str, expected: str, got: str, line: dict[str, Any], verb: str) -> LedgerError:
    step = line.get("step")
    return LedgerError(verb, thing, step=step, expected=expected, got=got, do=_DO[verb])


def _names(stage: str, header: Header) -> list[str]:
    """Return what the fingerprints of a stage are of, one after the other."""
    leaves = header.leaves.get(stage, [])
    return leaves if header.level == "leaf" else [""] * (stage in header.leaves)


def _fingerprints(line: dict[str, Any], stage: str, header: Header) -> dict[str, str]:
    places = count(0, DIGITS)
    names = _names(stage, header)
    return {n: line[stage][at : at + DIGITS] for n, at in zip(names, places, strict=False)}


def differing(a: Entry, b: Entry) -> dict[str, tuple[str, ...]]:
    """Return the stages in which two entries differ, in the order of cause and effect.

    **Same bits:** everywhere.

    Args:
        a: what `read_entry` returns.
        b: another, of whatever level.

    Returns:
        The leaves that differ, by stage; none where one of the two is a group. "loss" only where
        no stage differs. What only one side records cannot be compared and is left out.
    """
    found = {}
    for stage in (stage for stage in STAGES if stage in a and stage in b):
        one, other = a[stage], b[stage]
        if ("" in one) != ("" in other):
            one, other = _grouped(one), _grouped(other)
        if one != other:
            names = sorted(n for n in one.keys() | other.keys() if one.get(n) != other.get(n))
            found[stage] = tuple(name for name in names if name)
    if not found and LOSS in a and LOSS in b and a[LOSS] != b[LOSS]:
        found[LOSS] = ()
    return found


def walk(a: Ledger, b: Ledger) -> Walk:
    """Read two ledgers side by side, to the end of both.

    **Same bits:** everywhere, for the same files.

    Args:
        a: a ledger that was not read yet.
        b: another one.

    Returns:
        Where they part, and how their losses go on.
    """
    recent: deque[tuple[int, bytes, bytes]] = deque(maxlen=RECENT)
    a.at_once = b.at_once = AT_ONCE
    last = -1
    for bodies in in_common(a.chain, b.chain):
        for step, body in a.take(bodies):
            recent.append((step, body, body))
            if body[: len(_EMPTY)] != _EMPTY:
                last = step
        if a.problem:
            break
    if a.chain.number:
        b.follow(a)
    if a.problem:
        return Walk(None, last, [], (a.problem, b.problem))
    parting, far = None, 0
    alone: set[str] = set()
    left, right = iter(a), iter(b)
    x, y = next(left, None), next(right, None)
    losses: Losses = []
    while x and y:
        step = x[0]
        if step < y[0]:
            x = next(left, None)
            continue
        if step > y[0]:
            y = next(right, None)
            continue
        told = not x[1].startswith(_EMPTY)
        if parting is None:
            recent.append((step, x[1], y[1]))
            if x[1] != y[1] or not a.header.reads_as(b.header):
                entries = read_entry(x[1], a.header), read_entry(y[1], b.header)
                alone |= entries[0].keys() ^ entries[1].keys()
                told = not entries[0].keys().isdisjoint(entries[1])
                parting, far = _parting(step, last, *entries), 1
        elif step - parting.step >= far:
            far = max(far + 1, int(far * GROWTH))
            losses.append((step, _loss(x[1]), _loss(y[1])))
        last = step if told else last  # nothing was compared where they hold nothing in common
        x, y = next(left, None), next(right, None)
    for rest in (left, right):
        deque(rest, maxlen=0)
    before = [(step, _loss(one), _loss(other)) for step, one, other in recent]
    problems = (a.problem, b.problem)
    return Walk(parting, last, before + losses, problems, frozenset(alone))


def _parting(step: int, since: int, a: Entry, b: Entry) -> Parting | None:
    """Say in what two lines differ; None if they do in their form only."""
    stages = differing(a, b)
    if not stages:
        return None
    first = next(iter(stages))
    return Parting(step, since, first, tuple(stages), stages[first])


def _loss(body: bytes) -> str | None:
    loss = _object(body).get(LOSS)
    return loss if isinstance(loss, str) else None


def _grouped(leaves: dict[str, str]) -> dict[str, str]:
    if "" in leaves:
        return leaves
    from reproducibility.same.fingerprint import combined  # with JAX, which no other line needs

    return {"": combined(list(leaves.values()))}


def _why(there: dict[str, Any], line: dict[str, Any]) -> str:
    """Say what a line that was computed again has to do with the one that is there."""
    names = [name for name in FIELDS if there.get(name) != line.get(name)]
    if there.keys() != {"chain", *line} or not names:
        return "from here on it is recorded in another form."
    return (
        f"step {line['step']} was computed again and differs, first in {names[0]}: this machine "
        "did not reproduce itself, or the program has changed. The new lines stand in its place."
    )


class _UnknownStageError(ValueError):
    """A header is well-formed and names a stage that this version cannot compare."""


def _header(found: Any) -> Header:
    """Take a header apart; ValueError if it is none."""
    names = ("run", "level", "every", "from", "leaves")
    values: list[Any] = [found.get(name) for name in names] if isinstance(found, dict) else []
    if [type(value) for value in values] != [str, str, int, int, dict]:
        raise ValueError("a header that lacks something")
    if found.keys() - {"chain", "format", *names}:
        raise ValueError("a header that holds something else")
    header = Header(*values)
    lists = all(_is_names(leaves) for leaves in header.leaves.values())
    numbers = header.every >= 1 and header.first >= 0
    if found.get("format") != FORMAT or header.level not in LEVELS or not (numbers and lists):
        raise ValueError("a header of another form")
    unknown = sorted(header.leaves.keys() - set(STAGES))
    if unknown:
        raise _UnknownStageError(f"the stage {unknown[0]!r}, which is none of {', '.join(STAGES)}")
    return header


def _is_names(leaves: Any) -> bool:
    names = isinstance(leaves, list) and all(isinstance(name, str) for name in leaves)
    return names and len(set(leaves)) == len(leaves)


def _out_of_place(line: dict[str, Any], expected: int) -> str:
    """Say why the line of a step is not the one that is read next."""
    if line["step"] != expected:
        return f"is of step {line['step']}, not {expected}"
    unknown = sorted(line.keys() - _KNOWN)
    return f"has {unknown[0]!r}, which is none of {', '.join(FIELDS)}" if unknown else "is no line"


def _object(line: bytes) -> dict[str, Any]:
    """Return the entries of a line; none where it is something else, though its chain holds."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def _saving(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunSaveError(
            "write", "the ledger", path=path, expected="room and permission to write",
            got=error.strerror or str(error), do="Free some space, or use --record off.",
        ) from error  # fmt: skip
