"""Promises of `reproducibility.exercise.bench`: what a program does to its process is seen."""

from collections.abc import Iterator

import numpy as np
import pytest

from reproducibility.exercise.bench import Bench, Places, StoppedEarly, shown_prints


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    """Processes that the programs of this file share."""
    shared = Places()
    yield shared
    shared.close()


def bench_of(program: str, places: Places) -> Bench:
    """Put a program on trial."""
    return Bench(program, "p.py", places, seed=0)


def test_processes_differ_in_their_salt(places: Places) -> None:
    """Two places have different hash salts, so what depends on one is seen."""
    bench = bench_of("def call(seed): return [seed, hash('a')]", places)
    bench.repeats("call", seed=1, other=2)
    assert [each.right for each in bench.observations] == [True, False, True]


@pytest.mark.parametrize(
    ("program", "seen"),
    [
        ("import os\ndef call(): os._exit(0)", "its process ended: exit code 0"),
        ("import sys\nsys.exit(0)", "SystemExit in line 2: 0"),
    ],
)
def test_a_program_that_leaves_is_wrong(program: str, seen: str, places: Places) -> None:
    """A program that ends its process has not passed; the next one runs in a new process."""
    bench = bench_of(program, places)
    with pytest.raises(StoppedEarly):
        bench.run(("call",))
    [only] = bench.observations
    assert not only.right
    assert only.seen.startswith(seen)
    assert bench_of("def call(): return 3", places).run(("call",)) == [3]


def test_a_program_that_does_not_end_is_stopped() -> None:
    """After its time it is said so, and its process is gone."""
    short = Places(limit=0.5)
    bench = bench_of("import time\ndef call(): time.sleep(600)", short)
    with pytest.raises(StoppedEarly, match=r"it did not end within 0 seconds|1 seconds"):
        bench.run(("call",))
    short.close()


def test_what_it_prints_is_kept(places: Places) -> None:
    """Prints are no answers: they are kept, and shown shortened."""
    bench = bench_of("def call():\n    print('digest 1234')\n    return 1", places)
    assert bench.run(("call",)) == [1]
    assert bench.printed == ["digest 1234"]
    assert list(shown_prints([str(n) for n in range(9)])) == ["… 3 lines before", *"345678"]


def test_numbers_are_compared() -> None:
    """A sign, an order or a factor hides no number that two arrays share."""
    bench = Bench("", "p.py", Places(), seed=0)
    one, other = np.random.default_rng(0).normal(size=(2, 50))
    for related in (one, -one, one[::-1], 2 * one, one + 3, np.zeros(50)):
        bench.unrelated("", one, related)
    assert not any(each.right for each in bench.observations)
    half, few = np.concatenate([one[:25], other[25:]]), np.concatenate([one[:2], other[2:]])
    bench.unrelated("", one, half[::-1])
    assert not bench.observations[-1].right
    bench.unrelated("", one, few[::-1])  # by chance, in float32
    bench.normal("", one)
    assert all(each.right for each in bench.observations[-2:])
    bench.normal("", np.zeros(50))
    bench.normal("", one * 3)
    assert not any(each.right for each in bench.observations[-2:])
