"""Values that leave JAX for the host: which array the script reads, and in which line.

The rule: what JAX reads for itself does not count. That NumPy reads an array's memory on a CPU is
not seen, for it asks nobody.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from .source import JAX, owner_of

# Methods of an array that hand out what is in it.
HANDS_OUT = (
    *("__float__", "__int__", "__bool__", "__complex__", "__index__", "__array__"),
    *("tolist", "item"),
)
FOR_THE_SCRIPT = ("_device_get", "device_get")  # functions of JAX that read for their caller


class Values:
    """The methods of JAX's arrays that are watched."""

    def __init__(self, left: Callable[[Any, Any], None]) -> None:
        self._left = left
        self._originals: list[tuple[Any, str, Any]] = []

    def watch(self, kind: type) -> None:
        """Have `left(array, frame)` called whenever an array of a class is read."""
        for name in HANDS_OUT if not self._originals else ():
            original = vars(kind).get(name)
            if callable(original):
                self._originals.append((kind, name, original))
                setattr(kind, name, self._told(original))

    def restore(self) -> None:
        """Leave the class as it was."""
        while self._originals:
            kind, name, original = self._originals.pop()
            setattr(kind, name, original)

    def _told(self, original: Any) -> Any:
        left = self._left

        @functools.wraps(original)
        def reading(array: Any, *arguments: Any, **named: Any) -> Any:
            frame = sys._getframe(1)
            if owner_of(frame.f_code) != JAX or frame.f_code.co_name in FOR_THE_SCRIPT:
                left(array, frame)
            return original(array, *arguments, **named)

        return reading
