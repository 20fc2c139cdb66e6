"""Fixtures for pytest: JAX that lets nothing pass in silence, and a key for each test.

The rule: what passes has the bits that it has without them.
Chapter: docs/guide/testing_your_code.md
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest
from jaxtyping import Array, Key

from reproducibility.keys import root_key, stream_key


@pytest.fixture
def strict_jax() -> Iterator[None]:
    """Make raw uint32 keys, reused keys and silent broadcasting errors for one test.

    For a whole suite, put `usefixtures = ["strict_jax"]` into the settings of pytest.

    Same bits: what passes has the bits that it has without the fixture.
    """
    with (
        jax.legacy_prng_key("error"),
        jax.debug_key_reuse(True),
        jax.numpy_rank_promotion("raise"),
    ):
        yield


@pytest.fixture
def item_key(request: pytest.FixtureRequest) -> Key[Array, ""]:
    """Give each test a typed key of its own, derived from its node id.

    **Same bits:** everywhere and in any order of the tests, until the test, its file or one of
    its parameters gets another name.
    """
    return stream_key(root_key(0), request.node.nodeid)
