"""The assertions for other suites: what passes, what fails, and what the failure says."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import sys
import time
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproducibility import (
    CheckpointMismatchError,
    LeafError,
    root_key,
    step_key,
    stream_key,
    testing,
    tree_digest,
)
from reproducibility.testing import (
    assert_bitwise_equal,
    assert_reproducible,
    assert_resumable,
)

properties = settings(derandomize=True, deadline=None, max_examples=100)


def failure(check: Callable[..., None], *args: Any, **settings: Any) -> str:
    """Return what a check that must fail says."""
    with pytest.raises(AssertionError) as caught:
        check(*args, **settings)
    return str(caught.value)


# assert_bitwise_equal


def words(dtype: str, *values: int) -> np.ndarray:
    """Return elements of a dtype, given by their bits."""
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    return np.array(values, f"u{kind.itemsize}").view(kind)


X = np.arange(6, dtype=np.float32).reshape(2, 3)
KEYS = jax.random.wrap_key_data(np.arange(8, dtype=np.uint32).reshape(4, 2), impl="threefry2x32")
OTHER_KEYS = jax.random.wrap_key_data(
    np.array([[0, 1], [2, 9], [4, 5], [8, 8]], np.uint32), impl="threefry2x32"
)
FOUR_WORDS = jax.random.wrap_key_data(np.zeros((4, 4), np.uint32), impl="threefry4x32")


class Pair(NamedTuple):
    """A container with attributes."""

    left: Any
    right: Any


def test_equal_trees_pass() -> None:
    """Equal bits pass, whether in NumPy or JAX, a list or a tuple, a NaN or a key."""
    a = {"x": X, "n": words("float32", 0x7FC00001), "k": [KEYS], "none": None, "i4": jnp.int4(3)}
    b = {"x": jnp.array(X), "n": words("float32", 0x7FC00001), "k": (KEYS,), "i4": jnp.int4(3)}
    assert_bitwise_equal(a, b)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (X, X.T, "leaf .: float32[2,3] against float32[3,2]."),
        (X, X.astype(np.float64), "leaf .: float32[2,3] against float64[2,3]."),
        ({"w": X}, {"v": X}, "leaf v: nothing against float32[2,3]; 1 other leaf differs."),
        ({"v": X}, {"w": X}, "leaf v: float32[2,3] against nothing; 1 other leaf differs."),
        ([X, X], [X], "leaf [1]: float32[2,3] against nothing."),
        (KEYS, FOUR_WORDS, "leaf .: key<fry>[4] against key<fry4>[4]."),
        (KEYS, jax.random.key_data(KEYS), "leaf .: key<fry>[4] against uint32[4,2]."),
        (KEYS, OTHER_KEYS, "leaf .: 2 of 4 keys differ."),
        (Pair(X, X), Pair(X, -X), "leaf right: 6 of 6 elements differ, by up to 2168455169 ULP."),
        (
            {"c": X, "a": [X, X], "b": X},
            {"c": -X, "a": [X, X + 1], "b": X + 1},
            "leaf a[1]: 6 of 6 elements differ, by up to 1065353216 ULP; 2 other leaves differ.",
        ),
    ],
)
def test_first_difference_is_named(a: Any, b: Any, said: str) -> None:
    """The first leaf in the order of paths is named, with what differs, and the others counted."""
    assert failure(assert_bitwise_equal, a, b) == f"Not the same bits: {said}"


def test_order_of_paths() -> None:
    """Leaves that one side lacks stand in the same order as the others."""
    said = failure(assert_bitwise_equal, {"b": X, "c": -X}, {"a": X, "b": X, "c": X})
    assert "leaf a: nothing against float32[2,3]; 1 other" in said


ONE = {"float64": 0x3FF0000000000000, "float32": 0x3F800000, "float16": 0x3C00, "bfloat16": 0x3F80}


@pytest.mark.parametrize("dtype", ONE)
@pytest.mark.parametrize("gap", [1, 7, 300])
def test_ulp_known_answers(dtype: str, gap: int) -> None:
    """The distance in ULP is the number of floats from one to the other; the largest is told."""
    one, sign = ONE[dtype], 1 << (8 * words(dtype, 0).itemsize - 1)
    a = words(dtype, one, one, sign + one, one)
    b = words(dtype, one, one + gap, sign + one + gap - 1, one)
    elements = 1 if gap == 1 else 2
    assert f"{elements} of 4 elements differ, by up to {gap} ULP." in failure(
        assert_bitwise_equal, a, b
    )


@given(
    st.lists(st.tuples(*[st.floats(width=32, allow_nan=False)] * 2), min_size=1, max_size=5),
)
@properties
def test_ulp_against_the_bits(pairs: list[tuple[float, float]]) -> None:
    """Of float32, the count and the distance are those of the bits, signs and infinities too."""

    def place(x: float) -> int:  # -0.0 has the place below 0.0
        [bits] = struct.unpack("<i", struct.pack("<f", x))
        return bits if bits >= 0 else -(bits & 0x7FFFFFFF) - 1

    a, b = (np.array(side, np.float32) for side in zip(*pairs, strict=True))
    gaps = [abs(place(x) - place(y)) for x, y in pairs]
    if tree_digest(a) == tree_digest(b):
        assert_bitwise_equal(a, b)
        assert max(gaps) == 0
    else:
        said = failure(assert_bitwise_equal, a, b)
        count = sum(map(bool, gaps))
        assert f"{count} of {len(pairs)} elements differ, by up to {max(gaps)} ULP." in said


EIGHT_BITS = ["e3m4", "e4m3", "e4m3fn", "e4m3fnuz", "e4m3b11fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"]


@pytest.mark.parametrize("kind", EIGHT_BITS)
def test_float8_neighbours(kind: str) -> None:
    """In every float8 type each value is 1 ULP from the next one, across zero as well."""
    values = words(f"float8_{kind}", *range(256))
    values = values[~np.isnan(values)]
    values = values[np.lexsort((~np.signbit(values.astype(np.float32)), values.astype(np.float32)))]
    said = failure(assert_bitwise_equal, values[:-1], values[1:])
    assert f"{len(values) - 1} of {len(values) - 1} elements differ, by up to 1 ULP." in said


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (np.float32(0), np.float32(-0.0), "1 of 1 elements differ, by up to 1 ULP."),
        (words("float32", 0x7FC00000), np.float32([1]), "differ, NaN against a number in 1."),
        (
            words("bfloat16", 0x7FC0, 0x7FC0, 0x3F80, 0x3F80),
            words("bfloat16", 0x7FC1, 0x3F80, 0xFFC0, 0x3F81),
            "4 of 4 elements differ, by up to 1 ULP, NaN against a number in 2, "
            "NaN against NaN with other bits in 1.",
        ),
        (
            words("float64", 0x7FF0000000000000),
            words("float64", 0xFFF0000000000000),
            "by up to 18437736874454810625 ULP.",
        ),
        (
            np.complex64([1 + 1j, 2]),
            np.complex64([1 + np.nextafter(np.float32(1), np.float32(2)) * 1j, 2]),
            "1 of 2 elements differ, by up to 1 ULP.",
        ),
        (
            np.complex64([complex(1, np.nan), 2]),
            np.complex64([complex(-1, 3), 2]),
            "1 of 2 elements differ, by up to 2130706433 ULP, NaN against a number in 1.",
        ),
        (np.array([1.0], ">f4"), np.float32([1.0000001]), "by up to 1 ULP."),
    ],
)
def test_special_floats(a: Any, b: Any, said: str) -> None:
    """Zeros of both signs are neighbours; NaN is told in words; parts of a complex count alone."""
    assert failure(assert_bitwise_equal, a, b).endswith(said)


ends = "elements differ, by up to"


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (np.int64([-(2**63), 5]), np.int64([2**63 - 1, 5]), f"1 of 2 {ends} {2**64 - 1}."),
        (np.uint64([0]), np.uint64([2**64 - 1]), f"by up to {2**64 - 1}."),
        (np.int8([-128, 3, 0]), np.int8([-120, 1, 0]), f"2 of 3 {ends} 8."),
        (jnp.array([-8, 1], jnp.int4), jnp.array([7, 1], jnp.int4), f"1 of 2 {ends} 15."),
        (words("int4", 0xF3, 0x01), words("int4", 0x03, 0x02), f"1 of 2 {ends} 1."),  # low bits
        (np.uint8(200), np.uint8(100), "by up to 100."),
        (np.array([True, False]), np.array([False, False]), "1 of 2 elements differ."),
    ],
)
def test_integers(a: Any, b: Any, said: str) -> None:
    """Of integers the largest difference is told, in full; of truth values only how many."""
    assert failure(assert_bitwise_equal, a, b).endswith(said)


def test_no_digest_no_verdict() -> None:
    """What has no digest is refused by name, equal or not."""
    with pytest.raises(LeafError, match=r"at step"):
        assert_bitwise_equal({"step": 3}, {"step": 3})


# assert_reproducible: functions at module level, because another process must find them


def draws() -> dict[str, Any]:
    """Return what every process returns alike."""
    key = stream_key(root_key(7), "draws")
    return {"key": key, "x": [jax.random.normal(key, (3,)), {5: X}]}


def from_hash() -> dict[str, Any]:
    """Return numbers whose seed is Python's hash of a name."""
    return {"a": np.float32(1), "b": jax.random.bits(root_key(hash("dropout") % 2**32), (3,))}


