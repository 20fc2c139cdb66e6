"""Promises of `reproducibility.reference.data`."""

import dataclasses
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from reproducibility import (
    CheckpointMismatchError,
    CheckpointStore,
    ConfigError,
    Dataset,
    LeafError,
    from_grain,
    load_dataset,
    tree_digest,
)
from reproducibility.reference.data import GRAIN_BYTES, GrainBatches


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


@pytest.mark.long
@pytest.mark.nightly
def test_instruction_set_does_not_move_the_data() -> None:
    """With another instruction set the batches are the same; the control, random.normal, is not."""
    code = """
import jax
from reproducibility import load_dataset, tree_digest
data = load_dataset("synthetic", seed=7, batch_size=50)
print(tree_digest([data.batch(step) for step in (0, 41, 10**6)]))
print(tree_digest(jax.random.normal(jax.random.key(0), (1000,))))
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"XLA_FLAGS": flags},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout.split()
        for flags in ("--xla_cpu_enable_fast_math=false", "--xla_cpu_enable_fast_math=true")
    ]
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


ALONE = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
SETTINGS = {"seed": 7, "batch_size": 8, "source": "numbers"}


def numbers(seed: int = 7, size: int = 8, examples: int = 100, add: int = 0) -> grain.MapDataset:
    """Make an endless pipeline over the first whole numbers."""
    source = grain.MapDataset.range(examples).seed(seed).shuffle().repeat()
    return source.map(lambda x: {"x": np.int32(x + add)}).batch(size)


def alone(dataset: grain.MapDataset) -> grain.IterDataset:
    """Read in this thread and nothing ahead."""
    return dataset.to_iter_dataset(ALONE)


def mixed() -> grain.IterDataset:
    """Make a pipeline with a state of several parts: two sources, a window shuffle, a thread."""
    sources = [alone(grain.MapDataset.range(start, start + 50).repeat()) for start in (0, 50)]
    mix = grain.IterDataset.mix(sources, [0.3, 0.7])
    shuffled = grain.experimental.WindowShuffleIterDataset(mix, window_size=16, seed=7)
    return grain.experimental.ThreadPrefetchIterDataset(shuffled.batch(8), prefetch_buffer_size=2)


def augmented() -> grain.IterDataset:
    """Make a pipeline that draws, with a seed."""
    source = grain.MapDataset.range(100).seed(7).shuffle().repeat()
    return alone(source.random_map(lambda x, rng: x + rng.random()).batch(8))


def in_a_process() -> grain.IterDataset:
    """Make a pipeline that reads in a worker process."""
    flags.FLAGS(["test"], known_only=True)  # Grain asks for parsed flags
    source = grain.MapDataset.range(100).seed(7).shuffle().repeat().batch(8)
    return alone(source).mp_prefetch(grain.MultiprocessingOptions(num_workers=1))


def take(batches: Iterator[Any], count: int) -> str:
    """Digest the next batches."""
    return tree_digest(list(itertools.islice(batches, count)))


def at_step_five(dataset: Any = None, **change: Any) -> dict[str, np.ndarray]:
    """Return the state of a pipeline that has handed out five batches."""
    batches = from_grain(dataset or alone(numbers()), settings=SETTINGS | change)
    take(batches, 5)
    return batches.state()


@pytest.mark.parametrize(
    "pipeline",
    [
        numbers,
        lambda: alone(numbers()),
        mixed,
        augmented,
        pytest.param(in_a_process, marks=pytest.mark.long),
    ],
    ids=["read ahead", "alone", "mixed", "augmented", "in a process"],
)
def test_a_resumed_pipeline_reads_the_batches_of_the_uninterrupted_one(
    pipeline: Callable[[], Any], tmp_path: Path
) -> None:
    """Saved in a checkpoint and resumed by another object, it goes on with the same bits.

    The control: batches of a pipeline that was not restored are others.
    """
    whole = iter(pipeline())
    expected = [take(whole, 5), take(whole, 30)]

    before = from_grain(pipeline(), settings=SETTINGS)
    assert take(before, 5) == expected[0]
    with CheckpointStore(tmp_path) as store:
        store.save(5, {"step": np.uint32(5), "data": before.state()})

    after = from_grain(pipeline(), settings=SETTINGS)
    with CheckpointStore(tmp_path) as store:
        state = store.resume({"step": np.uint32(0), "data": after.state()})
    assert state["step"] == 5
    after.restore(state["data"])
    assert take(after, 30) == expected[1]
    assert take(before, 30) == expected[1]
    assert take(from_grain(pipeline(), settings=SETTINGS), 30) != expected[1]


def test_asking_for_the_state_moves_nothing() -> None:
    """With a state taken before, between and after them, every batch is handed out once."""
    short = alone(grain.MapDataset.range(7 * 8).batch(8))
    batches, seen, states = from_grain(short, settings=SETTINGS), [], []
    for asked in (2, 1, 0, 3, 1, 0, 1):
        states += [batches.state() for _ in range(asked)]
        seen.append(next(batches))
    assert np.array_equal(np.concatenate(seen), np.arange(7 * 8))
    positions = [bytes(state["position"]).rstrip() for state in states]
    assert positions == [b'{"next_index":%d}' % n for n in (0, 0, 1, 3, 3, 3, 4, 6)]
    assert len({tree_digest(state) for state in states}) == len(set(positions))


def test_the_end_is_a_position() -> None:
    """A pipeline that has ended has a state, and resumes at its end."""
    short = alone(grain.MapDataset.range(24).batch(8))
    batches = from_grain(short, settings=SETTINGS)
    assert len(list(batches)) == 3
    resumed = from_grain(short, settings=SETTINGS)
    resumed.restore(batches.state())
    for ended in (batches, resumed):
        assert list(ended) == []
        assert tree_digest(ended.state()) == tree_digest(batches.state())


def test_the_shapes_of_a_state_do_not_depend_on_the_position_or_the_settings() -> None:
    """A checkpoint of one pipeline is refused by its settings and not by a length."""
    shapes = {
        "position": ((GRAIN_BYTES,), np.uint8),
        "settings": ((GRAIN_BYTES,), np.uint8),
        "probes": ((32,), np.uint8),
    }
    for state in (at_step_five(), at_step_five(mixed(), source="two sources, mixed")):
        assert {name: (leaf.shape, leaf.dtype) for name, leaf in state.items()} == shapes


@pytest.mark.parametrize(
    ("change", "expected", "got"),
    [
        ({"seed": 8}, "seed=7", "seed=8"),
        ({"seed": 7.0}, "seed=7", "seed=7.0"),
        ({"batch_size": 16, "seed": 8}, "batch_size=8, seed=7", "batch_size=16, seed=8"),
        ({"source": "letters"}, "source='numbers'", "source='letters'"),
        ({"workers": 2}, "no workers", "workers=2"),
    ],
)
def test_another_setting_is_refused_by_its_name(
    change: dict[str, Any], expected: str, got: str
) -> None:
    """A state is refused where another setting was stated, with both values."""
    batches = from_grain(alone(numbers()), settings=SETTINGS | change)
    with pytest.raises(CheckpointMismatchError) as caught:
        batches.restore(at_step_five())
    assert str(caught.value) == (
        f"Cannot resume the data: expected {expected}, got {got}. "
        "Use the recorded settings, or begin another run."
    )


def test_the_number_of_probes_is_a_setting() -> None:
    """States with another number of probes are told apart by that, not taken for other data."""
    batches = from_grain(alone(numbers()), settings=SETTINGS, probes=4)
    with pytest.raises(CheckpointMismatchError, match="expected probes=3, got probes=4"):
        batches.restore(at_step_five())


def unseeded() -> grain.IterDataset:
    """Make a pipeline that draws from what no seed of it determines."""
    source = grain.MapDataset.range(100).seed(7).shuffle().repeat()
    words = iter(lambda: np.frombuffer(os.urandom(8), np.uint64)[0], None)
    return alone(source.map(lambda x: next(words)).batch(8))


@pytest.mark.parametrize(
    ("changed", "was"),
    [
        (lambda: alone(numbers(seed=8)), None),
        (lambda: alone(numbers(size=16)), None),
        (lambda: alone(numbers(examples=99)), None),
        (lambda: alone(numbers(add=1)), None),
        (unseeded, unseeded),
    ],
    ids=["seed", "batch size", "source", "transformation", "draw without a seed"],
)
def test_other_data_under_the_same_settings_are_refused(
    changed: Callable[[], Any], was: Callable[[], Any] | None
) -> None:
    """Where the settings were stated alike and the batches differ, that is said.

    The control: Grain alone takes the position, and goes on with other batches. If this fails,
    Grain has begun to look: say so on the page.
    """
    pipeline = was or (lambda: alone(numbers()))
    state, whole, silent = at_step_five(pipeline()), iter(pipeline()), iter(changed())
    take(whole, 5)
    silent.set_state(whole.get_state())
    assert take(silent, 3) != take(whole, 3)

    batches = from_grain(changed(), settings=SETTINGS)
    take(batches, 2)
    stays = iter(changed())
    take(stays, 2)
    with pytest.raises(
        CheckpointMismatchError,
        match=r"expected batches with digest \w{16}…, got \w{16}…\. The settings agree and the "
        "data does not",
    ):
        batches.restore(state)
    if changed is not unseeded:
        assert take(batches, 3) == take(stays, 3)


def test_a_position_of_another_batch_is_refused() -> None:
    """A position that does not belong to its probes is refused: it would repeat or skip data."""
    state, start = at_step_five(), from_grain(alone(numbers()), settings=SETTINGS).state()
    with pytest.raises(CheckpointMismatchError, match="the data does not"):
        from_grain(alone(numbers()), settings=SETTINGS).restore(
            state | {"position": start["position"]}
        )


@pytest.mark.parametrize("dataset", [alone(grain.MapDataset.range(24).batch(8)), mixed()])
def test_a_position_that_the_pipeline_does_not_have_is_refused(dataset: Any) -> None:
    """Beyond its end, or with a state of another form, Grain's own error is passed on."""
    with pytest.raises(
        CheckpointMismatchError,
        match=r"expected a position this pipeline can take, got (IndexError|KeyError): .*agree",
    ):
        from_grain(dataset, settings=SETTINGS).restore(at_step_five())


