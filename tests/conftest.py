"""Strict JAX for every test of the package, and keys that belong to their test."""

from collections.abc import Callable

import jax
import pytest

from reproducibility import TrainConfig, testing

# Small enough to compile in a second, and everything is on: dropout, shuffling, several shards,
# batches that straddle epochs.
SMALL = {"batch_size": 32, "shards": 2, "hidden": (8,), "dropout": 0.25}

# The fixtures that other suites load with `pytest_plugins`, which only the topmost conftest may do.
strict_jax = testing.strict_jax
item_key = testing.item_key


@pytest.fixture(autouse=True)
def _strict_jax(strict_jax: None) -> None:
    """Make raw uint32 keys, reused keys and silent broadcasting errors in each test."""


@pytest.fixture
def key(item_key: jax.Array) -> jax.Array:
    """Give each test its own key, the same one in every session."""
    return item_key


@pytest.fixture
def small() -> Callable[..., TrainConfig]:
    """Make a small configuration: `small(seed=3, steps=20)`."""

    def make(**settings: object) -> TrainConfig:
        return TrainConfig(**{"seed": 7, "steps": 12, "checkpoint_every": 4, **SMALL, **settings})

    return make