def from_a_setting() -> dict[str, Any]:
    """Return numbers whose dtype is a setting's."""
    return {"x": jnp.arange(3) / 7}


def from_a_global() -> np.ndarray:
    """Return another number in each call."""
    COUNTER["calls"] += 1
    return np.int32(COUNTER["calls"])


COUNTER = {"calls": 0}
BUFFER = np.zeros(3, np.float32)


def from_one_buffer() -> np.ndarray:
    """Return one array, written over in each call."""
    BUFFER[:] += 1
    return BUFFER


def nothing() -> None:
    """Forget the return statement."""


def number() -> float:
    """Return what has no digest."""
    return 0.5


def only_here() -> np.ndarray:
    """Fail in a fresh process."""
    if testing._TESTING_CHILD in os.environ:
        sys.exit("this machine has no such file")
    return np.zeros(1)


def test_reproducible_function_passes() -> None:
    """What depends on code and arguments alone passes, in two processes."""
    assert_reproducible(draws)


def test_hash_of_a_name() -> None:
    """Python's hash is found by the fresh process, and its seed is among the explanations."""
    said = failure(assert_reproducible, from_hash)
    first, *lines = said.splitlines()
    assert first == ("Not reproducible in a fresh process: leaf b: uint32[3] with other bits.")
    assert any(line.startswith("  env.PYTHONHASHSEED: ") for line in lines)


