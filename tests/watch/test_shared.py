"""Memory that NumPy and JAX share: an overwrite is told with both lines, and nothing else is."""

import gc
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import compare_records, record
from reproducibility.script.reading import processes_of
from reproducibility.watch import shared


class Told:
    """Keeps the lines that are written."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.remarks: list[str] = []

    def line(self, name: str, text: str) -> None:
        """Add a line."""
        assert name == "host.txt"
        self.events.append(json.loads(text))

    def remark(self, what: str) -> None:
        """Add a remark."""
        self.remarks.append(what)


def aligned(count: int) -> np.ndarray:
    """Return an array whose memory JAX shares on a CPU."""
    raw = np.zeros(4 * count + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    return raw[begin : begin + 4 * count].view(np.float32)


def memory_of(buffer: np.ndarray) -> tuple[shared.SharedMemory, Told, jax.Array]:
    """Return what looks at the memory of an array that was put on a device."""
    told = Told()
    memory = shared.SharedMemory(told)  # type: ignore[arg-type]
    array = jax.device_put(buffer, jax.devices("cpu")[0])
    assert array.unsafe_buffer_pointer() == buffer.ctypes.data
    memory.note(array, shared.memory_of(array), buffer, 3)
    return memory, told, array


@pytest.mark.parametrize("count", [64, shared.WHOLE])
@pytest.mark.parametrize("ends_with", ["a use", "the array", "the record"])
def test_an_overwrite_is_told(count: int, ends_with: str) -> None:
    """It is found at the next use, when the array goes, or at the end, with the call before."""
    buffer = aligned(count)
    memory, told, array = memory_of(buffer)
    memory.used(array, 4)
    memory.used(array, 5)
    assert told.events == []
    buffer[:] = 1
    if ends_with == "a use":
        memory.used(array, 6)
        buffer[:] = 2
    elif ends_with == "the array":
        del array
        gc.collect()
        assert memory.arrays == {}
    memory.look_at_all()
    event, *again = told.events
    assert [each["after"] for each in again] == [6] * (ends_with == "a use")
    assert (event["kind"], event["what"], event["after"]) == (
        "overwritten",
        shared.MEMORY_OVERWRITTEN,
        5,
    )
    lines = [function for _, _, function in event["lines"]]
    assert lines == ["memory_of", "test_an_overwrite_is_told"]
    assert told.remarks == []


def test_memory_that_is_gone_is_not_looked_at() -> None:
    """An array that outlives what it was made from keeps the memory; one that does not, nothing."""
    buffer = aligned(64)
    memory, told, array = memory_of(buffer)
    del buffer
    memory.used(array, 1)
    memory.look_at_all()
    array.delete()
    memory.look_at_all()
    del array
    gc.collect()
    assert (told.events, told.remarks, memory.arrays) == ([], [], {})


def test_an_array_that_goes_unchanged() -> None:
    """Nothing is told of memory that is written to when no array of JAX has it any more."""
    buffer = aligned(64)
    memory, told, array = memory_of(buffer)
    memory.used(array, 1)
    del array
    gc.collect()
    buffer[:] = 1
    memory.look_at_all()
    assert (told.events, told.remarks) == ([], [])


def test_memory_of_something_else_is_looked_at_again(tmp_path: Path) -> None:
    """What comes through dlpack belongs to another library, which may write to it."""
    buffer, look = aligned(64), jax.jit(jnp.isnan)
    with record(tmp_path / "record"):
        array = jnp.from_dlpack(buffer)
        jax.block_until_ready(look(array))
        buffer[:] = 1
        jax.block_until_ready(look(array))
    (process,) = processes_of(tmp_path / "record")
    one, other = (call for thread in process.threads for call in thread.calls())
    assert one.values != other.values
    events = [(event.kind, event.thread, event.after) for event in process.events()]
    assert events == [("overwritten", 1, 0)]


def test_a_race_during_a_call(tmp_path: Path) -> None:
    """What NumPy writes while a call runs is the memory's fault, with both lines, not XLA's."""

    def run(place: Path, late: float) -> None:
        buffer = aligned(64)

        def slow(x: Any) -> Any:
            buffer[:] = late  # another thread's work, at a moment that is certain
            return np.zeros((), np.float32)

        @jax.jit
        def program(x: Any, y: Any) -> Any:
            zero = jax.pure_callback(slow, jax.ShapeDtypeStruct((), np.float32), y)
            return (jax.lax.optimization_barrier((x, zero))[0] + zero).sum()

        with record(place):
            x = jax.device_put(buffer)
            program(x, np.float32(1)).block_until_ready()

    run(tmp_path / "a", 1.0)
    run(tmp_path / "b", 2.0)
    (root,) = compare_records(tmp_path / "a", tmp_path / "b").roots
    why = root.program_differs
    assert why is not None
    assert (root.kind, why.kind) == ("program", "memory")
    lines = [line.function for line in why.lines]
    assert lines == ["run", "run"]
