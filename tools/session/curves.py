"""Run the script of the home page four times, and draw the four curves of its loss.

The rule: a run is a process of its own with a salt of its own, as Python draws it; the salts are
kept, so that each of the runs can be done again.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.session.capture import home_script, run_environment

RUNS = 4
EVERY = 4  # steps between two points of a curve

FIGURE_WIDTH, FIGURE_HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 30, 8, 12, 34  # margins around the curves
TITLE = "The losses of four runs of one script: the curves lie close together, no two are the same."
STYLE = """\
.curves{--ink:var(--md-default-fg-color,#222);--ground:var(--md-code-bg-color,#f5f5f5);\
--a:var(--md-typeset-a-color,#0b6a73);--b:var(--md-accent-fg-color,#a4480f);\
--c:var(--md-code-hl-constant-color,#5b46c9);--d:var(--md-code-hl-string-color,#166b41);\
font:11px Inter,system-ui,sans-serif;display:block;width:100%}
.curves text{fill:var(--ink)}
.curves .ground{fill:var(--ground)}
.curves path{fill:none;stroke:var(--line);stroke-width:1.5;stroke-linejoin:round}
.curves .grid{stroke:var(--ink);stroke-opacity:.15;stroke-width:1}
.curves .end{text-anchor:end}
.curves .middle{text-anchor:middle}"""


def record_curves() -> dict[str, Any]:
    """Return the salts of four runs, and the loss of each at every fourth step."""
    salts = [random.SystemRandom().randrange(2**32) for _ in range(RUNS)]
    return {"salts": salts, "losses": [losses_of_run(salt) for salt in salts]}


def losses_of_run(salt: int) -> list[float]:
    """Run the script in a process whose strings have this salt; return its losses, four digits."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "train.py").write_text(home_script(), "utf-8")
        environment = run_environment(PYTHONHASHSEED=str(salt))
        subprocess.run([sys.executable, "train.py"], cwd=folder, env=environment, check=True)
        lines = Path(folder, "losses.txt").read_text("utf-8").split()
    return [round(float(line), 4) for line in lines[::EVERY] + lines[-1:]]


def draw_curves(recording: dict[str, Any]) -> str:
    """Return the curves as a drawing in the colours of the page, the same bytes each time."""
    runs = recording["losses"]
    steps = [*range(1, EVERY * (len(runs[0]) - 1), EVERY), EVERY * (len(runs[0]) - 1)]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="curves" role="img" '
        f'viewBox="0 0 {FIGURE_WIDTH} {FIGURE_HEIGHT}">',
        f"<title>{TITLE}</title>",
        f"<desc>Recorded on {recording['recorded']}: {recording['machine']}.</desc>",
        f"<style>{STYLE}</style>",
        '<rect class="ground" width="100%" height="100%" rx="4"/>',
        *_axes(steps[-1]),
        *(_curve(run, number, steps) for number, run in enumerate(runs)),
        *(_legend(run, number) for number, run in enumerate(runs)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _across(step: int, last: int) -> float:
    return LEFT + (FIGURE_WIDTH - LEFT - RIGHT) * step / last


def _down(loss: float) -> float:
    return FIGURE_HEIGHT - BOTTOM - (FIGURE_HEIGHT - TOP - BOTTOM) * loss / 2.5


def _axes(last: int) -> list[str]:
    lines = []
    for loss in (0, 1, 2):
        y = _down(loss)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{FIGURE_WIDTH - RIGHT}"/>')
        lines.append(f'<text class="end" x="{LEFT - 6}" y="{y + 4:.1f}">{loss}</text>')
    for step in (0, last // 2, last):
        side = "middle" if step < last else "end"
        y = FIGURE_HEIGHT - BOTTOM + 15
        lines.append(f'<text class="{side}" x="{_across(step, last):.1f}" y="{y}">{step}</text>')
    lines.append(
        f'<text class="middle" x="{FIGURE_WIDTH / 2:.0f}" y="{FIGURE_HEIGHT - 5}">step</text>'
    )
    lines.append(f'<text class="end" x="{LEFT - 6}" y="{TOP + 6}">loss</text>')
    return lines


def _curve(losses: list[float], number: int, steps: list[int]) -> str:
    points = [
        f"{_across(step, steps[-1]):.1f} {_down(loss):.1f}"
        for step, loss in zip(steps, losses, strict=True)
    ]
    return f'<path style="--line:var(--{"abcd"[number]})" d="M{"L".join(points)}"/>'


def _legend(losses: list[float], number: int) -> str:
    # At the upper right, where no curve is.
    x, y = FIGURE_WIDTH - RIGHT - 150, TOP + 12 + 16 * number
    return (
        f'<path style="--line:var(--{"abcd"[number]})" d="M{x} {y - 4}h18"/>'
        f'<text x="{x + 24}" y="{y}">run {number + 1} ends with {losses[-1]:.4f}</text>'
    )


def curve_files(recording: dict[str, Any]) -> dict[str, str]:
    """Return what is made of the losses, by file name: what the home page includes."""
    versions = recording["versions"]
    names = ", ".join(f"{name} {versions[name]}" for name in ("jax", "flax", "optax"))
    return {
        "curves.html": f"""\
<figure class="four-runs" data-search-exclude>
{draw_curves(recording).rstrip()}
<figcaption>
<p>One script, run four times, nothing changed in between. No two runs are the same: what one
of them saved is wrong in the other three.</p>
<p class="fine">Real runs: {recording["machine"]}, {names}. <a href="#script">The script</a>.</p>
</figcaption>
</figure>
"""
    }
