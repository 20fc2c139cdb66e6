"""Promises of `reproducibility.cli.commands`: each command is documented, each end has its code."""

import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from reproducibility import __version__
from reproducibility.cli.commands import COMMANDS

PAGES = [
    Path(__file__).parents[2] / "docs/reference" / f"{name}.md" for name in ("cli", "cli_evidence")
]


def test_each_command_is_documented() -> None:
    """The table of commands has a row for each, in order, and each has a section with its help."""
    texts = [page.read_text("utf-8") for page in PAGES]
    names = list(COMMANDS)
    rows = re.findall(r"^\| \[`(\w+)`\]\((cli_evidence\.md)?#\1\) \|", texts[0], re.M)
    assert [name for name, _ in rows] == names
    for text, page in zip(texts, ("", "cli_evidence.md"), strict=True):
        inside = [name for name, where in rows if where == page]
        assert re.findall(r"^## (\w+)$", text, re.M) == inside
        assert re.findall(r"^COLUMNS=80 reproducibility (\w+) --help$", text, re.M) == inside


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
