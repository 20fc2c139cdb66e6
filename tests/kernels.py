"""Notebooks, executed for tests that run beside each other."""

from pathlib import Path

from nbclient import NotebookClient
from nbformat import NotebookNode

TRIES = 3


def execute(notebook: NotebookNode, folder: Path, seconds: int) -> None:
    """Execute a notebook in a folder by a kernel of its own; a cell may take so many seconds.

    Jupyter looks for free ports and hands them to the kernel, and a kernel that starts at the same
    time may have been told the same: then this one ends before it has done anything.
    """
    for left in reversed(range(TRIES)):
        try:
            client = NotebookClient(notebook, kernel_name="python3", timeout=seconds)
            client.execute(cwd=str(folder))
            return
        except RuntimeError as error:
            if not left or "Kernel died before replying" not in str(error):
                raise
