"""Record the terminal session of the home page, and draw it: `python -m tools.recording`.

The rule: nothing is drawn by hand. The commands run in a pseudo-terminal, what they print is kept
with its times in docs/assets/recording.json, and the drawing and its text are made from that file
alone. tests/site/test_recording.py makes them again, and runs the commands again.

`python -m tools.recording --draw` draws what was recorded before.
"""

from __future__ import annotations

import codecs
import datetime
import fcntl
import html
import importlib.metadata
import json
import os
import platform
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parents[1] / "docs" / "assets"
COLUMNS = 52  # as many as fit on a screen of 360 pixels in letters of 11


@dataclass(frozen=True)
class Scene:
    """A command, and the comment above it.

    With `killed_from`, it is killed once it has shown that step and has a checkpoint in `run`.
    """

    says: str
    command: str
    run: str = ""
    killed_from: int = 0


TRAIN = "reproducibility train --run-dir {0} \\\n  --steps 500{1} > {0}.txt"
SCENES = (
    Scene("# Train a network.", TRAIN.format("whole", "")),
    Scene(
        "# Train it again. This one is killed half-way …",
        TRAIN.format("killed", ""),
        run="killed",
        killed_from=200,
    ),
    Scene("# … and the same command resumes it.", TRAIN.format("killed", "")),
    Scene(
        "# Is it the run that was never killed?",
        "reproducibility compare whole killed",
    ),
    Scene("# The control: another seed must differ.", TRAIN.format("other", " --seed 1")),
    Scene(
        "",
        "reproducibility compare whole other \\\n  --no-replay > why.txt",
    ),
)


# Recording.


def record() -> dict[str, Any]:
    """Run the scenes in an empty directory; return what a terminal got, and when."""
    with tempfile.TemporaryDirectory() as folder:
        scenes = [run(scene, Path(folder)) for scene in SCENES]
        resumed = resumed_from(Path(folder, "killed"))
    packages = ("reproducibility", "jax", "jaxlib")
    return {
        "recorded": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "resumed_from": resumed,
        "columns": COLUMNS,
        "scenes": scenes,
    }


def resumed_from(run: Path) -> int:
    """Return the step from which a run went on after it was killed, by its own diary.

    A process that is killed writes no line that says how it ended.
    """
    lines = map(json.loads, (run / "attempts.jsonl").read_text("utf-8").splitlines())
    match [(line["event"], line.get("from_step"), line.get("to_step")) for line in lines]:
        case [("start", 0, _), ("start", step, _), ("end", _, end)] if 0 < step < end:
            return int(step)
        case attempts:
            raise RuntimeError(f"not killed half-way and resumed, but {attempts}: record it again")


