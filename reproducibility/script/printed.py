"""What two runs printed, compared line by line, beside what passes: times, speeds, addresses.

The rule: what is printed decides nothing, unless that is asked for. Nothing is held in memory but a
line.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

PART_OF_A_LINE = 60  # characters
LONGEST_LINE = 1 << 20  # bytes; a longer one is compared in pieces
_NUMBER = r"[-+]?\d[\d.,_]*(?:e[-+]?\d+)?\s?[kKMGT%]?"
_UNIT = r"(?:ns|us|µs|μs|ms|s|secs?|seconds?|mins?|minutes?|hours?)"
# What two runs may print differently though they are the same, in this order.
_PASSING = tuple(
    re.compile(pattern)
    for pattern in (
        r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ",  # absl: time and thread
        r"(?i:\b(?:mon|tue|wed|thu|fri|sat|sun)\w*,? +)?"
        r"(?i:\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\w*\.? +\d{1,2}\b)",
        r"\b\d{4}[-/]\d\d[-/]\d\d|\b\d\d/\d\d/\d\d\d\d\b",
        r"(?<![\d.,])20\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])[-_T]?\d{4,6}(?!\d)",
        r"(?:(?<=T)|\b)\d+:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[-+]\d\d:?\d\d)?\b",
        r"0x[0-9a-fA-F]{6,}",
        r"(?i:\b(?:process[ _]?id|pid)\W{0,3})\d+|(?<=\[)\d+(?=\] )",
        rf"(?:{re.escape(tempfile.gettempdir())}|/tmp|/var/folders)/[^\s'\"),;:\]]+",
        rf"{_NUMBER} ?[\w.]*/ ?{_UNIT}\b|{_NUMBER} ?\w+ per {_UNIT}\b",  # 12 steps/s
        rf"(?:\w*/ ?| per |_per_){_UNIT}\b\W{{0,3}}{_NUMBER}",  # steps/sec: 12
        rf"{_NUMBER} ?{_UNIT}(?:/\w+)?\b",  # 3.1 ms/step
        rf"\b{_UNIT}(?:/| per )\w+\W{{0,3}}{_NUMBER}",  # s/step 0.1
        rf"(?i:\b(?:\w*time|elapsed|took|duration|eta|speed|throughput|fps|sps)\b)\W{{0,3}}{_NUMBER}",
    )
)
_COLOURS = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-9;?]*[A-Za-z]")
PASSES = "…"  # stands for it


def masked(line: str) -> str:
    """Return a line without what two runs that are the same may print differently.

    Args:
        line: as it was printed. Of what a progress bar wrote over itself the last state stays.
    """
    line = _COLOURS.sub("", line.rstrip("\r\n").rpartition("\r")[2])
    for pattern in _PASSING:
        line = pattern.sub(PASSES, line)
    return re.sub(rf"\s*{PASSES}", PASSES, line.rstrip())  # a number may have been padded


def first_difference(
    one: Path | None, other: Path | None, own: Sequence[str] = ()
) -> tuple[int, str, str] | None:
    """Return the number of the first line that differs, counted from 1, and both; None if none.

    Args:
        one: a file with what a run printed.
        other: that of another run.
        own: names that belong to a run, such as its directory.
    """
    for number, pair in enumerate(zip_longest(_lines(one), _lines(other)), start=1):
        if pair[0] != pair[1]:  # or else nothing has to be hidden
            a, b = ("" if line is None else masked_bytes(line, own) for line in pair)
            if a != b:
                return number, a, b
    return None


def masked_lines(path: Path | None, own: Sequence[str]) -> Iterator[str]:
    """Give the lines of a file, which differ from run to run only if the runs do.

    Args:
        path: the file; if there is none, it has no lines.
        own: names that belong to a run, such as its directory.
    """
    for data in _lines(path):
        yield masked_bytes(data, own)


def masked_bytes(data: bytes, own: Sequence[str]) -> str:
    """Return a line without what belongs to a run, and without what passes.

    Args:
        data: the line.
        own: names that belong to a run, such as its directory.
    """
    text = data.decode(errors="replace")
    for name in own:
        text = text.replace(name, PASSES)
    return masked(text)


def _lines(path: Path | None) -> Iterator[bytes]:
    if path is not None and path.exists():
        with open(path, "rb") as file:
            while data := file.readline(LONGEST_LINE):
                yield data


def printed_remark(
    ones: Sequence[Path | None], others: Sequence[Path | None], own: Sequence[str]
) -> str:
    """Say where what two runs printed differs; nothing if it does not.

    Args:
        ones: the files with what a run printed, stdout first.
        others: those of another run.
        own: names that belong to a run, such as its directory.
    """
    for one, other, name in zip(ones, others, ("", " on stderr"), strict=True):
        if found := first_difference(one, other, own):
            shown = " and ".join(repr(_around(found[1:], text)) for text in found[1:])
            return f"line {found[0]:,} of what they print{name} differs: {shown}"
    return ""


def _around(pair: Sequence[str], text: str) -> str:
    """Return the part of a line in which it differs from the other one."""
    same = next((i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), 0)
    begin = max(0, min(same - PART_OF_A_LINE // 2, len(text) - PART_OF_A_LINE))
    shown = text[begin : begin + PART_OF_A_LINE]
    return ("…" if begin else "") + shown + ("…" if begin + PART_OF_A_LINE < len(text) else "")
