"""Promises of `reproducibility.exercise.verdict`: right repairs pass, and all others fail."""

import random
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproducibility.exercise.bench import Places
from reproducibility.exercise.texts import all_exercises, edited_program
from reproducibility.exercise.verdict import Judgement, judge_program

REPAIRS = {
    name: kinds
    for path in sorted(Path(__file__).with_name("repairs").glob("*.toml"))
    for name, kinds in tomllib.loads(path.read_text("utf-8")).items()
}
SEED = 20_261_201
# Those that compile or start much.
SLOW = {"checkpoint_1", "checkpoint_2", "cluster_2", "data_6", "model_1", "model_3", "scaling_1"}
# What the short tests run.
SAMPLE = random.Random(SEED).sample(sorted(set(REPAIRS) - SLOW), 2)


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    """Processes that the programs of this file share, so that each imports JAX once."""
    shared = Places()
    yield shared
    shared.close()


def verdicts(name: str, kind: str, places: Places) -> Iterator[tuple[str, Judgement]]:
    """Judge each repair of a kind."""
    exercise = all_exercises()[name]
    for number, edits in enumerate(REPAIRS[name][kind]):
        program = edited_program(exercise.program, edits)
        yield f"{name} {kind} {number}", judge_program(exercise, program, places, SEED + number)


def check_all(name: str, places: Places) -> None:
    """Judge the program as it is given, its solution, and each repair that the tests know."""
    exercise = all_exercises()[name]
    assert not judge_program(exercise, exercise.program, places, SEED).solved, f"{name} as given"
    solved = judge_program(exercise, exercise.solution, places, SEED)
    assert solved.solved, (f"{name} solution", wrong(solved))
    for what, found in verdicts(name, "right", places):
        assert found.solved, (what, wrong(found))
    for what, found in verdicts(name, "wrong", places):
        assert not found.solved, what


def wrong(found: Judgement) -> list[tuple[str, str]]:
    """Return what was tried and is wrong."""
    return [(each.tried, each.seen) for each in found.observations if not each.right]


def test_each_exercise_has_repairs() -> None:
    """For each exercise the tests know three right repairs, the solution among them, and three that
    are half or that cheat; each differs from all others."""
    assert sorted(REPAIRS) == sorted(all_exercises())
    for name, kinds in REPAIRS.items():
        exercise = all_exercises()[name]
        edits = [*kinds["right"], *kinds["wrong"], exercise.edits]
        programs = {edited_program(exercise.program, each) for each in edits}
        assert len(programs | {exercise.program}) == len(edits) + 1, name
        assert len(kinds["right"]) >= 2, name
        assert len(kinds["wrong"]) >= 3, name


@pytest.mark.parametrize("name", SAMPLE)
def test_a_judge_tells_right_from_wrong(name: str, places: Places) -> None:
    """The program as given and each half or cheating repair fail; the solution and each right
    repair pass. The seed draws two of the exercises."""
    check_all(name, places)


@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(set(REPAIRS) - {*SAMPLE}))
def test_each_judge_tells_right_from_wrong(name: str, places: Places) -> None:
    """The same for each of the other exercises."""
    check_all(name, places)
