"""Which stretches of a run an audit computes again, and what follows for the others.

The rule: who was audited could not know the choice; the chance of a miss holds for that only.
Chapter: docs/guide/verification.md

A run is a row of stretches, from each checkpoint that it still has to the next. The start of the
run counts as one: it follows from the identity. Behind the last checkpoint may be a last stretch.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from reproducibility.errors import ConfigError


class Part(NamedTuple):
    """A stretch of a run, to be computed again as a whole."""

    start: int
    """Updates that are complete when it begins: a checkpoint, or 0."""
    end: int
    """And when it ends."""
    sealed: bool
    """Whether there is a checkpoint at its end."""

    def __str__(self) -> str:
        """Name it by its steps."""
        return f"{self.start}:{self.end}"


def all_parts(checkpoints: Sequence[int], last: int) -> list[Part]:
    """Return the stretches that a run consists of.

    **Same bits:** everywhere.

    Args:
        checkpoints: their steps, in order.
        last: the step of the last line, or of the last checkpoint.
    """
    ends = [step for step in checkpoints if step > 0]
    bounds = [0, *ends, *([last] if last > max([0, *ends]) else [])]
    return [Part(start, end, end in ends) for start, end in itertools.pairwise(bounds)]


def parts_over(parts: Sequence[Part], first: int, last: int) -> list[Part]:
    """Return the stretches that contain the steps after `first` up to `last`, cut off behind it.

    **Same bits:** everywhere.

    Args:
        parts: all of the run.
        first: completed updates at the begin.
        last: and at the end.
    """
    if not (parts and 0 <= first < last <= parts[-1].end):
        most = parts[-1].end if parts else 0
        expected = f"A:B with 0 <= A < B <= {most}, the last step of the run"
        raise ConfigError(
            "use", "--steps", expected=expected, got=f"{first}:{last}", do="Choose others."
        )
    found = [part for part in parts if part.start < last and part.end > first]
    if last < found[-1].end:
        found[-1] = Part(found[-1].start, last, False)
    return found


def drawn_parts(parts: Sequence[Part], count: int, root: str, challenge: str) -> list[Part]:
    """Draw stretches: each choice of `count` of them is as likely as each other.

    The challenge decides, together with the root of the run, so that anyone can draw them again.

    **Same bits:** everywhere.

    Args:
        parts: all of the run.
        count: how many.
        root: of the commitment to the run.
        challenge: a text that nobody could know when the run was made.
    """

    def rank(part: Part) -> bytes:
        words = f"reproducibility audit 1\n{root}\n{part}\n".encode()
        return hashlib.sha256(words + challenge.encode()).digest()

    return sorted(sorted(parts, key=rank)[:count])


def chance_of_missing(count: int, total: int, altered: int = 1) -> float:
    """Return how likely no altered stretch is among those that are drawn.

    **Same bits:** everywhere.

    Args:
        count: how many are drawn.
        total: of how many.
        altered: how many of those are altered.
    """
    chance = 1.0
    for number in range(min(altered, total)):
        chance *= max(total - count - number, 0) / (total - number)
    return chance


def affordable(parts: Sequence[Part], seconds: float, each: float) -> int:
    """Return how many stretches can be computed again in a time, whichever are drawn.

    It goes by the longest, so that the number tells nothing of which are drawn: otherwise a long
    stretch would be drawn too rarely, and the chance of a miss would be wrong.

    **Same bits:** everywhere.

    Args:
        parts: all of the run.
        seconds: the time.
        each: the time that one step takes.
    """
    count, left = 0, seconds
    for length in sorted((part.end - part.start for part in parts), reverse=True):
        left -= length * each
        if left < 0:
            break
        count += 1
    return count