def test_setting_of_one_process() -> None:
    """A setting that only this process's code switched on is named first."""
    names = ("jax_enable_x64", "jax_debug_nans")  # the second is known to change no bit
    for name in names:
        jax.config.update(name, True)
    try:
        said = failure(assert_reproducible, from_a_setting)
    finally:
        for name in names:
            jax.config.update(name, False)
    assert "fresh process: leaf x: float64[3] against float32[3].\n" in said
    assert said.splitlines()[2].startswith("  config.jax_enable_x64: True here, False there. Meas")
    assert "jax_debug_nans" not in said


def test_within_this_process() -> None:
    """A function that counts its calls fails before any other process is asked."""
    said = failure(assert_reproducible, from_a_global)
    assert said.startswith("Not reproducible within this process: leaf .: 1 of 1 elements differ")


def test_one_buffer() -> None:
    """A function that overwrites what it returned before is not compared with itself."""
    assert "within this process" in failure(assert_reproducible, from_one_buffer)


def test_nothing_to_compare() -> None:
    """A function without a result proves nothing, and fails."""
    assert failure(assert_reproducible, nothing).startswith("nothing returned no array")
    with pytest.raises(LeafError, match="a Python float"):
        assert_reproducible(number)


def test_fresh_process_fails(capfd: pytest.CaptureFixture[str]) -> None:
    """A function that only works here fails, and what the process said can be read."""
    said = failure(assert_reproducible, only_here)
    assert said == (
        "Not reproducible in a fresh process: it ended with exit code 1; its output says why."
    )
    assert "this machine has no such file" in capfd.readouterr().err


