"""Does this machine reproduce itself, and does it compute what is right?

The rule: do not ask what a machine is, ask whether it gives the same bits twice.
Chapter: docs/fundamentals/reproducibility_basics.md
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any, cast

import jax

from reproducibility.errors import ExitCode
from reproducibility.machine.child import end_python, last_words, start_python
from reproducibility.machine.environment import capture_environment
from reproducibility.machine.known import FaultAnswer, asking, check_fault_names
from reproducibility.reference.config import TrainConfig
from reproducibility.reference.loop import train

SEED = 7
STEPS = 60
STOP_AFTER = 25  # not a multiple of the checkpoint cadence, and in the middle of an epoch
DOCTOR_DEADLINE = 120  # seconds to wait for a child process on a machine that is very slow

DIGEST_PROGRAM = """
import sys
from reproducibility import TrainConfig, train
print(train(TrainConfig(seed=int(sys.argv[1]), steps=int(sys.argv[2]))).digest)
"""


@dataclasses.dataclass(frozen=True)
class Check:
    """One question that the doctor asked.

    Same bits: `passed` says whether they were.
    """

    question: str
    """What was asked."""
    passed: bool | None
    """The answer; None if the question could not be asked."""
    detail: str
    """The digests that were compared, or why there are none."""

    @property
    def answer(self) -> str:
        """The answer in words."""
        return {True: "yes", False: "no", None: "cannot be told"}[self.passed]


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Same bits: on this machine, in this environment, for the default network.
    """

    environment: dict[str, Any]
    """As `capture_environment` returns it."""
    checks: tuple[Check, ...]
    """The questions and their answers."""
    faults: tuple[FaultAnswer, ...] = ()
    """The published faults, and what this machine answered."""
    accepted: tuple[str, ...] = ()
    """Names of faults that are reported and do not count."""

    @property
    def counted(self) -> tuple[FaultAnswer, ...]:
        """The faults that decide the verdict."""
        return tuple(fault for fault in self.faults if fault.name not in self.accepted)

    @property
    def exit_code(self) -> int:
        """0 if all is well; 1 if an answer is no or a fault is there; 3 if one cannot be told."""
        answers = [check.passed for check in self.checks]
        verdicts = [fault.verdict for fault in self.counted]
        if False in answers or "wrong" in verdicts:
            return ExitCode.DIFFERENT
        unanswered = None in answers or "cannot be told" in verdicts
        return ExitCode.CANNOT_BE_TOLD if unanswered else ExitCode.SAME

    @property
    def verdict(self) -> str:
        """ "same"; "different" if an answer is no, "wrong" if a fault is there; or neither."""
        if self.exit_code == 1:
            return "different" if False in [check.passed for check in self.checks] else "wrong"
        return "cannot be told" if self.exit_code else "same"

    @property
    def reasons(self) -> tuple[str, ...]:
        """A sentence for each answer that keeps the exit code from being 0, and what to do."""
        asked = [c for c in self.checks if not c.passed]
        counted = [f for f in self.counted if f.verdict in ("wrong", "cannot be told")]
        wrong = [f.name for f in counted if f.verdict == "wrong"]
        sentences = [f"{c.question} {c.answer.capitalize()}: {c.detail}." for c in asked]
        sentences += [f"{f.name}, {f.fault}: {f.text}. {f.detail}." for f in counted]
        if self.verdict == "wrong":
            sentences.append(
                f"Exit code 1 is for {' and '.join(wrong)} alone. If your code does not do that: "
                f"reproducibility doctor --accept {' '.join([*self.accepted, *wrong])}"
            )
        return tuple(sentences)

    def to_json(self) -> dict[str, Any]:
        """Return the fields and the verdict as JSON values.

        Same bits: everywhere, for the same diagnosis.
        """
        return {"verdict": self.verdict, **dataclasses.asdict(self)}


