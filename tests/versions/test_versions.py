"""The table of versions: what is no fault, and what is one."""

import re
from pathlib import Path

import pytest

from tests.versions import __main__ as versions


@pytest.mark.parametrize(
    ("cell", "answer", "code"),
    [
        ("3.13-0.12", "well", 0),
        ("3.10-0.9", "not made for this Python", 0),
        ("3.99-0.9", "not here: no such Python", 0),
        ("3.13-0.12", "one: another result with the recorder", 1),
        ("3.13-0.12", "CalledProgramError: it failed", 1),
        ("3.13-nightly", "one: another result with the recorder", 0),
    ],
)
def test_only_what_is_well_or_not_there_is_no_fault(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cell: str,
    answer: str,
    code: int,
) -> None:
    """A fault in any cell is one of the command; tomorrow's JAX is shown and decides nothing."""
    monkeypatch.setattr("sys.argv", ["versions", cell])
    monkeypatch.setattr(versions, "tried", lambda python, jax: answer)
    assert versions.main() == code
    assert answer in capsys.readouterr().out


def test_a_python_that_is_not_here_is_said() -> None:
    """Nothing is downloaded for it."""
    assert versions.tried("3.99", "0.9") == "not here: no such Python"


def test_every_night_tries_each_version() -> None:
    """The workflow names the versions that the command does."""
    workflow = Path(".github/workflows/nightly.yml").read_text()
    (jaxes,) = re.findall(r'jaxes="([^"]*)"', workflow)
    assert tuple(jaxes.split()) == (*versions.JAXES, versions.NIGHTLY)
    assert f"python: {list(versions.PYTHONS)}".replace("'", '"') in workflow