def test_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not end is killed, and that is a failure."""
    monkeypatch.setattr(testing, "_PROGRAM", "import time; time.sleep(3600)")
    said = failure(assert_reproducible, draws, timeout=0.5)
    assert said == "Not reproducible in a fresh process: it was killed after 0.5 seconds."


def test_the_fresh_process_is_not_left_behind() -> None:
    """When the process that tests is killed, the fresh process ends too."""
    script = (
        "from reproducibility import testing; testing._PROGRAM = 'import time; time.sleep(600)'"
    )
    script += "; testing._records_of_a_fresh_process(('', '', ''), 600)"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        children: list[psutil.Process] = []
        try:
            while not children:
                assert process.poll() is None
                time.sleep(0.05)
                children = psutil.Process(process.pid).children()
            process.terminate()
            assert psutil.wait_procs(children, timeout=60)[1] == []
        finally:
            process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


def program_that_answers(answer: str, then: str = "") -> str:
    """Return a program for the fresh process that writes this answer and imports nothing."""
    return (
        "import json, os, sys; path = json.loads(sys.argv[1])[3];"
        f"json.dump({answer}, open(path, 'w')); {then}"
    )


@pytest.mark.parametrize(
    ("program", "code"), [("", 0), (program_that_answers("[[], {}]", "sys.exit(3)"), 3)]
)
def test_no_answer(program: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends well without a result, or badly with one, is a failure."""
    monkeypatch.setattr(testing, "_PROGRAM", program)
    assert f"it ended with exit code {code};" in failure(assert_reproducible, draws)


def test_leaf_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves that only one of the processes has are named."""
    answer = "[[[[['name', 'a']], 'float32[2,3]', '00']], {}]"
    monkeypatch.setattr(testing, "_PROGRAM", program_that_answers(answer))
    said = failure(assert_reproducible, draws).splitlines()[0]
    assert said.endswith("leaf a: nothing against float32[2,3]; 3 other leaves differ.")


@pytest.mark.parametrize("seed", [None, "0", "1", "2", "random"])
def test_other_hash_seed(seed: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fresh process has a fixed hash seed, and never this process's."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    if seed is not None:
        monkeypatch.setenv("PYTHONHASHSEED", seed)
    program = program_that_answers("[[], {'seed': os.environ['PYTHONHASHSEED']}]")
    monkeypatch.setattr(testing, "_PROGRAM", program)
    _, environment = testing._records_of_a_fresh_process(("", "", ""), 60)
    assert environment["seed"] == ("2" if seed == "1" else "1")


def hidden() -> None:
    """Have the name of another function."""
    raise SystemExit


HIDDEN, hidden = hidden, draws


@pytest.mark.parametrize("file", [None, "page.md", "gone.py"])
def test_functions_without_a_file(
    file: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that was typed in, or whose file is none that can be imported, is refused."""
    (tmp_path / "page.md").write_text("result")
    module = types.ModuleType("typed_in")
    exec("def result(): raise SystemExit", module.__dict__)
    module.__file__ = file and str(tmp_path / file)
    monkeypatch.setitem(sys.modules, "typed_in", module)
    with pytest.raises(ValueError, match=r"^Cannot call result in a fresh process"):
        assert_reproducible(module.result)


def test_refused_functions() -> None:
    """A function that another process could not find is refused before it is called."""

    def local() -> None:
        raise SystemExit

    for fn, name in [(local, "local"), (lambda: X, "lambda"), (X.sum, "sum"), (HIDDEN, "hidden")]:
        with pytest.raises(ValueError, match=rf"^Cannot call .*{name}.* in a fresh process: exp"):
            assert_reproducible(fn)


