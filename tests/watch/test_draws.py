"""Draws that use one key twice are named, whoever derived the key and how; no others are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import record
from reproducibility.cli import commands
from reproducibility.script.reused import _Evaluated, drawn_keys, threefry2x32
from reproducibility.watch.draws import Draws

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def _reuse_is_no_error() -> Any:
    """Let keys be used twice, and raw ones be used: that is what is looked for."""
    with jax.debug_key_reuse(False), jax.legacy_prng_key("allow"):
        yield


def twice_in_a_row(key: jax.Array) -> Any:
    """Two draws from one key."""
    return jax.random.normal(key) + jax.random.uniform(key)


def split_and_folded(key: jax.Array) -> Any:
    """`split(key)[1]` is `fold_in(key, 1)`."""
    _, drawn = jax.random.split(key)
    return jax.random.normal(drawn) + jax.random.normal(jax.random.fold_in(key, 1))


def split_twice(key: jax.Array) -> Any:
    """The keys that two splits begin with are the same."""
    return jax.random.normal(jax.random.split(key)[0]) + jax.random.bits(
        jax.random.split(key, 5)[0]
    )


def one_of_many(key: jax.Array) -> Any:
    """One of the keys that are drawn from together is drawn from again."""
    keys = jax.random.split(key, 3)
    return jax.vmap(jax.random.normal)(keys).sum() + jax.random.normal(keys[2])


def made_twice(_: jax.Array) -> Any:
    """A key that is made from a seed again is the same."""
    return jax.random.normal(jax.random.key(5)) + jax.random.normal(jax.random.key(5))


def in_each_turn(key: jax.Array) -> Any:
    """A loop draws from one key in each of its turns."""
    return jax.lax.fori_loop(0, 4, lambda _, x: x + jax.random.normal(key), 0.0)


def while_it_lasts(key: jax.Array) -> Any:
    """So does one of which nobody knows how many turns it makes."""
    return jax.lax.while_loop(lambda x: x < 3.0, lambda x: x + jax.random.uniform(key), 0.0)


def in_a_turn(key: jax.Array) -> Any:
    """Two draws of one turn, from a key that the turns hand on."""

    def turn(key: jax.Array, _: None) -> Any:
        key, drawn = jax.random.split(key)
        return key, jax.random.normal(drawn) + jax.random.uniform(drawn)

    return jax.lax.scan(turn, key, None, 3)


def after_the_loop(key: jax.Array) -> Any:
    """A key of one turn is drawn from again outside."""
    keys = jax.random.split(key, 3)
    return jax.lax.map(jax.random.normal, keys).sum() + jax.random.normal(
        jax.random.fold_in(key, 2)
    )


def inside_of_a_function(key: jax.Array) -> Any:
    """A function that is called twice with one key."""
    inner = jax.jit(lambda key: jax.random.normal(key))
    return inner(key) + inner(key)


def a_gamma(key: jax.Array) -> Any:
    """Two gammas."""
    return jax.random.gamma(key, 2.0) + jax.random.gamma(key, 3.0)


def in_a_branch(key: jax.Array) -> Any:
    """A branch draws from what was drawn from before."""
    drawn = jax.random.normal(key)
    return jax.lax.cond(drawn > 0, jax.random.normal, lambda _: 1.0, key)


def two_turns(key: jax.Array) -> Any:
    """A loop that counts to its end."""
    draw = jax.random.normal
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 2, c[1] + draw(key)), (0, 0.0))


USES_TWICE = (
    *(twice_in_a_row, split_and_folded, split_twice, one_of_many, made_twice, in_each_turn),
    *(while_it_lasts, in_a_turn, after_the_loop, inside_of_a_function, a_gamma, in_a_branch),
    two_turns,
)


def each_once(key: jax.Array) -> Any:
    """Every key is drawn from once."""
    one, two, rest = jax.random.split(key, 3)
    keys = jax.random.split(rest, 4)
    return jax.random.normal(one) + jax.random.randint(two, (), 0, 9) + jax.random.normal(keys[3])


def a_key_a_turn(key: jax.Array) -> Any:
    """A loop that folds in its counter, one that hands its key on, and one over keys."""
    first, second, third = jax.random.split(key, 3)
    folded = jax.lax.fori_loop(
        0, 4, lambda i, x: x + jax.random.normal(jax.random.fold_in(first, i)), 0.0
    )

    def turn(key: jax.Array, _: None) -> Any:
        key, drawn = jax.random.split(key)
        return key, jax.random.normal(drawn)

    handed = jax.lax.scan(turn, second, None, 4)[1]
    return folded + handed.sum() + jax.lax.map(jax.random.normal, jax.random.split(third, 4)).sum()


def one_of_two_branches(key: jax.Array) -> Any:
    """Only one branch is taken."""
    which = jax.random.key_data(key)[0] > 0
    return jax.lax.cond(which, jax.random.normal, jax.random.uniform, key)


def computed_again_on_purpose(key: jax.Array) -> Any:
    """What `jax.checkpoint` computes again for the gradient is no second draw."""

    @jax.checkpoint
    def layer(x: Any) -> Any:
        return jnp.sin(x * jax.random.normal(key, (3,))).sum()

    return jax.grad(layer)(jnp.ones(3))


def computed_again_in_each_turn(key: jax.Array) -> Any:
    """A layer that is computed again inside of what is: there the first time is one of these."""

    @jax.checkpoint
    def layer(x: Any, key: Any) -> Any:
        return jax.checkpoint(lambda x: jnp.sin(x * jax.random.normal(key, (3,))))(x), None

    keys = jax.random.split(key, 3)
    return jax.grad(lambda x: jax.lax.scan(layer, x, keys)[0].sum())(jnp.ones(3))


def computed_again_by_a_library(key: jax.Array) -> Any:
    """The line of what is computed again may be that of Flax, and not that of the layer."""
    layer = nn.remat(nn.Dropout)(0.5, deterministic=False)
    return jax.grad(lambda x: layer.apply({}, x, rngs={"dropout": key}).sum())(jnp.ones(3))


def one_turn(key: jax.Array) -> Any:
    """A loop of one turn, one of none, and one that folds in its counter."""
    one, two, three = jax.random.split(key, 3)

    def loop(key: jax.Array, limit: int, begin: int = 0) -> Any:
        def turn(c: Any) -> Any:
            return c[0] + 2, c[1] + jax.random.normal(key)

        return jax.lax.while_loop(lambda c: c[0] < limit, turn, (begin, 0.0))[1]

    def folded(c: Any) -> Any:
        return c[0] + 1, c[1] + jax.random.normal(jax.random.fold_in(three, c[0]))

    last = jax.lax.while_loop(lambda c: c[0] < 3, folded, (0, 0.0))[1]
    return loop(one, 2) + loop(two, 0) + jax.random.normal(two) + last


def split_and_drawn(key: jax.Array) -> Any:
    """A key that is drawn from and split gives other numbers: bad style, and no reuse."""
    return jax.random.normal(key) + jax.random.normal(jax.random.split(key)[0])


USES_ONCE = (
    *(each_once, a_key_a_turn, one_of_two_branches, computed_again_on_purpose),
    *(computed_again_in_each_turn, computed_again_by_a_library, split_and_drawn, one_turn),
)


def programs() -> list[tuple[Callable[..., Any], jax.Array]]:
    """Return all of them, with a key of their own each: typed, then raw."""
    functions = [*USES_TWICE, *USES_ONCE]
    typed = [(each, jax.random.key(100 + i)) for i, each in enumerate(functions)]
    return typed + [(each, jax.random.PRNGKey(200 + i)) for i, each in enumerate(functions)]


@pytest.mark.long
def test_a_key_that_is_used_twice_in_a_program_is_named(tmp_path: Path) -> None:
    """With both lines, whichever way it was derived; of a program that uses each once, nothing."""
    with record(tmp_path / "r", keys=True):
        for function, key in programs():
            jax.block_until_ready(jax.jit(function)(key))
    end = json.loads((tmp_path / "r" / "process-1" / "end.json").read_text())
    assert (end["problems"], end["remarks"], end["keys not seen"]) == ([], [], {})
    found = drawn_keys(tmp_path / "r")
    # Typed keys and raw ones: the line is the same, so the second is one time more.
    by_name = {each.then.program: each for each in found.reused}
    assert [each.times for each in found.reused] == [2] * len(USES_TWICE)
    assert sorted(by_name) == sorted(function.__name__ for function in USES_TWICE)
    for function in USES_TWICE:
        reuse = by_name[function.__name__]
        begin = function.__code__.co_firstlineno
        for each in (reuse.first.line, reuse.then.line):
            assert each is not None
            assert each.file == __file__
            assert begin < each.line < begin + 9
        assert reuse.is_inside
        assert (reuse.turns > 1) == (function in (in_each_turn, while_it_lasts, two_turns))


def test_a_dropout_key_of_all_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between programs: a step with one key, and a key that was drawn from outside before."""

    @jax.jit
    def step(params: Any, key: jax.Array) -> Any:
        return params * jax.random.bernoulli(key, 0.5, (4,))

    params, key = jnp.ones(4), jax.random.key(3)
    with record(tmp_path / "r", keys=True):
        jax.random.normal(jax.random.fold_in(key, 1))
        for _ in range(4):
            params = step(params, key)
        step(params, jax.random.split(key)[1])
        step(params, jax.random.split(key)[0])
    found = drawn_keys(tmp_path / "r")
    assert [(each.times, each.is_inside) for each in found.reused] == [(3, False), (1, False)]
    said = capsys.readouterr().err
    assert "step, draws from a key that call" in said
    assert "and 2 times more" in said
    with pytest.raises(SystemExit) as ended:
        commands.main(["check", str(tmp_path / "r")])
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert "keys are drawn from twice: 4 of 7 draws" in out
    assert err.startswith("Call ")


