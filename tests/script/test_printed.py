"""Lines of output are compared beside what passes: times, speeds, addresses, progress bars."""

from pathlib import Path

import pytest

from reproducibility.script.printed import first_difference, masked, printed_remark

# What two runs print differently though they are the same, and what is still seen of the line.
PASSING = {
    "absl": (
        "I1130 11:22:33.123456 12345 train.py:12] loss 0.25",
        "I1201 09:00:01.000001 9 train.py:12] loss 0.25",
        "loss 0.25",
    ),
    "logging": (
        "2026-11-30 11:22:33,123 INFO loss=0.5",
        "2027-01-02 01:02:03,9 INFO loss=0.5",
        "0.5",
    ),
    "date": ("Mon Nov 30 11:22:33 2026 begin", "Tue Dec 1 09:22:33 2026 begin", "begin"),
    "name": ("into runs/20261130_112233", "into runs/20261201-010203", "runs"),
    "seconds": ("MCMC elapsed time: 81.2047107219696", "MCMC elapsed time: 14.83", "MCMC"),
    "rate": ("loss 0.5 1234.5 examples/s", "loss 0.5 1.1k examples/s", "loss 0.5"),
    "steps": ("steps/sec 12.3, loss 0.1", "steps/sec: 9, loss 0.1", "loss 0.1"),
    "step time": ("step_time=0.12 loss=0.3", "step_time=1.2e-1 loss=0.3", "loss=0.3"),
    "per step": ("0.1 - 3s 12ms/step", "0.1 - 13s 2ms/step", "0.1"),
    "sps": ("SPS: 1234, return 5", "SPS: 99, return 5", "return 5"),
    "address": ("<f at 0x7f3c12345678> 1", "<f at 0x55aa00ff1234> 1", "1"),
    "process": ("pid=123 ok", "pid=4 ok", "ok"),
    "temporary": ("saved /tmp/abc_x/w.npz, 3", "saved /tmp/q/w.npz, 3", "3"),
    "tqdm": (
        " 3%|#  | 3/100 [00:01<00:32,  3.01it/s]\r100%|###| 100/100 [00:33<00:00,  3.02it/s]",
        "100%|###| 100/100 [00:13<00:00, 1.02s/it]",
        "100/100",
    ),
    "colours": ("\x1b[32mloss\x1b[0m 3", "loss 3", "loss 3"),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes(name: str) -> None:
    """Two such lines are equal, and what the script computed is still in them."""
    one, other, kept = PASSING[name]
    assert masked(one) == masked(other)
    assert kept in masked(one)


@pytest.mark.parametrize(
    "line",
    [
        "loss 0.25",
        "epoch 3 acc 98.1%",
        "[1.5 2.5]",
        "lr 1e-3 seed 7",
        "loss 0.2047107219696",  # which has the digits of no date
        "loss 81.20261130112233",  # and the digits of one, in a number
    ],
)
def test_what_does_not_pass(line: str) -> None:
    """What a script computes is compared, digit by digit."""
    assert masked(line) == line


def test_the_first_line_that_differs(tmp_path: Path) -> None:
    """It is named by number, with what differs in view; a line too many differs, too."""
    one, other = tmp_path / "1", tmp_path / "2"
    one.write_text("a\ndir one\n" + "x" * 500 + "loss 0.25\n")
    other.write_text("a\ndir two\n" + "x" * 500 + "loss 0.26\n")
    found = first_difference(one, other, ["one", "two"])
    assert found is not None
    assert found[0] == 3
    remark = printed_remark([one, None], [other, None], ["one", "two"])
    assert "line 3 of what they print differs" in remark
    assert "loss 0.25" in remark
    assert len(remark) < 220
    other.write_text("a\ndir two\n" + "x" * 500 + "loss 0.25\nmore\n")
    assert first_difference(one, other, ["one", "two"]) == (4, "", "more")
    assert printed_remark([None, one], [None, one], []) == ""
