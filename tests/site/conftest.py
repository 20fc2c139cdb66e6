"""The built site, for every test that looks at what a reader sees."""

from pathlib import Path

import pytest

from tests.building import ROOT, built_site


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def site() -> Path:
    """The site, as it is published."""
    return built_site()
