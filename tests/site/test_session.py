"""The recording of the home page shows what its commands print, and stays so."""

import gzip
import json
import re
from copy import deepcopy
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from tools.look.hosts import requests_elsewhere
from tools.session.capture import ASSETS, read_recording, record_session, resumed_from
from tools.session.drawing import ROWS, draw_recording, recording_files, timeline
from tools.session.screen import everywhere, screen, transcript


def test_what_is_shown_is_made_of_the_recording() -> None:
    """The drawing and its text are, byte for byte, what the script makes of the recorded events."""
    for name, content in recording_files(read_recording()).items():
        assert (ASSETS / name).read_text("utf-8") == content
    altered = deepcopy(read_recording())
    altered["scenes"][-1]["output"][-1][1] = "No.\r\n"
    assert all(
        recording_files(altered)[name] != content
        for name, content in recording_files(read_recording()).items()
    )


def test_the_commands_still_print_what_was_recorded() -> None:
    """The same commands, run again, print the same text, up to digests, losses and times."""
    shown = everywhere(transcript(read_recording()))
    assert everywhere(transcript(record_session())) == shown
    for said in ("verdict  same", "[exit code 137]", "[exit code 1]", "by their results."):
        assert said in shown  # which is more than masks


def test_the_recording_shows_what_it_says() -> None:
    """The run that was killed ends with the digest of the whole one; another seed is refused."""
    recording = read_recording()
    assert [scene["exit"] for scene in recording["scenes"]] == [0, 137, 0, 0, 0, 1]
    whole, killed = re.findall(r"^[ab]  +([0-9a-f]{32,})", transcript(recording), re.MULTILINE)
    assert whole == killed
    [step] = re.findall(r"^step +(\d+)/500 .*\n\[kill -9 ", transcript(recording), re.MULTILINE)
    assert 0 < recording["resumed_from"] <= int(step) + 50 < 500


@pytest.mark.parametrize(
    "diary",
    [
        pytest.param([("start", 0), ("end", 500)], id="never killed"),
        pytest.param([("start", 0), ("start", 0), ("end", 500)], id="killed before a checkpoint"),
        pytest.param([("start", 0), ("start", 500), ("end", 500)], id="killed at its end"),
        pytest.param([("start", 0), ("end", 300), ("start", 300), ("end", 500)], id="stopped"),
    ],
)
def test_a_recording_that_shows_no_kill_is_refused(
    diary: list[tuple[str, int]], tmp_path: Path
) -> None:
    """Where the diary of the run does not say that it was killed half-way, nothing is recorded."""
    step = {"start": "from_step", "end": "to_step"}
    lines = [json.dumps({"event": event, step[event]: at}) for event, at in diary]
    (tmp_path / "attempts.jsonl").write_text("\n".join(lines), "utf-8")
    with pytest.raises(RuntimeError, match="record it again"):
        resumed_from(tmp_path)


def test_a_terminal_shows_the_last_text_of_each_line() -> None:
    """A line that is written again replaces itself; a long one goes on below, at a space."""
    assert screen("a\r\n\r\x1b[2Kb 1\r\x1b[2Kb 2\r\n\x1b[?25h", 52) == ["a", "b 2"]
    assert screen("abcde\r\n\r\nf", 3) == ["abc", "de", "", "f"]
    assert screen("ab cd ef-gh", 6) == ["ab cd", "ef-gh"]
    assert screen("", 52) == []
    for unknown in ("\x1b[31mred", "over\rwritten", "\x1b[1Aup", "a\tb"):
        with pytest.raises(ValueError, match="teach it"):
            screen(unknown, 52)


def at_the_end(drawing: str) -> list[str]:
    """The rows that a drawing shows when nothing in it moves any more."""
    soup = BeautifulSoup(drawing, "html.parser")
    shown = soup.select("text:not(.exit, .gone, .gone *)")
    rows = groupby(shown, key=lambda text: text["y"])
    return ["".join(text.get_text() for text in row) for _, row in rows]


def test_the_drawing_ends_with_the_transcript() -> None:
    """Without animation the drawing has every line of the session, and the newest are in sight."""
    drawing = draw_recording(read_recording())
    lines = re.sub(
        r"^\[(kill.*)\]$", r"\1", transcript(read_recording()), flags=re.MULTILINE
    ).splitlines()
    wanted = [line for line in lines if not line.startswith("[exit")]
    assert at_the_end(drawing) == [re.sub(r"[━╸╺ ]+ loss", "  loss", line) for line in wanted]
    hidden = 16 * (len(wanted) - ROWS)
    assert f'<g class="roll" transform="translate(0 {-hidden})">' in drawing
    assert re.search(r'class="output stays good"[^>]*>verdict  same<', drawing)
    assert drawing.count(">exit ") == len(read_recording()["scenes"])


def test_every_text_has_its_turn() -> None:
    """In the play one text follows the other: none overlaps another of its row, none is late."""
    texts, seconds = timeline(read_recording())
    texts = [text for text in texts if text.kind != "exit"]
    for _, row in groupby(sorted(texts, key=lambda text: (text.row, text.start)), lambda t: t.row):
        *earlier, last = row
        assert last.end is None
        assert last.start < seconds <= 18
        for text, after in pairwise([*earlier, last]):
            assert text.end == after.start


def test_the_drawing_is_light_and_asks_nobody() -> None:
    """It is small, holds no script, and loads nothing."""
    drawing = draw_recording(read_recording())
    assert len(drawing.encode()) <= 30_000
    assert len(gzip.compress(drawing.encode())) <= 10_000
    assert requests_elsewhere(drawing) == []
    assert not re.search(r"<script|\bon\w+=|javascript:", drawing)
