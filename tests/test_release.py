"""The release workflow publishes what a tag names, keeps no secret, and asks for little."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RELEASE = ROOT / ".github" / "workflows" / "release.yml"
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
VERSION = tomllib.loads(PROJECT)["project"]["version"]
TRUSTED = {"pypa/gh-action-pypi-publish@release/v1"}  # as its authors ask for


def jobs() -> dict[str, Any]:
    """The jobs of the release workflow."""
    found: dict[str, Any] = yaml.safe_load(RELEASE.read_text("utf-8"))["jobs"]
    return found


def step(name: str) -> str:
    """The commands of a step of the job that builds."""
    [found] = [it["run"] for it in jobs()["build"]["steps"] if it.get("name") == name]
    return str(found)


def run(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a step as the workflow does, in a folder with the project's settings."""
    (folder / "pyproject.toml").write_text(PROJECT, "utf-8")
    return subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_uses_actions_of_a_version(path: Path) -> None:
    """Each action has a version, and comes from GitHub or is one of those that we chose."""
    used = re.findall(r"uses: (\S+)", path.read_text("utf-8"))
    assert used
    foreign = [it for it in used if not re.fullmatch(r"actions/[\w-]+@v\d+", it)]
    assert set(foreign) <= TRUSTED
    assert "secrets." not in path.read_text("utf-8")


def test_only_a_tag_named_as_the_version_is_released(tmp_path: Path) -> None:
    """The workflow runs for tags alone, and ends where the tag is not the version, with both."""
    triggers = yaml.load(RELEASE.read_text("utf-8"), yaml.BaseLoader)["on"]
    assert list(triggers) == ["push"]
    assert list(triggers["push"]) == ["tags"]
    command = step("The tag is the version")
    assert run(command, tmp_path, GITHUB_REF_NAME=VERSION).returncode == 0
    for other in (f"v{VERSION}", f"{VERSION}.1", ""):
        refused = run(command, tmp_path, GITHUB_REF_NAME=other)
        assert refused.returncode == 1
        assert f"The tag is {other}, the version in pyproject.toml is {VERSION}." in refused.stdout


def test_the_name_on_the_index_is_a_setting(tmp_path: Path) -> None:
    """The setting changes the name of the project and nothing else; without it nothing is sent."""
    assert run(step("The name on the index"), tmp_path, INDEX_NAME="some-name").returncode == 0
    renamed = tomllib.loads((tmp_path / "pyproject.toml").read_text("utf-8"))
    project = tomllib.loads(PROJECT)
    assert renamed["project"].pop("name") == "some-name"
    assert project["project"].pop("name") == "reproducibility"
    assert renamed == project
    assert jobs()["publish"]["if"] == "vars.INDEX_NAME != ''"


def test_each_job_may_do_what_it_needs_and_no_more() -> None:
    """Only the job that publishes has the index's trust, and it runs nothing of this repository."""
    build, publish = jobs()["build"], jobs()["publish"]
    assert build["permissions"] == {
        "contents": "read",
        "id-token": "write",
        "attestations": "write",
    }
    assert "environment" not in build
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == {"name": "index"}
    assert publish["needs"] == "build"
    assert [it["uses"].partition("@")[0] for it in publish["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]


def test_a_release_is_built_as_the_wheel_is() -> None:
    """`make release` has the line of `make wheel`, for the source archive as well."""
    make = (ROOT / "Makefile").read_text("utf-8")
    wheel, release = re.findall(r"^\t\$\(BIN\)/uv build (.*) --out-dir dist$", make, re.MULTILINE)
    assert release == wheel.replace("--wheel ", "")
    assert {"run": "make release"} in jobs()["build"]["steps"]
