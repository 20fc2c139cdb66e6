"""Promises of `reproducibility.data`."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility.data import Dataset, load_dataset
from reproducibility.errors import ConfigError
from reproducibility.hashing import tree_digest


def toy(n: int, batch_size: int, seed: int = 7) -> Dataset:
    """Make a data set whose inputs are the numbers of their rows."""
    like = load_dataset("synthetic", seed=seed, batch_size=1)
    rows = jnp.arange(n)
    return Dataset(rows[:, None], rows, rows[:, None], rows, like.shuffle, batch_size, n)


# Frozen: integer data, equal on every machine. If one moves, every run on that data set has other
# bits: a breaking release.
GOLDEN_EXAMPLES = {
    "synthetic": "b01820c9147ad3c3cf13efa456270d2ea686a459c730ed612b4fa200f8ab1357",
    "digits": "4b5f7a2eecd33f7c4277c5ea881e834f0a7931fc20544509fcebd762c133cffd",
}
GOLDEN_ORDER = [1034, 866, 578, 1750, 548, 834, 1453, 661]


@pytest.mark.parametrize("name", ["synthetic", "digits"])
def test_examples_are_frozen(name: str) -> None:
    """The examples of both data sets have the digests of the first release, for any seed."""
    data = load_dataset(name, seed=3, batch_size=8)
    assert tree_digest([data.x, data.y, data.x_test, data.y_test]) == GOLDEN_EXAMPLES[name]
    assert (data.x.dtype, data.y.dtype) == (jnp.float32, jnp.int32)
    assert data.classes == 10


def test_order_is_frozen() -> None:
    """The first rows of seed 7 are those of the first release."""
    data = load_dataset("synthetic", seed=7, batch_size=64)
    assert data.rows(0, 0, 8).tolist() == GOLDEN_ORDER


# Each shape compiles anew, so the shapes are few: one, two and some examples, batches that divide
# the data, that do not, and that are all of it.
SHAPES = [(1, 1), (2, 1), (7, 7), (64, 16), (97, 10), (97, 96)]


@pytest.mark.parametrize(("n", "size"), SHAPES)
def test_every_epoch_visits_every_example_once(n: int, size: int) -> None:
    """For any batch size and seed, each stretch of n places is a permutation of the n rows."""
    steps = jnp.arange(-(-3 * n // size))
    sequence = jax.jit(lambda data: jax.vmap(lambda step: data.rows(step, 0, size))(steps))
    for seed in (0, 7, 2**32 - 1):
        rows = np.asarray(sequence(toy(n, size, seed))).ravel()
        for epoch in rows[: 3 * n].reshape(3, n):
            assert sorted(epoch) == list(range(n))


@pytest.mark.parametrize(("n", "size"), SHAPES[2:])
def test_a_part_is_that_slice_of_the_batch(n: int, size: int) -> None:
    """`part` gives, on its own, exactly the rows that the whole batch has at those places."""
    data = toy(n, size)
    for part in (slice(0, 1), slice(size // 2, size), slice(-2, None)):
        for step in (0, 3, 10**9):
            whole = data.batch(step)
            expected = tree_digest([array[part] for array in whole])
            assert tree_digest(list(data.batch(step, part=part))) == expected


def test_traced_and_plain_steps_agree() -> None:
    """A batch of a traced step is the batch of the plain one, far into a run too."""
    data = load_dataset("digits", seed=7, batch_size=100)
    for step in (0, 14, 15, 10**6, 2**31 + 1):
        traced = jax.jit(Dataset.batch)(data, jnp.uint32(step))
        assert tree_digest(traced) == tree_digest(data.batch(step))


def test_index_arithmetic_does_not_overflow() -> None:
    """Late in a long run a batch is where exact integers put it, though step * size leaves 32 bits.

    The control: the product in 32 bits would put it into another epoch.
    """
    n, size, step = 97, 10, 2**32 - 12_345
    epoch, place = divmod(step * size, n)
    assert (step * size % 2**32) // n != epoch
    # The same epoch of a data set with batches of one row begins at step epoch * n; go there by
    # a step that is small enough, in a data set whose batch is a whole epoch.
    whole = toy(n, n).rows(epoch, 0, n)
    found = toy(n, size).rows(step, 0, size)
    here = min(size, n - place)
    assert found[:here].tolist() == whole[place : place + here].tolist()


def test_epochs_and_seeds_have_different_orders() -> None:
    """Two epochs, and two seeds, visit the examples in orders as unlike as chance makes them."""
    n = 2000
    orders = [np.asarray(toy(n, n, seed).rows(epoch, 0, n)) for seed in (1, 2) for epoch in (0, 1)]
    for i, a in enumerate(orders):
        for b in orders[:i]:
            assert (a == b).sum() < 10  # 1 is expected of independent permutations


def test_orders_are_uniform() -> None:
    """Over 24,000 epochs, the 120 orders of five examples come up equally often (chi-square)."""
    data = toy(5, 5)
    orders = jax.jit(jax.vmap(lambda epoch: data.rows(epoch, 0, 5)))(jnp.arange(24_000))
    _, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
    assert len(counts) == 120
    # 119 degrees of freedom: 176 is exceeded by chance in 1 of 2,000 cases, and this is no
    # chance: the seed is fixed.
    assert ((counts - 200) ** 2 / 200).sum() < 176


def test_synthetic_inputs_are_integers_times_a_power_of_two() -> None:
    """No rounding was involved in drawing the synthetic inputs, so no machine can round them."""
    data = load_dataset("synthetic", seed=7, batch_size=8)
    scaled = np.asarray(data.x, np.float64) * 2**16
    assert np.array_equal(scaled, np.round(scaled))
    assert np.abs(scaled).max() < 2**24


def test_instruction_set_does_not_move_the_data() -> None:
    """With another instruction set the batches are the same; the control, random.normal, is not."""
    code = """
