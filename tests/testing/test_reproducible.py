"""A function twice here and once in a fresh process: what is found, and what is said."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest

from reproducibility import (
    LeafError,
    root_key,
    stream_key,
)
from reproducibility.testing import (
    assert_reproducible,
    fresh,
)
from tests.failing import X, failure

# Functions at module level, because another process must find them


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
    if fresh.TESTING_CHILD in os.environ:
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
    monkeypatch.setattr(fresh, "_PROGRAM", "import time; time.sleep(3600)")
    said = failure(assert_reproducible, draws, timeout=0.5)
    assert said == "Not reproducible in a fresh process: it was killed after 0.5 seconds."


def test_the_fresh_process_is_not_left_behind() -> None:
    """When the process that tests is killed, the fresh process ends too."""
    script = (
        "from reproducibility.testing import fresh; fresh._PROGRAM = 'import time; time.sleep(600)'"
    )
    script += (
        "; asked = fresh.asking_fresh_process('', ''); fresh.answer_of(asked.__enter__(), 600)"
    )
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
        "import json, os, sys; path = json.loads(sys.argv[1])[0];"
        f"json.dump({{'answer': {answer}}}, open(path, 'w')); {then}"
    )


@pytest.mark.parametrize(
    ("program", "code"), [("", 0), (program_that_answers("[[], {}]", "sys.exit(3)"), 3)]
)
def test_no_answer(program: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends well without a result, or badly with one, is a failure."""
    monkeypatch.setattr(fresh, "_PROGRAM", program)
    assert f"it ended with exit code {code};" in failure(assert_reproducible, draws)


def test_leaf_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves that only one of the processes has are named."""
    state = "{'leaves': {}, 'nodes': {}, 'shared': [], 'tied': [], 'overlaps': []}"
    answer = f"[[[[[['name', 'a']], 'float32[2,3]', '00']], {state}], {{}}]"
    monkeypatch.setattr(fresh, "_PROGRAM", program_that_answers(answer))
    said = failure(assert_reproducible, draws).splitlines()[0]
    assert said.endswith("leaf a: nothing against float32[2,3]; 3 other leaves differ.")


@pytest.mark.parametrize("seed", [None, "0", "1", "2", "random"])
def test_other_hash_seed(seed: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fresh process has a fixed hash seed, and never this process's."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    if seed is not None:
        monkeypatch.setenv("PYTHONHASHSEED", seed)
    program = program_that_answers("os.environ['PYTHONHASHSEED']")
    monkeypatch.setattr(fresh, "_PROGRAM", program)
    with fresh.asking_fresh_process("", "") as asked:
        assert fresh.answer_of(asked, 60) == ("11" if seed == "1" else "1")


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
    monkeypatch.setenv(fresh.TESTING_CHILD, "1")
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
    assert fresh.importable(module.result) == ("suite.tool", module.__file__, "result")


def test_load_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is imported under its name, with its neighbours; or else by path."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    folder = tmp_path / "suite" / "inner"
    folder.mkdir(parents=True)
    (folder / "helper_of_load.py").write_text("VALUE = 5\n")
    (folder / "test_load.py").write_text("from .helper_of_load import VALUE\n")
    (folder / "json.py").write_text("VALUE = 6\n")
    assert fresh.load_file("suite.inner.test_load", str(folder / "test_load.py"))["VALUE"] == 5
    assert fresh.load_file("json", str(folder / "json.py"))["VALUE"] == 6
    assert fresh.load_file("no.such.name", str(folder / "json.py"))["__name__"] == "no.such.name"
