"""Published faults of JAX and XLA, asked of this machine.

The rule: a fault is asked about wherever its platform is, whatever the version: the versions of a
report say where somebody looked. What could not be checked is never a pass.
Chapter: docs/guide/using_the_project.md
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from threading import Event
from typing import Any, Literal

import jax

from reproducibility.errors import ConfigError
from reproducibility.machine.child import end_python, start_python, unused_port
from reproducibility.machine.faults import FAULTS, Fault
from reproducibility.machine.trial import Task

FAULTS_DEADLINE = 120.0  # seconds for all of them on a machine that is very slow
_TRIAL = """
import sys
from reproducibility.machine.trial import answer_file
answer_file(sys.argv[1:])
"""
type FaultVerdict = Literal["right", "wrong", "not seen", "does not apply", "cannot be told"]


@dataclasses.dataclass(frozen=True)
class FaultAnswer:
    """What this machine answered about a published fault.

    Same bits: on this machine, with these versions and settings.
    """

    name: str
    """Which fault."""
    fault: str
    """What goes wrong where it is there."""
    verdict: FaultVerdict
    """ "right", "wrong", "not seen" (in `tries` tries), "does not apply" or "cannot be told"."""
    detail: str
    """What was wrong, what it was tried on, or why there is no answer."""
    tries: int
    """How often it was tried."""
    source: str
    """The address of its issue."""
    consequence: str
    """What it means for a run, where it is there."""
    cure: str
    """What to do, where it is there."""
    patterns: dict[str, str | None]
    """What is wrong by pattern or try; None where nothing is."""

    @property
    def text(self) -> str:
        """The verdict in words."""
        return f"not seen in {self.tries} tries" if self.verdict == "not seen" else self.verdict


def known_faults(
    names: Collection[str] | None = None, *, deadline: float = FAULTS_DEADLINE
) -> tuple[FaultAnswer, ...]:
    """Ask this machine about published faults of JAX and XLA that compute wrong bits.

    Each fault has a small program whose right result is known. The programs run in fresh
    processes, with this environment. One that crashes costs its own answer only; one that does not
    end costs the answers of those after it, too. Those of another platform, or of a setting that
    is not in use, do not apply.

    **Same bits:** this is what is asked; "right" speaks of these programs and no others.

    Args:
        names: which faults, by tracker and number as in "jax-39103"; by default all.
        deadline: seconds after which a fault that has no answer yet cannot be told.

    Returns:
        An answer for each fault, in the order of the table.

    Raises:
        ConfigError: there is no fault of that name.

    Examples:
        >>> from reproducibility import known_faults
        >>> [answer] = known_faults(["jax-27796"])
        >>> answer.verdict, answer.source  # on a CPU
        ('does not apply', 'https://github.com/jax-ml/jax/issues/27796')
    """
    with asking(names, deadline=deadline) as answers:
        return answers()


@contextlib.contextmanager
def asking(
    names: Collection[str] | None = None, *, deadline: float = FAULTS_DEADLINE
) -> Iterator[Callable[[], tuple[FaultAnswer, ...]]]:
    """Ask as `known_faults` does, beside other work.

    The settings are those of the thread that enters. Leaving ends the processes that still run.

    **Same bits:** as `known_faults`.

    Args:
        names: as there.
        deadline: as there; it begins here.

    Yields:
        A function that waits for the answers.

    Raises:
        ConfigError: there is no fault of that name.
    """
    check_fault_names(names or ())
    asked = [fault for fault in FAULTS if names is None or fault.name in names]
    groups: dict[tuple[int, int], list[Fault]] = {}
    for fault in asked:
        groups.setdefault((fault.devices, fault.processes), []).append(fault)
    end, stop = time.monotonic() + deadline, Event()
    with (
        tempfile.TemporaryDirectory(prefix="reproducibility-known-") as folder,
        concurrent.futures.ThreadPoolExecutor(max(1, len(groups))) as pool,
    ):
        # In this thread: what `with jax.default_prng_impl(...)` sets holds for it alone.
        asking_all = [
            pool.submit(_ask, group, Path(folder, str(n)), _environment_with(devices), end, stop)
            for n, ((devices, _), group) in enumerate(groups.items())
        ]

        def answers() -> tuple[FaultAnswer, ...]:
            found = {name: each for group in asking_all for name, each in group.result().items()}
            return tuple(_fault_answer(fault, found.get(fault.name)) for fault in asked)

        try:
            yield answers
        finally:
            stop.set()


def check_fault_names(names: Iterable[str]) -> None:
    """Refuse a name that no fault has.

    Same bits: everywhere.

    Args:
        names: what was asked for.

    Raises:
        ConfigError: it is not in the table.
    """
    known = [fault.name for fault in FAULTS]
    for name in names:
        if name not in known:
            raise ConfigError(
                "find",
                "a published fault",
                expected=f"one of {', '.join(known)}",
                got=name,
                do="reproducibility doctor lists them.",
            )


def _ask(
    faults: list[Fault],
    place: Path,
    environment: dict[str, str],
    end: float,
    stop: Event,
    port: Callable[[], int] = unused_port,
) -> dict[str, dict[str, Any]]:
    """Run what needs the same devices and processes in processes of its own."""
    place.mkdir()
    files = [place / str(index) for index in range(faults[0].processes)]
    found: dict[str, dict[str, Any]] = {}
    silent = 0  # processes in a row that answered nothing: then it is not the fault's doing
    while faults and silent < 2 and time.monotonic() < end and not stop.is_set():
        tasks = json.dumps([dataclasses.asdict(_task(fault)) for fault in faults])
        _run(tasks, files, environment, end, stop, port)
        if len(files) > 1 and not any(file.exists() for file in files):  # the port was taken
            _run(tasks, files, environment, end, stop, port)
        answers = _merged([_read_answers(file) for file in files])
        silent = 0 if answers else silent + 1
        found |= answers
        # The first without an answer took the process along; those after it get another one.
        faults = [fault for fault in faults if fault.name not in found][1:]
        for file in files:
            file.unlink(missing_ok=True)
    return found


def _run(
    tasks: str,
    files: list[Path],
    environment: dict[str, str],
    end: float,
    stop: Event,
    port: Callable[[], int],
) -> None:
    """Run tasks in processes that write a file each, until they end or must."""
    count = len(files)
    address = f"127.0.0.1:{port()}" if count > 1 else ""
    quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
    with contextlib.ExitStack() as stack:
        running = []
        for index, file in enumerate(files):
            which = [address, str(count), str(index)] if count > 1 else []
            process = start_python(_TRIAL, str(file), tasks, *which, variables=environment, **quiet)
            stack.callback(end_python, process)
            running.append(process)
        while time.monotonic() < end and not _ended([process.poll() for process in running]):
            if stop.wait(0.02):
                break


def _ended(codes: list[int | None]) -> bool:
    """Say whether all have ended, or one has failed: the others would wait for it."""
    return None not in codes or any(codes)


def _read_answers(file: Path) -> dict[str, dict[str, Any]]:
    """Read the answers of a process, by fault; it may have ended in the middle of a line."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    answers = [json.loads(line) for line in lines if line.endswith("\n")]
    return {answer["name"]: answer for answer in answers}


