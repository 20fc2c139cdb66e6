"""Pairs of versions of scripts: the call that differs is named, and the same is called so."""

from pathlib import Path

import pytest

from tests.script.commit_pairs import PAIRS, CommitPair, compared, recorded

CODES = {"same": 0, "different": 1}
IN_EACH_RUN = ("functions are renamed", "another learning rate in a function of another name")
NIGHTLY = (pytest.mark.long, pytest.mark.nightly)


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(pair, marks=pytest.mark.long if pair.name in IN_EACH_RUN else NIGHTLY)
        for pair in PAIRS
    ],
    ids=[pair.name.replace(" ", "_") for pair in PAIRS],
)
def test_what_is_right_is_said(pair: CommitPair, tmp_path: Path) -> None:
    """The verdict is that of the digests which the scripts print, and the right call is named."""
    one, other = recorded(pair, tmp_path)
    trained = pair.verdict == "same" if pair.trained is None else pair.trained
    assert (one == other) == trained, "the table is wrong"
    code, found = compared(tmp_path)
    assert pair.judged(found) == []
    assert code == CODES[pair.verdict]
