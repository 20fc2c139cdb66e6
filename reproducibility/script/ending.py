"""A command and all that it started are ended: asked first, then killed.

The rule: nothing that a run started is left behind, and nothing else is touched.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

ASKED = 10.0  # seconds that a process has after SIGTERM: it may save something
LOOK_EVERY = 0.05  # seconds
_PROC = Path("/proc")


def end_family(process: subprocess.Popen[bytes], mark: str, *, patience: float = ASKED) -> set[int]:
    """End a command and what it started; return which those were, when nothing of it runs.

    Args:
        process: the command.
        mark: what stands in the environment of everything that it starts, as NAME=VALUE; it finds
            what has outlived its parent. Empty if there is none.
        patience: seconds between the question and the kill.
    """
    ended = ours = _family(process.pid, mark)
    _signal(ours, signal.SIGTERM)
    until = time.monotonic() + patience
    while ours and time.monotonic() < until:
        process.poll()  # it is no zombie then
        time.sleep(LOOK_EVERY)
        ours = {pid for pid in ours if _runs(pid)} | _family(process.pid, mark)
    for _ in range(100):  # what is killed may just have started another
        _signal(ours, signal.SIGKILL)
        process.poll()
        time.sleep(LOOK_EVERY)
        if not (ours := {pid for pid in ours if _runs(pid)} | _family(process.pid, mark)):
            break
        ended = ended | ours
    return ended


def _signal(processes: set[int], number: signal.Signals) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _family(first: int, mark: str) -> set[int]:
    """Return a process, what descends from it, and what carries the mark; no zombies."""
    parents = _parents()
    found = {first} & parents.keys()
    found |= {pid for pid in parents if mark and _carries(pid, mark)}
    found.discard(os.getpid())
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _runs(pid: int) -> bool:
    return pid in _parents()


def _parents() -> dict[int, int]:
    """Return the parent of every process that runs."""
    if not _PROC.joinpath("self/stat").exists():
        return _parents_by_ps()
    found = {}
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    found[int(folder.name)] = int(parent)
    return found


def _parents_by_ps() -> dict[int, int]:
    """Return the same where there is no /proc, as on macOS."""
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=False
        )
        rows = [line.split() for line in done.stdout.splitlines()]
        return {int(row[0]): int(row[1]) for row in rows if row[2:] and "Z" not in row[2]}
    return {}


def _carries(pid: int, mark: str) -> bool:
    with contextlib.suppress(OSError):  # it is another user's, or has ended
        return mark.encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    return False