import jax
from reproducibility import tree_digest
from reproducibility.data import load_dataset
data = load_dataset("synthetic", seed=7, batch_size=50)
print(tree_digest([data.batch(step) for step in (0, 41, 10**6)]))
print(tree_digest(jax.random.normal(jax.random.key(0), (1000,))))
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"XLA_FLAGS": flags},
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout.split()
        for flags in ("--xla_cpu_enable_fast_math=false", "--xla_cpu_enable_fast_math=true")
    ]  # fmt: skip
    assert outputs[0][0] == outputs[1][0]
    assert outputs[0][1] != outputs[1][1]


def test_an_unknown_data_set_is_refused() -> None:
    """An unknown name is refused with the names there are."""
    with pytest.raises(ConfigError, match="expected one of synthetic, digits, got 'mnist'"):
        load_dataset("mnist", seed=7, batch_size=8)


@pytest.mark.parametrize(("name", "size"), [("synthetic", 2049), ("digits", 1438), ("digits", 0)])
def test_a_batch_larger_than_the_data_is_refused(name: str, size: int) -> None:
    """No example stands in a batch twice: a larger batch is refused."""
    with pytest.raises(ConfigError, match="batch_size: expected 1 to"):
        load_dataset(name, seed=7, batch_size=size)


@pytest.mark.parametrize("part", [slice(0, 9), slice(4, 4), slice(0, 8, 2), slice(9, 12)])
def test_a_part_outside_the_batch_is_refused(part: slice) -> None:
    """A part that is empty, skips places or leaves the batch is refused."""
    with pytest.raises(ValueError, match=r"expected one or more places .* 0 … 8, got slice"):
        toy(20, 8).batch(0, part=part)


def test_a_product_beyond_32_bits_is_refused() -> None:
    """Where the index arithmetic could overflow, it is refused rather than wrong."""
    data = toy(20, 8)
    large = dataclasses.replace(data, x=jnp.zeros((2**22, 0)), batch_size=2**10)
    with pytest.raises(ValueError, match=r"expected a product below 2\*\*32, got 4294967296"):
        large.rows(0, 0, 1)
    dataclasses.replace(large, batch_size=2**10 - 1).rows(0, 0, 1)
