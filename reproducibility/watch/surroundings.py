"""What surrounds a run and may explain its bits: processor, devices, versions of libraries.

The rule: nothing is imported, no process and no backend is started; what is not told is left out.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

# Vector instruction sets, widest first, by the words of Linux.
_INSTRUCTIONS = {
    "avx512_vnni": "AVX512_VNNI",
    "avx512f": "AVX512",
    "avx2": "AVX2",
    "avx": "AVX",
    "sse4_2": "SSE4_2",
    "sve2": "SVE2",
    "sve": "SVE",
    "asimd": "NEON",
}
_ONE_CORE = 1 << 14  # bytes in which /proc/cpuinfo has told of the first core
_LIBRARIES = (
    *("jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "flax", "optax", "equinox", "haiku"),
    *("orbax.checkpoint", "grain", "chex", "distrax", "tensorflow", "torch", "sklearn"),
)


def processor() -> dict[str, str]:
    """Return the processor's name and its widest vector instructions, as far as they are told."""
    try:
        file = os.open("/proc/cpuinfo", os.O_RDONLY)
        try:
            text = os.read(file, _ONE_CORE).decode("utf-8", "replace")
        finally:
            os.close(file)
    except OSError:
        text = ""
    lines = dict(line.split(":", 1) for line in reversed(text.splitlines()) if ":" in line)
    told = {name.strip(): value.strip() for name, value in lines.items()}
    words = told.get("flags", told.get("Features", "")).split()
    return {
        "architecture": os.uname().machine if hasattr(os, "uname") else sys.platform,
        "model": told.get("model name", ""),
        "instructions": next((name for word, name in _INSTRUCTIONS.items() if word in words), ""),
    }


def devices_by_kind() -> dict[str, int]:
    """Return how many devices of each kind and runtime there are; JAX has started its backend."""
    kinds: dict[str, int] = {}
    try:
        for device in sys.modules["jax"].local_devices():
            kind = device.device_kind + ("" if device.platform == "cpu" else _runtime(device))
            kinds[kind] = kinds.get(kind, 0) + 1
    except Exception:  # it only explains
        return {}
    return dict(sorted(kinds.items()))


def _runtime(device: Any) -> str:
    version = str(getattr(device.client, "platform_version", "")).partition("\n")[0]
    return f" ({version})" if version else ""


def versions() -> dict[str, str]:
    """Return the versions of the libraries that the script has imported.

    A module may do anything when it is asked for what it lacks, and may be the script's own.
    """
    found = {}
    for name in _LIBRARIES:
        module = sys.modules.get(name)
        told = object.__getattribute__(module, "__dict__") if isinstance(module, ModuleType) else {}
        version = told.get("__version__")
        if isinstance(version, str):
            found[name] = str(version)
    return found
