"""Does this machine reproduce itself, and does it compute what is right?

The rule: do not ask what a machine is, ask whether it gives the same bits twice.
Chapter: docs/fundamentals/reproducibility_basics.md
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax

from reproducibility.config import TrainConfig
from reproducibility.environment import capture_environment
from reproducibility.machine.known import FaultAnswer, check_fault_names, known_faults
from reproducibility.training import train

SEED = 7
STEPS = 60
STOP_AFTER = 25  # not a multiple of the checkpoint cadence, and in the middle of an epoch
DEADLINE = 120  # seconds a child process may take on a machine that is very slow

_CHILD = """
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
            return 1
        return 3 if None in answers or "cannot be told" in verdicts else 0

    @property
    def verdict(self) -> str:
        """ "same"; "different" if an answer is no, "wrong" if a fault is there; or neither."""
        if self.exit_code == 1:
            return "different" if False in [check.passed for check in self.checks] else "wrong"
        return "cannot be told" if self.exit_code else "same"

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
    its own runs beside the rest.

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
    with concurrent.futures.ThreadPoolExecutor(2) as beside:
        tell("Training in a fresh process, and running the programs of published faults")
        elsewhere, published = beside.submit(_in_a_fresh_process), beside.submit(known_faults)
        tell("Training once")
        reference = train(config).digest
        forget: Any = jax.clear_caches  # without types in JAX
        forget()
        tell("Training again, compiled from scratch")
        again = train(config).digest
        tell("Training interrupted, and resumed from the checkpoint")
        resumed = _interrupted_and_resumed()
        tell("Waiting for the other processes")
        (fresh, trouble), faults = elsewhere.result(), published.result()
    checks = (
        _check("Does training twice give the same digest?", reference, again),
        _check("Does a fresh process give the same digest?", reference, fresh, trouble),
        _check("Does an interrupted and resumed run give the same digest?", reference, resumed),
    )
    return Diagnosis(dict(capture_environment()), checks, faults, tuple(accept))


def _check(question: str, expected: str, got: str | None, trouble: str = "") -> Check:
    if got is None:
        return Check(question, None, trouble)
    return Check(question, got == expected, f"{expected} and {got}")


def _interrupted_and_resumed() -> str:
    with tempfile.TemporaryDirectory(prefix="reproducibility-doctor-") as folder:
        for stop_after in (STOP_AFTER, None):
            config = TrainConfig(seed=SEED, steps=STEPS, stop_after=stop_after, record="off")
            last = train(config, run_dir=Path(folder, "run"))
    return last.digest


def _in_a_fresh_process() -> tuple[str | None, str]:
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(SEED), str(STEPS)],
            env=environment, capture_output=True, text=True, timeout=DEADLINE, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"The process did not finish: {error}"
    return done.stdout.split()[-1], ""
