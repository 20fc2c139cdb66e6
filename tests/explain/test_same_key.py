"""Promises of `reproducibility.explain.same_key`: what draws from one key twice is named."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from reproducibility import Trace, trace
from reproducibility.explain.same_key import KeysDrawnFrom, SameKeyDraws, Within

random = jax.random
KEY = random.key(7)


@pytest.fixture(autouse=True)
def _reuse_is_allowed() -> Iterator[None]:
    """Turn off the checker of JAX, which refuses some of what is to be named here."""
    with jax.debug_key_reuse(False):
        yield


def lines_of(fn: Callable[..., Any], *args: Any) -> list[tuple[int, int, int]]:
    """Return which lines draw from one key, counted from that of the function, and how often."""
    found = trace(fn, *args)
    begin = fn.__code__.co_firstlineno

    def line(text: str) -> int:
        return int(text.split(".py:")[1].split(" ")[0]) - begin

    return [(line(each.first), line(each.then), each.times) for each in found.same_key]


def test_a_key_that_is_used_on_two_lines() -> None:
    """Both lines are named, in the order in which they draw, though JAX traces `uniform` once."""

    def fn(key: jax.Array) -> Any:
        mask = random.bernoulli(key, 0.5, (3,))
        other, third = random.split(random.fold_in(key, 3))
        free = random.uniform(other, (3,))
        noise = random.uniform(key, (3,))
        return mask, noise, free, random.uniform(third, (3,))

    assert lines_of(fn, KEY) == [(1, 4, 1)]
    [found] = trace(fn, KEY).same_key
    assert str(found).startswith("random_bits at tests/explain/test_same_key.py:")
    assert " draws from the key of random_bits at tests/explain/test_same_key.py:" in str(found)


def test_what_two_derivations_have_in_common() -> None:
    """`split(key)[i]` is `fold_in(key, i)`; a split in two has no `fold_in(key, 2)`."""

    def fn(key: jax.Array) -> Any:
        one, other = random.split(key)
        a, b = random.normal(one), random.normal(other)
        c = random.normal(random.fold_in(key, 1))
        return a, b, c, random.normal(random.fold_in(key, 2))

    assert lines_of(fn, KEY) == [(2, 3, 1)]


def test_in_a_loop_and_under_vmap() -> None:
    """A key that a loop leaves as it is serves each turn; equal keys of a batch are one key."""

    def loop(key: jax.Array) -> Any:
        def turn(carry: Any, x: Any) -> Any:
            return carry, random.uniform(key) + x

        return jax.lax.scan(turn, 0.0, jnp.arange(4.0))

    assert [times for _, _, times in lines_of(loop, KEY)] == [3]
    [found] = trace(loop, KEY).same_key
    assert found.first.endswith("in scan[0]")
    assert found.then.endswith("in scan[1]")

    def batch(keys: jax.Array) -> Any:
        return jax.vmap(random.uniform)(keys)

    same = jnp.stack([KEY, KEY, random.key(8)])
    assert lines_of(batch, same) == [(1, 1, 1)]
    assert lines_of(batch, random.split(KEY, 3)) == []


CLEAN: dict[str, Callable[..., Any]] = {
    "permutation": lambda key: random.permutation(key, 8),
    "randint": lambda key: random.randint(key, (4,), 0, 9),
    "a branch": lambda key: jax.lax.cond(
        random.uniform(random.fold_in(key, 9)) > 0.5, random.uniform, random.normal, key
    ),
    "a loop": lambda key: jax.lax.fori_loop(
        0, 3, lambda i, x: x + random.uniform(random.fold_in(key, i)), 0.0
    ),
}
SLOW: dict[str, Callable[..., Any]] = {
    "poisson": lambda key: random.poisson(key, 3.0),
    "choice": lambda key: random.choice(key, 8, (3,), replace=False),
    "gamma": lambda key: random.gamma(key, 2.0, (2,)),
    "dirichlet": lambda key: random.dirichlet(key, jnp.ones(2)),
    "binomial": lambda key: random.binomial(key, 20.0, 0.3),
    "ball": lambda key: random.ball(key, 2),
}


@pytest.mark.parametrize("name", CLEAN)
def test_what_is_right_is_not_named(name: str) -> None:
    """Nothing that uses each key once is named: JAX's own distributions, branches, loops."""
    assert trace(CLEAN[name], KEY).same_key == ()