def test_no_nesting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh process starts none itself: a file that tests while it is imported ends."""
    monkeypatch.setenv(testing._TESTING_CHILD, "1")
    with pytest.raises(ValueError, match="got a test while that file is imported"):
        assert_reproducible(draws)


def test_function_of_a_script(tmp_path: Path) -> None:
    """A script tests its own functions, which import from where the script imports."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "neighbour.py").write_text("SIZE = 3\n")
    (tmp_path / "script.py").write_text(
        "import sys\n"
        "import numpy as np\n"
        "if __name__ == '__main__':\n"
        "    sys.path.append('lib')\n"
        "from neighbour import SIZE\n"
        "from reproducibility.testing import assert_reproducible\n"
        "def result(): return np.arange(SIZE)\n"
        "if __name__ == '__main__':\n"
        "    assert_reproducible(result)\n"
        "    print('passed')\n"
    )
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("passed\n", 0), done.stderr


def test_function_of_a_module_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `python -m` a function is found under the name that its module has when imported."""
    module = types.ModuleType("__main__")
    module.__file__, module.__spec__ = str(tmp_path / "tool.py"), ModuleSpec("suite.tool", None)
    Path(module.__file__).write_text("def result(): pass\n")
    exec(Path(module.__file__).read_text(), module.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", module)
    assert testing._importable(module.result) == ("suite.tool", module.__file__, "result")


def test_load_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is imported under its name, with its neighbours; or else by path."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    folder = tmp_path / "suite" / "inner"
    folder.mkdir(parents=True)
    (folder / "helper_of_load.py").write_text("VALUE = 5\n")
    (folder / "test_load.py").write_text("from .helper_of_load import VALUE\n")
    (folder / "json.py").write_text("VALUE = 6\n")
    assert testing._load("suite.inner.test_load", str(folder / "test_load.py"))["VALUE"] == 5
    assert testing._load("json", str(folder / "json.py"))["VALUE"] == 6
    assert testing._load("no.such.name", str(folder / "json.py"))["__name__"] == "no.such.name"


# assert_resumable

GRADIENT = jnp.array([1.0, -2.0, 0.5])


def begin() -> dict[str, Any]:
    """Return the state of a loop in which every part counts."""
    return {"step": np.uint32(0), "w": jnp.zeros(3), "momentum": jnp.zeros(3), "key": root_key(7)}


def one(state: dict[str, Any]) -> dict[str, Any]:
    """Make one update, with momentum and noise."""
    noise = jax.random.uniform(step_key(state["key"], int(state["step"])), (3,))
    momentum = 0.9 * state["momentum"] + GRADIENT * noise
    w = state["w"] - 0.1 * momentum
    return {**state, "step": np.uint32(state["step"] + 1), "w": w, "momentum": momentum}


def loop(update: Callable[[Any], Any]) -> Callable[[Any, int], Any]:
    """Make the loop of an update."""

    def advance(state: Any, n: int) -> Any:
        for _ in range(n):
            state = update(state)
        return state

    return advance


def vacuous(part: str) -> str:
    """Return how the failure begins if nothing depends on a part."""
    return f"Nothing depends on part {part}: a resume that forgets it would pass this test."


def test_sound_loop_passes() -> None:
    """A loop whose state is whole passes, at any stop."""
    assert_resumable(loop(one), begin())
    assert_resumable(loop(one), begin(), steps=5, stop=1)


def test_counts_of_updates() -> None:
    """It asks for all updates, for those before the stop, and for the rest, once a part."""
    asked = []

    def advance(state: Any, n: int) -> Any:
        asked.append(n)
        return loop(one)(state, n)

    assert_resumable(advance, begin(), steps=5, stop=2)
    assert asked == [5, 2, 3, 3, 3, 3, 3]


def test_state_outside_of_the_state() -> None:
    """A loop that keeps its momentum elsewhere fails, by the leaf that differs."""
    hidden = {"momentum": np.zeros(3, np.float32)}

    def update(state: dict[str, Any]) -> dict[str, Any]:
        hidden["momentum"] = 0.9 * hidden["momentum"] + np.float32([1, 2, 3])
        return {"w": state["w"] - hidden["momentum"]}

    said = failure(assert_resumable, loop(update), {"w": np.zeros(3, np.float32)})
    assert said.startswith("Resumed after 3 of 6 updates, the end differs: leaf w: 3 of 3 elem")


@pytest.mark.parametrize("part", ["w", "momentum", "step", "key"])
def test_lost_in_the_checkpoint(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resumed state is what a store restores: one that loses a part is found out."""
    from reproducibility import CheckpointStore

    restore = CheckpointStore.restore

    def forgetful(self: Any, like: Any) -> Any:
        other = {"key": root_key(8)}.get(part, begin()[part])
        return {**restore(self, like), part: other}

    monkeypatch.setattr(CheckpointStore, "restore", forgetful)
    assert "the end differs" in failure(assert_resumable, loop(one), begin())


