"""The lines of a ledger, format 1: what each holds, and how it is read and refused.

The rule: one content has one spelling; whatever else a line says makes it no line.
Chapter: docs/guide/flight_recorder.md

    {"chain":…,"every":1,"format":1,"from":0,"leaves":{"params":["w"],…},"level":"leaf","run":…}
    {"chain":…,"opt_state":…,"params":…,"step":0}
    {"batch":…,"chain":…,"gradients":…,"key":…,"loss":"0x1.8p+0",…,"step":1}

A header stands before the first line and wherever something in it changes: which steps have a line,
which leaves there are, and what a stage is. At level "leaf" it is a fingerprint of 16 digits for
each of its leaves, end to end; at level "group" one for all of them; at level "brief" that one, and
behind it the first 4 digits of each leaf's. The 16 digits decide; the 4 say which leaves differ.

The loss is a hexadecimal float. Of several losses there are several, with a space between them.

A line holds `FIELDS` and nothing else: what is compared by nobody would be called the same. The
writer refuses other fields, and so does the reader.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from reproducibility.errors import LedgerError
from reproducibility.storage.files import canonical_json

LEDGER_FORMAT = 1
STAGES = ("batch", "key", "gradients", "opt_state", "params")  # the order of cause and effect
LOSS = "loss"  # it decides only where no stage does
FIELDS = (*STAGES, LOSS)  # all that a line may hold beside its step
LEVELS = ("leaf", "brief", "group")
FINGERPRINT_DIGITS = 16  # of a fingerprint
BRIEF_DIGITS = 4  # of a leaf's, where they only name it
_HEX = "0123456789abcdef"
LINE_FIELDS = {*FIELDS, "step"}
_DO = {
    "read": "Something other than this version of the package wrote it.",
    "write": "Put it into the stage it belongs to, as fingerprints.",
}

type Entry = dict[str, dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Header:
    """How to read the lines that follow it."""

    run: str
    """The name of the run; what the chain begins with."""
    level: str
    """ "leaf", "brief" or "group": what a fingerprint is of."""
    every: int
    """Steps from one line to the next."""
    first: int
    """The step of the next line."""
    leaves: dict[str, list[str]]
    """Names of the leaves of each stage."""

    def body(self) -> dict[str, Any]:
        """Return the line, without its chain. Same bits: everywhere."""
        return {
            "format": LEDGER_FORMAT,
            "run": self.run,
            "level": self.level,
            "every": self.every,
            "from": self.first,
            "leaves": self.leaves,
        }

    def reads_as(self, other: Header) -> bool:
        """Say whether a line means the same under both. Same bits: everywhere."""
        return self is other or (self.level, self.leaves) == (other.level, other.leaves)

    def describes(self, other: Header) -> bool:
        """Say whether lines of `other` can follow under this header. Same bits: everywhere."""
        mine = {stage: names for stage, names in self.leaves.items() if stage in other.leaves}
        return (mine, self.level, self.every) == (other.leaves, other.level, other.every)


def read_entry(body: bytes, header: Header) -> Entry:
    """Take a line apart.

    **Same bits:** everywhere.

    Args:
        body: a line that `Ledger` yields.
        header: the header in force.

    Returns:
        Fingerprints by leaf, by stage; that of leaf "" is of the whole stage, where the level is
        "group" or "brief". Then the "loss", as the hexadecimal float of leaf "".

    Raises:
        LedgerError: it is not what the header describes, or holds something else, though its chain
            holds.
    """
    line = json_object(body)
    check_line(line, header, "read")
    if canonical_json(line) != body:
        raise _ledger_refusal(
            "a line", "each name once, as it is written", "another form", line, "read"
        )
    found = {stage: _line_fingerprints(line, stage, header) for stage in STAGES if stage in line}
    return found if LOSS not in line else {**found, LOSS: {"": _losses(line[LOSS])}}


def _losses(text: str) -> str:
    return " ".join(float.fromhex(part).hex() for part in text.split(" "))


def digits_of(header: Header) -> dict[str, int]:
    """Return how many digits each stage of a line has under a header. Same bits: everywhere."""
    return {stage: sum(_fingerprinted(stage, header).values()) for stage in STAGES}


def check_line(
    line: dict[str, Any], header: Header, verb: str, digits: dict[str, int] | None = None
) -> None:
    """Refuse a line that its header does not describe, or with a field that nobody compares.

    Same bits: everywhere.

    Args:
        line: Without its chain.
        header: That describes it.
        verb: What cannot be done with it.
        digits: What `digits_of` returns of the header, where many lines have that one.

    Raises:
        LedgerError: It is such a line.
    """
    digits = digits_of(header) if digits is None else digits
    if not line.keys() <= LINE_FIELDS or "step" not in line:
        got = min(line.keys() - LINE_FIELDS, default="no step")
        raise _ledger_refusal(
            "a line", f"a step and fields out of {', '.join(FIELDS)}", got, line, verb
        )
    for stage in STAGES:
        if stage in line:
            text = line[stage]
            good = isinstance(text, str) and len(text) == digits[stage] and not text.strip(_HEX)
            if not good or stage not in header.leaves:
                many = len(_fingerprinted(stage, header))
                expected = f"{many} fingerprints of {digits[stage]} digits in all"
                raise _ledger_refusal(f"the {stage} of a line", expected, repr(text), line, verb)
    if LOSS in line:
        try:
            _losses(line[LOSS])
        except (AttributeError, TypeError, ValueError, OverflowError):
            got = repr(line[LOSS])
            raise _ledger_refusal(
                "the loss of a line", "a hexadecimal float", got, line, verb
            ) from None


def _ledger_refusal(
    thing: str, expected: str, got: str, line: dict[str, Any], verb: str
) -> LedgerError:
    step = line.get("step")
    return LedgerError(verb, thing, step=step, expected=expected, got=got, do=_DO[verb])


def _fingerprinted(stage: str, header: Header) -> dict[str, int]:
    """Return what the fingerprints of a stage are of, one after the other, and their digits."""
    leaves = header.leaves.get(stage, [])
    if header.level == "leaf":
        return dict.fromkeys(leaves, FINGERPRINT_DIGITS)
    whole = {"": FINGERPRINT_DIGITS} if stage in header.leaves else {}
    return whole if header.level == "group" else {**whole, **dict.fromkeys(leaves, BRIEF_DIGITS)}


def _line_fingerprints(line: dict[str, Any], stage: str, header: Header) -> dict[str, str]:
    found, at = {}, 0
    for name, digits in _fingerprinted(stage, header).items():
        found[name], at = line[stage][at : at + digits], at + digits
    return found


def differing(a: Entry, b: Entry) -> dict[str, tuple[str, ...]]:
    """Return the stages in which two entries differ, in the order of cause and effect.

    **Same bits:** everywhere.

    Args:
        a: what `read_entry` returns.
        b: another, of whatever level.

    Returns:
        The leaves that differ, by stage; none where one of the two is a group. "loss" only where
        no stage differs. What only one side records cannot be compared and is left out; a leaf
        that a stage has on one side only differs.
    """
    found = {}
    for stage in (stage for stage in STAGES if stage in a and stage in b):
        one, other = a[stage], b[stage]
        if ("" in one) != ("" in other):
            one, other = _grouped(one), _grouped(other)
        if "" in one and 1 in (len(one), len(other)):  # a group has no more than that
            one, other = {"": one[""]}, {"": other[""]}
        names = {name for name in {**one, **other} if one.get(name) != other.get(name)}
        if names:
            found[stage] = tuple(sorted(names - {""}))
    if not found and LOSS in a and LOSS in b and a[LOSS] != b[LOSS]:
        found[LOSS] = ()
    return found


def _grouped(leaves: dict[str, str]) -> dict[str, str]:
    """Return what level "brief" holds of a stage of level "leaf"."""
    if "" in leaves:
        return leaves
    from reproducibility.same.fingerprint import combined  # with JAX, which no other line needs

    brief = {name: text[:BRIEF_DIGITS] for name, text in leaves.items()}
    return {"": combined(list(leaves.values())), **brief}


class UnknownStageError(ValueError):
    """A header is well-formed and names a stage that this version cannot compare."""


def read_header(found: Any) -> Header:
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
    if (
        found.get("format") != LEDGER_FORMAT
        or header.level not in LEVELS
        or not (numbers and lists)
    ):
        raise ValueError("a header of another form")
    unknown = sorted(header.leaves.keys() - set(STAGES))
    if unknown:
        raise UnknownStageError(f"the stage {unknown[0]!r}, which is none of {', '.join(STAGES)}")
    return header


def _is_names(leaves: Any) -> bool:
    names = isinstance(leaves, list) and all(isinstance(name, str) for name in leaves)
    return names and len(set(leaves)) == len(leaves)


def json_object(line: bytes) -> dict[str, Any]:
    """Return the entries of a line; none where it is something else, though its chain holds."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
