"""The first screen of the home page shows what its script and its commands do, and stays so."""

import gzip
import re
import subprocess
import sys
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
from bs4 import BeautifulSoup

from tools.look.hosts import requests_elsewhere
from tools.session.capture import (
    ASSETS,
    CURE,
    home_script,
    read_recording,
    record_session,
    run_environment,
)
from tools.session.curves import EVERY, RUNS, curve_files, losses_of_run
from tools.session.drawing import draw_recording, recording_files, timeline
from tools.session.screen import screen, transcript


def all_files(recording: dict[str, Any]) -> dict[str, str]:
    """What is made of a recording."""
    return recording_files(recording) | curve_files(recording)


def test_what_is_shown_is_made_of_the_recording() -> None:
    """Both figures are, byte for byte, what the tool makes of the recorded text and losses."""
    for name, content in all_files(read_recording()).items():
        assert (ASSETS / name).read_text("utf-8") == content
    altered = deepcopy(read_recording())
    altered["scenes"][-1]["output"] = "No.\r\n"
    altered["losses"][-1][-1] += 0.1
    for name, content in all_files(read_recording()).items():
        assert all_files(altered)[name] != content


@pytest.mark.long
@pytest.mark.nightly
def test_the_commands_still_print_what_was_recorded() -> None:
    """The same commands, on the script that the page shows, print the same text again.

    How many calls there are is up to the versions.
    """

    def said(recording: dict[str, Any]) -> list[tuple[str, int]]:
        count = re.compile(r"[\d,]+(?= (?:more )?calls)")
        return [(count.sub("N", it["output"]), it["exit"]) for it in recording["scenes"]]

    assert said(record_session()) == said(read_recording())


@pytest.mark.nightly
@pytest.mark.long
def test_a_run_that_was_drawn_can_be_done_again() -> None:
    """With the salt of the first run come its losses, and with that no losses of another run.

    The last digits depend on the machine, so the first half is compared, to a hundredth.
    """
    recording = read_recording()
    again = losses_of_run(recording["salts"][0])
    half = len(again) // 2
    apart = [
        max(abs(one - other) for one, other in zip(run[:half], again, strict=False))
        for run in recording["losses"]
    ]
    assert apart[0] < 0.01
    assert min(apart[1:]) > 0.05


def test_the_curves_are_what_the_page_says() -> None:
    """Four runs lie close together, no two end alike, and each numbers the classes otherwise."""
    recording = read_recording()
    runs = recording["losses"]
    assert len(runs) == RUNS
    steps = [int(number) for number in re.findall(r"range\((\d+)\)", home_script())]
    assert [EVERY * (len(run) - 1) for run in runs] == steps * RUNS
    assert max(max(at) - min(at) for at in zip(*runs, strict=True)) < 0.3
    assert all(run[-1] < run[0] / 10 for run in runs)
    assert len({run[-1] for run in runs}) == RUNS
    [words] = re.findall(r'^words = "(.*)"$', home_script(), re.MULTILINE)
    orders = {
        subprocess.run(
            [sys.executable, "-c", f"print(list(set({words.split()})))"],
            env=run_environment(PYTHONHASHSEED=str(salt)),
            capture_output=True,
            check=True,
        ).stdout
        for salt in recording["salts"]
    }
    assert len(orders) == RUNS


def test_the_recording_names_the_line() -> None:
    """The first answer is *different* and names the line of the set; the last one is *same*."""
    recording = read_recording()
    first, cure, second = recording["scenes"]
    assert [scene["exit"] for scene in recording["scenes"]] == [1, 0, 0]
    assert first["command"] == second["command"]
    line = home_script().splitlines().index(f"classes = {CURE[0]}") + 1
    assert f"train.py:{line}, in <module>: classes = {CURE[0]}" in first["output"]
    assert first["output"].startswith("different\r\n")
    assert CURE[1] in cure["command"]
    assert second["output"].startswith("same\r\n")


def test_a_terminal_wraps_what_is_long() -> None:
    """A long line continues below, at a space; what a terminal would do otherwise is refused."""
    assert screen("abcde\r\n\r\nf", 3) == ["abc", "de", "", "f"]
    assert screen("ab cd ef-gh", 6) == ["ab cd", "ef-gh"]
    assert screen("", 52) == []
    for unknown in ("\x1b[31mred", "over\rwritten", "\x1b[1Aup", "a\tb"):
        with pytest.raises(ValueError, match="teach it"):
            screen(unknown, 52)


def test_the_drawing_has_all_of_the_transcript() -> None:
    """Without animation the drawing shows every word of the session, in order, and nothing else."""
    soup = BeautifulSoup(draw_recording(read_recording()), "html.parser")
    shown = " ".join(text.get_text() for text in soup.select("text"))
    said = re.sub(r"^\[exit code \d\]\n", "", transcript(read_recording()), flags=re.MULTILINE)
    assert shown.split() == said.split()
    assert [text.get_text() for text in soup.select(".good")] == ["same"]
    assert [text.get_text() for text in soup.select(".bad")] == ["different"]


def test_the_answer_comes_within_three_seconds() -> None:
    """The first answer is there before three seconds, texts come in order, the play is short."""
    texts, seconds = timeline(read_recording())
    assert [text.row for text in texts] == list(range(len(texts)))
    assert all(text.start <= after.start for text, after in pairwise(texts))
    [row] = [text.row for text in texts if text.text.startswith("# Sort")]
    assert texts[row - 1].start < 3
    assert texts[-1].start < seconds <= 10


def test_the_figures_are_light_and_ask_nobody() -> None:
    """They are small, hold no script, and load nothing."""
    for content in all_files(read_recording()).values():
        assert len(content.encode()) <= 10_000
        assert len(gzip.compress(content.encode())) <= 3_000
        assert requests_elsewhere(content) == []
        assert not re.search(r"<script|\bon\w+=|javascript:", content)
