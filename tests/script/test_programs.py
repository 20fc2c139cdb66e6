"""Why equal inputs give other results: each class is planted, and nothing else is named."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import compare_records, record
from reproducibility.errors import RecordDamagedError
from reproducibility.script.diverging import Alignment
from reproducibility.script.programs import (
    ProgramDifference,
    ProgramsOfProcess,
    difference_of_programs,
)
from reproducibility.script.reading import CalledProgram, processes_of
from reproducibility.watch.callbacks import CALLBACKS
from reproducibility.watch.texts import PROGRAMS

ONES = np.ones(30, np.float32)


def lines_of(function: Callable[..., Any]) -> int:
    """Return the line where a function begins."""
    return function.__code__.co_firstlineno


@pytest.fixture
def difference(tmp_path: Path) -> Callable[..., ProgramDifference | None]:
    """Record a function with two arguments, and return how its programs differ."""

    def record_both(do: Callable[[Any], Any], one: Any, other: Any) -> ProgramDifference | None:
        for name, argument in (("a", one), ("b", other)):
            with record(tmp_path / name):
                jax.block_until_ready(do(argument))
        found = compare_records(tmp_path / "a", tmp_path / "b")
        (root,) = found.roots
        assert root.kind == "program"
        return root.program_differs

    return record_both


@pytest.mark.parametrize("size", [3, 30, 3000])
def test_a_constant(difference: Callable[..., ProgramDifference], size: int) -> None:
    """A captured array is named by its type and by the line that uses it, whatever its size."""

    def run(value: float) -> Any:
        captured = np.full(size, value, np.float32)
        captured[0] = 7

        def shifted(x: Any) -> Any:
            y = x * 2
            return y + captured

        run.line = lines_of(shifted) + 2  # type: ignore[attr-defined]
        return jax.jit(shifted)(np.ones(size, np.float32))

    found = difference(run, 1.0, 2.0)
    assert found.kind == "constant"
    assert found.what.startswith(f"another constant in it: f32[{size}]")
    assert [line.line for line in found.lines] == [run.line]  # type: ignore[attr-defined]


def test_a_number_in_the_code(difference: Callable[..., ProgramDifference]) -> None:
    """Of a number both values are shown."""

    def run(value: float) -> Any:
        return jax.jit(lambda x: x * value)(ONES)

    what = difference(run, 1.5, 2.5).what
    assert (
        what == "another constant in it: f32[], 1.500000e+00 in one run, 2.500000e+00 in the other"
    )


def test_another_operation(difference: Callable[..., ProgramDifference]) -> None:
    """The first operation that differs is named, with its line in both runs."""

    def run(sine: bool) -> Any:
        def bent(x: Any) -> Any:
            y = x * 2
            if sine:
                return jnp.sin(y)
            return jnp.cos(y)

        run.line = lines_of(bent)  # type: ignore[attr-defined]
        return jax.jit(bent)(ONES)

    found = difference(run, True, False)
    assert (found.kind, found.what) == (
        "source",
        "another program: it first differs in sine, which is cosine in the other",
    )
    first = run.line  # type: ignore[attr-defined]
    assert [line.line for line in found.lines] == [first + 3, first + 4]
    assert found.lines[0].file == __file__


def test_an_operation_behind_a_branch(difference: Callable[..., ProgramDifference]) -> None:
    """An operation more numbers what is inside of a branch anew, which is no difference there."""

    def run(doubled: bool) -> Any:
        def branched(x: Any) -> Any:
            y = jax.lax.cond(x[0] > 0, lambda x: x - 2, lambda x: x / 3, x)
            return y * 5 if doubled else y

        return jax.jit(branched)(ONES)

    found = difference(run, False, True)
    assert found.kind == "source"
    assert found.what.endswith("first differs in return, which is broadcast_in_dim in the other")


def test_operations_in_another_order(difference: Callable[..., ProgramDifference]) -> None:
    """A program that follows the order of a set is another one, from the first that differs on."""

    def run(order: str) -> Any:
        def together(x: Any) -> Any:
            for name in order:
                x = x + 1 if name == "a" else jnp.tanh(x) if name == "b" else x * 3
            return x

        return jax.jit(together)(ONES)

    assert "add, which is multiply in the other" in difference(run, "abc", "cab").what


def test_a_callback(difference: Callable[..., ProgramDifference]) -> None:
    """A function on the host that returns another value for equal arguments is named."""

    def run(value: float) -> Any:
        def noisy(x: Any) -> Any:
            return np.asarray(x) + np.float32(value)

        run.line = lines_of(noisy)  # type: ignore[attr-defined]

        @jax.jit
        def step(x: Any) -> Any:
            kind = jax.ShapeDtypeStruct(x.shape, x.dtype)
            return jax.pure_callback(noisy, kind, x + 1)

        return step(ONES)

    found = difference(run, 1.0, 2.0)
    assert (found.kind, found.lines[0].line) == ("callback", run.line)  # type: ignore[attr-defined]
    assert found.lines[0].function == "noisy"


SCRIPT = """\
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
first = sys.argv[1] == "1"
mesh = Mesh(np.array(jax.devices())[::{order}], "x")
x = jax.device_put(np.random.default_rng(0).normal(size=(8, 1000)).astype("f"),
                   NamedSharding(mesh, P({axes})))
