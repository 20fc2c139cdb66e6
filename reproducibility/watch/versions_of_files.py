"""Which files of the script's own were at work, and a digest of each: is it the same version?

The rule: what is installed is not the script's own; a file that changed while it ran has no digest.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from typing import Any

MOST_FILES = 1000
MOST_BYTES = 1 << 22  # of a file
CHANGED = "changed while it ran"


def file_of_script() -> str:
    """Return the script's own file; Python forgets it when the script has ended."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        return os.path.realpath(path) if isinstance(path, str) else ""
    except (OSError, ValueError):
        return ""


def versions_of_files(script: str, since: float) -> dict[str, str]:
    """Return a digest of the file of each module that is not installed, by the module's name.

    Args:
        script: the script's own file.
        since: when the process began; what was written later need not be what was run.
    """
    installed = tuple(
        os.path.realpath(path) + os.sep
        for name, path in sysconfig.get_paths().items()
        if name in ("stdlib", "platstdlib")
    )
    ours = os.path.dirname(os.path.abspath(__file__)) + os.sep
    found: dict[str, str] = {}
    files = {
        name: os.path.realpath(path)
        for name, module in sys.modules.copy().items()
        for path in [getattr(module, "__file__", None)]
        if name != "__main__" and isinstance(path, str) and path.endswith(".py")
    }
    if script:
        files[os.path.basename(script)] = script
    for name, path in sorted(files.items()):
        own = "site-packages" not in path and not path.startswith((*installed, ours))
        digest = _digest_of_file(path, since) if own and len(found) < MOST_FILES else ""
        if digest:
            found[name] = digest
    return found


def digest_of_source(data: bytes) -> str:
    """Return the digest of what is in a file.

    Args:
        data: all of it.
    """
    return hashlib.sha256(data).hexdigest()[:16]


def _digest_of_file(path: str, since: float) -> str:
    try:
        facts: Any = os.stat(path)
        if facts.st_size > MOST_BYTES:
            return ""
        if facts.st_mtime > since:
            return CHANGED
        with open(path, "rb") as file:
            return digest_of_source(file.read())
    except (OSError, ValueError):
        return ""
