"""Promises of `reproducibility.recording.walk`: where two ledgers diverge."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reproducibility import compare
from reproducibility.recording.lines import STAGES
from tests.ledgers import LEAVES, STEPS, Line, line, lines, walked, write


def parted(a: Path, b: Path) -> tuple[Any, ...] | None:
    """Return where two ledgers part, the same in both directions."""
    one, other = walked(a, b), walked(b, a)
    assert one.divergence == other.divergence
    assert one.last == other.last
    return one.divergence and dataclasses.astuple(one.divergence)


def test_equal_ledgers_do_not_part(whole: Path, tmp_path: Path) -> None:
    """Equal steps do not part, of whatever level, frequency and length; the last common is told."""
    for number, settings in enumerate(
        [{}, {"level": "group"}, {"every": 3}, {"every": 2, "level": "group"}, {"last": 4}]
    ):
        other = tmp_path / str(number)
        write(other, lines(**settings))
        assert parted(whole, other) is None
        every = settings.get("every", 1)
        assert walked(whole, other).last == settings.get("last", STEPS - STEPS % every)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("levels", list(itertools.product(["leaf", "group"], repeat=2)))
def test_where_two_part(tmp_path: Path, levels: tuple[str, str], stage: str) -> None:
    """Step, stage and, where both record leaves, leaf of the first difference are named."""
    leaf = LEAVES[stage][-1]
    write(tmp_path / "a", lines(level=levels[0]))
    differs = [*lines(0, 3), line(4, levels[1], other=(stage, leaf)), *lines(5)]
    differs = [line(b["step"], levels[1]) if b["step"] != 4 else (h, b) for h, b in differs]
    write(tmp_path / "b", differs)
    leaves = (leaf,) if levels == ("leaf", "leaf") else ()
    assert parted(tmp_path / "a", tmp_path / "b") == (4, 3, stage, (stage,), leaves)


def test_a_range_where_not_every_step_is_recorded(tmp_path: Path) -> None:
    """With other frequencies the first common step is named, and the common one before it."""
    write(tmp_path / "a", lines(every=2, last=12))
    changed = [line(s, every=3, other=("params", "w") if s > 4 else ()) for s in range(0, 13, 3)]
    write(tmp_path / "b", changed)
    assert parted(tmp_path / "a", tmp_path / "b") == (6, 0, "params", ("params",), ("w",))
    assert walked(tmp_path / "a", tmp_path / "b").last == 12


def test_all_stages_that_differ(tmp_path: Path) -> None:
    """Of several stages the first in the order of cause and effect is named first."""
    header, body = line(4)
    for stage in ("params", "gradients", "opt_state"):
        body[stage] = line(4, other=(stage, LEAVES[stage][1]))[1][stage]
    write(tmp_path / "a", lines(0, 4))
    write(tmp_path / "b", [*lines(0, 3), (header, body)])
    assert parted(tmp_path / "a", tmp_path / "b") == (
        4,
        3,
        "gradients",
        ("gradients", "opt_state", "params"),
        ("w",),
    )


def test_only_the_loss(tmp_path: Path) -> None:
    """A loss that differs where no stage does is told as such."""
    write(tmp_path / "a", lines(0, 4))
    write(tmp_path / "b", [*lines(0, 3), line(4, loss=0.3)])
    assert parted(tmp_path / "a", tmp_path / "b") == (4, 3, "loss", ("loss",), ())


def test_another_network(tmp_path: Path) -> None:
    """Networks with other leaves diverge at the start, in those that one of them lacks."""
    write(tmp_path / "a", lines())
    write(tmp_path / "b", lines(leaves={**LEAVES, "params": ["b", "v"]}))
    assert parted(tmp_path / "a", tmp_path / "b") == (0, -1, "params", ("params",), ("v", "w"))
    write(tmp_path / "c", lines(level="group", leaves={**LEAVES, "params": ["b", "v"]}))
    assert parted(tmp_path / "a", tmp_path / "c") == (0, -1, "params", ("params",), ())


def test_a_stage_of_one_side_only_is_no_difference(tmp_path: Path) -> None:
    """What only one side records cannot be compared, and is no reason to call them different."""
    write(tmp_path / "a", lines())
    write(tmp_path / "b", lines(leaves={"params": LEAVES["params"]}))
    assert parted(tmp_path / "a", tmp_path / "b") is None


def test_no_step_in_common(tmp_path: Path) -> None:
    """Two that never record the same step do not part, and the last common one is none."""
    write(tmp_path / "a", lines(0, 2))
    write(tmp_path / "b", lines(3, 5), first=3)
    found = walked(tmp_path / "a", tmp_path / "b")
    assert (found.divergence, found.last, found.losses) == (None, -1, [])


def test_a_damaged_side_counts_as_far_as_it_goes(tmp_path: Path) -> None:
    """What stands before the damage is compared, what stands after it is not, and it is said."""
    write(tmp_path / "a", lines())
    write(tmp_path / "b", [*lines(0, 4), line(5, other=("key", "dropout")), *lines(6)])
    content = (tmp_path / "b").read_bytes()
    place = content.index(b'"step":5')
    (tmp_path / "b").write_bytes(content[:place] + b'"step":4' + content[place + 8 :])
    found = walked(tmp_path / "a", tmp_path / "b")
    problem = "line 8 does not continue the chain"
    assert (found.divergence, found.last, found.problems) == (None, 4, (None, problem))
    write(tmp_path / "short", lines(0, 2))  # damage beyond what both record is told as well
    assert walked(tmp_path / "b", tmp_path / "short").problems == (problem, None)
    assert walked(tmp_path / "short", tmp_path / "b").problems == (None, problem)
    told = compare(tmp_path / "a", tmp_path / "b")
    assert (told.verdict, told.step) == ("cannot be told", 4)
    assert problem in told.notes[0]


def test_losses_around_the_parting_and_ever_fewer_after(tmp_path: Path) -> None:
    """The last 64 losses before two part are told, all right after, and some of all the rest."""
    small = {"params": ["w"]}

    def losses(changed: bool) -> Iterator[Line]:
        for step in range(1, 3001):
            differs = changed and step >= 500
            yield line(step, leaves=small, loss=step + differs / 2)

    write(tmp_path / "a", losses(False))
    write(tmp_path / "b", losses(True))
    found = walked(tmp_path / "a", tmp_path / "b").losses
    steps = [step for step, _, _ in found]
    assert steps[:64] == list(range(437, 501))
    assert steps[64:90] == list(range(501, 527))
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    assert gaps == sorted(gaps)
    assert 2900 < steps[-1] <= 3000
    assert len(steps) < 300
    for step, one, other in found:
        assert float.fromhex(one) == step
        assert float.fromhex(other) == step + (step >= 500) / 2
