"""Try a clean script, or a fault planted in it, with `reproducibility interrupt`.

The rule: a fault counts only if the plain script ends with another result when it was stopped and
resumed. A clean script is right only if it ends with the same one, and is called the same.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.judge import Judgement
from tests.faults.judge_resumed import judge_resumed
from tests.faults.planted import Clean, Item, ResumeFault, facts_of
from tests.faults.running import (
    COMMAND,
    PLAIN,
    Ended,
    answered,
    failure,
    fresh_copy,
    plain,
    results_in,
    run,
)


@dataclass(frozen=True)
class Interruption:
    """How a script is run whole, stopped, and resumed.

    `command` holds `{dir}`. Without `stop`, it is killed in step `at`.
    """

    command: str
    resume: str = ""
    stop: str = ""
    at: int = 0
    step_function: str = ""

    def words(self, folder: Path, more: str = "") -> list[str]:
        """Return the arguments of a plain run."""
        return [*shlex.split(self.command.replace("{dir}", str(folder))), *shlex.split(more)]

    @property
    def options(self) -> list[str]:
        """The options of `interrupt`; the step function is not told, it has to be found."""
        how = [f"--stop={self.stop}"] if self.stop else [f"--at={self.at}"]
        return [*how, *([f"--resume={self.resume}"] if self.resume else [])]


def interruption_of(script: str) -> Interruption:
    """Return how a script is interrupted."""
    facts = facts_of(script)["run"]
    return Interruption(**{name: facts[name] for name in facts if name in _NAMES})


_NAMES = tuple(Interruption.__dataclass_fields__)


def clean(item: Clean, python: Path) -> Judgement:
    """Interrupt and resume a script that does so right."""
    results, ended, answer = _try(item, python)
    if len(set(results)) != 1:
        return Judgement("changed", f"a plain resumed run has another result: {results}")
    if answer is None:
        return Judgement("no answer", failure(ended))
    if answer["verdict"] != "same":
        return Judgement(answer["verdict"], answer["reason"])
    return Judgement("same", f"{answer['calls']} calls compared")


def faulty(fault: ResumeFault, python: Path) -> tuple[Judgement, dict[str, Any] | None, bool]:
    """Run a script with a fault plain, whole and resumed, and then ask.

    Returns:
        the judgement, the answer, and whether the plain runs differed.
    """
    results, ended, answer = _try(fault, python)
    if len(results) != 2:
        return Judgement("not a fault", f"a run fails: {failure(ended)}"), None, False
    if results[0] == results[1]:
        return Judgement("not a fault", "the plain resumed run has the same result"), None, False
    if answer is None:
        return Judgement("no answer", failure(ended)), None, True
    return judge_resumed(fault, answer, differed=True), answer, True


def _try(item: Item, python: Path) -> tuple[list[str], Ended, dict[str, Any] | None]:
    """Return the results of a whole and a resumed run, and what was answered.

    A script that is killed has no plain way to be stopped in the middle of a step: its two results
    are those of the recorded runs.
    """
    how, results = interruption_of(item.script), []
    if how.stop:
        results, ended = _plain_results(item.text, how, python)
        if len(set(results)) < (1 if isinstance(item, Clean) else 2):
            return results, ended, None
    with fresh_copy(item.text) as folder:
        words = ["--", python, "script.py", *shlex.split(how.command)]
        asked = ["interrupt", "--json", "--keep", "records", *how.options, *words]
        ended, answer = answered(asked, folder)
        if answer is not None:
            compared = ["compare", "--resumed", "records/whole", "records/resumed"]
            answer["report"] = run([COMMAND, *compared], folder, PLAIN).output
    if not how.stop:
        found = results_in(ended.errors)
        results = [found[0], found[-1]] if len(found) > 1 else found
    return results, ended, answer


def _plain_results(text: str, how: Interruption, python: Path) -> tuple[list[str], Ended]:
    """Return the results of a plain whole run and of a plain resumed one."""
    with fresh_copy(text) as folder:
        for name in ("whole", "cut"):
            (folder / name).mkdir()
        whole = plain(python, folder, *how.words(folder / "whole"))
        first = plain(python, folder, *how.words(folder / "cut", how.stop))
        second = plain(python, folder, *how.words(folder / "cut", how.resume))
    failed = [ended for ended in (whole, first, second) if ended.code]
    if failed:
        return [], failed[0]
    return [whole.result, second.result], second
