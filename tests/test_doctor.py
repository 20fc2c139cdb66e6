"""Promises of `reproducibility.doctor`."""

import dataclasses
import json
import subprocess
from collections.abc import Callable

import pytest

from reproducibility import cli, doctor
from reproducibility.doctor import Check, Diagnosis, diagnose
from reproducibility.machine import known
from reproducibility.machine.faults import FAULTS, Fault
from reproducibility.machine.known import FaultAnswer
from tests import planted

Run = Callable[..., tuple[int, str, str]]


def told(verdict: str, name: str = "jax-1") -> FaultAnswer:
    """Make an answer about a fault."""
    return FaultAnswer(name, "f", verdict, "d", 1, "https://", "so", "do", {})


@dataclasses.dataclass
class Done:
    """What a training comes to, as far as the doctor looks."""

    digest: str


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command without its trainings, on a table of planted faults."""
    monkeypatch.setattr(doctor, "train", lambda *a, **k: Done("same"))
    monkeypatch.setattr(doctor, "_in_a_fresh_process", lambda: ("same", ""))

    def run(
        capsys: pytest.CaptureFixture[str], *arguments: str, **reproducers: object
    ) -> tuple[int, str, str]:
        table = [
            Fault(f"jax-{number}", f"fault {number}", ("cpu",), program, "So it is.", "Do this.")
            for number, program in reproducers.items()
        ]
        monkeypatch.setattr(known, "FAULTS", tuple(table))
        with pytest.raises(SystemExit) as ended:
            cli.main(["doctor", *arguments])
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_this_machine_reproduces_itself() -> None:
    """Trained again, in a fresh process, and resumed, the default network ends the same."""
    lines: list[str] = []
    found = diagnose(progress=lines.append)
    assert [check.passed for check in found.checks] == [True, True, True], found.checks
    assert [fault.name for fault in found.faults] == [fault.name for fault in FAULTS]
    silent = [fault for fault in found.faults if fault.verdict == "cannot be told"]
    assert silent == []
    wrong = tuple(fault.name for fault in found.faults if fault.verdict == "wrong")
    assert found.exit_code == (1 if wrong else 0)
    assert dataclasses.replace(found, accepted=wrong).exit_code == 0
    assert found.environment["device.platform"]
    assert len(lines) == 5
    assert json.loads(json.dumps(found.to_json()))["verdict"] == ("wrong" if wrong else "same")


@pytest.mark.parametrize(
    ("answers", "faults", "verdict", "code"),
    [
        ([True, True], [], "same", 0),
        ([True, False], [], "different", 1),
        ([True, None], [], "cannot be told", 3),
        ([None, False], [], "different", 1),
        ([True], ["right", "not seen", "does not apply"], "same", 0),
        ([True], ["right", "wrong"], "wrong", 1),
        ([None], ["cannot be told", "wrong"], "wrong", 1),
        ([False], ["wrong"], "different", 1),
        ([True], ["right", "cannot be told"], "cannot be told", 3),
    ],
)
def test_the_verdict_follows_the_answers(
    answers: list[bool | None], faults: list[str], verdict: str, code: int
) -> None:
    """One no is a no, one wrong fault is wrong; what could not be asked is never a yes."""
    checks = tuple(Check("?", answer, "") for answer in answers)
    found = Diagnosis({}, checks, tuple(told(fault) for fault in faults))
    assert (found.to_json()["verdict"], found.exit_code) == (verdict, code)


def test_what_is_accepted_does_not_count() -> None:
    """An accepted fault is reported and decides nothing; every other one still does."""
    faults = (told("wrong"), told("cannot be told", "jax-2"))
    assert Diagnosis({}, (), faults, ("jax-1",)).exit_code == 3
    assert Diagnosis({}, (), faults, ("jax-2",)).exit_code == 1
    both = Diagnosis({}, (), faults, ("jax-1", "jax-2"))
    assert both.exit_code == 0
    assert [fault["verdict"] for fault in both.to_json()["faults"]] == ["wrong", "cannot be told"]


def test_a_machine_that_differs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each training ends differently, and no process can be started, the answers say so."""
    digests = iter("abcdefgh")

    def refuse(*arguments: object, **settings: object) -> None:
        raise subprocess.TimeoutExpired("python", 120)

    monkeypatch.setattr(doctor, "train", lambda *a, **k: Done(next(digests)))
    monkeypatch.setattr(doctor.subprocess, "run", refuse)
    monkeypatch.setattr(known, "FAULTS", ())
    found = diagnose()
    assert [check.passed for check in found.checks] == [False, None, False]
    assert "timed out" in found.checks[1].detail
    assert found.exit_code == 1


def test_a_planted_fault_makes_the_doctor_say_wrong(
    plain: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table entry whose program is broken on purpose is wrong: exit code 1, with the cure."""
    code, out, err = plain(capsys, **{"1": planted.right, "2": planted.wrong})
    assert code == 1
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "jax-1 right fault 1 https://github.com/jax-ml/jax/issues/1" in lines
    assert "jax-2 wrong fault 2 https://github.com/jax-ml/jax/issues/2" in lines
    after = lines[lines.index("jax-2") :]
    assert [line.partition(" ")[0] for line in after] == ["jax-2", "wrong", "so", "cure"]
    assert after[1].startswith("wrong try 0: 1 of 4 wrong, first at (2,): 3.0 instead of 1.0")
    assert after[2:] == ["so So it is.", "cure Do this."]
    assert "jax-2, fault 2: wrong. try 0: 1 of 4 wrong" in err
    assert "jax-1, " not in err


def test_without_the_planted_fault_all_is_well(
    plain: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same run with a program that is right ends with 0: the control of the test above."""
    code, out, err = plain(capsys, **{"1": planted.right})
    assert code == 0
    assert "wrong" not in out.replace("what goes wrong", "")
    assert "jax-1" not in err


def test_a_fault_that_cannot_be_asked_is_code_3(
    plain: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that fails is no pass: exit code 3, and the reason on stderr."""
    code, out, err = plain(capsys, **{"1": planted.raising})
    assert code == 3
    assert "jax-1            cannot be told" in out
    assert "jax-1, fault 1: cannot be told. RuntimeError: planted." in err


def test_the_faults_are_in_the_json(plain: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json a program finds the verdict, and each fault with its issue and what was wrong."""
    code, out, _ = plain(capsys, "--json", **{"1": planted.right, "2": planted.wrong})
    found = json.loads(out)
    assert (code, found["verdict"]) == (1, "wrong")
    assert [fault["verdict"] for fault in found["faults"]] == ["right", "wrong"]
    assert found["faults"][1]["source"] == "https://github.com/jax-ml/jax/issues/2"
    assert found["faults"][1]["patterns"]["try 0"].startswith("try 0: 1 of 4 wrong")
    assert found["accepted"] == []


def test_accepting_a_fault_names_it(plain: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """With --accept the fault is still shown, as accepted, and the exit code is 0."""
    code, out, err = plain(capsys, "--accept", "jax-2", **{"2": planted.wrong})
    assert code == 0
    assert "wrong, accepted" in out
    assert "jax-2" not in err


def test_accepting_what_is_not_known_is_refused(
    plain: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt name is refused before anything is trained: exit code 2."""
    code, out, err = plain(capsys, "--accept", "jax-3", **{"2": planted.wrong})
    assert (code, out) == (2, "")
    assert "Cannot find a published fault: expected one of jax-2, got jax-3." in err
