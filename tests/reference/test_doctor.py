"""Promises of `reproducibility.reference.doctor`."""

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import psutil
import pytest

from reproducibility.cli import main
from reproducibility.machine import known
from reproducibility.machine.faults import FAULTS, Fault
from reproducibility.machine.known import FaultAnswer
from reproducibility.reference import doctor
from reproducibility.reference.doctor import Check, Diagnosis, diagnose
from tests import planted

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


def told(verdict: str, name: str = "jax-1") -> FaultAnswer:
    """Make an answer about a fault."""
    return FaultAnswer(name, "f", verdict, "d", 1, "https://", "so", "do", {})


@dataclasses.dataclass
class Done:
    """What a training comes to, as far as the doctor looks."""

    digest: str


def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every training of the doctor end the same at once."""
    elsewhere = contextlib.nullcontext(lambda: ("same", ""))
    monkeypatch.setattr(doctor, "train", lambda *a, **k: Done("same"))
    monkeypatch.setattr(doctor, "training_beside", lambda: elsewhere)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command without its trainings, on a table of planted faults."""
    untrained(monkeypatch)

    def run(
        capsys: pytest.CaptureFixture[str],
        *arguments: str,
        platforms: tuple[str, ...] = ("cpu",),
        **reproducers: object,
    ) -> tuple[int, str, str]:
        table = [
            Fault(f"jax-{number}", f"fault {number}", platforms, program, "So it is.", "Do this.")
            for number, program in reproducers.items()
        ]
        monkeypatch.setattr(known, "FAULTS", tuple(table))
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *arguments])
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
    """Where each training ends differently, and a process does not end, the answers say so."""
    digests = iter("abcdefgh")
    monkeypatch.setattr(doctor, "train", lambda *a, **k: Done(next(digests)))
    monkeypatch.setattr(doctor, "DIGEST_PROGRAM", "import time; time.sleep(600)")
    monkeypatch.setattr(doctor, "DOCTOR_DEADLINE", 0.1)
    monkeypatch.setattr(known, "FAULTS", ())
    found = diagnose()
    assert [check.passed for check in found.checks] == [False, None, False]
    assert found.checks[1].detail == "the process did not end within 0.1 s"
    assert found.exit_code == 1


def test_what_a_fresh_process_died_of_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that fails, the exit code and the error are said, and not its program."""
    monkeypatch.setattr(doctor, "DIGEST_PROGRAM", "import sys; raise ImportError('planted')")
    with doctor.training_beside() as told:
        assert told() == (None, "the process ended with exit code 1 and 'ImportError: planted'")


def test_a_fresh_process_ignores_what_lies_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tempfile.py in the user's directory is not what the fresh process imports."""
    Path(tmp_path, "tempfile.py").write_text("raise RuntimeError('planted')")
    monkeypatch.chdir(tmp_path)
    child = "import tempfile, reproducibility; print(tempfile.__file__, 'digest')"
    monkeypatch.setattr(doctor, "DIGEST_PROGRAM", child)
    with doctor.training_beside() as told:
        assert told() == ("digest", "")


@pytest.mark.long
@pytest.mark.nightly
def test_settings_made_in_python_are_diagnosed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that holds for the calling thread alone is the one that is asked about."""
    untrained(monkeypatch)
    monkeypatch.setattr(known, "FAULTS", tuple(f for f in FAULTS if f.name == "jax-19085"))
    assert [fault.verdict for fault in diagnose().faults] == ["does not apply"]
    with jax.default_prng_impl("rbg"):
        assert [fault.verdict for fault in diagnose().faults] == ["wrong"]


def test_with_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where JAX has 64 bits, the doctor trains without them, here and in the fresh process, tells
    that they are on, and leaves them on."""
    trained = []

    def train(*_: Any, **__: Any) -> Done:
        trained.append(jax.config.jax_enable_x64)
        return Done("0")

    monkeypatch.setattr(doctor, "train", train)
    monkeypatch.setattr(doctor, "DIGEST_PROGRAM", "import os; print(os.environ['JAX_ENABLE_X64'])")
    monkeypatch.setattr(known, "FAULTS", ())
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    jax.config.update("jax_enable_x64", True)
    try:
        found = diagnose()
        assert jax.config.jax_enable_x64
    finally:
        jax.config.update("jax_enable_x64", False)
    assert trained == [False] * 4
    assert [check.passed for check in found.checks] == [True] * 3
    assert found.environment["config.jax_enable_x64"] is True


