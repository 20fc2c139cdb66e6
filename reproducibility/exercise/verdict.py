"""Judges one program: what was tried, what differed, what is right.

The rule: a program is right when all that its judge tried was right, and something was tried.
Chapter: docs/guide/exercises.md
"""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

from reproducibility.errors import ExitCode
from reproducibility.exercise import judged_first, judged_later, judged_parts, judged_saved
from reproducibility.exercise.bench import Bench, Observation, Places, StoppedEarly
from reproducibility.exercise.texts import Exercise

_JUDGES = (judged_first, judged_parts, judged_saved, judged_later)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the judge of an exercise found."""

    name: str
    observations: tuple[Observation, ...]
    printed: tuple[str, ...] = ()
    """What the program printed meanwhile."""
    missing: str = ""
    """A library without which it cannot be told."""

    @property
    def solved(self) -> bool:
        """Whether all that was tried is right."""
        return bool(self.observations) and all(each.right for each in self.observations)

    @property
    def exit_code(self) -> int:
        """The code of the contract."""
        if self.missing:
            return ExitCode.CANNOT_BE_TOLD
        return ExitCode.SAME if self.solved else ExitCode.DIFFERENT

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        tried = [each.to_json() for each in self.observations]
        return {"name": self.name, "solved": self.solved, "tried": tried, "missing": self.missing}


def judge_program(exercise: Exercise, program: str, places: Places, seed: int) -> Judgement:
    """Run a program as the judge of its exercise does.

    **Same bits:** everywhere, for a right program and one seed.

    Args:
        exercise: which.
        program: the reader's text.
        places: the processes in which it runs.
        seed: from which the judge's hidden numbers are drawn.
    """
    if exercise.needs and importlib.util.find_spec(exercise.needs) is None:
        return Judgement(name=exercise.name, observations=(), missing=exercise.needs)
    bench = Bench(program, f"{exercise.name}.py", places, seed)
    try:
        judge_of(exercise)(bench)
    except StoppedEarly:
        pass
    except Exception as error:  # what came has a form that no right program returns
        seen = f"values of another form than the program had at first ({error})"
        bench.holds("what the functions return", False, seen)
    finally:
        bench.close()
    return Judgement(
        name=exercise.name,
        observations=tuple(bench.observations),
        printed=tuple(bench.printed),
    )


def judge_of(exercise: Exercise) -> Any:
    """Return the function that judges an exercise.

    Args:
        exercise: which.
    """
    name = f"judge_{exercise.judge}"
    [found] = [getattr(module, name) for module in _JUDGES if hasattr(module, name)]
    return found
