"""Strict JAX for every test of the package, and keys that belong to their test."""

from collections.abc import Callable, Iterator

import jax
import pytest

from reproducibility import TrainConfig
from reproducibility.keys import root_key, stream_key

# Small enough to compile in a second, and everything is on: dropout, shuffling, several shards,
# batches that straddle epochs.
SMALL = {"batch_size": 32, "shards": 2, "hidden": (8,), "dropout": 0.25}


@pytest.fixture(autouse=True)
def _strict_jax() -> Iterator[None]:
    """Make raw uint32 keys, reused keys and silent broadcasting errors in each test."""
    with (
        jax.legacy_prng_key("error"),
        jax.debug_key_reuse(True),
        jax.numpy_rank_promotion("raise"),
    ):
        yield


@pytest.fixture
def key(request: pytest.FixtureRequest) -> jax.Array:
    """Give each test its own key, the same one in every session."""
    return stream_key(root_key(0), request.node.nodeid)


@pytest.fixture
def small() -> Callable[..., TrainConfig]:
    """Make a small configuration: `small(seed=3, steps=20)`."""

    def make(**settings: object) -> TrainConfig:
        return TrainConfig(**{"seed": 7, "steps": 12, "checkpoint_every": 4, **SMALL, **settings})

    return make
