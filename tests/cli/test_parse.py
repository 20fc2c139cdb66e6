"""Promises of `reproducibility.cli.parse`: mistakes are one sentence, and help needs no JAX."""

import subprocess
import sys

import pytest

from tests.calling import Call, one_sentence


@pytest.mark.parametrize("arguments", ["", "train", "fly", "compare one", "digest"])
def test_an_incomplete_command_is_refused(call: Call, arguments: str) -> None:
    """A missing or unknown command or argument gives one sentence with the way to the help."""
    code, out, err = call(*arguments.split())
    assert (code, out) == (2, "")
    assert one_sentence(err).startswith("Cannot read the command line: ")
    assert one_sentence(err).endswith("--help.")


def test_help_teaches_without_jax() -> None:
    """`--help` and a mistyped flag answer without loading JAX, and show an example of each."""
    code = """
import sys
from reproducibility.cli import main
try:
    main(sys.argv[1:])
finally:
    print("jax" in sys.modules, file=sys.stderr)
"""
    for arguments, expected in {
        ("--help",): 0,
        ("train", "--help"): 0,
        ("train", "--x"): 2,
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr.splitlines()[-1]) == (expected, "False")
        assert not expected or "reproducibility train" in done.stderr
        assert expected or "Example: reproducibility train" in done.stdout


def test_help_says_that_a_command_follows(call: Call) -> None:
    """The usage of a command that runs another ends in it, and the example shows an answer."""
    code, out, _ = call("twice", "--help")
    assert code == 0
    assert out.splitlines()[0].endswith("-- COMMAND")
    example = out.partition("Example: reproducibility twice -- ")[2]
    assert example.splitlines()[2] == "    different"
    assert "confirmed: with" in example
    _, out, _ = call("record", "--help")
    assert out.splitlines()[0].endswith("DIRECTORY [--again N] [--keys] -- COMMAND")
    _, out, _ = call("train", "--help")
    assert "-- COMMAND" not in out


@pytest.mark.parametrize("arguments", ["twice python train.py", "record here python train.py"])
def test_a_command_without_dashes(call: Call, arguments: str) -> None:
    """What lacks is named, and nothing is run."""
    code, out, err = call(*arguments.split())
    assert (code, out) == (2, "")
    assert "What to run comes after --, as in: -- python train.py" in one_sentence(err)
