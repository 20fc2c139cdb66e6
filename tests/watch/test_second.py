"""A call that does not repeat is caught while the script runs, which nothing of this changes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import record
from reproducibility.cli import commands
from reproducibility.script.recomputed import ComputedTwice, ResultApart, recomputed
from reproducibility.watch import hook, second

TYPES = ("float32", "bfloat16", "float16", "int32", "uint8", "bool", "complex64")
TYPES += ("float8_e4m3fn", "float8_e5m2")
SIZES = (3, 5_000)  # compared on the host, and on the device


@pytest.fixture(params=["fast", "slow"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """JAX's C++ executes programs by itself, or everything goes through Python."""
    if request.param == "slow":
        monkeypatch.setattr(hook, "CAN_BE_FAST", False)
    with jax.debug_key_reuse(False):  # else JAX's C++ leaves more to Python
        yield str(request.param)


@pytest.fixture
def upset(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Give what lets a device upset one bit of a result of some calls, the first or second time."""

    def plan(calls: dict[int, tuple[int, int, int, bool]]) -> None:
        def act(thread: int, number: int, ones: list[Any], others: list[Any]) -> Any:
            if number in calls:
                result, element, bit, first = calls[number]
                changed = ones if first else others
                changed[result] = flipped(changed[result], element, bit)
            return ones, others

        monkeypatch.setattr(second, "_upset", act)

    yield plan
    assert second._upset is not None


def main(arguments: list[str]) -> object:
    """Run a command, and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        commands.main(arguments)
    return ended.value.code


def flipped(array: Any, element: int, bit: int) -> Any:
    """Return an array one bit of which is another."""
    values = np.array(array)
    data = values.reshape(-1).view(np.uint8).reshape(values.size, -1)
    data[element, bit // 8] ^= 1 << (bit % 8)
    return jax.device_put(values, array.sharding)


@functools.partial(jax.jit, donate_argnums=0)
def step(params: Any, batch: Any, rate: Any) -> Any:
    """Train a little."""
    return jax.tree.map(lambda p: p * 0.5 + batch.sum() * rate, params), batch.mean()


def training(turns: int) -> Any:
    """Return what a loop ends with, with donated arrays, a key, arrays and numbers of the host."""
    params = {"a": jnp.ones((70, 90)), "b": jnp.ones(3, jnp.bfloat16)}
    key = jax.random.key(0)
    for turn in range(turns):
        key, drawn = jax.random.split(key)
        batch = np.full(8, turn, np.float32)
        params, _ = step(params, batch + np.float32(turn), 0.1)
        params["b"] += jax.random.normal(drawn, (3,)).astype(jnp.bfloat16)
    return jax.device_get(params)


def read(folder: Path) -> ComputedTwice:
    """Return what was computed twice; nothing else may have gone wrong."""
    end = json.loads((folder / "process-1" / "end.json").read_text())
    assert (end["problems"], end["remarks"]) == ([], [])
    return recomputed(folder)


def test_a_training_computed_twice_ends_with_the_same_bits(tmp_path: Path, way: str) -> None:
    """Every call is computed twice, donated inputs too; all agree, and the training is the same."""
    alone = training(3)
    with record(tmp_path / "r", again=1):
        twice = training(3)
    found = read(tmp_path / "r")
    assert found.computed == found.calls
    assert (found.unlike, found.not_computed) == ([], {})
    jax.tree.map(np.testing.assert_array_equal, alone, twice)


def planted() -> list[tuple[str, int, int, int, bool]]:
    """Return fifty upsets: type, size, element, bit, and whether it is the first time."""
    found = []
    for number in range(50):
        name, size = TYPES[number % len(TYPES)], SIZES[number // len(TYPES) % 2]
        width = 1 if name == "bool" else 8 * jnp.dtype(name).itemsize
        found.append((name, size, 7 * number % size, 5 * number % width, number % 3 == 0))
    return found


@pytest.mark.long
def test_each_of_fifty_upset_bits_is_found(
    tmp_path: Path, upset: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """One bit of one result of one call: the call, the result and how many numbers are named."""
    plan = planted()
    given = {size: jnp.arange(size) % 2 for size in SIZES}
    programs = {
        name: jax.jit(lambda x, as_=name: {"even": x + 1, "typed": x.astype(as_)}) for name in TYPES
    }
    for name, size in {each[:2] for each in plan}:
        programs[name](given[size])
    # Every other call is upset, from the second one on.
    upset({2 * i + 1: (1, *each[2:]) for i, each in enumerate(plan)})
    with record(tmp_path / "r", again=1):
        for name, size, *_ in plan:
            for _ in range(2):
                programs[name](given[size])
    found = read(tmp_path / "r")
    assert [each.number for each in found.unlike] == list(range(1, 100, 2))
    for (_, size, *_), call in zip(plan, found.unlike, strict=True):
        (result,) = call.results
        assert (result.name, result.differing, result.size) == ("['typed']", 1, size)
    assert (found.computed, found.exit_code) == (100, 1)
    assert "100 of 100 calls were computed twice; 50 came to" in capsys.readouterr().err


@pytest.mark.parametrize("size", SIZES)
def test_how_far_apart_is_counted_in_steps_of_the_type(
    tmp_path: Path, upset: Callable[..., None], size: int
) -> None:
    """Neighbours are one ULP apart; a sign is as far as the two numbers are."""
    program = jax.jit(lambda x: x * 1.0)
    one = jnp.ones(size)
    program(one)
    for bit, steps in ((0, 1), (4, 16), (31, 2 * 0x3F800000 + 1)):
        upset({0: (0, 1, bit, False)})
        with record(tmp_path / str(bit), again=1):
            program(one)
        (call,) = read(tmp_path / str(bit)).unlike
        assert call.results == (ResultApart("result", 1, size, steps, "float32"),)
    assert str(call.results[0]).endswith("by at most more than 1,000,000 ULP")


def test_of_n_calls_one_is_computed_twice_and_not_always_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loop with as many calls as N still has each of its calls computed twice now and then."""
    program = jax.jit(lambda x: x + 1)
    program(0.0)
    with record(tmp_path / "r", again=4):
        for turn in range(40):
            program(float(turn))
    lines = (tmp_path / "r" / "process-1" / "second.txt").read_text().splitlines()
    numbers = [int(line[2:].split(" ")[0]) for line in lines if not line.startswith("#")]
    later = [number - 1 for number in numbers if number]  # the first one is made in Python
    assert [number // 4 for number in later] == list(range(10))[: len(later)]
    assert len(later) >= 9
    assert len({number % 4 for number in later}) == 4
    said = f"{len(numbers)} of 40 calls were computed twice; all came to the same, bit for bit\n"
    assert capsys.readouterr().err == said


def long_program(big: Any, late: Any) -> Any:
    """Work for some time, and only then look at `late`."""
    worked = jax.lax.fori_loop(0, 60, lambda _, x: jnp.tanh(x @ x), big)
    return late + jnp.where(jnp.isnan(worked).any(), 1.0, 0.0)


@pytest.mark.parametrize("waits", [False, True])
def test_memory_that_is_overwritten_while_a_call_runs(
    tmp_path: Path, waits: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A race is found; a script that waits before it overwrites does nothing wrong."""
    program = jax.jit(long_program)
    buffer = aligned(2_000)
    big = jnp.full((300, 300), 0.01)
    with record(tmp_path / "r", again=1):
        late = jax.device_put(buffer, jax.devices("cpu")[0])
        assert late.unsafe_buffer_pointer() == buffer.ctypes.data
        program(big, late).block_until_ready()
        for turn in range(2):
            result = program(big, late)
            if waits:
                result.block_until_ready()
            buffer[:] = turn + 1
            result.block_until_ready()
    found = recomputed(tmp_path / "r")
    assert found.computed >= 3
    assert bool(found.unlike) is not waits
    if not waits:
        assert found.unlike[-1].overwritten
        assert "NumPy wrote into the memory" in capsys.readouterr().err


def test_memory_that_numpy_can_write_to_is_copied_before() -> None:
    """Arrays of NumPy and those that share its memory are copied, and no others that stay."""
    buffer, own = aligned(64), jnp.zeros(64)
    shares = jax.device_put(buffer, jax.devices("cpu")[0])
    watching: Any = second.Second(1, None, {id(shares): None})  # type: ignore[arg-type]
    watching.before("a program", [shares, own]).turns.donated = set()
    inputs = watching.before("a program", [shares, own, buffer])
    buffer[:] = 1
    assert shares.sum() == 64
    assert (inputs.arrays[0].sum(), inputs.arrays[2].sum()) == (0, 0)
    assert inputs.arrays[1] is own


def aligned(size: int) -> Any:
    """Return an array whose memory JAX shares."""
    whole = np.zeros(4 * size + 64, np.uint8)
    begin = -whole.ctypes.data % 64
    return whole[begin : begin + 4 * size].view(np.float32)


def effects() -> list[Any]:
    """Make calls that a second time would change, or that would change something."""
    printed = jax.jit(lambda x: jax.debug.callback(seen.append, x) or x + 1)
    drawn = jax.jit(lambda: jax.lax.rng_uniform(0.0, 1.0, (4,)))
    array = jax.new_ref(jnp.ones(3))

    @jax.jit
    def double() -> None:
        array[...] = array[...] * 2

    seen: list[Any] = []
    found = [printed(1.0), drawn(), drawn(), double(), double(), array[...]]
    jax.effects_barrier()
    return [float(each.sum()) for each in found if each is not None] + [len(seen)]


def test_what_is_more_than_a_computation_is_done_once(tmp_path: Path, way: str) -> None:
    """Callbacks, mutable arrays and the device's own generator: counted, and not done twice."""
    begun = effects()
    with record(tmp_path / "r", again=1):
        found = effects()
    assert found[0] == begun[0]
    assert found[3:] == [12.0, 1] == begun[3:]
    why = read(tmp_path / "r").not_computed
    reasons = ("call functions of the script", "write to mutable", "draw from a generator")
    assert all(any(reason in each for each in why) for reason in reasons), why


def test_the_reader_says_what_was_found(
    tmp_path: Path, upset: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` of a record exits with 0, 1 or 3: the same, not the same, nothing was looked at."""
    program = jax.jit(lambda x: x * 2)
    for name, call, again in (("same", 99, 1), ("other", 1, 1), ("none", 99, 1_000_000)):
        upset({call: (0, 0, 0, False)})
        with record(tmp_path / name, again=again):
            program(1.0), program(2.0)
    capsys.readouterr()
    assert main(["check", str(tmp_path / "same")]) == 0
    same = capsys.readouterr().out
    assert "2 of 2 calls were computed twice; all came to the same, bit for bit" in same
    assert main(["check", str(tmp_path / "other")]) == 1
    out, err = capsys.readouterr()
    assert "test_second.py:" in out
    assert "result: 1 of 1 numbers differ, by at most 1 ULP" in out
    assert err == "Call 1, <lambda>, does not repeat from the same inputs.\n"
    assert main(["check", str(tmp_path / "none"), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["again"]["computed"] == 0
    assert main(["check", str(tmp_path / "none"), "--repair"]) == 2


def test_an_answer_of_a_thread_that_was_not_written_yet(
    tmp_path: Path, upset: Callable[..., None]
) -> None:
    """What a killed process had written of a call may be all that there is of its thread."""
    upset({0: (0, 1, 3, False)})
    program = jax.jit(lambda x: x * 3)
    one = jnp.ones(3)
    with record(tmp_path / "r", again=1):
        program(one)
    (tmp_path / "r/process-1/end.json").unlink()
    (tmp_path / "r/process-1/thread-1.txt").write_bytes(b"")
    (call,) = recomputed(tmp_path / "r").unlike
    assert call.called == "a call that the record lacks"


def test_a_damaged_answer_is_no_answer(tmp_path: Path) -> None:
    """A byte that was changed in what the second computation came to is found."""
    with record(tmp_path / "r", again=1):
        jax.jit(lambda x: x * 2)(1.0)
    file = tmp_path / "r" / "process-1" / "second.txt"
    file.write_text(file.read_text().replace("[]", '""', 1))
    assert main(["check", str(tmp_path / "r")]) == 3