def diagnose(
    *, accept: Collection[str] = (), progress: Callable[[str], None] | None = None
) -> Diagnosis:
    """Train the default network several times, compare the final digests, ask about known faults.

    Once here; once compiled from scratch; once in a fresh process with another hash seed; once
    interrupted in the middle of an epoch and resumed from its checkpoint. What needs processes of
    its own runs beside the rest. JAX's 64 bits are off meanwhile, where they are on.

    **Same bits:** this is what is found out.

    Args:
        accept: names of published faults that are reported and do not count.
        progress: called with a line of text before each part.

    Returns:
        The environment and the answers.

    Raises:
        ConfigError: there is no fault of that name.
    """
    check_fault_names(accept)
    tell = progress or (lambda text: None)
    config = TrainConfig(seed=SEED, steps=STEPS)
    tell("Training in a fresh process, and running the programs of published faults")
    environment = dict(capture_environment())
    with training_beside() as elsewhere, asking() as published, _in_32_bits():
        tell("Training once")
        reference = train(config).digest
        forget: Any = jax.clear_caches  # without types in JAX
        forget()
        tell("Training again, compiled from scratch")
        again = train(config).digest
        tell("Training interrupted, and resumed from the checkpoint")
        resumed = _interrupted_and_resumed()
        tell("Waiting for the other processes")
        (fresh, trouble), faults = elsewhere(), published()
    checks = (
        _checked_answer("Does training twice give the same digest?", reference, again),
        _checked_answer("Does a fresh process give the same digest?", reference, fresh, trouble),
        _checked_answer(
            "Does an interrupted and resumed run give the same digest?", reference, resumed
        ),
    )
    return Diagnosis(environment, checks, faults, tuple(accept))


@contextlib.contextmanager
def _in_32_bits() -> Iterator[None]:
    """Switch JAX's 64 bits off: `train` refuses them, and the machine is the same without."""
    wide, update = jax.config.jax_enable_x64, cast("Callable[[str, bool], None]", jax.config.update)
    update("jax_enable_x64", False)
    try:
        yield
    finally:
        update("jax_enable_x64", wide)


def _checked_answer(question: str, expected: str, got: str | None, trouble: str = "") -> Check:
    if got is None:
        return Check(question, None, trouble)
    return Check(question, got == expected, f"{expected} and {got}")


def _interrupted_and_resumed() -> str:
    with tempfile.TemporaryDirectory(prefix="reproducibility-doctor-") as folder:
        for stop_after in (STOP_AFTER, None):
            config = TrainConfig(seed=SEED, steps=STEPS, stop_after=stop_after, record="off")
            last = train(config, run_dir=Path(folder, "run"))
    return last.digest


@contextlib.contextmanager
def training_beside() -> Iterator[Callable[[], tuple[str | None, str]]]:
    """Train beside other work; leaving ends the process."""
    variables = os.environ | {"PYTHONHASHSEED": "1", "JAX_ENABLE_X64": "0"}  # as `_in_32_bits`
    with _text_file() as out, _text_file() as errors:
        child = start_python(
            DIGEST_PROGRAM, str(SEED), str(STEPS), variables=variables, stdout=out, stderr=errors
        )
        try:
            yield lambda: _digest_of(child, out, errors)
        finally:
            end_python(child)


def _text_file() -> IO[str]:
    return tempfile.TemporaryFile("w+", errors="replace")


def _digest_of(
    child: subprocess.Popen[str], out: IO[str], errors: IO[str]
) -> tuple[str | None, str]:
    """Wait for the digest that a process prints; None, and why, if it prints none."""
    try:
        code = child.wait(DOCTOR_DEADLINE)
    except subprocess.TimeoutExpired:
        return None, f"the process did not end within {DOCTOR_DEADLINE} s"
    for file in (out, errors):
        file.seek(0)
    if code:
        return None, f"the process ended with exit code {code} and {last_words(errors.read())}"
    return out.read().split()[-1], ""