def test_state_that_no_store_restores() -> None:
    """A loop that changes a dtype on its way cannot be resumed, and the leaf is named."""
    with pytest.raises(CheckpointMismatchError, match="leaf w"):
        assert_resumable(loop(lambda s: {"w": s["w"].astype(jnp.bfloat16) + 1}), {"w": X})


def test_key_that_nobody_draws_from() -> None:
    """A constant key without a draw makes the proof vacuous."""
    said = failure(assert_resumable, loop(lambda s: {**s, "w": s["w"] + 1}), {"w": X, "k": KEYS})
    assert said.startswith(vacuous("k"))


def test_chain_of_keys_that_nobody_draws_from() -> None:
    """A key that is split in each step and never used is not saved by being another at the end."""

    def update(state: tuple[Any, Any]) -> tuple[Any, Any]:
        return state[0] + 1, jax.random.split(state[1])[0]

    said = failure(assert_resumable, loop(update), (jnp.zeros(3), root_key(7)))
    assert said.startswith(vacuous("[1]"))


def test_chain_of_keys_that_is_used() -> None:
    """A chain of keys with draws passes, though the reuse of a key is an error in this suite."""

    def update(state: tuple[Any, Any]) -> tuple[Any, Any]:
        key, draw = jax.random.split(state[1])
        return state[0] + jax.random.uniform(draw, (3,)), key

    assert_resumable(loop(update), (jnp.zeros(3), root_key(7)))


def test_key_that_start_has_used() -> None:
    """A loop that begins with a key that is used up already is caught, as without the copies."""

    def update(state: tuple[Any, Any]) -> tuple[Any, Any]:
        key, draw = jax.random.split(state[1])
        return state[0] + jax.random.uniform(draw, (3,)), key

    key = root_key(7)
    start = (jax.random.uniform(key, (3,)), key)
    with pytest.raises(jax.errors.KeyReuseError):
        assert_resumable(loop(update), start)


def test_keys_beside_a_counter() -> None:
    """Keys are a part of their own: a counter beside them does not vouch for them."""

    def update(state: Pair) -> Pair:
        return Pair(state.left + 1, {**state.right, "count": state.right["count"] + 1})

    start = Pair(jnp.zeros(3), {"count": np.int32(0), "keys": KEYS})
    assert failure(assert_resumable, loop(update), start).startswith(vacuous("right (its keys)"))


def test_part_that_is_written_and_never_read() -> None:
    """A part that every update overwrites is no state: a resume may forget it."""

    def update(state: dict[str, Any]) -> dict[str, Any]:
        return {"w": state["w"] + 1, "last": state["w"]}

    said = failure(assert_resumable, loop(update), {"w": X, "last": X})
    assert said.startswith(vacuous("last"))


def test_constant_parts_are_skipped() -> None:
    """What never changes is not state that could be lost."""
    assert_resumable(loop(one), {**begin(), "rate": np.float32(0.1), "size": np.int32(64)})


@pytest.mark.parametrize("start", [{"rate": np.float32(0.1)}, {}])
def test_nothing_to_forget(start: Any) -> None:
    """A loop in which nothing changes proves nothing, and fails."""
    said = failure(assert_resumable, loop(lambda state: state), start)
    assert said.startswith("No part of the state changed in 3 updates, and none holds keys")


def test_a_state_of_one_array() -> None:
    """A state may be a single array; its part is the root."""
    assert_resumable(loop(lambda w: w * 2 + 1), X)
    assert failure(assert_resumable, lambda w, n: w * 0 + n, X).startswith("Resumed after 3 of 6")


