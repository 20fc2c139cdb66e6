"""Promises of `reproducibility.explain.child`."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from reproducibility import ReplayError
from reproducibility.explain.child import _Children, in_environment, side_by_side
from reproducibility.machine.environment import variables_of

# Imported in the child before anything else of the task, in the place of what it would compute.
PROBE = """
import json, os, sys
json.dump([dict(os.environ), sys.path], open(os.environ["PROBE"], "w"))
os._exit(5)
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Start the child process of a replay with a module of our own."""

    def start(content: str, environment: Any = {}, progress: Any = None) -> None:  # noqa: B006
        (tmp_path / "path").mkdir(exist_ok=True)
        (tmp_path / "path/ours.py").write_text(content)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
        in_environment(environment, "ours", {"run": "R", "end": 3}, progress)

    return start


def variables(
    child: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: Any
) -> dict[str, str]:
    """Return the variables that a child process has for a recorded environment."""
    monkeypatch.setenv("PROBE", str(tmp_path / "probe.json"))
    with pytest.raises(ReplayError, match="got exit code 5 and 'nothing'"):
        child(PROBE, environment)
    found, path = json.loads((tmp_path / "probe.json").read_text())
    assert str(tmp_path) not in path
    assert "" not in path
    return found


def test_the_child_has_the_recorded_environment(
    child: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded settings are set, those of this process that were not recorded are gone.

    Nothing is imported from the directory that the command happens to be in.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    ours = {
        "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
        "NPROC": "7",
        "PJRT_NPROC": "7",
        "OMP_NUM_THREADS": "7",
        "JAX_ENABLE_X64": "1",
        "JAX_FOO": "1",
        "JAX_BAR": "1",
        "JAX_COMPILATION_CACHE_DIR": "cache",
        "JAX_PLATFORMS": "nonsense",
        "HOME": "home",
    }
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    recorded = {
        "threads.xla_cpu": 2,
        "xla_flags.xla_cpu_max_isa": "AVX",
        "env.JAX_FOO": "(set)",
        "env.HOME": None,
        "config.path": "x",
        "env.PATH": "/evil",
        "device.platform": "cpu",
        "config.jax_random_seed_offset": 0,
        "xla_flags.nobody_knows_it": "true",
        "env.PYTHONSTARTUP": "evil.py",
        "xla_flags.xla_dump_to": "here",
    }
    found = variables(child, tmp_path, monkeypatch, recorded)
    assert (found["XLA_FLAGS"], found["NPROC"]) == ("--xla_cpu_max_isa=AVX", "2")
    assert (found["JAX_PLATFORMS"], found["JAX_RANDOM_SEED_OFFSET"]) == ("cpu", "0")
    assert found["JAX_COMPILATION_CACHE_DIR"] == "cache"
    assert (found["JAX_FOO"], found["HOME"]) == ("1", "home")
    assert found["PATH"] == os.environ["PATH"]
    assert not found.keys() & {
        "PJRT_NPROC",
        "OMP_NUM_THREADS",
        "JAX_ENABLE_X64",
        "JAX_BAR",
        "PYTHONSTARTUP",
    }


def test_a_recorded_value_is_only_a_value(
    child: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a run holds is executed, opens a file, or smuggles in another flag."""
    evil = [
        "AVX --xla_dump_to=here",
        "$(touch here)",
        "`touch here`",
        "; touch here",
        "a'b",
        'a"b',
        "a\nb",
        "a\0b",
        "\ud800",
        "../here",
        "/here",
        "a\n",
        ["x"],
        {"a": 1},
        "é",
    ]
    monkeypatch.chdir(tmp_path)
    for name in ("OPENBLAS_CORETYPE", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    for value in evil:
        recorded = {
            "xla_flags.xla_cpu_max_isa": value,
            "env.OPENBLAS_CORETYPE": value,
            "threads.xla_cpu": value,
            "config.jax_default_prng_impl": value,
        }
        assert variables_of(recorded) == {}
    found = variables(child, tmp_path, monkeypatch, recorded)
    assert not found.keys() & {"XLA_FLAGS", "NPROC", "OPENBLAS_CORETYPE", "JAX_DEFAULT_PRNG_IMPL"}
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        ("raise ValueError('no such thing')", 1, "ValueError: no such thing"),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, "nothing"),
        ("import no_such_module", 1, "ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "import sys; sys.exit('E0102 03:04:05.6  7 a.cc:8] no [x] flag\\nusage: …')",
            1,
            "no [x] flag",
        ),
        ("e = ValueError('first'); e.add_note('See a page'); raise e", 1, "ValueError: first"),
    ],
)
def test_a_child_that_fails_says_why(
    child: Callable[..., None], content: str, code: int, told: str
) -> None:
    """A process that comes back without an answer is one sentence, with what it died of."""
    with pytest.raises(ReplayError) as caught:
        child(content)
    error = caught.value
    assert (error.exit_code, error.path, error.step) == (3, "R", 3)
    assert error.got == f"exit code {code} and {told!r}"
    assert "\n" not in str(error)