def run(scene: Scene, folder: Path) -> dict[str, Any]:
    """Run one command in a pseudo-terminal, as the shell of a reader would."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": programs, "TERM": "xterm-256color", "NO_COLOR": "1"}
    for name in ("COLUMNS", "LINES", "FORCE_COLOR"):
        environment.pop(name, None)  # the terminal says how wide it is
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    began = time.monotonic()
    process = subprocess.Popen(
        ["bash", "-c", f"exec {scene.command}"],  # so that what is killed is the program itself
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    output, kill = [], ""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for piece in _pieces(ours):
        text = decoder.decode(piece)
        if text and not (text.startswith("\r") and output and text == output[-1][1]):
            # A progress bar is written ten times a second, whether it moves or not.
            output.append([round(time.monotonic() - began, 2), text])
        if scene.killed_from and not kill and text and _is_halfway(scene, text, folder):
            kill = f"kill -9 {process.pid}"
            subprocess.run(kill.split(), check=True)
    code = process.wait()
    return {
        "says": scene.says,
        "command": scene.command,
        "output": output,
        "killed_by": kill,
        "exit": code if code >= 0 else 128 - code,  # as a shell says it
        "seconds": round(time.monotonic() - began, 2),
    }


def _is_halfway(scene: Scene, text: str, folder: Path) -> bool:
    step = re.search(r"step +(\d+)/(\d+)", text)
    if not step or not scene.killed_from <= int(step[1]) < int(step[2]):
        return False
    checkpoints = (folder / scene.run / "checkpoints").iterdir()
    return any(path.name.isdigit() for path in checkpoints)  # others are being written


def _pieces(terminal: int) -> Iterator[bytes]:
    # What arrives, until the last program has closed its end.
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        while True:
            try:
                piece = stream.read(65536)
            except OSError:  # how Linux says that it is over
                return
            if not piece:
                return
            yield piece


# What a terminal shows.


def screen(raw: str, columns: int) -> list[str]:
    """Return the lines that a terminal shows after it got `raw`: a line may be written again.

    What is too long goes on below as in a terminal, but at a space where it has one.
    """
    text = re.sub(r"\x1b\[\?25[hl]", "", raw).replace("\r\n", "\n").removesuffix("\n")
    lines = [line.rpartition("\r\x1b[2K")[2] for line in text.split("\n")] if text else []
    for line in lines:
        if re.search(r"[\x00-\x1f]", line):
            raise ValueError(f"this is no terminal for {line!r}: teach it")
    return [
        part.rstrip()
        for line in lines
        for part in textwrap.wrap(line, columns, break_on_hyphens=False) or [""]
    ]


def last_screen(scene: dict[str, Any], columns: int) -> list[str]:
    """Return what a command leaves in the terminal."""
    return screen("".join(text for _, text in scene["output"]), columns)


def typed(scene: dict[str, Any]) -> list[str]:
    """Return the lines of a command, after a prompt."""
    return [("$ " if not n else "  ") + line for n, line in enumerate(lines_of(scene["command"]))]


def lines_of(text: str) -> list[str]:
    """Return the lines of a text; an empty one has none."""
    return text.split("\n") if text else []


def transcript(recording: dict[str, Any]) -> str:
    """Return the whole session as text: what is not from the terminal stands in brackets."""
    lines: list[str] = []
    for scene in recording["scenes"]:
        lines += [*lines_of(scene["says"]), *typed(scene)]
        lines += last_screen(scene, recording["columns"])
        if scene["killed_by"]:
            lines.append(f"[{scene['killed_by']}, from another process]")
        lines.append(f"[exit code {scene['exit']}]")
    return "\n".join(lines) + "\n"


def everywhere(text: str) -> str:
    """Return the part of a transcript that is the same on every machine."""
    text = re.sub(r"^step +\d+/(\d+) .*\n(?=\[kill)", r"step N/\1\n", text, flags=re.MULTILINE)
    text = re.sub(r"loss \d+\.\d+ \d:\d\d:\d\d", "loss L T", text)
    text = re.sub(r"kill -9 \d+", "kill -9 PID", text)
    return re.sub(r"[0-9a-f]{32,}", "DIGEST", text)


# The drawing: each piece of text is there from one moment on, or between two moments.

ROWS = 15  # in sight, both comparisons at the end; the rest has scrolled away
TYPING = 0.01  # seconds a character
LONGEST_WAIT = 0.25  # what took longer is shortened to this
LONGEST_RUN = 1.2  # a command that takes longer even so plays faster
READING = 0.4  # seconds after a comment, and after a command
AT_THE_ANSWER = 2.0  # seconds after an output of several lines

LETTER, LINE, SIDE = 6.6, 16, 8  # JetBrains Mono of 11: its advance; a row; the margin
WIDTH = 360
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


def draw(recording: dict[str, Any]) -> str:
    """Return the recording as an animated drawing without scripts, the same bytes each time."""
    texts, seconds = timeline(recording)
    last = max(text.row for text in texts)
    height = ROWS * LINE
    moved = max(0, last + 1 - ROWS) * LINE
    names = ", ".join(f"{name} {version}" for name, version in recording["versions"].items())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="terminal" role="img" '
        f'viewBox="0 0 {WIDTH} {height + 2 * SIDE}">',
        f"<title>{_escape(LABEL)}</title>",
        f"<desc>Recorded on {recording['recorded']} with {names}.</desc>",
        f"<style>{_style(texts, seconds)}</style>",
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
STYLE = """\
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


def _style(texts: list[Text], seconds: float) -> str:
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
    return STYLE.replace("TOTAL", f"{seconds}s") + "\n".join(copies)


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
        return f'<text class="{name}" style="{style}" x="{WIDTH - SIDE}" y="{y}">{text.text}</text>'
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
{draw(recording).rstrip()}
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


def files(recording: dict[str, Any]) -> dict[str, str]:
    """Return what is made of a recording, by file name."""
    return {"recording.svg": draw(recording), "recording.html": figure(recording)}


def read() -> dict[str, Any]:
    """Return what was recorded."""
    recording: dict[str, Any] = json.loads((ASSETS / "recording.json").read_text("utf-8"))
    return recording


def write(recording: dict[str, Any]) -> None:
    """Keep a recording, one event a line."""
    text = json.dumps(recording, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\s+([\d.]+),\s+(\".*\")\s+\]", r"[\1, \2]", text)
    (ASSETS / "recording.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    if "--draw" not in sys.argv[1:]:
        write(record())
    for name, content in files(read()).items():
        (ASSETS / name).write_text(content, "utf-8")
