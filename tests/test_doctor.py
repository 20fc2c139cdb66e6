"""Promises of `reproducibility.doctor`."""

import dataclasses
import json
import subprocess

import pytest

from reproducibility import doctor
from reproducibility.doctor import Check, Diagnosis, diagnose


def test_this_machine_reproduces_itself() -> None:
    """Trained again, in a fresh process, and resumed, the default network ends the same."""
    told: list[str] = []
    found = diagnose(progress=told.append)
    assert [check.passed for check in found.checks] == [True, True, True], found.checks
    assert found.exit_code == 0
    assert found.environment["device.platform"]
    assert len(told) == 4
    assert json.loads(json.dumps(found.to_json()))["verdict"] == "same"


@pytest.mark.parametrize(
    ("answers", "verdict", "code"),
    [
        ([True, True], "same", 0),
        ([True, False], "different", 1),
        ([True, None], "cannot be told", 3),
        ([None, False], "different", 1),
    ],
)
def test_the_verdict_follows_the_answers(
    answers: list[bool | None], verdict: str, code: int
) -> None:
    """One no is a no; one question that could not be asked is never a yes."""
    checks = tuple(Check("?", answer, "") for answer in answers)
    found = Diagnosis({}, checks)
    assert (found.to_json()["verdict"], found.exit_code) == (verdict, code)


def test_a_machine_that_differs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each training ends differently, and no process can be started, the answers say so."""
    digests = iter("abcdefgh")

    @dataclasses.dataclass
    class Done:
        digest: str

    def refuse(*arguments: object, **settings: object) -> None:
        raise subprocess.TimeoutExpired("python", 120)

    monkeypatch.setattr(doctor, "train", lambda *a, **k: Done(next(digests)))
    monkeypatch.setattr(doctor.subprocess, "run", refuse)
    found = diagnose()
    assert [check.passed for check in found.checks] == [False, None, False]
    assert "timed out" in found.checks[1].detail
    assert found.exit_code == 1
