"""What of a run is to be computed again, and under which settings that is done.

The rule: ways to choose that exclude each other are refused before anything is computed.
Chapter: docs/guide/verification.md
"""

from __future__ import annotations

import dataclasses
from typing import NoReturn

from reproducibility.errors import ConfigError
from reproducibility.machine.environment import Environment, jax_settings, variables_of

_USUAL = ("NPROC", "OPENBLAS_NUM_THREADS", "JAX_PLATFORMS")  # in the environment of every run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What of a run is to be computed again."""

    steps: tuple[int, int] | None = None
    """The steps after the first number, up to the second."""
    random: int | None = None
    """Or so many stretches, drawn."""
    budget: float | None = None
    """Or as many as fit into so many seconds, drawn."""
    challenge: str | None = None
    """What decides which are drawn; by default it is drawn itself."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        ways = [way for way in (self.steps, self.random, self.budget) if way is not None]
        if len(ways) > 1:
            refuse_option("--steps", "it alone", "also --random or --budget")
        if self.random is not None and self.random < 1:
            refuse_option("--random", "1 or more", self.random)
        if self.budget is not None and not self.budget > 0:
            refuse_option("--budget", "a time above 0", self.budget)
        if self.steps and self.challenge is not None:
            refuse_option("--challenge", "stretches that are drawn", "--steps")


def unusual_settings(environment: Environment) -> Environment:
    """Return the variables of a recorded environment that are set for no ordinary run.

    Same bits: everywhere, under the same settings of JAX.

    Args:
        environment: what was recorded.
    """
    plain = {name.removeprefix("config.").upper(): v for name, v in jax_settings().items()}
    found = variables_of(environment)
    return {n: v for n, v in found.items() if n not in _USUAL and v != str(plain.get(n))}


def refuse_option(name: str, expected: str, got: object) -> NoReturn:
    """Refuse what was asked for.

    Args:
        name: the option.
        expected: what it may be.
        got: what it is.
    """
    raise ConfigError("use", name, expected=expected, got=got, do="See `audit --help`.")