def test_an_interrupt_takes_the_child_along(
    child: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever interrupts a replay does not wait for it, and leaves no process behind."""
    monkeypatch.setenv("PROBE", str(tmp_path / "pid"))
    content = "import os, pathlib, time; pathlib.Path(os.environ['PROBE']).write_text("
    content += "str(os.getpid())); print('begun', flush=True); time.sleep(600)"

    def interrupt(text: str) -> None:
        assert text == "R: begun"
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        child(content, progress=interrupt)
    assert time.monotonic() - began < 300
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


PIDS = """
import os, pathlib

def work(task):
    if task["dies"]:
        raise ValueError(task["run"])
    if task["waits"]:
        pathlib.Path(task["waits"]).touch()
        import time; time.sleep(600)
    return {"pid": os.getpid()}
"""


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Have a child of ours do a task; return which process did it."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path/pids.py").write_text(PIDS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))

    def start(run: str, *, dies: bool = False, waits: str = "", threads: int = 1) -> int:
        task = {"run": run, "end": 3, "dies": dies, "waits": waits}
        found = in_environment({"threads.xla_cpu": threads}, "pids", task, None)
        return found["pid"]

    return start


def test_equal_environments_share_a_process(ask: Callable[..., int]) -> None:
    """Two runs are computed by one process where the same variables are set, and else by two."""
    one, other = side_by_side(ask, ("a", "b"))
    assert one == other
    one, other = side_by_side(lambda n: ask("a", threads=n), (1, 2))
    assert one != other


def test_a_process_that_died_takes_no_other_run_along(ask: Callable[..., int]) -> None:
    """Of two runs that share a process, each is told what happened to it, whichever is first."""

    def one(run: str) -> int | str:
        try:
            return ask(run, dies=run.startswith("bad"))
        except ReplayError as error:
            return error.got

    for runs in (("bad 1", "good", "bad 2"), ("good", "bad 3", "good too")):
        for run, told in zip(runs, side_by_side(one, runs), strict=True):
            if run.startswith("bad"):
                assert told == f"exit code 1 and 'ValueError: {run}'"
            else:
                assert isinstance(told, int)


def test_what_fails_on_one_side_ends_the_other(ask: Callable[..., int], tmp_path: Path) -> None:
    """Nobody waits for one side when the other one has failed already; other calls go on."""
    begun = tmp_path / "begun"

    def one(side: str) -> None:
        if side == "b":
            while not begun.exists():
                time.sleep(0.01)
            raise KeyError(side)
        ask(side, waits=str(begun))

    began = time.monotonic()
    with pytest.raises(KeyError):
        side_by_side(one, ("a", "b"))
    assert time.monotonic() - began < 300
    assert side_by_side(len, ("a", "bc")) == [1, 2]


def ready(folder: Path, count: int) -> list[Path]:
    """Wait until so many tasks are at work."""
    while len(found := list(folder.glob("ready *"))) < count:
        time.sleep(0.01)
    return found


def test_what_fails_ends_no_other_call(ask: Callable[..., int], tmp_path: Path) -> None:
    """Of two calls at a time in two threads, one that fails leaves the processes of the other.

    The same holds for a replay that no such call has started.
    """
    ended: list[str] = []

    def waiting(name: str) -> None:
        with pytest.raises(ReplayError, match="got exit code -9"):
            ask(name, waits=str(tmp_path / f"ready {name}"))
        ended.append(name)

    both = partial(side_by_side, waiting, ("c",))
    others = [threading.Thread(target=each) for each in (both, partial(waiting, "alone"))]
    before = set(psutil.Process().children())
    for thread in others:
        thread.start()
    ready(tmp_path, 2)
    theirs = set(psutil.Process().children()) - before

    def one(side: str) -> None:
        if side == "b":
            ready(tmp_path, 3)
            raise KeyError(side)
        ask(side, waits=str(tmp_path / "ready a"))

    try:
        with pytest.raises(KeyError):
            side_by_side(one, ("a", "b"))
        assert set(psutil.Process().children()) - before == theirs
        assert ended == []
    finally:
        for child in theirs:
            child.kill()
        for thread in others:
            thread.join()
    assert sorted(ended) == ["alone", "c"]


def test_a_child_that_comes_too_late_is_ended(
    ask: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that one side starts while the other has failed already is not waited for."""
    failed, before = threading.Event(), set(psutil.Process().children())
    end = _Children.end
    monkeypatch.setattr(_Children, "end", lambda self: (end(self), failed.set()))

    def one(side: str) -> None:
        if side == "b":
            raise KeyError(side)
        assert failed.wait(300)
        ask(side, waits="begun")

    with pytest.raises(KeyError):
        side_by_side(one, ("a", "b"))
    assert set(psutil.Process().children()) - before == set()


@pytest.mark.parametrize("load", ["reproducibility.explain.trace", "reproducibility.same.distance"])
def test_a_side_may_import_while_this_process_loads(load: str) -> None:
    """One thread is in the middle of importing JAX, and the one of a side needs a part of it."""
    program = f"""
import builtins, threading, time
from reproducibility.explain.child import side_by_side
begun, original = threading.Event(), builtins.__import__

def slow(name, *more):
    if name.startswith("jax.") and not begun.is_set():  # JAX is half imported
        begun.set()
        time.sleep(1)
    return original(name, *more)

def one(side):
    begun.wait()
    from reproducibility.storage.checkpoint import CheckpointStore
    return CheckpointStore.__name__

builtins.__import__ = slow
print(side_by_side(one, ["a"], load="{load}"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("['CheckpointStore']\n", "")
