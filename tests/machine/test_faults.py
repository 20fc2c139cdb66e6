"""Promises of `reproducibility.machine.faults`."""

import pytest

from reproducibility.machine.faults import FAULTS, Fault
from tests import planted


def fault(**more: object) -> Fault:
    """Make an entry of the table."""
    settings = {"name": "jax-1", "wrong": "w", "platforms": ("cpu",), "reproduce": planted.right}
    return Fault(**{**settings, "consequence": "so", "cure": "do", **more})


def test_there_are_a_dozen_and_each_has_its_issue() -> None:
    """At least twelve faults, under names of their own that lead to the issue."""
    names = [entry.name for entry in FAULTS]
    assert len(set(names)) == len(names) >= 12
    addresses = {entry.name: entry.source for entry in FAULTS}
    assert addresses["jax-39103"] == "https://github.com/jax-ml/jax/issues/39103"
    assert addresses["xla-8471"] == "https://github.com/openxla/xla/issues/8471"
    assert all(address.startswith("https://github.com/") for address in addresses.values())


@pytest.mark.parametrize("entry", FAULTS, ids=lambda entry: entry.name)
def test_an_entry_is_whole(entry: Fault) -> None:
    """Platforms are ones that JAX has; consequence and cure are one sentence each."""
    assert entry.platforms
    assert set(entry.platforms) <= {"cpu", "gpu", "tpu"}
    for sentence in (entry.consequence, entry.cure):
        assert sentence.endswith(".")
        assert sentence.count(". ") == 0
    assert not set(entry.wrong_in) & set(entry.right_in)


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("0.9.2", "reported for jax 0.9.2 to 0.10.2"),
        ("0.10.1", "reported for jax 0.9.2 to 0.10.2, which includes 0.10.1"),
        ("0.11.0.dev20260101", "reported for jax 0.9.2 to 0.10.2; this is 0.11.0.dev20260101"),
        ("0.10.2", "reported for jax 0.9.2 to 0.10.2"),
        ("0.9.1", "reported for jax 0.9.2 to 0.10.2; this is 0.9.1"),
        ("0.12.0.1", "measured to be right in 0.12.0.1"),
    ],
)
def test_versions_are_compared_as_numbers(version: str, told: str) -> None:
    """0.10 is newer than 0.9, and what was measured to be right is said to be."""
    entry = fault(wrong_in=("0.10.2", "0.9.2"), right_in=("0.12.0.1",))
    assert entry.reported(version) == told


def test_a_report_without_a_version_names_none() -> None:
    """Where the issue names no release, none is made up."""
    assert fault().reported("0.12.0") == "the report names no release; this is jax 0.12.0"
