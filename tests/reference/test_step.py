"""Promises of `reference.step`: what is random is a function of keys, and programs are shared."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import (
    PLANNED,
    Layout,
    Plan,
    Programs,
    TrainConfig,
    TrainState,
    index_key,
    programs_of,
    root_key,
    step_key,
    stream_key,
    train,
    tree_digest,
)
from reproducibility.reference import step
from tests.conftest import SMALL

Small = Callable[..., TrainConfig]


def gradient_of(programs: Programs, state: TrainState, shard: int) -> object:
    """Run program 1 for one shard."""
    plan, data = programs.plan(state), programs.data
    return programs.gradient(state.params, state.step, plan, data.x, data.y, jnp.uint32(shard))


def test_randomness_is_really_used(small: Small) -> None:
    """Dropout, the order of the data and the initial values each depend on the seed.

    So a run that forgot one of them when it resumed would end with another digest.
    """
    one, two = programs_of(small().identity), programs_of(small(seed=8).identity)
    assert tree_digest(one.start.params) != tree_digest(two.start.params)
    assert one.data.rows(0, 0, 32).tolist() != two.data.rows(0, 0, 32).tolist()
    assert train(small(dropout=0.0)).digest != train(small()).digest
    other_key = dataclasses.replace(one.start, key=root_key(8))
    gradients = [gradient_of(one, state, 0) for state in (one.start, other_key)]
    assert tree_digest(gradients[0]) != tree_digest(gradients[1])


def test_shards_have_their_own_data_and_dropout(small: Small) -> None:
    """Two shards train on other rows with other masks: with either made equal they still differ.

    The control: with rows and keys both made equal, so are the gradients. (It uses keys twice on
    purpose, so JAX's check is off.)
    """
    programs = programs_of(small(shards=2).identity)
    state, data, plan = programs.start, programs.data, programs.plan(programs.start)
    rows, dropout = plan.rows[:, jnp.array([0, 0])], plan.dropout[:, jnp.array([0, 0])]

    def equal(plan: Plan) -> bool:
        arguments = (state.params, state.step, plan, data.x, data.y)
        first, second = (programs.gradient(*arguments, shard) for shard in programs.shards)
        return tree_digest(first) == tree_digest(second)

    with jax.debug_key_reuse(False):
        assert not equal(plan)
        assert not equal(dataclasses.replace(plan, rows=rows))
        assert not equal(dataclasses.replace(plan, dropout=dropout))
        assert equal(Plan(rows, dropout))


def rows_and_parts(programs: Programs, first: int, end: int) -> tuple[object, object]:
    """Return the gradients of some shards: from one call, and from a call for each."""
    state, data = programs.start, programs.data
    arguments = (state.params, state.step, programs.plan(state), data.x, data.y)
    stack = programs._network.gradients(*arguments, jnp.uint32(first), jnp.uint32(end))
    parts = [programs.gradient(*arguments, jnp.uint32(shard)) for shard in range(first, end)]
    return jax.tree.map(lambda x: x[first:end], stack), jax.tree.map(
        lambda *x: jnp.stack(x), *parts
    )


def test_one_call_for_the_shards_of_a_device_has_their_bits(small: Small) -> None:
    """The gradients of the shards that a device owns, all or some, are those of a call for each."""
    programs = programs_of(small().identity)
    for first, end in ((0, 2), (0, 1), (1, 2)):
        stack, parts = rows_and_parts(programs, first, end)
        assert tree_digest(stack) == tree_digest(parts)


@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("hidden", [(64, 32), (33,), (128, 100)])
@pytest.mark.parametrize("examples", [4, 8, 33, 64])
def test_small_networks_of_many_sizes_have_the_same_bits(
    hidden: tuple[int, ...], examples: int, dropout: float
) -> None:
    """One call for the shards of a device has the bits of a call for each, also at the limits of
    what counts as a small network."""
    config = TrainConfig(seed=7, hidden=hidden, batch_size=8 * examples, dropout=dropout)
    assert step.is_small(config.identity)
    stack, parts = rows_and_parts(Programs(config.identity), 0, 8)
    assert tree_digest(stack) == tree_digest(parts)


@pytest.mark.parametrize(
    ("settings", "small"),
    [
        ({}, True),
        ({"dataset": "digits", "dropout": 0.0}, True),
        ({"shards": 1}, False),
        ({"batch_size": 8}, False),  # where the bits do differ
        ({"batch_size": 8 * 65}, False),
        ({"hidden": (64, 7)}, False),
        ({"hidden": (129,)}, False),
        ({"hidden": (8, 8, 8)}, False),
        ({"hidden": ()}, False),
        ({"shards": 32, "batch_size": 256}, False),
    ],
)
def test_which_networks_are_small_is_up_to_the_identity(settings: dict, small: bool) -> None:
    """A call for all shards is for networks of which it is known to have the same bits."""
    assert step.is_small(TrainConfig(seed=7, **settings).identity) == small


def test_a_plan_is_what_the_keys_and_rows_say(small: Small) -> None:
    """A plan holds, for each step and shard of its stretch, the rows and the key by definition."""
    programs = programs_of(small().identity)
    step, count = 2 * PLANNED + 5, 16
    state = dataclasses.replace(programs.start, step=jnp.uint32(step))
    plan = programs.plan(state)
    assert plan.rows.shape == (PLANNED, 2, count)
    for at in (2 * PLANNED, step, 3 * PLANNED - 1):
        for shard in (0, 1):
            key = index_key(step_key(stream_key(state.key, "dropout"), at), shard)
            assert tree_digest(plan.dropout[at % PLANNED, shard]) == tree_digest(key)
            rows = programs.data.rows(at, shard * count, count)
            assert plan.rows[at % PLANNED, shard].tolist() == rows.tolist()


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Return a list that gets an entry for each program that is compiled, or read from a cache."""
    events: list[str] = []

    def listen(event: str, seconds: float, **rest: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def _forget_programs() -> None:
    """Leave this process as one that has trained nothing yet."""
    for value in vars(step).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
    jax.clear_caches()


def test_a_new_seed_compiles_nothing(small: Small, compiled: list[str]) -> None:
    """All seeds share their compiled programs; only a setting that these depend on compiles some.

    The controls: with another learning rate there is another update, and with another width more.
    """
    _forget_programs()  # other tests of this process may have compiled any of these
    numbers = []
    for settings in ({}, {"seed": 8}, {"learning_rate": 0.0123}, {"hidden": (9,)}):
        compiled.clear()
        train(small(**settings, steps=2))
        numbers.append(len(compiled))
    assert numbers[1] == 0 < numbers[2] < numbers[3]


def test_programs_know_nothing_of_earlier_seeds(small: Small) -> None:
    """A run after one of another seed has the digest that it has in a process that ran nothing."""
    one, other = train(small(steps=3)).digest, train(small(steps=3, seed=8)).digest
    _forget_programs()
    assert train(small(steps=3, seed=8)).digest == other != one


def test_the_state_is_donated_and_nothing_is_fetched(small: Small) -> None:
    """A step reuses the memory of the state it was given, and returns arrays, not numbers."""
    programs = programs_of(small().identity)
    before = jax.tree.map(jnp.copy, programs.start)
    after, loss, _ = programs.step(before, programs.plan(before))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((before.params, before.opt_state)))
    assert isinstance(loss, jax.Array)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def test_the_sum_is_a_fixed_tree() -> None:
    """Program 2 adds neighbours first: ((a+b)+(c+d)) / 4, bit for bit.

    The controls: left to right, and halves onto halves, give two other numbers.
    """
    a, b, c, d = values = np.float32([1, 2**-24, 3 * 2**-24, -1])
    loss, _ = Layout.of(1).mean([(jnp.float32(value), {}) for value in values])
    tree, left_to_right, halves = (a + b) + (c + d), ((a + b) + c) + d, (a + c) + (b + d)
    assert len({float(tree), float(left_to_right), float(halves)}) == 3
    assert float(loss) == float(tree / np.float32(4))


def test_the_configuration_of_run_json_is_complete(small: Small, tmp_path: Path) -> None:
    """run.json holds every setting of the identity, what it is fixed to, and the data's digest."""
    config = small(stop_after=1)
    train(config, run_dir=tmp_path / "run")
    identity = json.loads((tmp_path / "run" / "run.json").read_bytes())
    for name, value in dataclasses.asdict(config.identity).items():
        assert identity[name] == (list(value) if isinstance(value, tuple) else value)
    others = identity.keys() - dataclasses.asdict(config.identity).keys()
    assert others == {"format", "data_digest", "model", "optimiser", "prng", "sha256"}


UNDER_OTHER_SETTINGS = """
import sys, jax
from reproducibility import TrainConfig, train
from tests.conftest import SMALL
settings = dict(steps=2, **SMALL)
if "first" in sys.argv:
    train(TrainConfig(seed=7, **settings)), train(TrainConfig(seed=8, **settings))
jax.config.update("jax_disable_most_optimizations", True)
print(*(train(TrainConfig(seed=seed, **settings)).digest for seed in (7, 8)))
"""


@pytest.mark.long
@pytest.mark.nightly
def test_nothing_compiled_under_other_settings_is_used() -> None:
    """A run computes with the settings of JAX that it records, whatever ran before in the process:
    the same seed, and another one. The control: the setting changes the bits."""
    code = [sys.executable, "-c", UNDER_OTHER_SETTINGS]
    alone, second = (
        subprocess.check_output([*code, *more], text=True).split() for more in ([], ["first"])
    )
    assert second == alone
    settings = {"steps": 2, **SMALL}
    plain = [train(TrainConfig(seed=seed, **settings)).digest for seed in (7, 8)]
    assert plain != alone


def test_every_part_of_the_state_is_in_a_stage(small: Small) -> None:
    """A part of the state that no stage showed would let two ledgers agree where it differs.

    The step and the key are in each line by the step's number and by what is drawn.
    """
    state = programs_of(small().identity).start
    fields = {field.name for field in dataclasses.fields(state)} - {"step", "key"}
    shown = {id(leaf) for leaf in jax.tree.leaves(Programs.stages(state))}
    lacking = {
        f for f in fields for leaf in jax.tree.leaves(getattr(state, f)) if id(leaf) not in shown
    }
    assert lacking == set()
