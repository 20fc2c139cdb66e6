"""A call that was kept and is executed again, in a process that knows nothing of its script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reproducibility.script.repeat import CallAgain, replay_call
from tests.script.test_twice import twice

# Every kind of input, on four devices in another order than they are numbered; one is donated.
EVERYTHING = """\
import functools
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
mesh = Mesh(np.array(jax.devices())[::-1], "d")
x = jax.device_put(np.arange(128, dtype="f").reshape(8, 16) / 7, NamedSharding(mesh, P("d")))
half, small, four = (jnp.arange(4, dtype=d) for d in ("bfloat16", "float8_e4m3fn", "int4"))
key = jax.random.key(3)
@functools.partial(jax.jit, donate_argnums=0)
def step(x, half, small, four, key, number, wide):
    lower = jnp.linalg.cholesky(x.T @ x + 1000 * jnp.eye(16))
    halves = half * 2 + small.astype("bfloat16") * number
    return lower, x * 2 + wide, halves, four + four, jax.random.split(key), key
assert len(step(x, half, small, four, key, np.float16(2), 3.5)) == 6
"""
# XLA's own generator has a state, which no program is given: the only such thing on a CPU.
STATEFUL = """\
import jax, numpy as np
one, two = np.float32(1), np.float32(2)
jax.jit(lambda x: (jax.lax.rng_uniform(one, two, (5,)) + x, x * 2))(np.float32(3))
"""
CALLBACK = """\
import jax, numpy as np
kind = jax.ShapeDtypeStruct((), np.float32)
jax.jit(lambda x: jax.pure_callback(np.negative, kind, x))(np.float32(3))
"""


def kept(folder: Path, script: str) -> Path:
    """Record a script, keep the last call of a function of its own, and return where."""
    (folder / "script.py").write_text(script)
    first = _recorded(folder / "first", "")
    calls = [text for text in first.read_text().splitlines() if text[:1].isdigit()]
    last = len(calls) - 1
    _recorded(folder / "kept", f"process-1/1:{last}")
    return folder / "kept" / "process-1" / "kept"


def _recorded(record: Path, wanted: str) -> Path:
    command = [sys.executable, "-m", "reproducibility", "record", record.name, "--"]
    environment = {**os.environ, "REPRODUCIBILITY_KEEP": wanted}
    command += [sys.executable, "script.py"]
    subprocess.run(command, cwd=record.parent, env=environment, check=True, timeout=240)
    return record / "process-1" / "thread-1.txt"


@pytest.mark.long
@pytest.mark.nightly
def test_every_kind_of_input(tmp_path: Path) -> None:
    """The same bytes on the same devices, LAPACK's program, donation: all as in the script."""
    found = replay_call(kept(tmp_path, EVERYTHING), times=3)
    assert found == CallAgain(
        (),
        "it repeats by itself: 3 of 3 alike, and as in the script; "
        "so what makes it differ lies around it",
        3,
        3,
    )


def test_a_program_that_does_not_repeat(tmp_path: Path) -> None:
    """The result that differs is named, with how often and by how much; the other one is not."""
    found = replay_call(kept(tmp_path, STATEFUL), ("noise", "double"), times=4)
    assert (found.times, found.alike) == (4, 1)
    assert found.replayed.startswith("it differs from run to run: noise in 3 of 4, by at most ")
    assert "double" not in found.replayed


def test_a_callback_is_no_part_of_a_program(tmp_path: Path) -> None:
    """A function of the script is nowhere else, and that is said; its inputs are kept."""
    folder = kept(tmp_path, CALLBACK)
    found = replay_call(folder)
    assert found.replayed == "it cannot be executed alone: it calls functions of the script"
    assert (folder / "input-0-0").stat().st_size == 4


def test_what_was_kept_is_covered(tmp_path: Path) -> None:
    """A changed byte of an input is no input of the call."""
    folder = kept(tmp_path, STATEFUL)
    path = folder / "input-0-0"
    path.write_bytes(b"\0" * path.stat().st_size)
    assert replay_call(folder).replayed == "it was not kept"
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.long
@pytest.mark.nightly
def test_twice_says_by_how_much(tmp_path: Path) -> None:
    """Inputs of the call where two runs diverge are kept by two more, and compared."""
    (tmp_path / "train.py").write_text(
        "import os, jax, numpy as np\n"
        "x = np.zeros(32, 'f')\n"
        "x[:12] = 0.5 * float(os.environ['RUN'])\n"
        "jax.jit(lambda batch, one: batch + one)(x, np.float32(1))\n"
    )
    found = twice(tmp_path, "--env", "RUN={run}")
    (text,) = found["again"]["in_two_more_runs"]
    assert text == "batch: 12 of 32 elements differ, by at most 0.5 (8,388,608 ULP)"
    assert found["again"]["replayed"] is None


@pytest.mark.long
@pytest.mark.nightly
def test_twice_executes_the_call_alone(tmp_path: Path) -> None:
    """Other flags, and the program as in the script: what made it differ lies around it."""
    (tmp_path / "train.py").write_text(
        "import os\n"
        "flag = '--xla_disable_hlo_passes=fusion' if os.environ['RUN'] == '1' else ''\n"
        "os.environ['XLA_FLAGS'] = flag\n"
        "import jax, numpy as np\n"
        "x = np.random.default_rng(0).normal(size=(8, 999)).astype('f')\n"
        "jax.jit(lambda x: (x * 3 + x * x) @ x.T)(x)\n"
    )
    found = twice(tmp_path, "--env", "RUN={run}")
    assert found["roots"][0]["program_differs"]["kind"] == "compiled"
    assert (found["again"]["times"], found["again"]["alike"]) == (10, 10)
    assert "as in the script" in found["again"]["replayed"]
    assert any(note.startswith("XLA_FLAGS is") for note in found["notes"])
