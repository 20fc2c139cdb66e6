"""Where two records diverge: what begins a difference, and what only passes it on."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import Alignment, compare_records, record
from reproducibility.script import align

step = jax.jit(lambda w, x: w * 0.9 + x)
other_step = jax.jit(lambda w, x: w * 0.9 - x)
silent_step = jax.jit(lambda w, x: jax.debug.print("{}", w + x))  # returns nothing


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., Alignment]:
    """Record two functions, and compare the records."""

    def compare(one: Callable[[], Any], other: Callable[[], Any]) -> Alignment:
        for name, do in (("a", one), ("b", other)):
            with record(tmp_path / name):
                do()
        return compare_records(tmp_path / "a", tmp_path / "b")

    return compare


def train(steps: int = 6, at: int = -1, by: float = 0.0) -> None:
    """A loop, in which one input may differ."""
    w = jax.device_put(np.zeros(3, np.float32))
    for i in range(steps):
        w = step(w, np.float32(i + (by if i == at else 0)))


def test_one_root_and_what_follows(compared: Callable[..., Alignment]) -> None:
    """A difference begins in one call, and is passed on by those after it."""
    found = compared(train, lambda: train(at=2, by=0.5))
    assert [(root.kind, root.names, root.call) for root in found.roots] == [("host", ("x",), 2)]
    assert (found.calls, found.differing) == (6, 4)
    assert found.roots[0].site[0].file == __file__


def test_a_difference_that_goes_away(compared: Callable[..., Alignment]) -> None:
    """Each input that differs is a root, also where nothing after it does."""

    def run(values: tuple[float, ...]) -> None:
        for value in values:
            step(jnp.zeros(3), np.float32(value))

    found = compared(lambda: run((1, 2, 3)), lambda: run((1, 5, 3)))
    assert [root.kind for root in found.roots] == ["host"]
    assert found.differing == 1


def test_another_path(compared: Callable[..., Alignment]) -> None:
    """Another function, another shape: the first call where the runs take other ways."""
    zeros = np.zeros(3, np.float32)

    def named(x: Any) -> Any:
        return x + 1

    found = compared(lambda: step(zeros, zeros), lambda: jax.jit(named)(zeros))
    assert (found.roots[0].kind, found.roots[0].what) == (
        "path",
        "<lambda> in one run, named in the other",
    )


def test_another_shape(compared: Callable[..., Alignment]) -> None:
    """The same function with an argument of another shape is another path."""
    one, other = (np.zeros(size, np.float32) for size in (3, 4))
    found = compared(lambda: step(one[:1], one), lambda: step(one[:1], other))
    assert found.roots[0].kind == "path"
    assert found.roots[0].what == "x is f32[3] in one run, f32[4] in the other"


def test_one_run_is_longer(compared: Callable[..., Alignment]) -> None:
    """A run that makes more calls is not the same, though all that both made agree."""
    found = compared(lambda: train(3), lambda: train(4))
    assert [root.kind for root in found.roots] == ["end"]


def test_the_same_name_and_another_program(compared: Callable[..., Alignment]) -> None:
    """Two programs of one name are told apart by what they compute."""
    zeros = np.zeros(3, np.float32)
    found = compared(lambda: step(zeros, zeros), lambda: other_step(zeros, zeros))
    assert found.roots[0].kind == "program"
    assert found.roots[0].what.startswith("another program")


def test_an_array_that_comes_from_elsewhere(compared: Callable[..., Alignment]) -> None:
    """Another array of other value is a difference, though both are results of recorded calls."""

    def run(which: int) -> None:
        results = [step(np.zeros(3, np.float32), np.float32(i)) for i in range(2)]
        step(results[which], np.float32(0))

    assert compared(lambda: run(0), lambda: run(1)).verdict == "different"


def test_threads_are_compared_by_name(compared: Callable[..., Alignment]) -> None:
    """What a thread does is compared with the thread of its name, whichever came first."""

    def run(order: tuple[int, ...]) -> None:
        threads = [
            threading.Thread(target=lambda i=i: train(3, at=0, by=i), name=f"worker {i}")
            for i in order
        ]
        for thread in threads:
            thread.start()
            thread.join()

    assert compared(lambda: run((0, 1)), lambda: run((1, 0))).verdict == "same"


def test_a_thread_that_only_one_run_has(compared: Callable[..., Alignment]) -> None:
    """A thread without a counterpart leaves it open."""

    def run(name: str) -> None:
        train(1)
        thread = threading.Thread(target=train, args=(1,), name=name)
        thread.start()
        thread.join()

    found = compared(lambda: run("a thread"), lambda: run("another"))
    assert (found.verdict, len(found.problems)) == ("cannot be told", 2)


@pytest.mark.parametrize(("by", "verdict"), [(0.0, "same"), (0.5, "different")])
def test_workers_of_a_pool(compared: Callable[..., Alignment], by: float, verdict: str) -> None:
    """Which worker does a task is chance; what the main thread makes of it is compared by value."""

    def run(slow: int, by: float) -> None:
        ready = threading.Barrier(2)

        def prepare(i: int) -> Any:
            ready.wait()
            if i == slow:
                threading.Event().wait(0.05)
            return step(np.full(3, i, np.float32), np.float32(by))

        with ThreadPoolExecutor(2) as pool:
            first = list(pool.map(prepare, range(2)))
            second = list(pool.map(prepare, range(2)))
        for batch in (*first, *second):
            step(batch, np.float32(1))

    assert compared(lambda: run(0, 0.0), lambda: run(1, by)).verdict == verdict


@pytest.mark.parametrize("program", [step, silent_step], ids=["a result", "no result"])
@pytest.mark.parametrize("prefix", ["", "loader"])
@pytest.mark.parametrize(("by", "verdict"), [(0.0, "same"), (0.5, "different")])
def test_what_only_a_pool_sees(
    compared: Callable[..., Alignment], program: Any, prefix: str, by: float, verdict: str
) -> None:
    """What a worker finds and no other thread takes counts as well, whatever the worker's name."""

    def run(order: tuple[float, ...]) -> None:
        train(1)
        with ThreadPoolExecutor(1, prefix) as pool:
            for i in order:
                x = np.full(3, i, np.float32)
                pool.submit(program, x, x).result()

    found = compared(lambda: run((0, 1)), lambda: run((1 + by, 0)))
    assert found.verdict == verdict
    assert [root.kind for root in found.roots] == ["host"] * (by > 0)


