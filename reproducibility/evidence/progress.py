"""What an interrupted audit has done already, so that the same command goes on.

The rule: it is kept at the auditor's, never beside what is audited, and only until the verdict.
Chapter: docs/guide/verification.md
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from reproducibility.errors import RunError, RunSaveError
from reproducibility.evidence.chosen import Part
from reproducibility.reference.run import ATTEMPTS
from reproducibility.storage.files import (
    canonical_json,
    read_with_digest,
    sha256,
    with_digest,
    write_atomically,
)


class Kept:
    """The stretches that were computed again and agreed, of one audit of one run.

    Args:
        run: the run directory.
        root: of the commitment to all that it holds.
        request: what was asked for.
    """

    def __init__(self, run: Path, root: str, request: str) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        attempts = sha256((run / ATTEMPTS).read_bytes())  # no part of a commitment
        words = [root, request, attempts, str(run.resolve())]
        name = f"{sha256(canonical_json(words))}.json"
        self._path = Path(home, "reproducibility", "audits", name)
        self._challenge: str | None = None
        self.done: dict[str, int] = {}
        """How many lines were compared, by stretch."""
        with contextlib.suppress(RunError, OSError, LookupError):
            found = read_with_digest(self._path)
            self._challenge, self.done = found["challenge"], dict(found["done"])

    def challenge(self, fresh: str) -> str:
        """Return the challenge that was drawn when the audit began.

        Same bits: everywhere.

        Args:
            fresh: one for an audit that begins now.
        """
        self._challenge = self._challenge or fresh
        return self._challenge

    def note(self, part: Part, lines: int) -> None:
        """Keep that a stretch agrees; where that cannot be written, it is computed once more.

        Args:
            part: the stretch.
            lines: how many lines were compared.
        """
        self.done[str(part)] = lines
        body: dict[str, Any] = {"challenge": self._challenge, "done": self.done}
        with contextlib.suppress(RunSaveError, OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, canonical_json(with_digest(body)))

    def forget(self) -> None:
        """Remove what was kept: the verdict is known."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
