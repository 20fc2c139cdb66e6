"""What was recorded becomes lines, once its fingerprints are fetched.

The rule: copies on several devices that differ are refused; how much of each leaf a line holds is
decided once for a ledger.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from reproducibility.errors import LeafError
from reproducibility.recording.lines import Header
from reproducibility.recording.losses import LOSSES, loss_texts_of
from reproducibility.recording.step_words import (
    JoinedFingerprints,
    LeafKinds,
    StepFingerprints,
)
from reproducibility.same.fingerprint import combined_words
from reproducibility.same.leaves import may_share_memory

FEW_LEAVES = 16  # leaves of the parameters, up to which "auto" records each in full

type Line = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Steps that were recorded in one call, to be written."""

    steps: tuple[int, ...]
    loss: Any
    """Losses that the host has, one for each member, each as a text; else None."""
    found: StepFingerprints | JoinedFingerprints


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
        if self._level == "auto":
            self._level = _level_for(recorded[0].found.leaves)
        lines: list[list[tuple[Header, Line]]] = [[] for _ in range(self._members)]
        for alike, words in _fetched(recorded, self._members):
            self._add(lines, alike, words)
        return lines

    def _add(
        self, lines: list[list[tuple[Header, Line]]], alike: Sequence[Recorded], words: Any
    ) -> None:
        """Add the lines of steps of one form, from all of their words."""
        found = alike[0].found
        steps = [step for each in alike for step in each.steps]
        for member, (its, rows) in enumerate(zip(lines, words, strict=True)):
            stages = self._texts(rows, found.leaves)
            losses = (
                [each.loss[member] for each in alike]
                if alike[0].loss
                else loss_texts_of(rows, found.loss)
            )
            for number, step in enumerate(steps):
                line: Line = {"step": step}
                line |= {} if losses is None else {"loss": losses[number]}
                line |= {stage: texts[number] for stage, texts in stages.items()}
                its.append((self._header(step, found.leaves), line))

    def _texts(self, words: Any, kinds: LeafKinds) -> dict[str, list[str]]:
        """Write the fingerprints of steps, by stage, one after the other."""
        texts, at = {}, 0
        for stage, leaves in kinds:
            of_stage, at = words[:, at : at + len(leaves)], at + len(leaves)
            if self._level == "leaf":
                texts[stage] = _hexadecimal(of_stage, ">u4")
                continue
            texts[stage] = _hexadecimal(combined_words(of_stage), ">u4")
            if self._level == "brief":
                brief = _hexadecimal(of_stage[..., 0] >> 16, ">u2")
                texts[stage] = [a + b for a, b in zip(texts[stage], brief, strict=True)]
        return texts

    def _header(self, step: int, kinds: LeafKinds) -> Header:
        header = self._headers.get(kinds)
        if header is None:
            leaves = {stage: [name for name, _ in named] for stage, named in kinds}
            header = self._headers[kinds] = Header("", self._level, self._every, step, leaves)
        return header


def _hexadecimal(words: Any, kind: str) -> list[str]:
    """Write the words of each step as hexadecimal digits, end to end."""
    digits = words.astype(kind).tobytes().hex()
    size = len(digits) // len(words)
    return [digits[at : at + size] for at in range(0, size * len(words), size or 1)] or [""] * len(
        words
    )


def _fetched(
    recorded: Sequence[Recorded], members: int
) -> Iterator[tuple[list[Recorded], np.ndarray[Any, Any]]]:
    """Fetch what was recorded; yield what has one form together, with the words of each member."""
    fetched = _fetch_all([each.found.words for each in recorded])
    pairs = zip(recorded, fetched, strict=True)
    for _, group in itertools.groupby(pairs, key=lambda pair: _form(pair[0])):
        alike, arrays = zip(*group, strict=True)
        found = alike[0].found
        if isinstance(found, JoinedFingerprints):
            yield list(alike), found.in_order(np.stack(arrays))[None]
            continue
        rows = [
            words.reshape(members, len(each.steps), *words.shape[-2:])
            for each, words in zip(alike, arrays, strict=True)
        ]
        yield list(alike), np.concatenate(rows, axis=1)


def _form(recorded: Recorded) -> Any:
    """Return what is equal for steps whose words lie in the same order."""
    found = recorded.found
    columns = found.columns if isinstance(found, JoinedFingerprints) else None
    return (found.leaves, found.loss, columns, bool(recorded.loss))


def _fetch_all(arrays: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
    """Fetch arrays: all at once, where that is quicker than one after the other."""
    if arrays and not may_share_memory(arrays[0]):  # on a CPU they are there
        for array in arrays:
            array.copy_to_host_async()
    return [np.asarray(array) for array in arrays]


def _refuse_other_copies(recorded: Recorded) -> None:
    """Refuse a step of which the copies on several devices have other fingerprints.

    Each device computes them from the copy that it has.
    """
    found = recorded.found
    kept: dict[str, Any] = {}
    if isinstance(found, JoinedFingerprints) or found.words.sharding.num_devices == 1:
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
