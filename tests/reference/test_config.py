"""Promises of `reproducibility.reference.config`."""

import dataclasses
import json
import subprocess
import sys

import pytest

from reproducibility import ConfigError, Execution, Identity, RunError, TrainConfig
from reproducibility.reference.config import identity_of

REFUSED = [
    ("seed", -1, "a whole number from 0 to 2**32-1"),
    ("seed", 2**32, "a whole number from 0 to 2**32-1"),
    ("seed", 1.5, "a whole number"),
    ("seed", True, "a whole number"),
    ("seed", "7", "a whole number"),
    ("steps", 0, "a whole number from 1"),
    ("steps", -5, "a whole number from 1"),
    ("steps", 10**12, "a whole number from 1 to 1,000,000,000"),
    ("checkpoint_every", 0, "a whole number from 1"),
    ("keep", 0, "a whole number from 1"),
    ("stop_after", 0, "a whole number from 1"),
    ("batch_size", 0, "a whole number from 1"),
    ("batch_size", 60, "a multiple of the 8 shards"),
    ("shards", 0, "a whole number from 1"),
    ("shards", 3, "a power of two"),
    ("shards", 2**20, "a whole number from 1 to 1,024"),
    ("hidden", (64, 0), "a whole number from 1"),
    ("dropout", 1.0, "a finite number from 0 to below 1"),
    ("dropout", -0.1, "a finite number from 0 to below 1"),
    ("learning_rate", 0, "a finite number above 0"),
    ("learning_rate", -1e-3, "a finite number above 0"),
    ("learning_rate", float("nan"), "a finite number above 0"),
    ("learning_rate", float("inf"), "a finite number above 0"),
    ("learning_rate", 10**400, "a finite number above 0"),
    ("dropout", 10**400, "a finite number from 0"),
    ("hidden", 5, "a tuple of widths"),
    ("hidden", None, "a tuple of widths"),
    ("dataset", "cifar", "one of synthetic, digits"),
    ("resume", "maybe", "one of auto, never, require"),
    ("record", "all", "one of auto, leaf, brief, group, off"),
    ("record", None, "one of auto, leaf, brief, group, off"),
    ("record_every", 0, "a whole number from 1"),
    ("record_every", 2.0, "a whole number from 1"),
]


@pytest.mark.parametrize(("name", "value", "expected"), REFUSED)
def test_a_setting_out_of_range_is_refused(name: str, value: object, expected: str) -> None:
    """Each setting out of its range is refused by name, with what is expected and what came."""
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{"seed": 7, name: value})
    assert str(caught.value).startswith(f"Cannot use {name}: expected {expected}")
    got = value[-1] if isinstance(value, tuple) else value
    assert f"got {got!r}" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_seed_must_be_chosen() -> None:
    """There is no default seed below the command line."""
    with pytest.raises(TypeError, match="seed"):
        TrainConfig()


def test_identity_and_execution_split_the_settings() -> None:
    """Every setting belongs to exactly one of the two halves, and each half keeps its values."""
    config = TrainConfig(seed=3, steps=9, hidden=[5, 4], resume="never")
    identity, execution = (dataclasses.asdict(part) for part in (config.identity, config.execution))
    assert identity.keys().isdisjoint(execution)
    assert {**identity, **execution} == dataclasses.asdict(config)
    assert (config.identity.seed, config.execution.steps) == (3, 9)


def test_execution_is_not_identity() -> None:
    """Two configurations that differ in execution alone are one run; in identity, two."""
    base = TrainConfig(seed=3)
    for field in dataclasses.fields(Execution):
        other = {"stop_after": 5, "resume": "never", "record": "off"}.get(field.name, 77)
        assert dataclasses.replace(base, **{field.name: other}).identity == base.identity
    changed = {"seed": 4, "dataset": "digits", "hidden": (9,), "dropout": 0.5}
    for field in dataclasses.fields(Identity):
        other = changed.get(field.name, 128 if field.name == "batch_size" else 2)
        assert dataclasses.replace(base, **{field.name: other}).identity != base.identity


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [("learning_rate", 1, 1.0), ("dropout", 0, 0.0), ("dropout", -0.0, 0.0), ("hidden", [5], (5,))],
)
def test_equal_identities_are_written_alike(name: str, one: object, other: object) -> None:
    """Settings that Python calls equal are the same bytes in run.json, and so name the same run."""
    settings = [dataclasses.asdict(Identity(seed=3, **{name: value})) for value in (one, other)]
    assert json.dumps(settings[0]) == json.dumps(settings[1])


def test_nothing_heavy_is_imported() -> None:
    """Reading a configuration loads neither JAX nor NumPy."""
    code = """
import sys, reproducibility.reference.config
print(sorted({"jax", "numpy", "flax"} & {*sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_of_another_version_are_refused() -> None:
    """A run whose settings lack one of ours was written by another version, and that is said."""
    settings = dataclasses.asdict(TrainConfig(seed=7).identity)
    assert identity_of(settings) == TrainConfig(seed=7).identity
    del settings["dropout"]
    with pytest.raises(RunError, match="settings with dropout, got those of another version"):
        identity_of(settings)
