"""What is recorded on eight devices, and in two processes: each in processes of their own."""

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

SCRIPTS = ("mapped", "moved", "replicated", "constrained", "in_a_mesh")


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


def test_memory_that_several_devices_share_with_numpy(facts: Any) -> None:
    """It is looked at at every use, on each of them."""
    assert facts["memory"] == ["overwritten", "2 inputs"]


@pytest.fixture(scope="module")
def two() -> Any:
    """What two processes said that compute together."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "tests.watch.two_processes", port]
    started = [
        subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(2)
    ]
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return [json.loads(text.splitlines()[-1]) for text in said]


def test_two_processes(two: Any) -> None:
    """Each has a record, two runs agree, and what lies in both has the same fingerprint in both."""
    assert [each["verdict"] for each in two] == [["same", []]] * 2
    assert two[0]["results"] == two[1]["results"]
    assert len({tuple(result) for result in two[0]["results"]}) == 4


def test_a_process_looks_at_its_own_parts(two: Any) -> None:
    """The fingerprints of the parts add up to that of the whole, though no process asks another."""
    whole = [each["prints"][0] for each in two]
    assert whole == [each["prints"][2] for each in two]
    parts = [each["prints"][1][0] for each in two]
    assert parts[0] == two[0]["prints"][3][0] != parts[1]
    lanes = [[int(part[i : i + 8], 16) for part in parts] for i in (0, 8)]
    assert "".join(f"{sum(lane) % 2**32:08x}" for lane in lanes) == whole[0][0]
