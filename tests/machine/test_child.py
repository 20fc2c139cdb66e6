"""Promises of `reproducibility.machine.child`."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import reproducibility
from reproducibility.machine.child import (
    end_python,
    last_words,
    python,
    start_python,
    unused_port,
    with_package,
)

LONG = 60  # seconds; what takes longer is stuck
# Starts a process that starts one, and waits; each says its number.
STARTER = """
import os, subprocess, sys, time
from reproducibility.machine.child import start_python
NEXT = "import sys; exec(sys.argv[1])"
print(os.getpid(), flush=True)
if len(sys.argv) > 2:
    child = start_python(NEXT, *sys.argv[1:-1], variables=os.environ)
time.sleep(600)
"""


def test_a_child_imports_the_package_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another package of that name, in the directory or on PYTHONPATH, is not imported."""
    for place in ("here", "on_path"):
        folder = Path(tmp_path, place, "reproducibility")
        folder.mkdir(parents=True)
        Path(folder, "__init__.py").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "on_path"))
    command = python("-c", "import reproducibility, sys; print(reproducibility.__file__, sys.path)")
    told = subprocess.check_output(command, env=with_package(os.environ), text=True)
    assert told.startswith(str(reproducibility.__file__))
    assert str(tmp_path / "on_path") in told  # what the user has there is still found


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ("", "'nothing'"),
        ("Traceback:\n  at\nValueError: no\n", "'ValueError: no'"),
        (
            "Traceback:\nKeyError: 1\n\njax.errors.JaxError: no\nlater\n",
            "'jax.errors.JaxError: no'",
        ),
        ("F0101 12:00:00.0 1 parse.cc:2] Unknown flag\nmore\n", "'Unknown flag'"),
    ],
)
def test_the_last_words_are_the_error(errors: str, told: str) -> None:
    """The last exception; without one, the first line, without the head that XLA gives it."""
    assert last_words(errors) == told


@contextlib.contextmanager
def generations() -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Start a process, as a user would, that starts one that starts one; leave none behind."""
    command = [sys.executable, "-c", STARTER, STARTER, "child", "grandchild"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        started = []
        try:
            started += [psutil.Process(int(first.stdout.readline())) for _ in range(3)]
            yield first, started[1:]
        finally:
            first.kill()
            for process in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_process_that_started_it(number: signal.Signals) -> None:
    """However a process ends, what it has started ends too, and what that has started."""
    with generations() as (first, others):
        assert psutil.wait_procs(others, timeout=0.5)[0] == []
        first.send_signal(number)
        assert psutil.wait_procs(others, timeout=LONG)[1] == []


def test_it_is_ended_with_what_it_has_started() -> None:
    """A process that is ended leaves none behind, also none that knows nothing of all this."""
    program = "import subprocess; sleeper = subprocess.Popen(['sleep', '600']); "
    program += "print(sleeper.pid, flush=True); sleeper.wait()"
    process = start_python(program, variables=os.environ, stdout=subprocess.PIPE)
    try:
        sleeper = psutil.Process(int(process.stdout.readline()))
    finally:
        end_python(process)
    assert process.returncode == -signal.SIGKILL
    assert psutil.wait_procs([sleeper], timeout=LONG)[1] == []


def test_its_stdin_is_empty() -> None:
    """What reads stdin finds an end, and waits for nobody; the process ends as it would."""
    program = "import subprocess, sys; print(repr(sys.stdin.read())); subprocess.run(['cat'])"
    process = start_python(program, variables=os.environ, stdout=subprocess.PIPE)
    try:
        assert process.stdout.read() == "''\n"
        assert process.wait(LONG) == 0
    finally:
        end_python(process)


def test_a_worker_ends_with_its_parent() -> None:
    """However the process ends that started it, a worker does not go on alone, busy or idle."""
    pipe = subprocess.PIPE
    busy = "import sys, types; sys.modules['busy'] = busy = types.ModuleType('busy'); "
    busy += "busy.work = lambda task: print('begun', flush=True) or __import__('time').sleep(600); "
    for code in ("", busy):
        command = [
            sys.executable,
            "-uc",
            f"{code}from reproducibility.machine import child; print('here'); child.serve_tasks()",
        ]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe) as child:
            assert child.stdout.readline() == b"here\n"
            if code:
                child.stdin.write(b'["busy:work", "nowhere", {}]\n')
                child.stdin.flush()
                assert child.stdout.readline() == b"begun\n"
            child.stdin.close()  # as when the parent was killed
            assert child.wait(LONG) == 4


def test_a_port_is_free() -> None:
    """Somebody can listen at the port that is named."""
    with socket.create_server(("127.0.0.1", unused_port())):
        pass
