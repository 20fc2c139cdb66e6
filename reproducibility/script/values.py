"""The value of every argument of every call: what a record says by reference is looked up.

The rule: what cannot be looked up is no value, and equals nothing.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reproducibility.script.reading import Call, CalledProgram, Process, SourceLine
from reproducibility.watch.mixing import hexadecimal, sums_of_host, words_of_numpy
from reproducibility.watch.texts import PROGRAMS

NO_VALUE = ""  # the value of what was deleted, or is no array


@dataclass(frozen=True)
class ResultOf:
    """Which result of which call an argument is."""

    thread: int
    call: int
    place: int


@dataclass(frozen=True)
class ValuedCall:
    """A call with the value of each argument, and where those came from that a call returned."""

    thread: int
    number: int
    program: CalledProgram
    site: tuple[SourceLine, ...]
    values: tuple[str, ...]
    results: tuple[str, ...]
    origins: tuple[ResultOf | None, ...]
    error: str = ""

    @property
    def kind(self) -> tuple[str, int]:
        """What calls of one function have in common, whatever their arguments are called."""
        return self.program.name, len(self.values)

    @property
    def content(self) -> tuple[str, tuple[str, ...], tuple[str, ...], str]:
        """What two calls have in common that are the same; None of it is unknown."""
        return self.program.name, self.values, self.results, self.error

    @property
    def is_known(self) -> bool:
        """Whether the value of each argument is known."""
        return NO_VALUE not in self.values


def valued_calls(process: Process) -> list[ValuedCall]:
    """Return the calls of a process, thread by thread, each in the order in which they began.

    Args:
        process: one of a record.
    """
    calls = {
        thread.number: {call.number: call for call in thread.calls()} for thread in process.threads
    }
    return [each for number in calls for each in _with_values(number, calls)]


def _with_values(thread: int, calls: dict[int, dict[int, Call]]) -> list[ValuedCall]:
    """Return the calls of a thread."""
    last: dict[object, tuple[list[str], list[ResultOf | None]]] = {}
    found = []
    # In the order of their lines: what stood there before is what the line before says.
    for call in calls[thread].values():
        pattern = call.pattern
        entered = call.entered()
        key = (pattern.program, pattern.site)
        before = last.get(key, ([], []))
        values: list[str] = []
        origins: list[ResultOf | None] = []
        for place, word in enumerate(pattern.references):
            value, origin = NO_VALUE, None
            if word == "=":
                value, origin = before[0][place], before[1][place]
            elif word == "s":
                value = _as_an_array(entered.get(place, NO_VALUE), pattern.program, place)
            elif word in ("e", "m", "n"):
                value = entered.get(place, NO_VALUE)
            elif word != "x":
                value, origin = _referred(word, thread, call.number, calls)
            values.append(value)
            origins.append(origin)
        last[key] = values, origins
        found.append(
            ValuedCall(
                thread,
                call.number,
                pattern.program,
                pattern.site,
                tuple(values),
                call.results,
                tuple(origins),
                call.error,
            )
        )
    return sorted(found, key=lambda each: each.number)


def _as_an_array(token: str, program: CalledProgram, place: int) -> str:
    """Return the fingerprint of a number of Python, as the array that the program takes."""
    shapes = program.shapes  # some are of arguments that it drops
    kind = shapes[place] if len(shapes) == len(program.arguments) > place else ""
    bits = 64 if "64" in kind else 32
    with contextlib.suppress(ValueError, OverflowError):
        if token in ("True", "False"):
            array = np.array(token == "True")
        elif re.fullmatch(r"-?\d+", token):
            if kind[:1] not in ("", "i", "u"):
                return token
            array = np.array(int(token), f"{kind[:1] or 'i'}{bits // 8}")
        else:
            array = np.array(float.fromhex(token), f"f{bits // 8}")
        words = [word for plane in zip(*words_of_numpy(array), strict=True) for word in plane]
        return hexadecimal(sums_of_host([np.array(words, np.uint32)], [len(words)]))[0]
    return token


def _referred(
    word: str, thread: int, number: int, calls: dict[int, dict[int, Call]]
) -> tuple[str, ResultOf | None]:
    """Return the value that a reference means, and the result that it is."""
    kind, rest = word[0], word[1:]
    if kind in "tu":
        other, _, rest = rest.partition(":")
        thread = int(other)
    away, _, place = rest.partition(".")
    call = calls.get(thread, {}).get(number - int(away))
    if kind in "iu":
        return (call.entered().get(int(place), NO_VALUE) if call else NO_VALUE), None
    results: Sequence[str] = call.results if call else ()
    value = results[int(place)] if int(place) < len(results) else NO_VALUE
    return value, ResultOf(thread, number - int(away), int(place))


def sizes_of_programs(process: Process) -> dict[str, int]:
    """Return how long the text of each program is, by its digest.

    Args:
        process: one of a record.
    """
    facts = [json.loads(text) for text in process.lines(PROGRAMS)]
    return {each["text"]: len(each["stablehlo"]) for each in facts}


def step_functions(process: Process, calls: Sequence[ValuedCall]) -> list[tuple[str, int]]:
    """Return the kinds of calls that may be the step function, the likeliest first.

    A step takes what the step before returned, and its program is the longest of those.

    Args:
        process: one of a record.
        calls: its calls, with their values.
    """
    sizes = sizes_of_programs(process)
    groups: dict[tuple[str, int], list[ValuedCall]] = {}
    for call in calls:
        groups.setdefault(call.kind, []).append(call)

    def work(kind: tuple[str, int]) -> float:
        last = groups[kind][-1]
        inputs = len(last.values)
        return sizes.get(last.program.text, 1) * (sum(carried(groups[kind])) + inputs / 10)

    return sorted(groups, key=work, reverse=True)


def carried(steps: Sequence[ValuedCall]) -> list[bool]:
    """Say of each argument whether it is what an earlier one of these calls returned.

    Args:
        steps: all calls of one kind in a run.
    """
    ours = {(each.thread, each.number) for each in steps}
    counts: Counter[int] = Counter()
    for each in steps[1:]:
        counts.update(
            place
            for place, origin in enumerate(each.origins)
            if origin is not None and (origin.thread, origin.call) in ours
        )
    return [counts[place] * 2 > len(steps[1:]) for place in range(len(steps[0].values))]
