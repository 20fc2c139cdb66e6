"""The table of kinds of state: its judge sees what is wrong, and the page shows what was found."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.faults import states
from tests.faults.kinds import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "kinds_of_state.md"


def test_the_page_shows_what_was_found() -> None:
    """Every kind stands on the page with all four tools, and no cell is silent or a crash."""
    found = json.loads(states.RESULTS.read_text("utf-8"))
    assert list(found) == list(KINDS)
    assert len(found) >= 30
    assert PAGE.read_text("utf-8").partition(states.HEADING)[2] == states.table(found) + "\n"
    cells = [cell for row in found.values() for cell in row["cells"].values()]
    assert {cell.partition(":")[0] for cell in cells} == {"works", "refused"}
    assert all(row["right"] for row in found.values())


@pytest.mark.parametrize(
    ("cell", "words", "right"),
    [
        ("works", None, True),
        ("refused: Cannot digest a text.", None, False),
        ("refused: Cannot digest a text.", "a text", True),
        ("refused: Cannot digest a text.", "a number", False),
        ("works", "a text", False),
        ("failed: TypeError: a text", "a text", False),
        ("silent: the resumed run is another", None, False),
    ],
)
def test_what_is_right(cell: str, words: str | None, right: bool) -> None:
    """A cell is right if the tool works where it should, or refuses in the expected words."""
    assert states._is_right(cell, words) is right


def test_the_judge_sees_what_is_beside_the_bits() -> None:
    """Bits, dtypes, weak types and structure each make another state to the judge."""
    trees = [
        {"w": jnp.zeros(2)},
        {"w": -jnp.zeros(2)},
        {"w": jnp.zeros(2, jnp.int32)},
        {"w": [jnp.zeros(2)]},
        {"w": jnp.asarray(0.0)},
        {"w": jnp.float32(0)},
        {"w": jax.random.key(0)},
        {"w": jax.random.key(1)},
        {"w": np.int64(3)},
    ]
    assert len({states._judged(tree) for tree in trees}) == len(trees)