def test_interrupted_it_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C does not wait for processes that would go on: all of them are killed."""
    children = []
    start = subprocess.Popen

    def started(*arguments: Any, **settings: Any) -> Any:
        children.append(start(*arguments, **settings))
        return children[-1]

    def interrupted(*arguments: object, **settings: object) -> None:
        while len(children) < 2:  # the other one is started in a thread
            time.sleep(0.01)
        raise KeyboardInterrupt

    endless = Fault("jax-1", "f", ("cpu",), planted.endless, "So it is.", "Do this.")
    monkeypatch.setattr(known, "FAULTS", (endless,))
    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(doctor, "DIGEST_PROGRAM", "import time; time.sleep(600)")
    monkeypatch.setattr(doctor, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        diagnose()
    assert [child.returncode for child in children] == [-signal.SIGKILL] * 2


# The doctor, with processes that do not end by themselves.
ENDLESS = """
import signal, time
from reproducibility import diagnose
from reproducibility.machine import known
from reproducibility.machine.faults import Fault
from reproducibility.reference import doctor
from tests import planted
endless = Fault("jax-1", "f", ("cpu",), planted.endless, "So it is.", "Do this.")
known.FAULTS = (endless,)
doctor.DIGEST_PROGRAM = "import time; time.sleep(600)"
doctor.train = lambda *arguments, **settings: time.sleep(600)
diagnose()
"""


@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_it_leaves_no_process(number: signal.Signals) -> None:
    """Whoever ends the doctor, as a scheduler does, ends the processes that it has started."""
    with subprocess.Popen([sys.executable, "-c", ENDLESS], cwd=ROOT) as process:
        children: list[psutil.Process] = []
        try:
            while len(children) < 2:
                assert process.poll() is None
                time.sleep(0.05)
                children = psutil.Process(process.pid).children()
            process.send_signal(number)
            assert process.wait(60) == -number
            assert psutil.wait_procs(children, timeout=60)[1] == []
        finally:
            process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


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
    last = err.splitlines()[-1]
    assert "jax-2 alone. If your code does not do that: reproducibility doctor --accept " in last


def test_without_the_planted_fault_all_is_well(
    plain: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same run with a program that is right ends with 0: the control of the test above."""
    code, out, err = plain(capsys, **{"1": planted.right})
    assert code == 0
    assert "wrong" not in out.replace("what goes wrong", "")
    assert "jax-1" not in err


@pytest.mark.long
@pytest.mark.nightly
def test_what_does_not_apply_is_a_number(plain: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Faults of other platforms are counted in one line; the JSON has them all."""
    _, out, _ = plain(capsys, **{"1": planted.right, "2": planted.wrong}, platforms=("tpu",))
    assert out.endswith("2 more that do not apply to this platform and these settings\n")
    assert "fault 1" not in out
    _, out, _ = plain(capsys, "--json", **{"1": planted.right}, platforms=("tpu",))
    assert [fault["verdict"] for fault in json.loads(out)["faults"]] == ["does not apply"]


@pytest.mark.parametrize(
    ("answer", "faults", "advised"),
    [
        (True, ["right", "wrong"], True),
        (True, ["wrong", "cannot be told"], True),
        (False, ["wrong"], False),
        (True, ["cannot be told"], False),
        (True, ["right"], False),
    ],
)
def test_accepting_is_advised_where_it_helps(
    answer: bool, faults: list[str], advised: bool
) -> None:
    """Only where wrong faults alone make the exit code 1; what was accepted stays so."""
    answers = [told(verdict, f"jax-{number}") for number, verdict in enumerate(faults)]
    found = Diagnosis({}, (Check("?", answer, ""),), (*answers, told("wrong", "jax-9")), ("jax-9",))
    names = [f"jax-{n}" for n, verdict in enumerate(faults) if verdict == "wrong"]
    command = f"reproducibility doctor --accept {' '.join(['jax-9', *names])}"
    assert any(reason.endswith(command) for reason in found.reasons) == advised


def test_accepting_nothing_is_refused(plain: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """`--accept` without a name accepts nothing and is no doctor that goes on: exit code 2."""
    for arguments in (["--accept"], ["--accept", "--json"]):
        code, out, err = plain(capsys, *arguments, **{"1": planted.right})
        assert (code, out) == (2, "")
        assert "--accept: expected a name or more, got none" in err


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
