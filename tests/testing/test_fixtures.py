"""The fixtures for pytest, in a suite of their own."""

from __future__ import annotations

import re

import jax
import pytest

from reproducibility import (
    root_key,
    stream_key,
)

SUITE = """
import jax, jax.numpy as jnp, pytest

def test_legacy():
    with pytest.raises(ValueError, match="legacy"):
        jax.random.split(jax.random.PRNGKey(0))

def test_reuse():
    key = jax.random.key(0)
    jax.random.bits(key)
    with pytest.raises(jax.errors.KeyReuseError):
        jax.random.bits(key)

def test_rank():
    with pytest.raises(ValueError, match="rank"):
        jnp.zeros(3) + jnp.zeros((2, 3))

@pytest.mark.parametrize("n", [1, 2])
def test_key(item_key, n):
    print("words", *jax.random.key_data(item_key))
"""


def test_fixtures_in_a_suite(pytester: pytest.Pytester) -> None:
    """One line in conftest.py and one setting make a suite strict, and give each test a key."""
    pytester.makeconftest('pytest_plugins = ["reproducibility.testing"]')
    pytester.makeini("[pytest]\nusefixtures = strict_jax\n")
    pytester.makepyfile(test_suite=SUITE)
    result = pytester.runpytest_inprocess("-s", "-p", "no:cacheprovider", "-p", "no:randomly")
    result.assert_outcomes(passed=5)
    printed = re.findall(r"words (\d+) (\d+)", result.stdout.str())
    names = [f"test_suite.py::test_key[{n}]" for n in (1, 2)]
    keys = [jax.random.key_data(stream_key(root_key(0), name)) for name in names]
    assert [tuple(map(int, words)) for words in printed] == [tuple(key.tolist()) for key in keys]


def test_strictness_is_the_fixtures(pytester: pytest.Pytester) -> None:
    """Without the setting the same suite is not strict, so the fixture is what makes it so."""
    pytester.makeconftest('pytest_plugins = ["reproducibility.testing"]')
    pytester.makepyfile(test_suite=SUITE)
    with (
        jax.legacy_prng_key("allow"),
        jax.debug_key_reuse(False),
        jax.numpy_rank_promotion("allow"),
    ):
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly")
    result.assert_outcomes(passed=2, failed=3)


def test_key_of_this_test(item_key: jax.Array) -> None:
    """The key of a test is that of its node id, for ever."""
    name = "tests/testing/test_fixtures.py::test_key_of_this_test"
    assert item_key == stream_key(root_key(0), name)
    assert jax.random.key_data(item_key).tolist() == [904454928, 4289150178]
