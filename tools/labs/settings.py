"""Which files are labs, and the setting in which they run.

The rule: the settings of whoever builds the site do not reach the kernels of the labs.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import jupytext
from mkdocs.structure.files import File

SOURCES = ("labs/*.py", "reference/built_with.py")  # from docs/; mkdocs.yml names them too
MATPLOTLIB = Path(__file__).with_name("matplotlibrc")
# The kernel listens on this machine only, yet warns at each start that it does not encrypt. And a
# drawing says neither when it was made nor with what. What a cell prints is sent in one piece, when
# it ends: otherwise it is cut wherever 0.2 seconds have passed, on each machine elsewhere.
KERNEL = """\
c.IPKernelApp.log_level = "ERROR"
c.IPKernelApp.exec_lines = [
    "import sys; sys.stdout.flush_interval = sys.stderr.flush_interval = 3600"
]
c.InlineBackend.figure_formats = {"svg"}
c.InlineBackend.print_figure_kwargs = {
    "bbox_inches": None,
    "metadata": dict.fromkeys(("Creator", "Date", "Format", "Type")),
}
"""


def use_own_settings(folder: Path) -> None:
    """Let Jupyter and IPython read `folder`, not the home directory, and Matplotlib our file."""
    profile = folder / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text(KERNEL)
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    os.environ["JUPYTER_CONFIG_DIR"] = str(folder / "jupyter")
    os.environ["MATPLOTLIBRC"] = str(MATPLOTLIB)


def is_lab(file: File) -> bool:
    """Whether mkdocs-jupyter renders this file."""
    return any(PurePosixPath(file.src_uri).match(pattern) for pattern in SOURCES)


def description(source: Path) -> str:
    """Return what a lab says of itself in its header."""
    return str(jupytext.read(source).metadata["description"])
