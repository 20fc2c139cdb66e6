"""In which steps a run is interrupted: those that were asked for, or drawn from a seed.

The rule: a seed gives the same moments again, on every machine.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass

from reproducibility.errors import ConfigError

SEEDS = 1_000_000  # a seed that is drawn is shorter than this: it is typed again


@dataclass(frozen=True)
class Interruptions:
    """What was asked for: the first step, how many interruptions, and the seed if they are drawn.

    `at` is 0 where the script stops by itself, where the moments are drawn, and where none was
    asked for: then they are spread evenly over the whole run.
    """

    at: int = 0
    times: int = 1
    seed: int | None = None

    def steps(self, of: int, name: str) -> list[int]:
        """Return the steps of a whole run in which it is interrupted, the first one first.

        Without a seed those after the first are spread evenly over what is left.

        Args:
            of: how many steps the whole run has.
            name: what the step function is called.

        Raises:
            ConfigError: it has too few.
        """
        if self.seed is not None:
            if of - 1 < self.times:
                raise _too_few("--times", self.times, f"at most {of - 1:,}", of, name)
            # Not in the first step: nothing can have been saved before it.
            return sorted(random.Random(self.seed).sample(range(2, of + 1), self.times))
        if self.at == 0:
            if of <= self.times:
                raise _too_few("--times", self.times, f"at most {of - 1:,}", of, name)
            return [1 + of * number // (self.times + 1) for number in range(1, self.times + 1)]
        if self.at == 1:
            do = "Nothing can have been saved before the first step."
            raise ConfigError("use", "--at", expected="a step from 2 on", got=1, do=do)
        if self.at > of:
            raise _too_few("--at", self.at, f"one of the {of:,} calls", of, name)
        left = of - self.at + 1
        if left < self.times:
            raise _too_few("--times", self.times, f"at most {left:,} from there on", of, name)
        return [self.at + left * number // self.times for number in range(self.times)]


def moments(at: int, times: int, seed: int | None, *, drawn: bool, stop: str) -> Interruptions:
    """Return what was asked for.

    Args:
        at: a step; 0 for none in particular.
        times: how many interruptions.
        seed: what the moments are drawn from, or None.
        drawn: whether they are drawn, if no seed is given.
        stop: arguments with which the script stops by itself, or "".

    Raises:
        ConfigError: these do not go together.
    """
    if drawn or seed is not None:
        if at or stop:
            got = f"--{'at' if at else 'stop'} as well"
            do = "Leave one of them out."
            raise ConfigError("use", "--random", expected="no other moment", got=got, do=do)
        seed = secrets.randbelow(SEEDS) if seed is None else seed
    elif at < 0:
        raise ConfigError("use", "--at", expected="a step, from 2", got=at, do="Try --at 22.")
    if times < 1 or (stop and times > 1):
        expected = "1 with --stop" if stop else "1 or more"
        do = "Use --at to interrupt it more often." if stop else "Try --times 3."
        raise ConfigError("use", "--times", expected=expected, got=times, do=do)
    return Interruptions(0 if stop else at, times, seed)


def _too_few(flag: str, got: int, expected: str, of: int, name: str) -> ConfigError:
    what = f"{expected} of {name}" if "calls" in expected else f"{expected}, of {of:,} of {name}"
    return ConfigError(
        "use",
        flag,
        expected=f"{what} in the whole run",
        got=got,
        do="Choose a smaller one, or another function with --step-function.",
    )