def test_a_donated_key_is_read_before_it_is_gone(tmp_path: Path) -> None:
    """A training state that has its key in it, and gives it away."""

    def step(state: Any) -> Any:
        key, drawn = jax.random.split(state["key"])
        return {"key": key, "x": state["x"] + jax.random.normal(drawn)}

    program = jax.jit(step, donate_argnums=0)
    for name, apart in (("same", 0), ("other", 1)):
        with record(tmp_path / name, keys=True):
            for turn, seed in enumerate((7, 7 + apart)):
                state = {"key": jax.random.key(seed), "x": jnp.full(2, float(turn))}
                for _ in range(4):
                    state = program(state)
        jax.clear_caches()
        program = jax.jit(step, donate_argnums=0)
    found = drawn_keys(tmp_path / "same")
    assert sum(each.times for each in found.reused) >= 3
    assert drawn_keys(tmp_path / "other").reused == []


def test_a_training_that_is_made_again(tmp_path: Path) -> None:
    """What repeats an earlier call, inputs and all, is no reuse unless it goes into what is new."""

    def draw() -> Any:
        return jax.random.normal(jax.random.key(9), (3,)) * 2

    with record(tmp_path / "same", keys=True):
        draw(), draw()
    with record(tmp_path / "new", keys=True):
        draw() + draw()
    same, new = (drawn_keys(tmp_path / name) for name in ("same", "new"))
    assert (same.reused, same.repeating) == ([], 1)
    assert ([each.times for each in new.reused], new.repeating) == ([1], 0)


