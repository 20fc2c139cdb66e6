"""One small run that was trained once, and copies of it to forge."""

import contextlib
import shutil
from pathlib import Path

import pytest

from reproducibility import TrainConfig, train
from tests.conftest import SMALL

CONFIG = TrainConfig(seed=7, steps=12, checkpoint_every=4, **SMALL)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with checkpoints at 4, 8 and 12; nothing may change it."""
    folder = tmp_path_factory.mktemp("evidence")
    with contextlib.chdir(folder):  # in no repository
        train(CONFIG, run_dir=folder / "run")
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, for one test to change."""
    return shutil.copytree(finished, tmp_path / "run")