def test_donated_and_overwritten_states() -> None:
    """The loop may take over its argument's memory, keys included, or write into it."""
    give: Any = jax.jit(lambda w, k: (w + jax.random.uniform(k, (3,)), k), donate_argnums=(0, 1))

    def update(state: dict[str, Any]) -> dict[str, Any]:
        w, key = give(state["w"], state["key"])
        assert state["w"].is_deleted(), "this test needs donation"
        state["n"] += 1
        state["key"], state["w"] = jax.random.clone(key), w * state["n"][0]
        return state

    start = {"n": np.zeros(1, np.float32), "w": jnp.ones(3), "key": root_key(7)}
    before = tree_digest(start)
    assert_resumable(loop(update), start)
    assert tree_digest(start) == before


def test_results_in_one_buffer() -> None:
    """A loop that returns one buffer, written over in each call, is not compared with itself."""
    calls, buffer = [], np.zeros(3, np.float32)

    def advance(state: np.ndarray, n: int) -> np.ndarray:
        calls.append(n)
        buffer[:] = state + len(calls)
        return buffer

    assert "the end differs" in failure(assert_resumable, advance, np.zeros(3, np.float32))


@pytest.mark.parametrize("stop", [0, 6, 7])
def test_refused_stop(stop: int) -> None:
    """A stop at an end of the run is refused."""
    with pytest.raises(ValueError, match=f"^Cannot resume after {stop} of 6 updates: choose 0 <"):
        assert_resumable(loop(one), begin(), stop=stop)


def test_state_without_digest() -> None:
    """A Python number in the state is refused by name."""
    with pytest.raises(LeafError, match="step"):
        assert_resumable(loop(lambda s: {**s, "w": s["w"] + 1}), {"w": X, "step": 0})


# The fixtures

SUITE = """
import jax, jax.numpy as jnp, pytest

def test_legacy():
    with pytest.raises(ValueError, match="legacy"):
        jax.random.split(jax.random.PRNGKey(0))

def test_reuse():
    key = jax.random.key(0)
    jax.random.bits(key)
    with pytest.raises(jax.errors.KeyReuseError):
        jax.random.bits(key)

def test_rank():
    with pytest.raises(ValueError, match="rank"):
        jnp.zeros(3) + jnp.zeros((2, 3))

@pytest.mark.parametrize("n", [1, 2])
def test_key(item_key, n):
    print("words", *jax.random.key_data(item_key))
"""


def test_fixtures_in_a_suite(pytester: pytest.Pytester) -> None:
    """One line in conftest.py and one setting make a suite strict, and give each test a key."""
    pytester.makeconftest('pytest_plugins = ["reproducibility.testing"]')
    pytester.makeini("[pytest]\nusefixtures = strict_jax\n")
    pytester.makepyfile(test_suite=SUITE)
    result = pytester.runpytest_inprocess("-s", "-p", "no:cacheprovider", "-p", "no:randomly")
    result.assert_outcomes(passed=5)
    printed = re.findall(r"words (\d+) (\d+)", result.stdout.str())
    names = [f"test_suite.py::test_key[{n}]" for n in (1, 2)]
    keys = [jax.random.key_data(stream_key(root_key(0), name)) for name in names]
    assert [tuple(map(int, words)) for words in printed] == [tuple(key.tolist()) for key in keys]


def test_strictness_is_the_fixtures(pytester: pytest.Pytester) -> None:
    """Without the setting the same suite is not strict, so the fixture is what makes it so."""
    pytester.makeconftest('pytest_plugins = ["reproducibility.testing"]')
    pytester.makepyfile(test_suite=SUITE)
    with (
        jax.legacy_prng_key("allow"),
        jax.debug_key_reuse(False),
        jax.numpy_rank_promotion("allow"),
    ):
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly")
    result.assert_outcomes(passed=2, failed=3)


def test_key_of_this_test(item_key: jax.Array) -> None:
    """The key of a test is that of its node id, for ever."""
    name = "tests/test_testing.py::test_key_of_this_test"
    assert item_key == stream_key(root_key(0), name)
    assert jax.random.key_data(item_key).tolist() == [2735399109, 2393950296]
