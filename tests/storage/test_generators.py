"""Generators as a part of the state: every kind, to arrays and back, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import (
    CheckpointMismatchError,
    CheckpointStore,
    Recorder,
    compare,
    generator_from_state,
    generator_state,
    leaf_digests,
    tree_digest,
)

BITS = [getattr(np.random, n) for n in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")]
# A generator, as if its program had drawn so much that half of a draw is held back.
MAKERS: dict[str, Callable[[Any], Any]] = {
    **{f"Generator {b.__name__}": lambda s, b=b: half(np.random.Generator(b(s))) for b in BITS},
    **{f"RandomState {b.__name__}": lambda s, b=b: half(np.random.RandomState(b(s))) for b in BITS},
    **{b.__name__: lambda s, b=b: half(np.random.Generator(b(s))).bit_generator for b in BITS},
    "RandomState": lambda seed: half(np.random.RandomState(seed)),
    "Random": lambda seed: half(random.Random(seed)),
}
each_kind = pytest.mark.parametrize("name", MAKERS)


def half(generator: Any) -> Any:
    """Draw once, so that something of the draw is left over for the next one."""
    if isinstance(generator, random.Random):
        generator.gauss(0, 1)
    elif isinstance(generator, np.random.RandomState):
        generator.randn()
    else:
        generator.integers(2**32, dtype=np.uint32)
    return generator


def draws(generator: Any) -> list[Any]:
    """Return what comes next, of several kinds: the draws that use a left-over half first."""
    if isinstance(generator, random.Random):
        return [generator.gauss(0, 1), generator.random(), generator.getrandbits(700)]
    if isinstance(generator, np.random.RandomState):
        return [*generator.randn(3).tolist(), *generator.randint(1000, size=5).tolist()]
    if isinstance(generator, np.random.BitGenerator):
        generator = np.random.Generator(generator)
    children = [child.random() for child in generator.spawn(2)]
    words = generator.integers(2**32, size=3, dtype=np.uint32).tolist()
    return [*words, *generator.normal(size=700).tolist(), *children]


@each_kind
@pytest.mark.parametrize("seed", [0, 5, 2**40 + 1])
def test_the_next_draws_are_the_same(name: str, seed: int) -> None:
    """From NumPy's arrays or JAX's, a generator of the same kind draws the same, children too."""
    seed = seed % 2**32 if name in ("RandomState", "Random") else seed
    generator = MAKERS[name](seed)
    state = generator_state(generator)
    kept = tree_digest(state)
    expected = draws(generator)
    assert tree_digest(state) == kept, "the draws wrote into the state that was taken before"
    for tree in (state, jax.tree.map(jnp.asarray, state)):
        made = generator_from_state(tree)
        assert type(made) is type(generator)
        assert draws(made) == expected
    assert draws(MAKERS[name](seed + 1)) != expected


@each_kind
def test_state_in_one_place(name: str) -> None:
    """A generator that others hold is put back, whatever it drew and was seeded with since."""
    generator = MAKERS[name](5)
    state = generator_state(generator)
    expected = draws(generator)
    for other in (generator, MAKERS[name](6)):
        assert generator_from_state(state, into=other) is other
        assert tree_digest(generator_state(other)) == tree_digest(state)
        assert draws(other) == expected


@pytest.fixture
def _shared_generators() -> Iterator[None]:
    """Put the generators that modules share back as they were."""
    numpy, python = np.random.get_state(), random.getstate()
    yield
    np.random.set_state(numpy)
    random.setstate(python)


@pytest.mark.usefixtures("_shared_generators")
def test_the_generators_that_modules_share() -> None:
    """The functions of `numpy.random` and `random` draw from a generator that has a state, too."""
    np.random.seed(5), random.seed(5)
    np.random.randn(), random.gauss(0, 1)
    states = generator_state(np.random), generator_state(random)
    expected = [np.random.randn(), np.random.rand(), random.gauss(0, 1), random.random()]
    for state, module in zip(states, (np.random, random), strict=True):
        assert generator_from_state(state, into=module) is module
    assert [np.random.randn(), np.random.rand(), random.gauss(0, 1), random.random()] == expected


def test_what_is_held_back_counts() -> None:
    """Without the half that is held back of a draw, the next draws are others: it is state."""
    for name, held in [
        ("Generator PCG64", ("Generator", "PCG64", "has_uint32")),
        ("Generator Philox", ("Generator", "Philox", "buffer")),
        ("RandomState", ("RandomState", "gauss")),
        ("Random", ("Random", "gauss")),
    ]:
        generator = MAKERS[name](5)
        state = generator_state(generator)
        *way, last = held
        inner = state
        for part in way:
            inner = inner[part]
        for leaf in (last, f"has_{last}"):
            if leaf in inner:
                inner[leaf] = inner[leaf] * 0
        assert draws(generator_from_state(state)) != draws(generator), name


@pytest.mark.parametrize(
    "entropy",
    [0, 7, 2**32 - 1, 2**128 - 1, 2**200, [1, 0], [1, 2, 3, 4, 0], [2**40, 3], (), 7 << 120],
)
@pytest.mark.parametrize("spawn_key", [(), (3,), (0, 2**40)])
@pytest.mark.parametrize("pool_size", [4, 8])
def test_what_children_are_spawned_from(entropy: Any, spawn_key: Any, pool_size: int) -> None:
    """Whatever a generator was seeded with, its children are those it would have had."""
    seed = np.random.SeedSequence(entropy, spawn_key=spawn_key, pool_size=pool_size)
    generator = np.random.default_rng(seed)
    generator.spawn(3)
    made = generator_from_state(generator_state(generator))
    assert made.bit_generator.seed_seq.generate_state(9).tolist() == seed.generate_state(9).tolist()
    assert draws(made) == draws(generator)


def test_one_kind_has_one_shape() -> None:
    """What a fresh generator has is what a checkpoint of another seed's can be restored into."""

    def shapes(seed: Any) -> Any:
        return jax.tree.map(np.shape, generator_state(np.random.default_rng(seed)))

    assert shapes(0) == shapes(2**128 - 1) == shapes(None) == shapes([1, 2])


