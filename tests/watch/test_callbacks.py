"""What the host's functions that a program calls do themselves: recorded, and compared by value."""

import _thread
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from reproducibility import compare_records, record
from reproducibility.script.diverging import Alignment
from reproducibility.script.reading import Thread, processes_of

twice = jax.jit(lambda x: x * 2)
LARGE = 300_000  # words of an array that XLA computes in threads of its own


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., Alignment]:
    """Return what records functions, and compares the records."""

    def recorded(one: Callable[[], Any], other: Callable[[], Any]) -> Alignment:
        shutil.rmtree(tmp_path / "one", ignore_errors=True)
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        for name, run in (("one", one), ("other", other)):
            with record(tmp_path / name):
                run()
                jax.effects_barrier()
        return compare_records(tmp_path / "one", tmp_path / "other")

    return recorded


def calling(kind: str, by: list[float]) -> Callable[[], Any]:
    """Return what runs a program whose functions of the host call JAX."""

    def host(x: Any) -> Any:
        y = jnp.sum(jnp.asarray(x)) + by[0]
        return np.asarray(twice(y))

    def silent(x: Any) -> None:
        host(x)

    shape = jax.ShapeDtypeStruct((), np.float32)

    @jax.jit
    def program(x: Any) -> Any:
        def body(carry: Any, _: Any) -> Any:
            if kind == "pure":
                return carry * 0.5 + jax.pure_callback(host, shape, carry) * 0, None
            if kind == "io":
                io_callback(silent, None, carry, ordered=True)
            else:
                jax.debug.callback(silent, carry)
            return carry * 0.5 + 1, None

        return jax.lax.scan(body, x, None, 5)[0]

    return lambda: [jax.block_until_ready(program(jnp.ones(n))) for n in (3, LARGE)]


def functions_of(place: Path) -> list[Thread]:
    """Return the files of functions of the host."""
    (process,) = processes_of(place)
    return [thread for thread in process.threads if thread.function]


@pytest.mark.parametrize("kind", ["pure", "io", "debug"])
def test_calls_of_a_callback(recorded: Callable[..., Alignment], tmp_path: Path, kind: str) -> None:
    """Each call that a function of the host makes is there, in order, under its name."""
    by = [0.0]
    run = calling(kind, by)
    assert (found := recorded(run, run)).verdict == "same", found.problems
    threads = functions_of(tmp_path / "one")
    assert {"host" in thread.name or "silent" in thread.name for thread in threads} == {True}
    names = [call.pattern.program.called for thread in threads for call in thread.calls()]
    assert len([name for name in names if "lambda" in name]) == 10
    results = [call.results for call in threads[0].calls()]
    again = [call.results for call in functions_of(tmp_path / "other")[0].calls()]
    assert results == again


def test_a_difference_that_begins_in_a_callback(recorded: Callable[..., Alignment]) -> None:
    """What a function of the host takes from elsewhere is named with its line."""
    by = [0.0]
    run = calling("debug", by)

    def other() -> None:
        by[0] = 0.5
        run()

    found = recorded(run, other)
    assert found.verdict == "different"
    assert {(root.kind, root.site[0].function) for root in found.roots} == {("host", "host")}


def test_what_a_callback_passes_on(recorded: Callable[..., Alignment]) -> None:
    """What a program was given begins the difference, and not the function that it calls."""
    program = jax.jit(lambda x: jax.debug.callback(lambda y: twice(y), x))
    found = recorded(lambda: program(np.float32(1)), lambda: program(np.float32(2)))
    assert [(root.kind, root.names) for root in found.roots] == [("host", ("x",))]


def test_the_order_of_callbacks(recorded: Callable[..., Alignment]) -> None:
    """In which order a program's functions are called is chance; what they find is not."""
    order = [1.0, 2.0]

    def host(x: Any) -> None:
        twice(np.float32(order.pop()))

    program = jax.jit(lambda x: jax.debug.callback(host, x))

    def run(numbers: list[float]) -> None:
        order[:] = numbers
        for _ in range(2):
            program(np.float32(0))
            jax.effects_barrier()

    assert recorded(lambda: run([1.0, 2.0]), lambda: run([2.0, 1.0])).verdict == "same"
    assert recorded(lambda: run([1.0, 2.0]), lambda: run([2.0, 3.0])).verdict == "different"


def test_what_is_made_of_the_order_of_callbacks(recorded: Callable[..., Alignment]) -> None:
    """Where the same came in another order, what the script takes of it may differ: never the
    same."""
    numbers: list[float] = []
    kept: list[Any] = []

    def host(x: Any) -> None:
        kept.append(twice(np.float32(numbers.pop())))

    program = jax.jit(lambda x: jax.debug.callback(host, x))

    def run(order: list[float]) -> None:
        numbers[:] = order
        for _ in range(2):
            program(np.float32(0))
            jax.effects_barrier()
        twice(kept[-1])

    found = recorded(lambda: run([1.0, 2.0]), lambda: run([2.0, 1.0]))
    assert (found.verdict, found.roots) == ("cannot be told", [])


def test_threads_that_python_has_not_started(recorded: Callable[..., Alignment]) -> None:
    """Nobody knows what begins a thread of XLA or of a library; its calls are counted."""
    done = threading.Event()

    def other() -> None:
        twice(np.float32(1))
        done.set()

    def run() -> None:
        done.clear()
        twice(np.float32(1))
        _thread.start_new_thread(other, ())
        assert done.wait(60)

    found = recorded(run, run)
    assert found.verdict == "cannot be told"
    assert "threads that Python has not started were not recorded" in found.problems[0]
