"""Fresh processes that measure, one at a time: they share one device, and each has its own flags.

Flags and settings of the surroundings are taken away, so that two measurements compare; the
compilation cache is off, so that each process compiles, and chooses its kernels, for itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproducibility.machine.child import end_python, last_words, start_python

PROGRAM = "from tools.accelerator.asked import answer_tasks; answer_tasks()"
CLEARED = (
    *("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_ENABLE_X64"),
    *("JAX_NUM_CPU_DEVICES", "NVIDIA_TF32_OVERRIDE", "NPROC", "LIBTPU_INIT_ARGS"),
    *("JAX_DEFAULT_PRNG_IMPL", "JAX_ENABLE_COMPILATION_CACHE"),
)


@dataclass
class Answered:
    """What a process wrote until it ended or had to."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    """Why there may be rows missing, in a sentence; "" if there are none."""
    seconds: float = 0.0


@dataclass
class Asking:
    """Starts processes until a deadline, and says what it does."""

    until: float
    """The moment, as `time.monotonic` has it, at which the last one is ended."""
    stand_ins: str = ""
    """A folder with what this Python lacks."""

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.until - time.monotonic()

    def ask(
        self, task: str, variables: Mapping[str, str] | None = None, **arguments: Any
    ) -> Answered:
        """Run a task in a fresh process, and return its rows."""
        if self.left() < 1:
            return Answered(error="there was no time left")
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="accelerator-") as folder:
            file, errors = Path(folder, "rows"), Path(folder, "errors")
            with errors.open("w+", encoding="utf-8") as stream:
                process = start_python(
                    PROGRAM,
                    *(str(file), task, json.dumps(arguments)),
                    variables=self.environment(variables or {}),
                    stdout=subprocess.DEVNULL,
                    stderr=stream,
                )
                try:
                    error = self._waited(process, errors)
                finally:
                    end_python(process)
            return Answered(rows_of(file), error, time.monotonic() - began)

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a process."""
        kept = {name: value for name, value in os.environ.items() if name not in CLEARED}
        paths = [self.stand_ins, kept.get("PYTHONPATH", "")]
        kept["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        platforms = kept.get("JAX_PLATFORMS", "")
        if platforms and "cpu" not in platforms.split(","):  # the device is compared with the CPU
            kept["JAX_PLATFORMS"] = f"{platforms},cpu"
        memory = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_ENABLE_COMPILATION_CACHE": "false"}
        return {**kept, **memory, "TF_CPP_MIN_LOG_LEVEL": "2", **variables}

    def _waited(self, process: subprocess.Popen[str], errors: Path) -> str:
        began = time.monotonic()
        try:
            code = process.wait(max(0.1, self.left()))
        except subprocess.TimeoutExpired:
            return f"it was ended after {time.monotonic() - began:.0f} s, when its time was up"
        said = last_words(errors.read_text(encoding="utf-8", errors="replace"))
        return f"a process ended with {code}: {said}" if code else ""


def rows_of(file: Path) -> list[dict[str, Any]]:
    """Read the rows of a process, which may have ended in the middle of one."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def say(began: float, text: str) -> None:
    """Say what is being done, with the seconds since the beginning."""
    print(f"[{time.monotonic() - began:4.0f} s] {text}", file=sys.stderr, flush=True)
