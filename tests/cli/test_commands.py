"""Promises of `reproducibility.cli.commands`: each command is documented, each end has its code."""

import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from reproducibility import __version__
from reproducibility.cli.commands import COMMANDS

PAGE = Path(__file__).parents[2] / "docs/reference/cli.md"


def test_each_command_is_documented() -> None:
    """The page of the commands has a row and a section for each, in order, with its help."""
    text = PAGE.read_text("utf-8")
    names = list(COMMANDS)
    assert re.findall(r"^\| \[`(\w+)`\]\(#\1\) \|", text, re.M) == names
    assert re.findall(r"^## (\w+)$", text, re.M) == names
    assert re.findall(r"^COLUMNS=80 reproducibility (\w+) --help$", text, re.M) == names


def test_the_versions_are_named_without_jax() -> None:
    """`--version` says what a report needs, and loads neither JAX nor the parser."""
    code = """
import sys
from reproducibility.cli import main
try:
    main(["--version"])
finally:
    print("jax" in sys.modules, "tyro" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    others = f"jax {version('jax')}, jaxlib {version('jaxlib')}"
    python = platform.python_version()
    assert done.stdout == f"reproducibility {__version__} ({others}, Python {python})\n"
    assert done.stderr == "False False\n"


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """`reproducibility … | head` ends without a traceback."""
    command = f"{sys.executable} -m reproducibility train --help | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("usage: reproducibility train")
    assert "Traceback" not in done.stderr
