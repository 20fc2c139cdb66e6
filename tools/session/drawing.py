"""Draw a recorded session: an animation without scripts, and its text beside it.

The rule: nothing is drawn by hand. The drawing is made from the recorded events alone, and the same
events give the same bytes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tools.session.screen import last_screen, lines_of, screen, transcript, typed

# The drawing: each piece of text is there from one moment on, or between two moments.

ROWS = 15  # in sight, both comparisons at the end; the rest has scrolled away
TYPING = 0.01  # seconds a character
LONGEST_WAIT = 0.25  # what took longer is shortened to this
LONGEST_RUN = 1.2  # a command that takes longer even so plays faster
READING = 0.4  # seconds after a comment, and after a command
AT_THE_ANSWER = 2.0  # seconds after an output of several lines

LETTER, LINE, SIDE = 6.6, 16, 8  # JetBrains Mono of 11: its advance; a row; the margin
DRAWING_WIDTH = 360
BAR = re.compile(r"^(step +\d+/\d+ )([━╸╺ ]+)( loss .*)$")


@dataclass
class Text:
    """A piece of text in a row: from `start` on, until `end` if it has one."""

    row: int
    kind: str
    text: str
    start: float
    end: float | None = None


def timeline(recording: dict[str, Any]) -> tuple[list[Text], float]:
    """Return every piece of text that is ever in sight, and the length of the play in seconds."""
    texts: list[Text] = []
    clock, row = 0.0, 0
    for scene in recording["scenes"]:
        for line in lines_of(scene["says"]):
            texts.append(Text(row, "says", line, clock))
            clock, row = clock + READING, row + 1
        for line in typed(scene):
            texts.append(Text(row, "typed", line, clock))
            clock, row = clock + TYPING * len(line), row + 1
        command = row - 1
        output, clock = _output(scene, recording["columns"], row, clock)
        texts += output
        lines = last_screen(scene, recording["columns"])
        row += len(lines)
        if scene["killed_by"]:
            note = f"{scene['killed_by']}, from another process"
            texts.append(Text(row, "note", note, clock))
            row += 1
        texts.append(Text(command, "exit", f"exit {scene['exit']}", clock))
        clock += AT_THE_ANSWER if len(lines) > 1 else READING
    return texts, round(clock, 2)


def _output(
    scene: dict[str, Any], columns: int, row: int, clock: float
) -> tuple[list[Text], float]:
    # What the terminal shows of one command, from `row` on, and the time when it ends.
    texts: list[Text] = []
    shown: dict[int, Text] = {}
    changes = list(_changes(scene, columns))
    times = [0.0, *(seconds for seconds, _ in changes)]
    waits = [min(after - before, LONGEST_WAIT) for before, after in pairwise(times)]
    pace = min(1.0, LONGEST_RUN / sum(waits))
    for wait, (_, lines) in zip(waits, changes, strict=True):
        clock += wait * pace
        for number, line in lines.items():
            if number in shown:
                shown[number].end = clock
            shown[number] = Text(row + number, "output", line, clock)
            texts.append(shown[number])
    return texts, clock


def _changes(scene: dict[str, Any], columns: int) -> Iterator[tuple[float, dict[int, str]]]:
    # The lines of the terminal that change, by their numbers, and when; last, the end.
    raw, before = "", dict[int, str]()
    for seconds, piece in scene["output"]:
        raw += piece
        lines = dict(enumerate(screen(raw, columns)))
        if lines != before:
            yield seconds, {n: line for n, line in lines.items() if before.get(n) != line}
            before = lines
    yield scene["seconds"], {}


def draw_recording(recording: dict[str, Any]) -> str:
    """Return the recording as an animated drawing without scripts, the same bytes each time."""
    texts, seconds = timeline(recording)
    last = max(text.row for text in texts)
    height = ROWS * LINE
    moved = max(0, last + 1 - ROWS) * LINE
    names = ", ".join(f"{name} {version}" for name, version in recording["versions"].items())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="terminal" role="img" '
        f'viewBox="0 0 {DRAWING_WIDTH} {height + 2 * SIDE}">',
        f"<title>{_escape(LABEL)}</title>",
        f"<desc>Recorded on {recording['recorded']} with {names}.</desc>",
        f"<style>{_terminal_style(texts, seconds)}</style>",
        '<rect class="ground" width="100%" height="100%" rx="4"/>',
        f'<svg y="{SIDE}" height="{height}"><g class="roll" transform="translate(0 {-moved})">',
        *(_drawn(text) for text in sorted(texts, key=lambda text: (text.row, text.start))),
        "</g></svg></svg>",
    ]
    return "\n".join(lines) + "\n"


LABEL = (
    "Terminal recording: a training run that was killed with kill -9 and resumed ends with the "
    "same digest as a run that was never killed; a run with another seed does not."
)

# Without animation (print, reduced motion, the end of the play) everything is as at the end. Two
# copies of the animations, of which one plays: to change to the other is to play again.
TERMINAL_STYLE = """\
.terminal{--ink:var(--md-default-fg-color,#222);--ground:var(--md-code-bg-color,#f5f5f5);\
--mark:var(--md-accent-fg-color,#a4480f);--name:var(--md-typeset-a-color,#0b6a73);\
--good:var(--md-code-hl-string-color,#166b41);\
font:11px "JetBrains Mono",ui-monospace,monospace;display:block;width:100%}
@media(prefers-color-scheme:dark){.terminal{--ink:var(--md-default-fg-color,#ddd);\
--ground:var(--md-code-bg-color,#20282c);--mark:var(--md-accent-fg-color,#f2a65e);\
--name:var(--md-typeset-a-color,#6cc7d0);--good:var(--md-code-hl-string-color,#3fc281)}}
.terminal text{fill:var(--ink);font-variant-ligatures:none;white-space:pre}
.terminal .ground{fill:var(--ground)}
.terminal .says{fill-opacity:.8}
.terminal .typed{fill:var(--name);font-weight:600}
.terminal .note,.terminal .bad{fill:var(--mark);font-weight:600}
.terminal .good{fill:var(--good);font-weight:800}
.terminal .exit{text-anchor:end}
.terminal path{stroke:var(--name);stroke-width:3}
.terminal path:first-of-type{stroke:var(--ink);stroke-opacity:.2}
.terminal .gone{visibility:hidden}
.terminal .stays{animation:off-a var(--at)}
.terminal .gone{animation:on-a var(--for) var(--at)}
.terminal .typed{animation:type-a var(--for) var(--at) steps(var(--n)) backwards}
.terminal .roll{animation:roll-a TOTAL step-end}
.recording:has(.again:checked) .stays{animation-name:off-b}
.recording:has(.again:checked) .gone{animation-name:on-b}
.recording:has(.again:checked) .typed{animation-name:type-b}
.recording:has(.again:checked) .roll{animation-name:roll-b}
.recording:has(.pause:checked) .terminal *{animation-play-state:paused}
@media print,(prefers-reduced-motion:reduce){.terminal *{animation:none!important}\
.recording fieldset{display:none}}
"""


def _terminal_style(texts: list[Text], seconds: float) -> str:
    frames = {
        "off": "from,to{visibility:hidden}",
        "on": "from,to{visibility:visible}",
        "type": "from{clip-path:inset(0 100% 0 0)}to{clip-path:inset(0)}",
        "roll": "".join(
            f"{100 * start / seconds:.2f}%{{transform:translateY({-move}px)}}"
            for start, move in _moves(texts)
        ),
    }
    copies = [
        f"@keyframes {name}-{copy}{{{text}}}" for name, text in frames.items() for copy in "ab"
    ]
    return TERMINAL_STYLE.replace("TOTAL", f"{seconds}s") + "\n".join(copies)


def _moves(texts: list[Text]) -> Iterator[tuple[float, int]]:
    # When the session rolls up, and how far, so that its newest row is in sight.
    far = -1
    for text in sorted(texts, key=lambda text: text.start):
        move = max(0, text.row + 1 - ROWS) * LINE
        if move > far:
            far = move
            yield (text.start if move else 0.0), move


def _drawn(text: Text) -> str:
    y = text.row * LINE + 12
    name, style = text.kind, ""
    if text.kind == "typed":
        seconds, count = TYPING * len(text.text), len(text.text)
        style = f"--at:{_short(text.start)}s;--for:{_short(seconds)}s;--n:{count}"
    elif text.end is None:
        name += " stays"
        style = f"--at:{_short(text.start)}s"
    else:
        name += " gone"
        style = f"--at:{_short(text.start)}s;--for:{_short(text.end - text.start)}s"
    if text.kind == "exit":
        name += "" if text.text == "exit 0" else " bad"
        right = DRAWING_WIDTH - SIDE
        return f'<text class="{name}" style="{style}" x="{right}" y="{y}">{text.text}</text>'
    if text.text.split() == ["verdict", "same"]:
        name += " good"
    attributes = f'class="{name}" style="{style}"'
    if bar := BAR.match(text.text):
        return f"<g {attributes}>{_bar(bar, y)}</g>"
    return f'<text {attributes} x="{SIDE}" y="{y}">{_escape(text.text)}</text>'


def _bar(bar: re.Match[str], y: int) -> str:
    # Lines instead of letters, which few fonts have.
    before, inside, after = bar.groups()
    done = len(inside.rstrip()) - 0.5 * inside.count("╸")
    start, end = SIDE + LETTER * len(before), SIDE + LETTER * (len(before) + len(inside))
    return (
        f'<text x="{SIDE}" y="{y}">{before}</text>'
        f'<path d="M{_short(start)} {y - 4}h{_short(LETTER * len(inside))}"/>'
        f'<path d="M{_short(start)} {y - 4}h{_short(LETTER * done)}"/>'
        f'<text x="{_short(end)}" y="{y}">{after}</text>'
    )


def _short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _escape(text: str) -> str:
    return html.escape(text, quote=False)


def figure(recording: dict[str, Any]) -> str:
    """Return what the home page includes: the drawing, how to stop it, and all of it as text."""
    versions = recording["versions"]
    return f"""\
<figure class="recording" data-search-exclude>
{draw_recording(recording).rstrip()}
<figcaption>
<p>Killed with <code>kill -9</code>, resumed: the same digest. A real run, waits shortened.</p>
<fieldset><legend>The recording</legend>
<label><input class="pause" type="checkbox">Pause</label>
<label><input class="again" type="checkbox">Play again</label>
</fieldset>
<details><summary>As text</summary>
<pre class="recorded" tabindex="0">{_escape(transcript(recording)).rstrip()}</pre>
<p>Recorded on {recording["recorded"]} with jax {versions["jax"]}. The tests run these commands
again.</p>
</details>
</figcaption>
</figure>
"""


def recording_files(recording: dict[str, Any]) -> dict[str, str]:
    """Return what is made of a recording, by file name."""
    return {"recording.svg": draw_recording(recording), "recording.html": figure(recording)}
