"""Asks fresh processes what a program returns, and notes which of it is right.

The rule: values are compared in this process, bit for bit; the program's process only computes.
Chapter: docs/guide/exercises.md
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reproducibility.exercise.answers import answer_digest, equal_answers, from_answer, to_answer
from reproducibility.machine.child import Worker

_SECONDS_ALLOWED = 60.0  # seconds for one task: the programs take one or two
_SHOWN = 6  # lines of what a program printed


class StoppedEarly(Exception):
    """A program raised, ended or took too long: nothing more can be asked of it."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """What was tried, and what came of it."""

    tried: str
    right: bool
    seen: str

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return dataclasses.asdict(self)


class Places:
    """Fresh processes in which programs run, by name: each has a hash salt of its own.

    Same bits: as the programs'.
    """

    def __init__(self, limit: float = _SECONDS_ALLOWED) -> None:
        self.limit = limit
        self._workers: dict[str, Worker] = {}

    def worker(self, place: str) -> Worker:
        """Return the process of a place, which starts with its first task.

        Args:
            place: "first", "second", or a name with a number of devices behind a colon.
        """
        if place not in self._workers:
            kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "PYTHONSTARTUP")}
            salt = {"PYTHONHASHSEED": str(1 + sum(place.encode()))}
            _, _, devices = place.partition(":")
            flag = f"--xla_force_host_platform_device_count={devices}"
            flags = {"XLA_FLAGS": flag} if devices else {}
            cpu = {"JAX_PLATFORMS": "cpu"}
            self._workers[place] = Worker(kept | salt | flags | cpu)
        return self._workers[place]

    def drop(self, place: str) -> None:
        """End the process of a place; the next task there starts a new one.

        Args:
            place: as for `worker`.
        """
        worker = self._workers.pop(place, None)
        if worker:
            worker.close()

    def close(self) -> None:
        """End all of them."""
        for place in list(self._workers):
            self.drop(place)


class Bench:
    """One program on trial.

    Same bits: as the program's.

    Args:
        program: its text.
        file: the name of its file.
        places: where it runs.
        seed: from which the judge draws the numbers that the program cannot know.
    """

    def __init__(self, program: str, file: str, places: Places, seed: int) -> None:
        self.observations: list[Observation] = []
        self.printed: list[str] = []
        self._program, self._file, self._places = program, file, places
        self._drawn = random.Random(seed)
        self._folders: list[tempfile.TemporaryDirectory[str]] = []

    def numbers(self, count: int, low: int = 100, high: int = 100_000) -> list[int]:
        """Draw different integers, in ascending order."""
        return sorted(self._drawn.sample(range(low, high), count))

    def shuffled(self, values: Any) -> list[Any]:
        """Return values in an order that the program cannot know."""
        return self._drawn.sample(list(values), len(values))

    def folder(self) -> str:
        """Return a new empty folder, which is removed with the bench."""
        self._folders.append(tempfile.TemporaryDirectory())
        return self._folders[-1].name

    def close(self) -> None:
        """Remove the folders."""
        for folder in self._folders:
            folder.cleanup()

    def run(
        self,
        *calls: tuple[Any, ...],
        place: str = "first",
        backwards: bool = False,
        hidden: dict[str, str] | None = None,
    ) -> list[Any]:
        """Import the program anew, call functions of it in order, and return what they return.

        Args:
            calls: the name of a function and its arguments.
            place: which process.
            backwards: whether folders are listed in reversed order.
            hidden: sources of functions by name; a call hands one over by that name.

        Raises:
            StoppedEarly: a call raised, the process ended, or the time was up.
        """
        answers, error = self.ask(calls, place=place, backwards=backwards, hidden=hidden or {})
        if error:
            tried = _call_text(calls[min(len(answers), len(calls) - 1)])
            self.observations.append(Observation(tried, False, error))
            raise StoppedEarly(error)
        return [from_answer(answer) for answer in answers]

    def forget(self, place: str) -> None:
        """End the process of a place, which is of no use for a second task."""
        self._places.drop(place)

    def ask(
        self, calls: Any, *, place: str, backwards: bool, hidden: dict[str, str]
    ) -> tuple[list[Any], str]:
        """Have calls made; return the answers, and why there are not more."""
        task = {
            "program": self._program,
            "name": self._file,
            "calls": [[name, [to_answer(each) for each in given]] for name, *given in calls],
            "backwards": backwards,
            "hidden": hidden,
        }
        worker, late = self._places.worker(place), threading.Event()

        def end() -> None:
            late.set()
            worker.end()

        timer = threading.Timer(self._places.limit, end)
        timer.start()
        try:
            found, died = worker.do(
                "reproducibility.exercise.runner:run_program", task, self.printed.append
            )
        finally:
            timer.cancel()
        if found is None:
            self._places.drop(place)
            limit = f"it did not end within {self._places.limit:.0f} seconds"
            return [], limit if late.is_set() else f"its process ended: {died}"
        return found["answers"], found["error"]

    def same(self, tried: str, *values: Any) -> None:
        """Note whether values have the same bits."""
        right = all(equal_answers(values[0], other) for other in values[1:])
        digests = " and ".join(dict.fromkeys(map(answer_digest, values)))
        self.holds(tried, right, "the same bits" if right else f"different bits: {digests}")

    def differ(self, tried: str, *values: Any) -> None:
        """Note whether no two values have the same bits."""
        right = len({answer_digest(value) for value in values}) == len(values)
        same = f"the same bits, which should differ: {answer_digest(values[0])}"
        self.holds(tried, right, "different bits" if right else same)

    def holds(self, tried: str, right: bool, seen: str) -> None:
        """Note what was tried, whether it came out right, and what was seen."""
        self.observations.append(Observation(tried, bool(right), seen))

    def repeats(self, name: str, *given: Any, seed: int, other: int) -> Any:
        """Note whether a function of a seed repeats: in a process, in a different one, and not with
        a different seed. The seed is its first argument. Return what it comes to."""
        call, of_other = (name, seed, *given), (name, other, *given)
        first, again, different = self.run(call, call, of_other)
        [elsewhere] = self.run(call, place="second")
        text = _call_text(call)
        self.same(f"{text} twice in a process", first, again)
        self.same(f"{text} in two processes", first, elsewhere)
        self.differ(f"{text} and {_call_text(of_other)}", first, different)
        return first

    def normal(self, tried: str, values: Any) -> None:
        """Note whether numbers are spread as a standard normal distribution is."""
        array = np.asarray(values, np.float64).ravel()
        near = abs(array.mean()) < 6 / np.sqrt(array.size) and 0.5 < array.std() < 1.5
        seen = f"mean {array.mean():.2f}, standard deviation {array.std():.2f}"
        unlike = "" if near else ", unlike a standard normal distribution"
        several = len(np.unique(array)) > array.size // 2
        self.holds(f"{tried} is spread", bool(near and several), seen + unlike)

    def unrelated(self, tried: str, *values: Any) -> None:
        """Note whether no two arrays have numbers in common, in whatever order or sign, and none
        is a multiple of a different one. Of 23 random bits a few agree by chance."""
        arrays = [np.asarray(value, np.float64).ravel() for value in values]
        pairs = list(itertools.combinations(arrays, 2))
        shared = [np.intersect1d(abs(one), abs(two)).size for one, two in pairs]
        shared = [
            0 if n <= 3 + one.size // 20 else n for n, (one, _) in zip(shared, pairs, strict=True)
        ]
        constant = any(np.ptp(each) == 0 for each in arrays)
        equal = [pair for pair in pairs if pair[0].size == pair[1].size]
        alike = constant or any(abs(np.corrcoef(*pair)[0, 1]) > 0.75 for pair in equal)
        right = not any(shared) and not alike
        seen = (
            f"{max(shared, default=0)} numbers are in both" if any(shared) else "they go together"
        )
        self.holds(tried, right, "nothing in common" if right else seen)


def _call_text(call: tuple[Any, ...]) -> str:
    """Write a call as it would stand in a program, without what is long."""
    name, *given = call
    texts = [_argument_text(each) for each in given]
    return f"{name}({', '.join(texts)})"


def _argument_text(value: Any) -> str:
    if isinstance(value, str) and os.sep in value:
        return f"DIR/{Path(value).name}" if Path(value).suffix else "DIR"
    text = repr(value)
    return text if len(text) <= 40 else "…"


def shown_prints(lines: list[str]) -> Iterator[str]:
    """Return the last lines that a program printed, each at most 100 letters long.

    Args:
        lines: all of them.
    """
    if len(lines) > _SHOWN:
        yield f"… {len(lines) - _SHOWN} lines before"
    yield from (line[:100] for line in lines[-_SHOWN:])
