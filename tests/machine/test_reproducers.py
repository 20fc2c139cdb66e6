"""Promises of `reproducibility.machine.reproducers`."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reproducibility.machine import reproducers
from reproducibility.machine.faults import FAULTS
from reproducibility.machine.reproducers import Computed

# In a process with eight devices, which some of the programs need: what each computes is judged as
# it is and with its last element spoiled.
SPOILED = """
import dataclasses, json
import numpy as np
from reproducibility.machine import faults, reproducers

reproducers.CHUNK = 16
found = {}
for fault in faults.FAULTS:
    found[fault.name] = told = []
    for computed in fault.reproduce(2):
        got = np.array(computed.got)
        got.flat[-1] += 1 + np.max(np.abs(computed.right))
        told.append([computed.problem(), dataclasses.replace(computed, got=got).problem()])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def spoiled() -> dict[str, list[list[str | None]]]:
    """Judge what each program computes on this CPU, and the same with an element spoiled."""
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", SPOILED],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[list[str | None]]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS])
def test_a_spoiled_element_is_noticed(
    name: str, spoiled: dict[str, list[list[str | None]]]
) -> None:
    """Whatever a program computes: with one wrong element the judge says so, and which."""
    assert spoiled[name]
    for _, told in spoiled[name]:
        assert told is not None
        assert "wrong, first at" in told


def test_every_program_belongs_to_a_fault() -> None:
    """The table uses each program once, and there are no others."""
    public = {
        name
        for name, thing in vars(reproducers).items()
        if getattr(thing, "__module__", "") == reproducers.__name__
        and callable(thing)
        and not name.startswith("_")
    }
    assert sorted(f.reproduce.__name__ for f in FAULTS) == sorted(public - {"Computed"})


def test_the_judge_sees_one_unit_in_the_last_place() -> None:
    """Without a tolerance one bit of one element is wrong; equal arrays are not."""
    right = np.arange(6.0).reshape(2, 3)
    got = right.copy()
    assert Computed("x", got, right).problem() is None
    got[1, 2] = np.nextafter(got[1, 2], math.inf)
    told = Computed("x", got, right).problem()
    assert told is not None
    assert told.startswith("x: 1 of 6 wrong, first at (1, 2): 5.00000")


@pytest.mark.parametrize(
    ("error", "noticed"), [(0.9e-3, False), (1.1e-3, True), (math.nan, True), (math.inf, True)]
)
def test_a_tolerance_is_a_part_of_the_largest_value(error: float, noticed: bool) -> None:
    """An error is measured by the largest value that is right; NaN and infinity are never near."""
    right = np.array([0.001, -10.0])
    computed = Computed("x", right + np.array([10 * error, 0]), right, 1e-3)
    assert (computed.problem() is not None) == noticed


def test_another_shape_is_wrong() -> None:
    """An array that broadcasts to the right one is not the right one."""
    told = Computed("x", np.ones(1), np.ones(3)).problem()
    assert told == "x: shape (1,) instead of (3,)"


def test_a_nan_that_is_right_is_refused_as_well() -> None:
    """No program has NaN as its right result: such a one would be wrong, not passed over."""
    assert Computed("x", np.array([math.nan]), np.array([math.nan])).problem() is not None


def test_what_is_wrong_is_written_as_what_is_right_is() -> None:
    """Beside an integer stands an integer, if it is one; a float beside a float."""
    for got, right, told in (
        (1.0, 17, "1 instead of 17"),
        (1.5, 17, "1.5 instead of 17"),
        (math.inf, 17, "inf instead of 17"),
        (1.0, 17.0, "1.0 instead of 17.0"),
    ):
        problem = Computed("x", np.array(got), np.array(right)).problem()
        assert problem is not None
        assert problem.endswith(told)


def test_processes_of_a_program_import_nothing_that_lies_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tempfile.py in the directory of a process is not what its own processes import."""
    Path(tmp_path, "tempfile.py").write_text("raise RuntimeError('planted')")
    monkeypatch.chdir(tmp_path)
    program = "import tempfile; print(float(1).hex())"
    sums = [float(computed.got) for computed in reproducers.compiled_elsewhere(1, program)]
    assert sums == [1.0, 1.0]
