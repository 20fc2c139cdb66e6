"""The package in a project of its own: a wheel, an empty environment, the recipe of the site."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOME, TESTING = ROOT / "docs" / "index.md", ROOT / "docs" / "guide" / "testing_your_code.md"
BIN = Path(sys.executable).parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
WHEEL = f"reproducibility-{VERSION}-py3-none-any.whl"
A_TEST = """
import jax, jax.numpy as jnp, optax
from reproducibility.testing import assert_reproducible

def train():
    params, optimiser = jnp.ones(3), optax.adam(0.1)
    state = optimiser.init(params)
    for _ in range(3):
        updates, state = optimiser.update(jax.grad(lambda p: (p ** 2).sum())(params), state)
        params = optax.apply_updates(params, updates)
    return params

def test_it_repeats():
    assert_reproducible(train)
"""


def shell(command: str, folder: Path, **variables: str) -> str:
    """Run a command line as a person would, with the project's uv; return what it printed."""
    path = f"{variables.pop('PATH', '')}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "VIRTUAL_ENV": str(folder / ".venv")} | variables
    done = subprocess.run(
        ["sh", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def blocks(page: Path, kind: str) -> list[str]:
    """Return the blocks of a kind on a page."""
    return re.findall(rf"^```{kind}[^\n]*\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as `make wheel` builds it."""
    folder = tmp_path_factory.mktemp("dist")
    make = (ROOT / "Makefile").read_text("utf-8")
    line = re.search(r"^\t\$\(BIN\)/(uv build .*)--out-dir dist$", make, re.M)
    assert line
    words = line[1].replace("$(BIN)", str(BIN))
    shell(f"{BIN}/{words} --out-dir {folder}", ROOT)
    return folder / WHEEL


def test_the_wheel_has_all_of_the_package(wheel: Path) -> None:
    """No module, style or stub is left out, and nothing of the tests or tools is in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = ROOT / "reproducibility"
    files = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == files


def test_pages_name_the_wheel_that_is_built() -> None:
    """Who copies a line has the version of today."""
    pages = [HOME, ROOT / "README.md"]
    named = {
        name for page in pages for name in re.findall(r"[\w.-]+\.whl", page.read_text("utf-8"))
    }
    assert named == {WHEEL}


@pytest.mark.long
@pytest.mark.nightly
def test_a_project_of_its_own_installs_and_tests(wheel: Path, tmp_path: Path) -> None:
    """Every line of the home page and of the workflow works, outside of the repository."""
    clone = tmp_path / "reproducibility" / "dist"
    clone.mkdir(parents=True)
    (clone / WHEEL).symlink_to(wheel)
    project = tmp_path / "project"
    (project / "tests").mkdir(parents=True)
    (project / "tests" / "test_training.py").write_text(A_TEST)
    subprocess.run([sys.executable, "-m", "venv", project / ".venv"], check=True)
    recipe = next(block for block in blocks(HOME, "console") if "--generate-hashes" in block)
    path = f"{project / '.venv' / 'bin'}:{BIN}"  # its pip, and uv of the project
    index = f". {ROOT}/tools/index.sh; cd {project}; " if (ROOT / ".venv").exists() else ""
    shell(f"cd {ROOT}; {index}{recipe}", project, PATH=path)
    hashed = (project / "requirements.txt").read_text("utf-8")
    assert re.search(rf"{re.escape(WHEEL)}.*\\\n +--hash=sha256:", hashed)
    runs = re.findall(r"^ +- run: (.*?)(?:  #.*)?$", blocks(TESTING, "yaml")[0], re.M)
    assert [run.partition(" ")[0] for run in runs] == ["pip", "python", "reproducibility"]
    for run in runs[1:]:
        shell(run, project, PATH=str(project / ".venv" / "bin"))
    where = shell("python -c 'import reproducibility as r; print(r.__file__)'", project, PATH=path)
    assert where.startswith(str(project))
