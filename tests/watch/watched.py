"""Scripts that run with the recorder in their Python, without the command."""

import os
import subprocess
import sys
from pathlib import Path

from reproducibility.script.start import WATCH


def run_script(folder: Path, script: str, *, record: Path | None, **variables: str) -> str:
    """Run a script, which writes nothing to stderr, and return what it prints.

    Args:
        folder: where it runs.
        script: its text.
        record: a directory that is made for the record; none for a script that nobody watches.
        **variables: environment variables that are added.
    """
    (folder / "script.py").write_text(script)
    environment = {**os.environ, **variables}
    if record is not None:
        record.mkdir()
        environment |= {"PYTHONPATH": str(WATCH), "REPRODUCIBILITY_RECORD": str(record)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "script.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
