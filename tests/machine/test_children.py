"""Promises of `reproducibility.machine.children`."""

import os
import subprocess
from pathlib import Path

import pytest

import reproducibility
from reproducibility.machine.children import last_words, python, with_package


def test_a_child_imports_the_package_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another package of that name, in the directory or on PYTHONPATH, is not imported."""
    for place in ("here", "on_path"):
        folder = Path(tmp_path, place, "reproducibility")
        folder.mkdir(parents=True)
        Path(folder, "__init__.py").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "on_path"))
    command = python("-c", "import reproducibility, sys; print(reproducibility.__file__, sys.path)")
    told = subprocess.check_output(command, env=with_package(os.environ), text=True)
    assert told.startswith(str(reproducibility.__file__))
    assert str(tmp_path / "on_path") in told  # what the user has there is still found


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ("", "'nothing'"),
        ("Traceback:\n  at\nValueError: no\n", "'ValueError: no'"),
        (
            "Traceback:\nKeyError: 1\n\njax.errors.JaxError: no\nlater\n",
            "'jax.errors.JaxError: no'",
        ),
        ("F0101 12:00:00.0 1 parse.cc:2] Unknown flag\nmore\n", "'Unknown flag'"),
    ],
)
def test_the_last_words_are_the_error(errors: str, told: str) -> None:
    """The last exception; without one, the first line, without the head that XLA gives it."""
    assert last_words(errors) == told
