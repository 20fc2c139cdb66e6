"""What was recorded becomes lines, once its fingerprints are fetched.

The rule: copies on several devices that differ are refused; how much of each leaf a line holds is
decided once for a ledger.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from reproducibility.errors import LeafError
from reproducibility.recording.lines import Header
from reproducibility.recording.losses import LOSSES, loss_text_of
from reproducibility.recording.step_words import LeafKinds, StepFingerprints
from reproducibility.same.fingerprint import combined_words

FEW_LEAVES = 16  # leaves of the parameters, up to which "auto" records each in full

type Line = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Steps that were recorded in one call, to be written."""

    steps: tuple[int, ...]
    loss: Any
    """Losses that the host has, one for each member, each as a text; else None."""
    found: StepFingerprints


class NewLines:
    """Makes the lines of one recorder.

    Args:
        level: "leaf", "brief", "group" or "auto".
        every: Steps from one line to the next.
        members: How many ledgers there are.
    """

    def __init__(self, level: str, every: int, members: int) -> None:
        self._level, self._every, self._members = level, every, members
        self._headers: dict[Any, Header] = {}  # one for each set of leaves

    def of(self, recorded: Sequence[Recorded]) -> list[list[tuple[Header, Line]]]:
        """Wait for fingerprints, and return the lines of each ledger.

        Args:
            recorded: Steps in order.

        Raises:
            LeafError: Copies of a leaf on several devices differ.
        """
        for each in recorded:
            _refuse_other_copies(each)
        fetched = jax.device_get([each.found for each in recorded])
        if self._level == "auto":
            self._level = _level_for(fetched[0].leaves)
        lines: list[list[tuple[Header, Line]]] = [[] for _ in range(self._members)]
        for each, found in zip(recorded, fetched, strict=True):
            self._add(lines, each, found)
        return lines

    def _add(
        self, lines: list[list[tuple[Header, Line]]], each: Recorded, found: StepFingerprints
    ) -> None:
        words = np.asarray(found.words)
        words = words.reshape(len(lines), len(each.steps), *words.shape[-2:])
        for member, its in enumerate(lines):
            for number, step in enumerate(each.steps):
                row = words[member, number]
                line: Line = {"step": step}
                loss = each.loss[member] if each.loss else loss_text_of(row, found.loss)
                line |= {} if loss is None else {"loss": loss}
                its.append((self._header(step, found.leaves), line | self._texts(row, found)))

    def _texts(self, words: Any, found: StepFingerprints) -> Line:
        """Write the fingerprints of a step as the stages of its line."""
        line, at = {}, 0
        for stage, leaves in found.leaves:
            of_stage, at = words[at : at + len(leaves)], at + len(leaves)
            if self._level == "leaf":
                line[stage] = of_stage.astype(">u4").tobytes().hex()
                continue
            line[stage] = combined_words(of_stage).astype(">u4").tobytes().hex()
            if self._level == "brief":
                line[stage] += (of_stage[:, 0] >> 16).astype(">u2").tobytes().hex()
        return line

    def _header(self, step: int, kinds: LeafKinds) -> Header:
        header = self._headers.get(kinds)
        if header is None:
            leaves = {stage: [name for name, _ in named] for stage, named in kinds}
            header = self._headers[kinds] = Header("", self._level, self._every, step, leaves)
        return header


def _refuse_other_copies(recorded: Recorded) -> None:
    """Refuse a step of which the copies on several devices have other fingerprints.

    Each device computes them from the copy that it has.
    """
    found = recorded.found
    kept: dict[str, Any] = {}
    if found.words.sharding.num_devices == 1:
        return
    for shard in found.words.addressable_shards:
        words = np.asarray(shard.data)
        first, device = kept.setdefault(str(shard.index), (words, shard.device))
        differ = np.argwhere((words != first).any(axis=-1))
        if differ.size:
            names = [f"leaf {name} of {stage}" for stage, many in found.leaves for name, _ in many]
            raise LeafError(
                "record",
                [*names, *["the loss"] * LOSSES][differ[0][-1]],
                step=recorded.steps[differ[0][-2] if len(recorded.steps) > 1 else 0],
                expected="copies with the same bits on all devices",
                got=f"other bits on {shard.device} than on {device}",
                do="Add or average over the devices where the program forgot to (psum, pmean).",
            )


def _level_for(kinds: LeafKinds) -> str:
    """Choose what a fingerprint is of, where that is left to us."""
    sizes = {stage: len(leaves) for stage, leaves in kinds}
    return "leaf" if sizes.get("params", sum(sizes.values())) <= FEW_LEAVES else "brief"