def _merged(processes: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Bring together what the processes of a group said: none may be wrong, none may be silent."""
    if len(processes) == 1:
        return processes[0]
    merged = {}
    for name in sorted({name for answers in processes for name in answers}):
        together: dict[str, Any] = {"problems": {}}
        for index, answers in enumerate(processes):
            other = answers.get(name, {"error": f"no answer from process {index}"})
            problems = other.get("problems", {})
            together["problems"] |= {
                f"process {index}, {what}": problem and f"process {index}, {problem}"
                for what, problem in problems.items()
            }
            together |= {key: value for key, value in other.items() if key != "problems"}
        merged[name] = together
    return merged


def _fault_answer(fault: Fault, found: dict[str, Any] | None) -> FaultAnswer:
    """Make a verdict of what the processes said, or did not say."""
    problems: dict[str, str | None] = (found or {}).get("problems", {})
    wrong = [problem for problem in problems.values() if problem]
    verdict: FaultVerdict
    if wrong:
        verdict, detail = "wrong", wrong[0]
    elif found is None:
        verdict, detail = "cannot be told", "no answer: the process crashed or took too long"
    elif "error" in found:
        verdict, detail = "cannot be told", found["error"]
    elif "obstacle" in found:
        verdict, detail = "does not apply", found["obstacle"]
    else:
        verdict = "not seen" if fault.tries > 1 else "right"
        detail = fault.reported(found["jax"])
    if wrong and found:
        detail = f"{detail} ({fault.reported(found['jax'])})"
    return FaultAnswer(
        fault.name,
        fault.wrong,
        verdict,
        detail,
        fault.tries,
        fault.source,
        fault.consequence,
        fault.cure,
        problems,
    )


def _task(fault: Fault) -> Task:
    where = f"{fault.reproduce.__module__}:{fault.reproduce.__name__}"
    needed = fault.devices * fault.processes
    return Task(fault.name, where, fault.platforms, fault.tries, fault.prng, fault.flag, needed)


def _environment_with(devices: int) -> dict[str, str]:
    """Return this environment for a process with so many devices, if they are of the CPU.

    What was set in Python is passed on as well. A GPU is shared with this process, so its memory
    must not be taken whole.
    """
    variables = dict(os.environ)
    variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    variables["JAX_DEFAULT_PRNG_IMPL"] = str(jax.config.jax_default_prng_impl)
    if jax.config.jax_platforms:
        variables["JAX_PLATFORMS"] = str(jax.config.jax_platforms)
    variables.pop("JAX_NUM_CPU_DEVICES", None)
    flags = variables.get("XLA_FLAGS", "").strip()
    if flags and not flags.startswith("-"):  # the name of a file of them, to XLA
        with contextlib.suppress(OSError):
            flags = Path(flags).read_text()
    flags = re.sub(r"--xla_force_host_platform_device_count=\S+", "", flags)
    variables["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}".strip()
    return variables
