"""What the tests of the room share: layouts, and processes that are started and awaited."""

import fcntl
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from reproducibility import (
    ConfigError,
    launch,
)

LAYOUTS = ["1x1", "1x2", "1x4", "1x8", "2x1", "2x2", "2x4", "4x1"]  # processes x devices
QUICK = ("1x1", "1x2")  # each device compiles for itself: the others are for `make test-all`
NIGHTLY = ("1x8", "2x1", "2x4", "4x1")  # 2x2 has two processes as well
PROGRAM = [sys.executable, "-m", "tests.layouts"]
COMMAND = [sys.executable, "-m", "reproducibility"]
TRAIN = [
    "train",
    "--seed",
    "7",
    "--steps",
    "12",
    "--checkpoint-every",
    "4",
    "--batch-size",
    "64",
    "--shards",
    "8",
    "--hidden",
    "8",
    "--dropout",
    "0.25",
    "--run-dir",
]
Found = Callable[[str], dict[str, Any]]


def each(layouts: Iterable[str]) -> list[Any]:
    """Return layouts as parameters of a test, with a mark on those that take long."""
    long, nightly = pytest.mark.long, pytest.mark.nightly
    marks = dict.fromkeys(QUICK, ()) | dict.fromkeys(NIGHTLY, (long, nightly))
    return [pytest.param(name, marks=marks.get(name, long)) for name in layouts]


def sizes(layout: str) -> tuple[int, int]:
    """Return the numbers of processes and of devices of each."""
    processes, devices = layout.split("x")
    return int(processes), int(devices)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of this session, the same for all its workers."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def quick(pytestconfig: pytest.Config) -> bool:
    """Say whether the long tests are left out; what is computed for the others is less then."""
    return pytestconfig.getoption("markexpr") == "not long"


@pytest.fixture(scope="session")
def found(place: Path, quick: bool) -> Found:
    """Return a function of a layout: what tests/layouts.py computed on it, once in a session."""

    def compute(layout: str) -> dict[str, Any]:
        folder, (processes, devices) = place / f"layout-{layout}", sizes(layout)
        folder.mkdir(exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "found.json").exists():
                command = [str(folder), "--devices", str(devices), *["--quick"] * quick]
                assert launch(command, processes, program=PROGRAM) == 0
        values: dict[str, Any] = json.loads((folder / "found.json").read_text())
        return values

    return functools.cache(compute)


def started(processes: Iterable[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    """Wait for processes; return what each printed."""
    processes, said = list(processes), []
    try:
        for process in processes:
            said.append(process.communicate(timeout=300))
            assert process.returncode == 0, said[-1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return said


def begun(command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """Start a process."""
    return subprocess.Popen(
        command,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def refusal(function: Callable[..., Any], *arguments: Any) -> str:
    """Return the sentence with which a setting is refused."""
    with pytest.raises(ConfigError) as refused:
        function(*arguments)
    return str(refused.value)