def test_all_tools_take_it(tmp_path: Path) -> None:
    """Digest, store and recorder take the state of every kind, and what comes back draws on."""
    generators = {name: MAKERS[name](5) for name in MAKERS}
    state = {name: generator_state(g) for name, g in generators.items()}
    # No leaf may be narrowed by JAX, with or without its 64 bits.
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype(np.uint32)}
    like = {name: generator_state(MAKERS[name](6)) for name in MAKERS}
    with CheckpointStore(tmp_path / "store") as store:
        store.save(1, state)
        restored = store.restore(like)
    for name, generator in generators.items():
        assert draws(generator_from_state(restored[name])) == draws(generator)
    for file, tree in (("a", state), ("b", restored), ("c", like)):
        with Recorder(tmp_path / file) as recorder:
            recorder.record(1, params=tree)
    assert compare(tmp_path / "a", tmp_path / "b").verdict == "same"
    assert compare(tmp_path / "a", tmp_path / "c").verdict == "different"


def test_another_kind_is_another_tree(tmp_path: Path) -> None:
    """A checkpoint of one kind of generator is not read as the state of another."""
    one, other = (generator_state(np.random.Generator(b(5))) for b in BITS[:2])
    assert leaf_digests(one).keys() != leaf_digests(other).keys()
    with CheckpointStore(tmp_path) as store:
        store.save(1, one)
        with pytest.raises(CheckpointMismatchError, match="PCG64DXSM"):
            store.restore(other)


class Skewed(random.Random):
    """A generator that may hold more than Python's own."""


class Tired(np.random.Generator):
    """One of NumPy's with something of its own."""


class OwnSeed(np.random.bit_generator.ISeedSequence):
    """A way of its own to seed."""

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        """Return zeros."""
        return np.zeros(n_words, dtype)


@pytest.mark.parametrize(
    ("generator", "got"),
    [
        (random.SystemRandom(), "a random.SystemRandom"),
        (Skewed(5), "Skewed"),
        (Tired(np.random.PCG64(5)), "Tired"),
        (np.random.default_rng(OwnSeed()), "one seeded by a OwnSeed"),
        (np.random.SeedSequence(5), "SeedSequence"),
        (jax.random.key(0), "Array"),
        (np.linalg, "a builtins.module"),
        (7, "a builtins.int"),
    ],
)
def test_what_has_no_such_state(generator: Any, got: str) -> None:
    """What draws otherwise, or may hold more, is refused in a sentence."""
    with pytest.raises(ValueError, match=rf"^Cannot take apart a generator: expected .*{got}"):
        generator_state(generator)


def broken() -> Iterator[Any]:
    """Yield trees that are nearly a state."""
    for change in (
        lambda tree: tree["Generator"].pop("PCG64"),
        lambda tree: tree["Generator"].update(more=np.uint32([1])),
        lambda tree: tree["Generator"]["PCG64"].update(uinteger=np.float32([0])),
        lambda tree: tree["Generator"]["PCG64"].update(uinteger=np.uint32([0, 0])),
        lambda tree: tree["Generator"]["PCG64"].update(uinteger=np.uint64([2**40])),
        lambda tree: tree["Generator"]["PCG64"]["state"].update(state=np.zeros(5, np.uint32)),
        lambda tree: tree["Generator"].update(seed_sequence=None),
        lambda tree: tree.update(Random={}),
        lambda tree: tree.clear(),
    ):
        tree = generator_state(np.random.default_rng(5))
        change(tree)
        yield tree
    yield from ({"Generators": {}}, 7, None, {"Random": {"MT19937": {"key": [1], "pos": [1]}}})


def test_what_is_no_state() -> None:
    """A tree that is not exactly a state is refused, and the generator to change stays as it is."""
    generator = np.random.default_rng(6)
    kept = tree_digest(generator_state(generator))
    for tree in broken():
        with pytest.raises(ValueError, match=r"^Cannot read a generator: expected a tree"):
            generator_from_state(tree, into=generator)
    assert tree_digest(generator_state(generator)) == kept


@pytest.mark.parametrize(
    ("into", "got"),
    [
        (random.Random(5), "expected a state of Random with MT19937, as its generator is, got Gen"),
        (np.random.RandomState(5), "expected a state of RandomState with MT19937"),
        (np.random.Generator(np.random.PCG64DXSM(5)), "expected a state of Generator with PCG64DX"),
        (np.random.PCG64(5), "expected a state of BitGenerator with PCG64, as"),
    ],
)
def test_one_kind_is_not_put_into_another(into: Any, got: str) -> None:
    """A generator takes the state of its own kind only."""
    state = generator_state(np.random.default_rng(5))
    with pytest.raises(ValueError, match=f"^Cannot put back a generator: {got}"):
        generator_from_state(state, into=into)
