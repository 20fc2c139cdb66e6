"""What a run is asked to do: identity, which determines the bits, and execution, which does not.

The rule: whatever can change a bit of the result belongs to the identity and is never changed.
Chapter: docs/guide/using_the_project.md

Imports nothing heavy: the command line is made from these classes before JAX is loaded.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from typing import Any

from reproducibility.errors import ConfigError, RunError, and_more

DATASETS = ("synthetic", "digits")
RESUME = ("auto", "never", "require")
RECORD = ("auto", "leaf", "brief", "group", "off")
MAX_SEED = 2**32 - 1
MAX_STEPS = 10**9
MAX_SHARDS = 1024
MAX_WIDTH = 2**16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """Everything you choose that determines the bits of a run.

    Written to `run.json` once. A run directory refuses another identity, naming the settings.

    Same bits: two runs with equal identities and equal environments end with the same digest.

    Raises:
        ConfigError: a setting is out of its range; the message names it.
    """

    seed: int
    """The integer from which every random number of the run is derived, 0 to 2**32-1."""
    dataset: str = "synthetic"
    """What to learn: "synthetic" (drawn from keys) or "digits" (8x8 handwritten, scikit-learn)."""
    batch_size: int = 64
    """Examples in each update; the same in every step."""
    shards: int = 8
    """Fixed slices the batch is cut into, a power of two; 1 is the plain step."""
    hidden: tuple[int, ...] = (64, 32)
    """Width of each hidden layer."""
    dropout: float = 0.1
    """Probability with which a hidden unit is dropped in training, 0 to below 1."""
    learning_rate: float = 1e-3
    """Step size of Adam."""

    def __post_init__(self) -> None:
        """Check each setting on its own, then those that must fit together."""
        _integer("seed", self.seed, 0, MAX_SEED)
        _choice("dataset", self.dataset, DATASETS)
        _integer("batch_size", self.batch_size, 1, 2**20)
        _integer("shards", self.shards, 1, MAX_SHARDS)
        if self.shards & (self.shards - 1):
            _refuse("shards", "a power of two", self.shards, "Use 1, 2, 4, 8 or 16.")
        if self.batch_size % self.shards:
            _refuse(
                "batch_size",
                f"a multiple of the {self.shards} shards",
                self.batch_size,
                f"Use {_nearest_multiple(self.batch_size, self.shards)}, or fewer shards.",
            )
        if not isinstance(self.hidden, (list, tuple)):
            _refuse("hidden", "a tuple of widths", self.hidden, "For example (64, 32).")
        object.__setattr__(self, "hidden", tuple(self.hidden))  # a list is as good
        for width in self.hidden:
            _integer("hidden", width, 1, MAX_WIDTH)
        _number_setting("dropout", self.dropout, 0.0, 1.0)
        _number_setting("learning_rate", self.learning_rate, 0.0, math.inf)
        if self.learning_rate == 0:
            _refuse("learning_rate", "a finite number above 0", 0, "Try 0.001.")
        for name in ("dropout", "learning_rate"):  # 1 and 1.0, 0.0 and -0.0 name one run
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """How far to go and what to keep on the way; free to differ between two stretches of a run.

    Same bits: no field here changes a bit of any step. `steps` says where the run ends, so it
    decides which step's digest is the last.

    Raises:
        ConfigError: a setting is out of its range; the message names it.
    """

    steps: int = 200
    """Updates after which the run is finished; it may grow later."""
    checkpoint_every: int = 50
    """Updates between two checkpoints; the last step always has one."""
    keep: int = 3
    """How many of the newest checkpoints stay on disk."""
    stop_after: int | None = None
    """Stop, with a checkpoint, when this many updates in total are complete."""
    resume: str = "auto"
    """Whether to go on from a checkpoint: "auto" if there is one, "never", or "require" one."""
    record: str = "auto"
    """What the ledger has a fingerprint of: each "leaf", each "group" of them, "brief" for groups
    and the names of what differs, "off" for none; "auto" is "leaf" for a network of up to 16
    arrays, else "brief"."""
    record_every: int = 1
    """Updates between two lines of the ledger."""
    devices: int = 1
    """Devices of each process that share the work; on the CPU as many as are asked for."""

    def __post_init__(self) -> None:
        """Check each setting on its own."""
        _integer("steps", self.steps, 1, MAX_STEPS)
        _integer("checkpoint_every", self.checkpoint_every, 1, MAX_STEPS)
        _integer("keep", self.keep, 1, MAX_STEPS)
        if self.stop_after is not None:
            _integer("stop_after", self.stop_after, 1, MAX_STEPS)
        _choice("resume", self.resume, RESUME)
        _choice("record", self.record, RECORD)
        _integer("record_every", self.record_every, 1, MAX_STEPS)
        _integer("devices", self.devices, 1, MAX_SHARDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Identity, Execution):
    """A whole request: an identity and an execution, as one flat set of settings.

    Same bits: decided by `identity` alone.

    Raises:
        ConfigError: a setting is out of its range; the message names it.

    Examples:
        >>> config = TrainConfig(seed=7, steps=40)
        >>> config.identity == TrainConfig(seed=7, steps=80).identity
        True
    """

    def __post_init__(self) -> None:
        """Check both parts."""
        Identity.__post_init__(self)
        Execution.__post_init__(self)

    @property
    def identity(self) -> Identity:
        """The settings that determine the bits."""
        return select_settings(Identity, vars(self))

    @property
    def execution(self) -> Execution:
        """The settings that do not."""
        return select_settings(Execution, vars(self))


def identity_of(settings: Mapping[str, Any]) -> Identity:
    """Return the identity that a `run.json` holds among what else determines the bits.

    **Same bits:** everywhere.

    Args:
        settings: JSON values by name.

    Raises:
        RunError: a setting is not among them: another version wrote them.
    """
    lacking = [field.name for field in dataclasses.fields(Identity) if field.name not in settings]
    if lacking:
        raise RunError(
            "use",
            "a run",
            expected=f"settings with {and_more(lacking)}",
            got="those of another version",
            do="Use the version that wrote it.",
        )
    return select_settings(Identity, settings)


def select_settings[T](cls: type[T], settings: Mapping[str, Any]) -> T:
    """Make a set of settings of those that it has among others.

    **Same bits:** everywhere.

    Args:
        cls: `Identity`, `Execution` or `TrainConfig`.
        settings: values by name.
    """
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return cls(**{name: settings[name] for name in names})


def _refuse(name: str, expected: str, got: Any, do: str) -> None:
    raise ConfigError("use", name, expected=expected, got=repr(got), do=do)


def _integer(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        top = "2**32-1" if high == MAX_SEED else f"{high:,}"
        _refuse(name, f"a whole number from {low} to {top}", value, "Choose one in that range.")


def _number_setting(name: str, value: Any, low: float, below: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and low <= value < below and value <= sys.float_info.max):
        span = f"from {low:g} to below {below:g}" if math.isfinite(below) else f"above {low:g}"
        _refuse(name, f"a finite number {span}", value, "Choose one in that range.")


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        names = ", ".join(allowed)
        _refuse(name, f"one of {names}", value, f"Spell it as one of: {names}.")


def _nearest_multiple(value: int, unit: int) -> int:
    return max(unit, round(value / unit) * unit)
