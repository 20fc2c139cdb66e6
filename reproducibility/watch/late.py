"""NumPy, from the moment on that it is needed: a script may set variables before it imports it.

The rule: `np` is NumPy, and stands for it until the script has imported it itself.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["np"]

if TYPE_CHECKING:
    import numpy as np
else:

    class _WhenNeeded:
        """Has what NumPy has, and imports it when it is asked."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(importlib.import_module("numpy"), name)
            setattr(self, name, found)
            return found

    np = _WhenNeeded()
