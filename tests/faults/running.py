"""Run a script alone, recorded, counted by the profiler, and twice.

The rule: the script's Python is an environment of its own, in which the package is not installed. A
run that takes too long is killed with all that it started.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproducibility.script.reading import processes_of

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "faults"
COMMAND = Path(sys.executable).parent / "reproducibility"
PLAIN = 600  # seconds that a script may take alone, on a machine that has other things to do
TWICE = 3600  # seconds that all runs of a command may take there
SHOWN = 300  # characters of what was found
# Each program is compiled once and found here later, by the plain runs as by the recorded ones. It
# is the same program, and changes no bits; what differs from run to run is compiled each time.
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(BUILD / "jax-cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
# How the lines begin that say what came out of a script.
RESULTS = ("result", "digest", "sha256")
# What JAX's profiler calls the execution of a program.
EXECUTION = "CommonPjRtLoadedExecutable::ExecuteHelperOnSingleDevice"
COUNTED = """
import runpy, sys
import jax
folder, script = sys.argv[1:3]
sys.argv = sys.argv[2:]
with jax.profiler.trace(folder):
    runpy.run_path(script, run_name="__main__")
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended; `code` is None if it was killed because it took too long."""

    code: int | None
    output: str
    errors: str

    @property
    def result(self) -> str:
        """The last line that says what came out; how it ended, if there is none."""
        found = results_in(self.output)
        return found[-1] if found else f"exit code {self.code}"


def results_in(text: str) -> list[str]:
    """Return the lines that say what came out of a script."""
    return [line for line in text.splitlines() if line.startswith(RESULTS)]


def run(
    command: Sequence[str | Path],
    folder: Path,
    seconds: float,
    variables: Mapping[str, str] | None = None,
) -> Ended:
    """Run a command in a folder, and kill it and all that it started after some time."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env={**kept, **CACHE, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        ) as process,
    ):
        code = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what a script has left behind
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Ended(code, *texts)


@contextlib.contextmanager
def fresh_copy(text: str) -> Iterator[Path]:
    """Make a folder that holds a script, and remove it with all that the script writes there."""
    (BUILD / "runs").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=BUILD / "runs"))
    try:
        (folder / "script.py").write_text(text, encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def plain(python: Path, folder: Path, *words: str) -> Ended:
    """Run the script of a folder, with arguments."""
    return run([python, "script.py", *words], folder, PLAIN)


def recorded(python: Path, folder: Path) -> tuple[Ended, int]:
    """Run it with the recorder, and count the calls in the record."""
    record = folder / "record"
    ended = run([COMMAND, "record", record, "--", python, "script.py"], folder, PLAIN * 2)
    calls = sum(
        1 for process in processes_of(record) for thread in process.threads for _ in thread.calls()
    )
    return ended, calls


def counted(python: Path, folder: Path) -> tuple[Ended, int | None]:
    """Run it under JAX's profiler, and count the executions in its trace; None without a trace."""
    trace = folder / "trace"
    ended = run([python, "-c", COUNTED, trace, "script.py"], folder, PLAIN * 2)
    files = list(trace.rglob("*.xplane.pb"))
    return ended, executions(files[0]) if len(files) == 1 else None


def executions(trace: Path) -> int:
    """Count the programs that a trace of the profiler has seen."""
    import jax

    return sum(
        event.name == EXECUTION
        for plane in jax.profiler.ProfileData.from_file(str(trace)).planes
        for line in plane.lines
        for event in line.events
    )


def twice(python: Path, folder: Path) -> tuple[Ended, dict[str, Any] | None]:
    """Run it twice, and return what was answered."""
    return answered(["twice", "--json", "--", python, "script.py"], folder)


def answered(words: Sequence[str | Path], folder: Path) -> tuple[Ended, dict[str, Any] | None]:
    """Run a command of the package, and return the JSON that it printed; None without."""
    ended = run([COMMAND, *words], folder, TWICE)
    try:
        return ended, json.loads(ended.output)
    except ValueError:
        return ended, None


def failure(ended: Ended) -> str:
    """Say how a run failed."""
    last = (ended.errors.strip().splitlines() or ["nothing on stderr"])[-1]
    how = "took too long" if ended.code is None else f"exit code {ended.code}"
    return f"{how}: {last[:SHOWN]}"