@pytest.mark.long
@pytest.mark.parametrize("name", SLOW)
def test_no_distribution_of_jax_is_named(name: str) -> None:
    """What JAX does with a key inside of its own functions is not named."""
    assert trace(SLOW[name], KEY).same_key == ()


def test_a_distribution_that_is_used_twice() -> None:
    """A function of JAX that draws several times from what it is given is used on two lines."""

    def fn(key: jax.Array) -> Any:
        one = random.permutation(key, 8)
        return one, random.permutation(key, 8)

    assert [pair[:2] for pair in lines_of(fn, KEY)] == [(1, 2)]


def test_what_is_computed_again_for_a_gradient_draws_once() -> None:
    """The mask that `jax.checkpoint` draws again is the same mask; a second use of it is none."""

    def loss(w: jax.Array, key: jax.Array) -> Any:
        @jax.checkpoint
        def dropped(w: jax.Array) -> jax.Array:
            return jnp.sin(w * random.bernoulli(key, 0.5, w.shape)).sum()

        return dropped(w)

    def wrong(w: jax.Array, key: jax.Array) -> Any:
        return loss(w, key) + random.normal(key)

    def wrong_before(w: jax.Array, key: jax.Array) -> Any:
        return random.bits(key) * 0.0 + loss(w, key)

    assert trace(jax.grad(loss), jnp.ones(3), KEY).same_key == ()
    for each in (wrong, wrong_before):
        assert len(trace(jax.grad(each), jnp.ones(3), KEY).same_key) == 1


def test_on_several_devices() -> None:
    """A mask that all devices draw from one key is one draw; a second draw from it is named."""
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))

    def of(times: int) -> Any:
        def inside(key: jax.Array, x: jax.Array) -> jax.Array:
            for _ in range(times):
                x = x + random.uniform(key, x.shape)
            return x

        specs = (PartitionSpec(), PartitionSpec("data"))
        return jax.shard_map(inside, mesh=mesh, in_specs=specs, out_specs=specs[1], check_vma=False)

    assert trace(of(1), KEY, jnp.ones(4)).same_key == ()
    assert len(trace(of(2), KEY, jnp.ones(4)).same_key) == 1


def test_devices_that_do_the_same_draw_once() -> None:
    """Of four devices in two groups, each with a key, none draws from a key twice."""
    [operation] = trace(random.bits, KEY).operations
    keys = jnp.stack([KEY, KEY, random.key(8), random.key(8)])
    for on_devices, many in ((True, 0), (False, 2)):
        drawn = KeysDrawnFrom()
        drawn.note("random_bits", keys, 0, Within(), on_devices=on_devices)
        assert sum(each.times for each in drawn.twice([operation])) == many


def test_what_one_function_of_jax_draws_twice() -> None:
    """In one call of a function of JAX it counts once, in two calls of it twice."""
    operations = trace(lambda key: random.bits(key) + random.bits(key), KEY).operations[:2]
    for of_jax, many in (((7, 7), 0), ((7, 8), 1), ((None, None), 1)):
        drawn = KeysDrawnFrom()
        for number, within in enumerate(of_jax):
            drawn.note("random_bits", KEY, number, Within(of_jax=within), on_devices=False)
        assert len(drawn.twice(operations)) == many


def test_it_goes_to_another_process() -> None:
    """What was found is part of a trace as JSON; a trace of before this was looked for has none."""

    def fn(key: jax.Array) -> Any:
        return random.uniform(key) + random.normal(key)

    found = trace(fn, KEY)
    value = json.loads(json.dumps(found.to_json()))
    assert Trace.from_json(value) == found
    assert isinstance(found.same_key[0], SameKeyDraws)
    del value["same_key"]
    assert Trace.from_json(value).same_key == ()
