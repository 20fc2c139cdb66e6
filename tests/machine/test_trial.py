"""Promises of `reproducibility.machine.trial`."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from reproducibility.machine.reproducers import Computed
from reproducibility.machine.trial import Task, answer, answer_file, judge

HERE = Task("jax-1", "tests.planted:right", ("cpu",), tries=2)


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        ({}, None),
        ({"platforms": ("gpu", "tpu")}, "this is cpu"),
        ({"prng": ("rbg",)}, "keys are threefry2x32 by default"),
        ({"flag": "--xla_some"}, "--xla_some is not in XLA_FLAGS"),
        ({"devices": 1000}, "it needs 1000 devices"),
    ],
)
def test_what_does_not_apply_says_why(change: dict[str, object], obstacle: str | None) -> None:
    """Platform, generator of keys, flag and devices each keep a task from being run."""
    task = dataclasses.replace(HERE, **change)
    assert task.obstacle() == obstacle
    assert answer(task).get("obstacle") == obstacle
    assert ("problems" in answer(task)) == (obstacle is None)


def test_a_setting_that_is_in_use_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the generator and the flag that a fault needs, it is asked about."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_other --xla_some=true")
    with jax.default_prng_impl("rbg"):
        assert dataclasses.replace(HERE, prng=("rbg",), flag="--xla_some").obstacle() is None


def test_one_wrong_part_of_several_is_kept() -> None:
    """Where two devices answer for one try, a right one does not hide a wrong one."""
    good, bad = Computed("a", np.ones(1), np.ones(1)), Computed("a", np.zeros(1), np.ones(1))
    for order in ([good, bad], [bad, good]):
        assert judge(order)["a"] is not None
    assert judge([good, good]) == {"a": None}


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("raising", "RuntimeError: planted"),
        ("empty", "ValueError: The reproducer computed nothing."),
        ("gone", "AttributeError: module 'tests.planted' has no attribute 'gone'"),
    ],
)
def test_a_program_that_fails_is_no_pass(function: str, error: str) -> None:
    """Failing, computing nothing and not being there are errors, whatever came before."""
    told = answer(dataclasses.replace(HERE, function=f"tests.planted:{function}"))
    assert told["error"] == error
    assert not any(told["problems"].values())


def test_answers_are_written_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was answered before a crash is on disk, whole."""

    class Crash(BaseException):
        """What no handler of the package catches."""

    def crash(tries: int) -> None:
        raise Crash

    monkeypatch.setattr("tests.planted.empty", crash)
    later = dataclasses.replace(HERE, name="jax-2", function="tests.planted:empty")
    file = tmp_path / "answers"
    with pytest.raises(Crash):
        answer_file([str(file), json.dumps([dataclasses.asdict(task) for task in (HERE, later)])])
    [line] = file.read_text().splitlines()
    assert json.loads(line)["problems"] == {"try 0": None, "try 1": None}
