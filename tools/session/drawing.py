"""Draw a recorded session: an animation without scripts, and its text beside it.

The rule: nothing is drawn by hand. The drawing is made from the recording alone, and the same
recording gives the same bytes.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from tools.session.screen import last_screen, transcript, typed

# The drawing: each piece of text is there from one moment on. The answer to the first command comes
# within three seconds: a run of half a minute is shortened to this.
WAIT = 0.6
TYPING = 0.01  # seconds a character
READING = 0.3  # seconds after a comment
AT_THE_ANSWER = 2.5  # seconds after an output

LINE, SIDE = 16, 8  # JetBrains Mono of 11: a row; the margin
DRAWING_WIDTH = 360


@dataclass
class Text:
    """A piece of text in a row, from `start` on."""

    row: int
    kind: str
    text: str
    start: float


def timeline(recording: dict[str, Any]) -> tuple[list[Text], float]:
    """Return every piece of text, and the length of the play in seconds."""
    texts: list[Text] = []
    clock, row = 0.0, 0

    def add(kind: str, text: str) -> None:
        nonlocal row
        texts.append(Text(row, kind, text, round(clock, 2)))
        row += 1

    for scene in recording["scenes"]:
        if scene["says"]:
            add("says", scene["says"])
            clock += READING
        for line in typed(scene, recording["columns"]):
            add("typed", line)
            clock += TYPING * len(line)
        output = last_screen(scene, recording["columns"])
        clock += min(scene["seconds"], WAIT)
        for line in output:
            add({"same": "good", "different": "bad"}.get(line, "output"), line)
        clock += AT_THE_ANSWER if output else 0
    return texts, round(clock, 2)


def draw_recording(recording: dict[str, Any]) -> str:
    """Return the recording as an animated drawing without scripts, the same bytes each time."""
    texts, _ = timeline(recording)
    height = LINE * len(texts) + 2 * SIDE
    names = ", ".join(f"{name} {version}" for name, version in recording["versions"].items())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="terminal" role="img" '
        f'viewBox="0 0 {DRAWING_WIDTH} {height}">',
        f"<title>{_escape(LABEL)}</title>",
        f"<desc>Recorded on {recording['recorded']} with {names}.</desc>",
        f"<style>{TERMINAL_STYLE}</style>",
        '<rect class="ground" width="100%" height="100%" rx="4"/>',
        *(_drawn(text) for text in texts),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


LABEL = (
    "Terminal recording: reproducibility twice says that two runs of the script are different, "
    "where they begin to differ, and that the cause is the order of a set; with the set sorted it "
    "says same."
)

# Without animation (print, reduced motion, the end of the play) everything is as at the end. Two
# copies of the animations, of which one plays: to change to the other is to play again.
TERMINAL_STYLE = """\
.terminal{--ink:var(--md-default-fg-color,#222);--ground:var(--md-code-bg-color,#f5f5f5);\
--mark:var(--md-accent-fg-color,#a4480f);--name:var(--md-typeset-a-color,#0b6a73);\
--yes:var(--md-code-hl-string-color,#166b41);\
font:11px "JetBrains Mono",ui-monospace,monospace;display:block;width:100%}
@media(prefers-color-scheme:dark){.terminal{--ink:var(--md-default-fg-color,#ddd);\
--ground:var(--md-code-bg-color,#20282c);--mark:var(--md-accent-fg-color,#f2a65e);\
--name:var(--md-typeset-a-color,#6cc7d0);--yes:var(--md-code-hl-string-color,#3fc281)}}
.terminal text{fill:var(--ink);font-variant-ligatures:none;white-space:pre;\
animation:off-a var(--at)}
.terminal .ground{fill:var(--ground)}
.terminal .says{fill-opacity:.8}
.terminal .bad{fill:var(--mark);font-weight:800}
.terminal .good{fill:var(--yes);font-weight:800}
.terminal .typed{fill:var(--name);font-weight:600;\
animation:type-a var(--for) var(--at) steps(var(--n)) backwards}
.recording:has(.again:checked) text{animation-name:off-b}
.recording:has(.again:checked) .typed{animation-name:type-b}
.recording:has(.pause:checked) .terminal *{animation-play-state:paused}
@media print,(prefers-reduced-motion:reduce){.terminal *{animation:none!important}\
.recording fieldset{display:none}}
@keyframes off-a{from,to{visibility:hidden}}
@keyframes off-b{from,to{visibility:hidden}}
@keyframes type-a{from{clip-path:inset(0 100% 0 0)}to{clip-path:inset(0)}}
@keyframes type-b{from{clip-path:inset(0 100% 0 0)}to{clip-path:inset(0)}}"""


def _drawn(text: Text) -> str:
    style = f"--at:{_short(text.start)}s"
    if text.kind == "typed":
        count = len(text.text)
        style += f";--for:{_short(TYPING * count)}s;--n:{count}"
    y = text.row * LINE + SIDE + 12
    attributes = f'class="{text.kind}" style="{style}" x="{SIDE}" y="{y}"'
    return f"<text {attributes}>{_escape(text.text)}</text>"


def _short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _escape(text: str) -> str:
    return html.escape(text, quote=False)


def figure(recording: dict[str, Any]) -> str:
    """Return what the home page includes: the drawing, how to stop it, and all of it as text."""
    seconds = round(recording["scenes"][0]["seconds"])
    return f"""\
<figure class="recording" data-search-exclude>
{draw_recording(recording).rstrip()}
<figcaption>
<fieldset><legend>The recording</legend>
<label><input class="pause" type="checkbox">Pause</label>
<label><input class="again" type="checkbox">Play again</label>
</fieldset>
<details><summary>As text</summary>
<pre class="recorded" tabindex="0">{_escape(transcript(recording)).rstrip()}</pre>
<p>Recorded on {recording["recorded"]} with jax {recording["versions"]["jax"]}; the first command
took {seconds} seconds. Its progress is left out. The tests run these commands again.</p>
</details>
</figcaption>
</figure>
"""


def recording_files(recording: dict[str, Any]) -> dict[str, str]:
    """Return what is made of a recording, by file name."""
    return {"recording.html": figure(recording)}
