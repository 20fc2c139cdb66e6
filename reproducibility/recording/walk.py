"""Two ledgers, read side by side: where they diverge, and how their losses go on.

The rule: what both hold decides; what only one holds is never the same.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import dataclasses
from collections import deque

from reproducibility.recording.ledger import Ledger
from reproducibility.recording.lines import (
    LOSS,
    Entry,
    differing,
    json_object,
    read_entry,
)
from reproducibility.storage.files import (
    BYTES_AT_ONCE,
    in_common,
)

_EMPTY_LINE = b'{"step":'  # so begins one that tells nothing: all fields come before the step
RECENT = 64  # losses to keep of the time before the two runs part
GROWTH = 1.03  # of the distance between two losses to keep after that


type Losses = list[tuple[int, str | None, str | None]]


@dataclasses.dataclass(frozen=True)
class LedgerDivergence:
    """Where two ledgers part: the first step with other lines, and what is other in it.

    Same bits: equal lines mean equal bits, up to collisions of fingerprints.
    """

    step: int
    """The first step, of those that both record, whose lines differ."""
    since: int
    """The step before it that both record; -1 if there is none. They part after it."""
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

    parting: LedgerDivergence | None
    """Where they part, if they do."""
    last: int
    """The last step of which both tell something in common, -1 if there is none."""
    losses: Losses
    """Losses of both, by step: the last before they part, and ever fewer after that."""
    problems: tuple[str | None, str | None]
    """What is wrong with the first line that cannot be trusted, on either side."""
    alone: frozenset[str] = frozenset()
    """What only one side holds of a step that both record, up to where they part."""


def walk_together(a: Ledger, b: Ledger) -> Walk:
    """Read two ledgers side by side, to the end of both.

    **Same bits:** everywhere, for the same files.

    Args:
        a: a ledger that was not read yet.
        b: another one.

    Returns:
        Where they part, and how their losses go on.
    """
    recent: deque[tuple[int, bytes, bytes]] = deque(maxlen=RECENT)
    a.at_once = b.at_once = BYTES_AT_ONCE
    last = -1
    for bodies in in_common(a.chain, b.chain):
        for step, body in a.take(bodies):
            recent.append((step, body, body))
            if body[: len(_EMPTY_LINE)] != _EMPTY_LINE:
                last = step
        if a.problem:
            break
    if a.chain.number:
        b.follow(a)
    if a.problem:
        return Walk(None, last, [], (a.problem, b.problem))
    parting, far = None, 0
    alone: set[str] = set()
    left, right = iter(a), iter(b)
    x, y = next(left, None), next(right, None)
    losses: Losses = []
    while x and y:
        step = x[0]
        if step < y[0]:
            x = next(left, None)
            continue
        if step > y[0]:
            y = next(right, None)
            continue
        told = not x[1].startswith(_EMPTY_LINE)
        if parting is None:
            recent.append((step, x[1], y[1]))
            if x[1] != y[1] or not a.header.reads_as(b.header):
                entries = read_entry(x[1], a.header), read_entry(y[1], b.header)
                alone |= entries[0].keys() ^ entries[1].keys()
                told = not entries[0].keys().isdisjoint(entries[1])
                parting, far = _parting(step, last, *entries), 1
        elif step - parting.step >= far:
            far = max(far + 1, int(far * GROWTH))
            losses.append((step, _loss(x[1]), _loss(y[1])))
        last = step if told else last  # nothing was compared where they hold nothing in common
        x, y = next(left, None), next(right, None)
    for rest in (left, right):
        deque(rest, maxlen=0)
    before = [(step, _loss(one), _loss(other)) for step, one, other in recent]
    problems = (a.problem, b.problem)
    return Walk(parting, last, before + losses, problems, frozenset(alone))


def _parting(step: int, since: int, a: Entry, b: Entry) -> LedgerDivergence | None:
    """Say in what two lines differ; None if they do in their form only."""
    stages = differing(a, b)
    if not stages:
        return None
    first = next(iter(stages))
    return LedgerDivergence(step, since, first, tuple(stages), stages[first])


def _loss(body: bytes) -> str | None:
    loss = json_object(body).get(LOSS)
    return loss if isinstance(loss, str) else None
