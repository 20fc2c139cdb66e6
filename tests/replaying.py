"""What the tests of `replay` and `compare` do to runs, and where they compute them again."""

import json
import math
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproducibility import Run, TrainConfig, capture_environment
from reproducibility.explain import recompute, stretches
from reproducibility.machine.environment import facts_of
from reproducibility.storage.files import chained

ROOT = Path(__file__).parents[1]
X86 = platform.machine() in ("x86_64", "AMD64")
NAME, VALUE = ("xla_cpu_max_isa", "AVX") if X86 else ("xla_cpu_enable_fast_math", "true")
TRAIN = """
import json, sys
from reproducibility import TrainConfig, train
for folder, settings in json.loads(sys.argv[1]).items():
    train(TrainConfig(**settings), run_dir=folder)
"""


def train_otherwise(runs: dict[Path, TrainConfig]) -> None:
    """Train runs in a process of their own that has other bits, outside of any repository."""
    request = json.dumps({str(path): vars(config) for path, config in runs.items()})
    settings = {"JAX_PLATFORMS": "cpu", "NPROC": "1", "XLA_FLAGS": f"--{NAME}={VALUE}"}
    subprocess.run(
        [sys.executable, "-c", TRAIN, request],
        env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
        cwd=next(iter(runs)).parent,
        check=True,
        timeout=120,
    )


def compute_here(patch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Let `replay` compute in this process and environment; return what it would have had done.

    A list of (recorded environment, task), one for each process that it did not start.
    """
    asked = []
    alone = threading.Lock()  # two threads of one process that save at a time: Orbax waits for ever

    def work(environment: Any, module: str, task: Any, progress: Any) -> dict[str, Any]:
        asked.append((environment, task))
        with alone:
            found = json.loads(json.dumps(recompute.work(task)))
        return {**found, "environment": facts_of({**found, "environment": capture_environment()})}

    patch.setattr(stretches, "in_environment", work)
    return asked


def rewrite_attempts(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Write other lines into the log of a run, as another machine would have written them."""
    run = Run.read(path)
    lines = run.attempts()
    (path / "attempts.jsonl").unlink()
    change(lines)
    for line in lines:
        line.pop("chain", None)
        run.log(**line)


def rewrite_ledger(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change lines of a ledger and compute the chain anew: what damage could never do."""
    file, content = path / "ledger.jsonl", b""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    head = lines[0]["run"]
    for line in lines:
        del line["chain"]
        change(line)
        raw, head = chained(head, line)
        content += raw
    file.write_bytes(content)


def forged(value: Any) -> Any:
    """Return another value of the same form for any entry of a line: what a forger would write."""
    if isinstance(value, str) and value.startswith(("0x", "-0x")):
        return math.nextafter(float.fromhex(value), math.inf).hex()
    if isinstance(value, str) and len(value) >= 16:
        return f"{int(value[:16], 16) ^ 1:016x}{value[16:]}"
    return value + "?" if isinstance(value, str) else not value


def another(step: int, stage: str) -> Callable[[dict[str, Any]], None]:
    """Return a change to a ledger: another first fingerprint of a stage at a step."""

    def change(line: dict[str, Any]) -> None:
        if line.get("step") == step:
            line[stage] = forged(line[stage])

    return change
