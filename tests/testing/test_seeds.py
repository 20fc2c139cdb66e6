"""Another seed, another run: what passes, what fails, and what is no result."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import LeafError, generator_state, root_key, stream_key
from reproducibility.testing import assert_seed_matters, assert_seeds_differ
from tests.failing import X, failure

SAME = "The seed does not matter: seeds 0 and 1 give the same bits."


def training(shadowed: bool) -> Any:
    """Return a training of one scan, for one key; with a key of its own if that is shadowed."""

    def train(rng: jax.Array) -> Any:
        if shadowed:
            rng = root_key(0)

        def step(carry: Any, _: Any) -> Any:
            w, key = carry
            key, draw = jax.random.split(key)
            w = 0.9 * w + jax.random.uniform(draw, (3,))
            return (w, key), w.sum()

        first, start = jax.random.split(rng)
        return jax.lax.scan(step, (jax.random.uniform(start, (3,)), first), length=4)

    return train


def test_seed_of_a_scan() -> None:
    """A seed that a loop draws from passes; one that is shadowed on the way fails."""
    assert_seed_matters(lambda seed: training(False)(root_key(seed)))
    said = failure(assert_seed_matters, lambda seed: training(True)(root_key(seed)))
    assert said.startswith(SAME)


def test_seeds_of_a_vmap() -> None:
    """Of seeds that are computed at once, all must differ; keys in the result do not make it so."""
    keys = jax.vmap(root_key)(jnp.arange(4))
    assert_seeds_differ(jax.vmap(training(False))(keys))
    (w, _), losses = jax.vmap(training(True))(keys)
    assert failure(assert_seeds_differ, {"w": w, "key": keys, "loss": losses}).startswith(SAME)


def test_two_of_several_seeds() -> None:
    """Each seed is compared with each, and the two that agree are named."""
    said = failure(assert_seeds_differ, np.float32([[1], [2], [3], [2]]))
    assert "seeds 1 and 3 give the same bits" in said
    said = failure(assert_seed_matters, lambda seed: np.int32(seed // 2 + 7), seeds=(0, 2, 5, 3))
    assert "seeds 2 and 3 give the same bits" in said


def test_what_is_handed_back() -> None:
    """A key, a generator and the seed itself are in a state whether anybody draws or not."""

    def carried(seed: int) -> Any:
        generator = generator_state(np.random.default_rng(seed))
        key = stream_key(root_key(seed), "x")
        return {"key": key, "seed": np.uint32(seed), "rng": generator, "w": X}

    assert failure(assert_seed_matters, carried).startswith(SAME)
    only = failure(assert_seed_matters, lambda seed: {**carried(seed), "w": None})
    assert only == "The function returned nothing but keys and the seed itself."


def test_a_number_that_one_seed_equals() -> None:
    """A count that happens to be one of the seeds is a result like any other."""
    assert failure(assert_seed_matters, lambda seed: {"step": np.int32(1)}).startswith(SAME)
    assert_seed_matters(lambda seed: {"step": np.int32([1, 5, 6][seed])})


def test_what_differs_with_every_call() -> None:
    """Results that differ without another seed say nothing about seeds: it is found and said."""
    count = np.zeros(1, np.int32)

    def counted(seed: int) -> Any:
        count[0] += 1
        return count  # one buffer, which the next call writes into

    said = failure(assert_seed_matters, counted)
    assert said == (
        "A difference between seeds says nothing: seed 0 gives another result when it is used "
        "again: leaf .: int32[1] with other bits."
    )


def test_every_leaf() -> None:
    """On demand each leaf must depend on the seed, so that one draw does not hide another."""

    def train(seed: int) -> Any:
        noise = jax.random.uniform(root_key(0), (3,))  # ignores the seed
        return {"w": jax.random.uniform(root_key(seed), (3,)), "noise": noise}

    assert_seed_matters(train)
    said = failure(assert_seed_matters, train, every_leaf=True)
    assert said == "The seed does not matter for noise: the same bits with each of 3 seeds."
    rows = jax.vmap(lambda key: (jax.random.uniform(key), jnp.float32(1)))(
        jax.vmap(root_key)(jnp.arange(3))
    )
    assert_seeds_differ(rows)
    assert "matter for [1]: the same" in failure(assert_seeds_differ, rows, every_leaf=True)


def test_seeds_that_are_keys() -> None:
    """A function may take a key for its seed."""
    keys = [stream_key(root_key(0), name) for name in ("a", "b")]
    assert_seed_matters(lambda key: jax.random.uniform(jax.random.clone(key)), seeds=keys)
    said = failure(assert_seed_matters, lambda key: X, seeds=keys)
    assert said.startswith("The seed does not matter: seeds [")


@pytest.mark.parametrize("seeds", [(), (3,), (3, 3), (0, 1, 0), (np.int32(1), 1)])
def test_refused_seeds(seeds: Any) -> None:
    """Without two different seeds there is nothing to compare."""
    with pytest.raises(ValueError, match=r"^Cannot compare seeds: expected at least two, all diff"):
        assert_seed_matters(lambda seed: X, seeds=seeds)


@pytest.mark.parametrize("results", [X[:1], (X, X[0]), {}, np.float32(1), {"key": root_key(0)}])
def test_refused_rows(results: Any) -> None:
    """Rows are compared where all leaves have them, two or more."""
    with pytest.raises(ValueError, match=r"^Cannot compare seeds: expected one first axis of 2"):
        assert_seeds_differ(results)


def test_results_without_digest() -> None:
    """A Python number has no bits to compare."""
    with pytest.raises(LeafError, match="a Python float"):
        assert_seed_matters(lambda seed: 0.5)
