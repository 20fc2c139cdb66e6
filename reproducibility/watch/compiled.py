"""What is known of a program that JAX has compiled.

The rule: the text of a program is kept as a digest, with and without the numbers written in it.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any


class Compiled:
    """What is known of a compiled program."""

    __slots__ = (
        *("arguments", "constants", "kept", "mutable", "name", "plan", "results", "shapes"),
        *("draws", "effects", "execution", "heard", "loaded", "text", "where"),
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = self.constants = self.where = ""
        self.arguments: tuple[str, ...] = ()
        self.results: tuple[str, ...] = ()
        self.shapes: tuple[str, ...] = ()  # of its arguments, those that it drops included
        self.kept: tuple[int, ...] | None = None
        self.mutable: tuple[Any, ...] = ()
        self.plan: Any = None  # how its results are fingerprinted
        self.loaded: Any = None  # what XLA made of it
        self.execution: Any = None  # what executes that in JAX
        self.draws: Any = None  # what it draws, if someone looked
        self.effects: str | None = None  # what it does besides computing, if that is known
        # Makes the host's functions that it calls ones that are heard.
        self.heard: Callable[[Any], Any] | None = None


_EFFECT = re.compile(r'stablehlo\.(rng|infeed|outfeed|send|recv)[ "]|has_side_effect = true')
_EFFECTS = {
    "rng": "they draw from a generator of the device",
    None: "they do more than compute",
}


def effects_in(text: str) -> str:
    """Return what a program does besides computing its results, by its StableHLO; or nothing."""
    found = _EFFECT.search(text)
    return _EFFECTS.get(found[1], "they exchange data with the host") if found else ""


def without_constants(text: str) -> str:
    """Return a program's StableHLO without the numbers that are written in it."""
    text, _, _ = text.partition("\n{-#")  # where large ones stand
    return re.sub(r"dense(_resource)?<[^>]*>", "dense", text)


def digest_of(text: str) -> str:
    """Return the digest of a program's text."""
    return hashlib.sha256(text.encode()).hexdigest()
