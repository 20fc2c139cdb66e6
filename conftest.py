"""Load the guard that runs the code blocks of the pages, and what its own tests need."""

import os
from zlib import crc32

import pytest

pytest_plugins = ["tools.guard.codeblocks", "pytester"]

# Labs are run by the site's build; importing one here would run it during collection.
# The programs of the exercises are wrong on purpose.
collect_ignore_glob = [
    "docs/labs/*",
    "site/*",
    "build/*",
    "reproducibility/exercise/programs/*",
]


def pytest_configure(config: pytest.Config) -> None:
    """Let JAX compile again where an entry of the cache that the Makefile sets is half written.

    JAX writes entries in place, and some tests kill the process that may be writing one. JAX
    notices (the entry does not decompress), and warns.
    """
    config.addinivalue_line(
        "filterwarnings", "ignore:Error (reading|writing) persistent compilation cache:UserWarning"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out two thirds of the long tests where THIRD says which to keep: `.ci/run` draws it.

    Each night has all of them.
    """
    third = os.environ.get("THIRD")
    if third is None:
        return

    def is_kept(item: pytest.Item) -> bool:
        return not item.get_closest_marker("long") or crc32(item.nodeid.encode()) % 3 == int(third)

    config.hook.pytest_deselected(items=[item for item in items if not is_kept(item)])
    items[:] = [item for item in items if is_kept(item)]