jax.block_until_ready(jax.jit(lambda x: {expression})(x))
"""


def two_records(folder: Path, *flags: str, **parts: str) -> Alignment:
    """Record a script with argument 1 and 2, on eight devices, and with flags of its own."""
    lines = {"order": "1", "axes": "'x'", "expression": "x.sum()", **parts}
    (folder / "script.py").write_text(SCRIPT.format(**lines))
    for number, flag in zip((1, 2), flags or ("", ""), strict=True):
        command = [sys.executable, "-m", "reproducibility", "record", f"r{number}", "--"]
        command += [sys.executable, "script.py", str(number)]
        eight = f"--xla_force_host_platform_device_count=8 {flag}"
        environment = {**os.environ, "XLA_FLAGS": eight}
        subprocess.run(command, cwd=folder, env=environment, check=True, timeout=240)
    return compare_records(folder / "r1", folder / "r2")


# What is planted, and the flags of the first run alone.
ELSEWHERE = {
    "devices": ({"order": "(1 if first else 2)"}, ""),
    "shardings": ({"axes": "*(['x'] if first else [None, 'x'])"}, ""),
    "compiled": ({"expression": "(x * 3 + x * x) @ x.T"}, "--xla_disable_hlo_passes=fusion"),
}


@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_what_is_no_part_of_the_code(tmp_path: Path, kind: str) -> None:
    """Other devices, other shardings and another compilation are each told apart."""
    parts, flag = ELSEWHERE[kind]
    found = two_records(tmp_path, flag, "", **parts)
    differ = [root.program_differs for root in found.roots if root.kind == "program"]
    assert {each.kind for each in differ} == {kind}


ONE = CalledProgram("jit(f)", "t", "c", (), (), (), "", "o", ("cpu:0", "cpu:1"), "cpu")
OTHERS = {
    "same": {},
    "compiled": {"optimised": "p"},
    "unknown": {"optimised": ""},
    "devices": {"devices": ("cpu:1", "cpu:0"), "optimised": "p"},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_one_text(tmp_path: Path, kind: str) -> None:
    """Of equal text the devices are asked first, then what XLA made of it, which may be unknown."""
    with record(tmp_path / "a"):
        jax.block_until_ready(jnp.ones(3))
    (process,) = processes_of(tmp_path / "a")
    programs = ProgramsOfProcess(process)
    other = dataclasses.replace(ONE, **OTHERS[kind])
    assert difference_of_programs(programs, ONE, programs, other).kind == kind


@pytest.mark.parametrize("name", [PROGRAMS, CALLBACKS])
def test_a_file_that_only_explains_is_covered_too(tmp_path: Path, name: str) -> None:
    """A changed byte in it is seen, and so is a link in its place."""
    with record(tmp_path / "a"):
        kind = jax.ShapeDtypeStruct((), np.float32)
        jax.block_until_ready(jax.jit(lambda: jax.pure_callback(np.float32, kind, 1))())
    path = tmp_path / "a" / "process-1" / name
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"e", b"f", 1))
    with pytest.raises(RecordDamagedError):
        processes_of(tmp_path / "a")
    (tmp_path / "elsewhere").write_bytes(whole)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordDamagedError):
        processes_of(tmp_path / "a")


# A job of two processes of one command; which of them starts first is the other way around in the
# second run, and each has a state of its own.
JOB = """\
import os, socket, subprocess, sys, time
def begin(place, number):
    command = [sys.executable, *sys.argv]
    child = subprocess.Popen(command, env={**os.environ, "PLACE": place, "ADDRESS": address})
    while child.poll() is None and not os.path.isdir(f"{record}/process-{number}"):
        time.sleep(0.01)
    return child
if "PLACE" not in os.environ:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    order = ("0", "1") if sys.argv[1] == "1" else ("1", "0")
    record, begun = os.environ["REPRODUCIBILITY_RECORD"], []
    try:
        for number, place in enumerate(order, 2):
            begun.append(begin(place, number))
        sys.exit(any([each.wait(150) for each in begun]))
    finally:
        [each.kill() for each in begun]
import jax, numpy as np
place = int(os.environ["PLACE"])
jax.distributed.initialize(os.environ["ADDRESS"], 2, place, initialization_timeout=120)
assert jax.process_count() == 2
x = jax.device_put(np.full(3, place, np.float32), jax.local_devices()[0])
jax.jit(lambda x: x + 1)(x).block_until_ready()
jax.distributed.shutdown()
"""


@pytest.mark.long
@pytest.mark.nightly
def test_processes_of_one_job_are_paired_by_their_place(tmp_path: Path) -> None:
    """Of two processes of one command each is compared with the one in its place."""
    (tmp_path / "job.py").write_text(JOB)
    for number in ("1", "2"):
        command = [sys.executable, "-m", "reproducibility", "record", f"r{number}", "--"]
        command += [sys.executable, "job.py", number]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=240)
    found = compare_records(tmp_path / "r1", tmp_path / "r2")
    assert (found.verdict, found.problems) == ("same", [])
    places = [(each.end or {}).get("place") for each in processes_of(tmp_path / "r1")]
    assert sorted(place for place in places if place[1] == 2) == [[0, 2], [1, 2]]
