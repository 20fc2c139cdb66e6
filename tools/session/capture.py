"""Run the commands of the terminal session, and keep what a terminal got.

The rule: the commands run in a pseudo-terminal, as in the shell of a reader, and all that is drawn
later comes from what is kept here, in docs/assets/recording.json.
"""

from __future__ import annotations

import datetime
import fcntl
import importlib.metadata
import json
import os
import platform
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
ASSETS = DOCS / "assets"
SCRIPT_BLOCK = re.compile(r"^ *cat > train\.py <<'END'\n(.*?)^ *END$", re.MULTILINE | re.DOTALL)
COLUMNS = 52  # as many as fit on a screen of 360 pixels in letters of 11


@dataclass(frozen=True)
class Scene:
    """A command, and the comment above it."""

    comment: str
    command: str


TWICE = "reproducibility twice -- python train.py"
CURE = ("list(set(labels))", "sorted(set(labels))")
SCENES = (
    Scene("# Are two runs of it the same?", TWICE),
    Scene("# Sort the names, and ask again.", f"sed -i 's/{'/'.join(CURE)}/' train.py"),
    Scene("", TWICE),
)


def home_script() -> str:
    """Return the script that the home page shows, as a reader copies it."""
    found = SCRIPT_BLOCK.search((DOCS / "index.md").read_text("utf-8"))
    if not found:
        raise RuntimeError("The home page shows no train.py.")
    return textwrap.dedent(found[1])


def record_session() -> dict[str, Any]:
    """Run the scenes in a directory with the script; return what a terminal got, and for how long.

    Progress, which goes to stderr with all that the script prints, is left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "train.py").write_text(home_script(), "utf-8")
        scenes = [run_scene(scene, Path(folder)) for scene in SCENES]
    packages = ("reproducibility", "jax", "jaxlib", "flax", "optax")
    return {
        "recorded": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "columns": COLUMNS,
        "scenes": scenes,
    }


def processor() -> str:
    """Return what the processor calls itself."""
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.M)
    return names[0] if names else platform.machine()


def run_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a reader's shell in which our programs are found first."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": programs, "TERM": "xterm-256color", "NO_COLOR": "1"}
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "PYTHONHASHSEED"):
        environment.pop(name, None)  # the terminal says how wide it is
    return environment | variables


def run_scene(scene: Scene, folder: Path) -> dict[str, Any]:
    """Run one command in a pseudo-terminal, as the shell of a reader would."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    began = time.monotonic()
    process = subprocess.Popen(
        ["bash", "-c", scene.command],
        cwd=folder,
        env=run_environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
    )
    os.close(terminal)
    output = _all_of(controller)
    return {
        "says": scene.comment,
        "command": scene.command,
        "output": output,
        "exit": process.wait(),
        "seconds": round(time.monotonic() - began, 2),
    }


def _all_of(controller: int) -> str:
    # What arrives, until the last program has closed its end.
    got = b""
    with os.fdopen(controller, "rb", buffering=0) as stream:
        while True:
            try:
                piece = stream.read(65536)
            except OSError:  # how Linux says that it is over
                piece = b""
            if not piece:
                return got.decode()
            got += piece


def read_recording() -> dict[str, Any]:
    """Return what was recorded."""
    recording: dict[str, Any] = json.loads((ASSETS / "recording.json").read_text("utf-8"))
    return recording


def write_recording(recording: dict[str, Any]) -> None:
    """Keep a recording, the losses of each run on one line."""
    text = json.dumps(recording, indent=1, ensure_ascii=False)
    text = re.sub(r"\[([\d.,\s]+)\]", lambda row: f"[{' '.join(row[1].split())}]", text)
    (ASSETS / "recording.json").write_text(text + "\n", "utf-8")
