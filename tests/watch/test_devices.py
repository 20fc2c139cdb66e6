"""What is recorded on eight devices, which a process of its own has."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

SCRIPTS = ("mapped", "moved", "replicated", "constrained")


@pytest.fixture(scope="module")
def facts() -> Any:
    """What the process said."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-m", "tests.watch.eight_devices"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_execution_is_recorded_once(facts: Any, name: str) -> None:
    """On several devices too the runtime counts what is recorded, whichever way a call goes."""
    found = facts["scripts"][name]
    assert found["executions"] > 0
    assert {found[f"{way} calls"] for way in ("fast", "again", "slow")} == {found["executions"]}
    assert (found["fast stays"], found["slow stays"]) == (True, False)


@pytest.mark.parametrize("name", SCRIPTS)
def test_two_records_agree(facts: Any, name: str) -> None:
    """So do those of two runs, and of both ways; and no bit of the script has changed."""
    found = facts["scripts"][name]
    assert [found["again"], found["slow"]] == [["same", []]] * 2
    assert all(found[f"{way} is plain"] for way in ("fast", "again", "slow"))


def test_parts_and_replicas(facts: Any) -> None:
    """An array has one fingerprint, on one device, in parts on several, or on each as a whole."""
    assert len(facts["arrays"]["fingerprints"]) == 7
    assert len(set(facts["arrays"]["fingerprints"])) == 1


def test_replicas_that_differ(facts: Any) -> None:
    """Devices that hold other bits of the same array are found out."""
    assert facts["arrays"]["unlike"] == [False, True]
