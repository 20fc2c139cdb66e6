"""A run is ended with all that it started, and nothing else is."""

import os
import subprocess
import sys
from pathlib import Path

from reproducibility.script.ending import end_family

# Starts a child that is left by its parent and hears no SIGTERM, says so, and waits.
STUBBORN = """
import os, signal, subprocess, sys, time
child = '''
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
'''
between = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
subprocess.run([sys.executable, "-c", between], check=True)
time.sleep(600)
"""


def running(mark: str) -> list[int]:
    """Return the processes that carry a mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            state = (path.parent / "stat").read_text().rpartition(")")[2].split()[0]
            if mark.encode() in path.read_bytes() and state != "Z":
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_what_was_left_by_its_parent_is_ended_too(tmp_path: Path) -> None:
    """A child whose parent has gone and that ignores SIGTERM is killed; a neighbour lives on."""
    mark = f"ENDING_TEST={tmp_path}"
    name, _, value = mark.partition("=")
    neighbour = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], env={**os.environ, name: value}, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert len(running(mark)) == 2
    end_family(process, mark, patience=0.2)
    assert running(mark) == []
    assert process.returncode == -15
    assert neighbour.poll() is None
    neighbour.communicate(b"\n")
    process.stdout.close()