def test_programs_that_nobody_looked_into_are_counted(tmp_path: Path) -> None:
    """A function that was compiled before the record began may draw from anything.

    So may what a function of JAX that is not compiled draws operation by operation.
    """
    program = jax.jit(twice_in_a_row)
    program(KEY)
    with record(tmp_path / "r", keys=True):
        program(KEY)
    found = drawn_keys(tmp_path / "r")
    assert (sum(found.not_seen.values()), found.exit_code) == (1, 3)
    with record(tmp_path / "eager", keys=True):
        jax.random.bits(KEY, (17,)), jax.random.bits(KEY, (18,))
    found = drawn_keys(tmp_path / "eager")
    assert (found.not_compared, found.exit_code) == (2, 3)


@pytest.mark.long
def test_numbers_are_what_jax_makes_of_them(tmp_path: Path) -> None:
    """An index from the end, a seed below zero, and a number that is cut off to eight bits."""
    keys = jax.random.split(KEY, 6)
    of_keys = jax.jit(lambda keys, i: jax.random.normal(keys[i]))
    of_seed = jax.jit(lambda seed: jax.random.normal(jax.random.key(seed)))
    cut_off = jax.jit(lambda i: jax.random.bits(jax.random.fold_in(KEY, i.astype("uint8"))))
    with record(tmp_path / "once", keys=True):
        of_keys(keys, -2), of_keys(keys, -1)
    jax.clear_caches()  # a record looks into what is compiled while it is made
    with record(tmp_path / "twice", keys=True):
        of_keys(keys, -2), jax.random.normal(keys[4])
        of_seed(-1), jax.random.normal(jax.random.key(-1))
        cut_off(np.int32(0)), cut_off(np.int32(256))
    once, twice = (drawn_keys(tmp_path / name) for name in ("once", "twice"))
    assert (once.draws, once.reused) == (2, [])
    assert (twice.draws, len(twice.reused), twice.not_compared) == (4, 2, 2)