def test_probes_see_what_comes_next_and_nothing_after() -> None:
    """A record that changed is seen in the next three batches, and not in the fourth: a limit."""

    def counting(changed: int | None = None) -> GrainBatches:
        records = np.arange(96)
        if changed is not None:
            records[changed] = -1
        return from_grain(alone(grain.MapDataset.source(records).batch(8)), settings=SETTINGS)

    start = counting().state()
    for seen in (0, 23):
        with pytest.raises(CheckpointMismatchError, match="the data does not"):
            counting(seen).restore(start)
    counting(24).restore(start)


def test_what_is_no_pipeline_is_refused() -> None:
    """An iterator, which cannot start anew, and a plain list are refused."""
    for value, kind in ((iter(alone(numbers())), "DatasetIterator"), ([1, 2], "list")):
        with pytest.raises(ValueError, match=rf"expected a MapDataset .* type \w*{kind}\."):
            from_grain(value, settings=SETTINGS)
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        from_grain(numbers(), settings=SETTINGS, probes=0)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (np.int64(7), "Object of type int64 is not JSON serializable"),
        (float("nan"), "Out of range float values are not JSON compliant"),
        ("x" * GRAIN_BYTES, r"8\d{3} bytes"),
    ],
)
def test_settings_that_cannot_be_compared_are_refused(value: Any, got: str) -> None:
    """Settings are JSON of a bounded length."""
    with pytest.raises(ValueError, match=rf"Cannot seal settings: expected JSON .*, got {got}"):
        from_grain(numbers(), settings={"seed": value})


