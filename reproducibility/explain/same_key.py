"""Draws of a traced call that use one key, and are therefore not independent.

The rule: two draws count if the words of their keys are equal, whatever these were derived from.
What is computed again for a gradient draws what it drew before, and counts once; and so does what
JAX draws twice inside of a function of its own, as `poisson` does, which uses one of the two.
Chapter: docs/guide/trace.md

`split(key)[i]` is `fold_in(key, i)`, and a key that a loop does not change is the key of each turn:
each operation is run with its values, so nothing has to be derived.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

DRAWING = ("random_bits", "random_gamma")  # the operations that draw; others derive keys
_JAX = str(Path(jax.__file__).parent)


@dataclasses.dataclass(frozen=True)
class SameKeyDraws:
    """Two operations that draw from one key."""

    first: str
    """The operation that drew first, with its source line."""
    then: str
    """The one that drew from the same key after it."""
    times: int = 1
    """How often these two lines do so, in all turns of all loops."""

    def __str__(self) -> str:
        more = f", and {self.times - 1} times more" if self.times > 1 else ""
        return f"{self.then} draws from the key of {self.first}{more}"


class _DrawFrom(NamedTuple):
    key: bytes
    kind: str
    operation: int
    again: bool


class Within(NamedTuple):
    """What an operation is within that counts for its draws."""

    again: bool = False
    """Whether it is computed a second time, for a gradient."""
    of_jax: int | None = None
    """The number of the call of a function of JAX's own, such as `jax.random.poisson`."""

    def call(self, params: dict[str, Any], called: Any, number: int) -> Within:
        """Return what is within a call.

        Args:
            params: Of its equation.
            called: The program that it calls.
            number: That is no other call's.
        """
        about = getattr(getattr(called, "jaxpr", called), "debug_info", None)
        file = str(getattr(about, "func_src_info", "")).rpartition(" at ")[2]
        of_jax = number if self.of_jax is None and file.startswith(_JAX) else self.of_jax
        return Within(self.again or bool(params.get("differentiated")), of_jax)


class KeysDrawnFrom:
    """The keys that operations draw from, in the order in which they run."""

    def __init__(self) -> None:
        self._draws: list[_DrawFrom] = []
        self._of_jax: set[Any] = set()

    def note(
        self, kind: str, keys: Any, operation: int, within: Within, *, on_devices: bool
    ) -> None:
        """Note the keys that an operation draws from.

        Args:
            kind: Its name.
            keys: Typed keys.
            operation: Its number.
            within: What it is within.
            on_devices: Whether they are those of several devices, of which some do the same.
        """
        words = np.asarray(jax.random.key_data(keys))
        kind = f"{kind} {jax.random.key_impl(keys)}"  # words of another kind are another key
        rows = [row.tobytes() for row in words.reshape(-1, words.shape[-1])]
        if within.of_jax is not None:
            seen = {row for row in rows if (row, kind, within.of_jax) in self._of_jax}
            rows = [row for row in rows if row not in seen]
            self._of_jax |= {(row, kind, within.of_jax) for row in rows}
        for row in dict.fromkeys(rows) if on_devices else rows:
            self._draws.append(_DrawFrom(row, kind, operation, within.again))

    def twice(self, operations: Sequence[Any]) -> tuple[SameKeyDraws, ...]:
        """Return the draws that use a key that was drawn from before, once for each two lines.

        Args:
            operations: All, each with `where` it stands in the source.
        """
        drawn = {
            (each.key, operations[each.operation].where) for each in self._draws if not each.again
        }
        first: dict[tuple[bytes, str], Any] = {}
        pairs: dict[tuple[str, str], SameKeyDraws] = {}
        for key, kind, number, again in self._draws:
            then = operations[number]
            if again and (key, then.where) in drawn:
                continue
            if (key, kind) not in first:
                first[key, kind] = then
                continue
            before = first[key, kind]
            known = pairs.get((before.where, then.where))
            pairs[before.where, then.where] = (
                dataclasses.replace(known, times=known.times + 1)
                if known
                else SameKeyDraws(str(before), str(then))
            )
        return tuple(pairs.values())