def test_what_a_condition_decides_is_not_known(tmp_path: Path) -> None:
    """Two calls that may draw from one key are no reuse, and not told to be none."""
    may_draw = jax.jit(
        lambda key, yes: jax.lax.cond(yes, jax.random.bits, lambda _: jnp.uint32(7), key)
    )
    with record(tmp_path / "one", keys=True):
        may_draw(KEY, True), may_draw(jax.random.key(8), False)
    jax.clear_caches()
    with record(tmp_path / "two", keys=True):
        may_draw(KEY, True), may_draw(KEY, False)
    one, two = (drawn_keys(tmp_path / name) for name in ("one", "two"))
    assert (one.draws, one.in_branches, one.exit_code) == (2, 0, 0)
    assert (two.draws, two.in_branches, two.exit_code, two.reused) == (2, 1, 3, [])
    assert "may draw from a key again" in two.lines()[-1]


def test_the_condition_of_a_loop_draws_too() -> None:
    """What it draws in each turn is no less drawn than what the loop does."""

    def until(key: jax.Array) -> Any:
        return jax.lax.while_loop(lambda x: jax.random.uniform(key) > x, lambda x: x + 1, 0.0)

    assert [each.turns for each in Draws(jax.make_jaxpr(until)(KEY)).found] == [2]


def test_keys_that_are_derived_from_each_other_a_thousand_times() -> None:
    """However long the way to a key, it is known; so is one of many that a program has in it."""

    def far(key: jax.Array) -> Any:
        for i in range(1200):
            key = jax.random.fold_in(key, i)
        return jax.random.bits(key)

    found = Draws(jax.make_jaxpr(far)(KEY))
    terms, where = found.derived.to_json([each.key for each in found.found])
    words = np.asarray(jax.random.key_data(KEY)).tobytes().hex()
    assert _Evaluated(terms, f"0=4:{words}").key(where[found.found[0].key]) is not None
    many = jax.random.split(KEY, 3000)
    found = Draws(jax.make_jaxpr(lambda i: jax.random.bits(many[i]))(0))
    assert len(found.found) + found.unknown == 1


def test_what_is_derived_is_what_jax_derives() -> None:
    """Threefry, as the reader computes it, folds and splits as JAX does."""
    words = tuple(np.asarray(jax.random.key_data(KEY)).tolist())
    for number in (0, 1, 77, 2**32 - 1):
        made = jax.random.key_data(jax.random.fold_in(KEY, np.uint32(number)))
        assert threefry2x32(words, (0, number)) == tuple(np.asarray(made).tolist())


def test_a_program_is_not_changed_by_being_looked_into() -> None:
    """Looking at a program executes nothing of it."""
    jaxpr = jax.make_jaxpr(in_a_turn)(KEY)
    before = str(jaxpr)
    assert len(Draws(jaxpr).found) == 2
    assert str(jaxpr) == before
