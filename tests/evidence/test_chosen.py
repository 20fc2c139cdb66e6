"""Promises of `reproducibility.evidence.chosen`."""

import math
import random

import pytest

from reproducibility import ConfigError
from reproducibility.evidence.chosen import (
    Part,
    affordable,
    all_parts,
    chance_of_missing,
    drawn_parts,
    parts_over,
)

PARTS = all_parts([10, 20, 30, 100], 107)


def test_the_stretches_cover_the_run_once() -> None:
    """Each step is in one stretch, and what lies behind the last checkpoint has no seal."""
    assert PARTS == [(0, 10, 1), (10, 20, 1), (20, 30, 1), (30, 100, 1), (100, 107, 0)]
    assert all_parts([], 5) == [Part(0, 5, False)]
    assert all_parts([0, 5], 5) == [Part(0, 5, True)]
    assert all_parts([], 0) == []


def test_steps_that_are_asked_for_begin_with_their_checkpoint() -> None:
    """All stretches that hold a step of them, the last one cut off behind it."""
    assert parts_over(PARTS, 15, 25) == [(10, 20, 1), (20, 25, 0)]
    assert parts_over(PARTS, 20, 30) == [(20, 30, 1)]
    assert parts_over(PARTS, 0, 107) == PARTS
    with pytest.raises(ConfigError):
        parts_over(PARTS, 107, 108)


@pytest.mark.parametrize("altered", [1, 2])
@pytest.mark.parametrize("drawn", [1, 3, 4])
def test_the_stated_chance_of_a_miss_is_right(drawn: int, altered: int) -> None:
    """2,000 simulated audits miss as often as is stated, within 4.5 standard deviations."""
    rng, missed, audits = random.Random(f"{drawn} {altered}"), 0, 2000
    for number in range(audits):
        forged = set(rng.sample(PARTS, altered))
        found = drawn_parts(PARTS, drawn, f"{rng.getrandbits(256):064x}", f"challenge {number}")
        assert len(set(found)) == drawn
        missed += not forged & set(found)
    chance = chance_of_missing(drawn, len(PARTS), altered)
    spread = math.sqrt(audits * chance * (1 - chance))
    assert abs(missed - audits * chance) <= 4.5 * spread


def test_a_budget_counts_by_the_longest_stretches() -> None:
    """How many are drawn tells nothing of which: long stretches are drawn as often as short."""
    assert affordable(PARTS, 106, 1.0) == 5 - 1
    assert affordable(PARTS, 107, 1.0) == 5
    assert affordable(PARTS, 69, 1.0) == 0
    assert affordable(PARTS, 80, 1.0) == 2


def test_the_challenge_and_the_root_decide() -> None:
    """The same of both draw the same stretches, others draw others."""
    draws = {tuple(drawn_parts(PARTS, 2, "root", f"{n}")) for n in range(200)}
    assert len(draws) == math.comb(5, 2)
    assert drawn_parts(PARTS, 2, "root", "x") == drawn_parts(PARTS, 2, "root", "x")
    assert len({tuple(drawn_parts(PARTS, 2, f"{n}", "x")) for n in range(200)}) == math.comb(5, 2)