def test_how_often_a_pool_does_what(compared: Callable[..., Alignment]) -> None:
    """That a worker does the same once more may be chance, and is no difference of values."""

    def run(times: int) -> None:
        train(1)
        with ThreadPoolExecutor(1) as pool:
            for _ in range(times):
                x = np.full(3, 1, np.float32)
                pool.submit(step, x, x).result()

    assert compared(lambda: run(2), lambda: run(3)).verdict == "cannot be told"


def test_what_order_alone_changes_in_a_pool(compared: Callable[..., Alignment]) -> None:
    """A worker's state depends on which task came first: no input of the host says why."""

    def run(tasks: tuple[float, ...]) -> None:
        train(1)
        with ThreadPoolExecutor(1) as pool:
            state = np.float32(1)
            for i in tasks:
                state = pool.submit(step, state, np.float32(i)).result()

    found = compared(lambda: run((1, 3)), lambda: run((3, 1)))
    assert (found.verdict, found.roots) == ("cannot be told", [])


@pytest.mark.parametrize(("by", "verdict"), [(0.0, "same"), (0.5, "different")])
def test_threads_of_one_name(compared: Callable[..., Alignment], by: float, verdict: str) -> None:
    """Threads that share a name are all compared, in whatever order they began."""

    def run(order: tuple[float, ...]) -> None:
        train(1)
        for i in order:
            x = np.full(3, i, np.float32)
            thread = threading.Thread(target=step, args=(x, x), name="worker")
            thread.start()
            thread.join()

    assert compared(lambda: run((0, 1, 2)), lambda: run((1 + by, 0, 2))).verdict == verdict


@pytest.mark.parametrize("at", [0, 3, 7, 100])
def test_what_is_skipped_changes_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Lines that are equal from the beginning are not looked into: the answer is the same."""

    def run(at: int) -> None:
        fixed, w = jax.device_put(np.ones(3, np.float32)), jnp.zeros(3)
        for i in range(9):
            w = step(w, fixed)
            fixed = step(fixed, np.float32(i == at)) if i == 5 else fixed
            step(step(w, fixed), np.float32(i == at))

    for name, where in (("a", -1), ("b", at)):
        with record(tmp_path / name):
            run(where)
    quick = compare_records(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(align, "equal_calls", lambda *threads: iter(()))
    slow = compare_records(tmp_path / "a", tmp_path / "b")
    assert quick == slow
    assert quick.verdict == ("different" if at < 9 else "same")


def test_memory_that_is_shared_by_chance(compared: Callable[..., Alignment]) -> None:
    """Whether a JAX array shares NumPy's memory depends on its address, and is no difference."""

    def run(shift: int) -> None:
        memory = np.zeros(1024, np.float32)
        begin = -memory.ctypes.data % 64 // 4 + shift
        x = jax.device_put(memory[begin : begin + 512])
        for _ in range(3):
            step(x, x)

    assert compared(lambda: run(0), lambda: run(1)).verdict == "same"
