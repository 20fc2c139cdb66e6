"""Run the commands of the terminal session, and keep what a terminal got, with its times.

The rule: the commands run in a pseudo-terminal, as in the shell of a reader, and all that is drawn
later comes from what is kept here, in docs/assets/recording.json.
"""

from __future__ import annotations

import codecs
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
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parents[2] / "docs" / "assets"
COLUMNS = 52  # as many as fit on a screen of 360 pixels in letters of 11


@dataclass(frozen=True)
class Scene:
    """A command, and the comment above it.

    With `killed_from`, it is killed once it has shown that step and has a checkpoint in `run`.
    """

    comment: str
    command: str
    run: str = ""
    killed_from: int = 0


TRAIN = "reproducibility train --run-dir {0} \\\n  --steps 500{1} > {0}.txt"
SCENES = (
    Scene("# Train a network.", TRAIN.format("whole", "")),
    Scene(
        "# Train it again. This one is killed half-way …",
        TRAIN.format("killed", ""),
        run="killed",
        killed_from=200,
    ),
    Scene("# … and the same command resumes it.", TRAIN.format("killed", "")),
    Scene(
        "# Is it the run that was never killed?",
        "reproducibility compare whole killed",
    ),
    Scene("# The control: another seed must differ.", TRAIN.format("other", " --seed 1")),
    Scene(
        "",
        "reproducibility compare whole other \\\n  --no-replay > why.txt",
    ),
)


def record_session() -> dict[str, Any]:
    """Run the scenes in an empty directory; return what a terminal got, and when."""
    with tempfile.TemporaryDirectory() as folder:
        scenes = [run_scene(scene, Path(folder)) for scene in SCENES]
        resumed = resumed_from(Path(folder, "killed"))
    packages = ("reproducibility", "jax", "jaxlib")
    return {
        "recorded": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "resumed_from": resumed,
        "columns": COLUMNS,
        "scenes": scenes,
    }


def resumed_from(run: Path) -> int:
    """Return the step from which a run went on after it was killed, by its own diary.

    A process that is killed writes no line that says how it ended.
    """
    lines = map(json.loads, (run / "attempts.jsonl").read_text("utf-8").splitlines())
    match [(line["event"], line.get("from_step"), line.get("to_step")) for line in lines]:
        case [("start", 0, _), ("start", step, _), ("end", _, end)] if 0 < step < end:
            return int(step)
        case attempts:
            raise RuntimeError(f"not killed half-way and resumed, but {attempts}: record it again")


def run_scene(scene: Scene, folder: Path) -> dict[str, Any]:
    """Run one command in a pseudo-terminal, as the shell of a reader would."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": programs, "TERM": "xterm-256color", "NO_COLOR": "1"}
    for name in ("COLUMNS", "LINES", "FORCE_COLOR"):
        environment.pop(name, None)  # the terminal says how wide it is
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    began = time.monotonic()
    process = subprocess.Popen(
        ["bash", "-c", f"exec {scene.command}"],  # so that what is killed is the program itself
        cwd=folder,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    output, kill = [], ""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for piece in _terminal_pieces(controller):
        text = decoder.decode(piece)
        if text and not (text.startswith("\r") and output and text == output[-1][1]):
            # A progress bar is written ten times a second, whether it moves or not.
            output.append([round(time.monotonic() - began, 2), text])
        if scene.killed_from and not kill and text and _is_halfway(scene, text, folder):
            kill = f"kill -9 {process.pid}"
            subprocess.run(kill.split(), check=True)
    code = process.wait()
    return {
        "says": scene.comment,
        "command": scene.command,
        "output": output,
        "killed_by": kill,
        "exit": code if code >= 0 else 128 - code,  # as a shell says it
        "seconds": round(time.monotonic() - began, 2),
    }


def _is_halfway(scene: Scene, text: str, folder: Path) -> bool:
    step = re.search(r"step +(\d+)/(\d+)", text)
    if not step or not scene.killed_from <= int(step[1]) < int(step[2]):
        return False
    checkpoints = (folder / scene.run / "checkpoints").iterdir()
    return any(path.name.isdigit() for path in checkpoints)  # others are being written


def _terminal_pieces(controller: int) -> Iterator[bytes]:
    # What arrives, until the last program has closed its end.
    with os.fdopen(controller, "rb", buffering=0) as stream:
        while True:
            try:
                piece = stream.read(65536)
            except OSError:  # how Linux says that it is over
                return
            if not piece:
                return
            yield piece


def read_recording() -> dict[str, Any]:
    """Return what was recorded."""
    recording: dict[str, Any] = json.loads((ASSETS / "recording.json").read_text("utf-8"))
    return recording


def write_recording(recording: dict[str, Any]) -> None:
    """Keep a recording, one event a line."""
    text = json.dumps(recording, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\s+([\d.]+),\s+(\".*\")\s+\]", r"[\1, \2]", text)
    (ASSETS / "recording.json").write_text(text + "\n", "utf-8")