@pytest.mark.parametrize(("state", "got"), [([0] * GRAIN_BYTES, "16385 bytes"), (b"", "bytes is")])
def test_a_state_that_does_not_fit_is_refused(state: Any, got: str) -> None:
    """A state of Grain that is no JSON, or too long for its leaf, is refused and never cut."""

    class Unusual(grain.DatasetIterator):
        def __next__(self) -> np.ndarray:
            return np.zeros(8)

        def get_state(self) -> Any:
            return state

        def set_state(self, state: Any) -> None: ...

    class Pipeline(grain.IterDataset):
        def __iter__(self) -> Unusual:
            return Unusual()

    with pytest.raises(ValueError, match=rf"Cannot seal Grain's state: .* 8192 bytes, got .*{got}"):
        from_grain(Pipeline(), settings=SETTINGS).state()


def test_batches_without_a_digest_are_refused() -> None:
    """Text has no exact bytes: a batch of it is refused by the name of its leaf."""
    words = grain.MapDataset.source(["a", "b"]).map(lambda word: {"word": word}).batch(2)
    with pytest.raises(LeafError, match=r"at \[0\]\.word: expected a number"):
        from_grain(alone(words), settings=SETTINGS).state()


def test_grain_is_imported_by_those_who_have_a_pipeline() -> None:
    """The module works without Grain, in which nothing of it is needed."""
    code = """
import sys
sys.modules["grain"] = None
from reproducibility import from_grain, load_dataset
load_dataset("synthetic", seed=7, batch_size=8)
try:
    from_grain([], settings={})
except ValueError as error:
    print(error)
"""
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert child.stdout.startswith("Cannot read a Grain pipeline: expected a MapDataset")
