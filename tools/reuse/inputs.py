"""Say in one SHA-256 what something was made of, to know later whether it would be made the same.

The rule: what is not in the digest cannot change what is made. It imports nothing that takes time.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions
from pathlib import Path

# Variables that Python, JAX or a library below it reads: those that `machine.environment`
# records, and their kin.
VARIABLES = re.compile(
    r"CUDA|GOTO|JAX|LANG|LC_|LIBTPU|MKL|NCCL|NPROC|NVIDIA|OMP|OPENBLAS|PJRT|PYTHON|TF_|TPU|XLA"
)


def json_digest(*parts: object) -> str:
    """Return the SHA-256 of what JSON can say."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def files_digest(root: Path, names: Iterable[str], but: str = "") -> str:
    """Return the SHA-256 over names and bytes of files, and of all files below folders.

    `but` is the ending of those that do not count.
    """
    return json_digest(
        [
            (path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
            for path in _below(root, names)
            if not but or path.suffix != but
        ]
    )


def _below(root: Path, names: Iterable[str]) -> Iterator[Path]:
    for name in names:
        for path in sorted([root / name, *(root / name).rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def surroundings_digest() -> str:
    """Return the SHA-256 of what is no file of ours: Python, packages, variables, processor."""
    packages = sorted(f"{found.name}=={found.version}" for found in distributions())
    variables = {name: text for name, text in os.environ.items() if VARIABLES.match(name)}
    return json_digest(sys.version, packages, variables, _processor())


def _processor() -> list[object]:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    # Of Linux's list only what is the same at each look: not the clock's frequency.
    facts = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return [platform.machine(), platform.processor(), sorted(facts), cores]
