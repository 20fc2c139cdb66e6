"""Two ledgers, read side by side: where they diverge, and how their losses go on.

The rule: what both hold decides; what only one holds is never the same.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator

from reproducibility.recording.ledger import Ledger
from reproducibility.recording.lines import LOSS, STAGES, Entry, differing, json_object, read_entry
from reproducibility.storage.files import BYTES_AT_ONCE, in_common

_EMPTY_LINE = b'{"step":'  # so begins one that tells nothing: all fields come before the step
RECENT = 64  # losses to keep of the time before the two runs diverge
GROWTH = 1.03  # of the distance between two losses to keep after that


type Losses = list[tuple[int, str | None, str | None]]


@dataclasses.dataclass(frozen=True)
class LedgerDivergence:
    """Where two ledgers diverge: the first step with other lines, and what is other in it.

    Same bits: equal lines mean equal bits, up to collisions of fingerprints.
    """

    step: int
    """The first step, of those that both record, whose lines differ."""
    since: int
    """The step before it that both record; -1 if there is none. They diverge after it."""
    stage: str
    """The first stage that differs, in the order of cause and effect; or "loss", if only it."""
    stages: tuple[str, ...]
    """All stages that differ in that step."""
    leaves: tuple[str, ...]
    """The leaves of the first one that differ; none where one side records groups."""


@dataclasses.dataclass(frozen=True)
class Walk:
    """What reading two ledgers side by side comes to.

    Same bits: everywhere, for the same files.
    """

    divergence: LedgerDivergence | None
    """Where they diverge, if they do."""
    last: int
    """The last step of which both tell something in common, -1 if there is none."""
    losses: Losses
    """Losses of both, by step: the last before they diverge, and ever fewer after that."""
    problems: tuple[str | None, str | None]
    """What is wrong with the first line that cannot be trusted, on either side."""
    alone: frozenset[str] = frozenset()
    """What only one side holds of a step that both record, up to where they diverge."""
    missing: tuple[str, ...] = ()
    """Stages before the first that differs of which not both sides tell in that step."""


def walk_together(a: Ledger, b: Ledger) -> Walk:
    """Read two ledgers side by side, to the end of both.

    **Same bits:** everywhere, for the same files.

    Args:
        a: a ledger that was not read yet.
        b: another one.

    Returns:
        Where they diverge, and how their losses go on.
    """
    recent: deque[tuple[int, bytes, bytes]] = deque(maxlen=RECENT)
    later: Losses = []
    alone: set[str] = set()
    missing: tuple[str, ...] = ()
    divergence, last, gap = None, -1, 1
    for step, one, other in _steps_of_both(a, b):
        compared = not one.startswith(_EMPTY_LINE)
        if divergence is None:
            recent.append((step, one, other))
            if one != other or not a.header.reads_as(b.header):
                entries = read_entry(one, a.header), read_entry(other, b.header)
                alone |= entries[0].keys() ^ entries[1].keys()
                compared = not entries[0].keys().isdisjoint(entries[1])
                divergence = _divergence(step, last, *entries)
                missing = _missing(divergence, *entries)
        elif step - divergence.step >= gap:
            gap = max(gap + 1, int(gap * GROWTH))
            later.append((step, _loss(one), _loss(other)))
        last = step if compared else last  # nothing was where they hold nothing in common
    before = [(step, _loss(one), _loss(other)) for step, one, other in recent]
    return Walk(divergence, last, before + later, (a.problem, b.problem), frozenset(alone), missing)


def _steps_of_both(a: Ledger, b: Ledger) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield each step that both record, with both lines; read both ledgers to their end.

    As long as the two files are alike, only one of them is read and both stand there.
    """
    a.at_once = b.at_once = BYTES_AT_ONCE
    for bodies in in_common(a.chain, b.chain):
        for step, body in a.take(bodies):
            b.header = a.header
            yield step, body, body
        if a.problem:
            break
    if a.chain.number:
        b.follow(a)
    if a.problem:
        return
    left, right = iter(a), iter(b)
    x, y = next(left, None), next(right, None)
    while x and y:
        if x[0] == y[0]:
            yield *x, y[1]
        behind = x[0] <= y[0], y[0] <= x[0]
        x = next(left, None) if behind[0] else x
        y = next(right, None) if behind[1] else y
    for rest in (left, right):
        deque(rest, maxlen=0)


def _divergence(step: int, since: int, a: Entry, b: Entry) -> LedgerDivergence | None:
    """Say in what two lines differ; None if they do in their form only."""
    stages = differing(a, b)
    if not stages:
        return None
    first = next(iter(stages))
    return LedgerDivergence(step, since, first, tuple(stages), stages[first])


def _missing(divergence: LedgerDivergence | None, a: Entry, b: Entry) -> tuple[str, ...]:
    """Return the stages that stand before the first that differs, and that not both record."""
    if divergence is None or divergence.step == 0:  # the state before any step has no more
        return ()
    first = divergence.stage
    before = STAGES[: STAGES.index(first)] if first in STAGES else STAGES
    return tuple(stage for stage in before if not (stage in a and stage in b))


def _loss(body: bytes) -> str | None:
    loss = json_object(body).get(LOSS)
    return loss if isinstance(loss, str) else None
