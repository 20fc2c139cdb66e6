"""A comparison as a page: the steps, the stages, and how the distance of the losses grows.

The rule: the page shows what the comparison says and computes nothing but places to draw at.
Chapter: docs/guide/flight_recorder.md
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from reproducibility.explain.comparison import Comparison, loss_of
from reproducibility.explain.page import (
    HATCH,
    escaped,
    html_list,
    html_page,
    html_table,
    percent_of,
    svg_picture,
    write_page,
)
from reproducibility.recording.lines import STAGES
from reproducibility.same.distance import distance

ANSWERS = {"confirmed": "✓", "refuted": "✗", "cannot be told": "?"}
MEANINGS = {
    "batch": "the examples",
    "key": "the random key",
    "gradients": "of the loss",
    "opt_state": "optimiser's state",
    "params": "the parameters",
    "loss": "the number alone",
}
LONG = 1000  # steps; a picture of more has them by their logarithm
HEIGHT, TOP, BOTTOM = 280, 48.0, 208.0  # of the picture; of its logarithmic part: in pixels
NO_NUMBER, EQUAL = 20.0, 236.0  # where a distance is drawn that is no number, or zero


def write_report(
    path: str | os.PathLike[str], comparison: Comparison, *, names: tuple[str, str] = ("a", "b")
) -> None:
    """Write a comparison as a page in one file.

    **Same bits:** everywhere, for the same comparison and names.

    Args:
        path: the file, replaced if it exists.
        comparison: what `compare` returned.
        names: what the two are called on the page.

    Raises:
        RunSaveError: it cannot be written.
    """
    write_page(path, report(comparison, names=names))


def report(comparison: Comparison, *, names: tuple[str, str] = ("a", "b")) -> str:
    """Return a comparison as a page.

    **Same bits:** everywhere, for the same comparison and names.

    Args:
        comparison: what `compare` returned.
        names: what the two are called on the page.

    Returns:
        HTML that refers to nothing outside of itself.

    Examples:
        >>> page = report(Comparison("same", "Every bit of both states agrees.", 40))
        >>> page.partition("<title>")[2].partition("</title>")[0]
        '= Same: a and b'
    """
    found = comparison
    digests = [digest or "not known" for digest in found.digests]
    sections = {
        "Step by step": _steps_and_stages(found),
        "How the distance grows": _growth(found),
        "What differs": _leaves(found),
        "Computed again": _recomputation(found, names),
        "Differences on record": _explanation_tables(found),
        "What limits the answer": html_list(found.notes),
    }
    return html_page(
        " and ".join(names),
        found.verdict,
        found.reason,
        html_table(("", "compared", "digest"), zip("ab", names, digests, strict=True)),
        sections,
        "<code>reproducibility compare --html</code>. The same comparison gives the same page.",
    )


def _steps_and_stages(found: Comparison) -> str:
    """Draw a strip of steps, and the stages of the one at which the two diverge."""
    recorded = [step for step, _, _ in found.losses]  # by both
    if found.stage is None or found.step is None:
        strip = _strip(recorded[-1], recorded[-1] + 1, recorded[-1]) if recorded else ""
        none = "<p>No ledger tells a step at which they part.</p>"
        return strip if found.verdict == "same" else strip + none
    agreed = max((step for step in recorded if step < found.step), default=-1)
    stages = "\n".join(
        _stage(name, found) for name in dict.fromkeys((*STAGES, *found.stages, found.stage))
    )
    return (
        f"{_strip(agreed, found.step, max([found.step, *recorded]))}\n"
        f"<h3>Step {found.step:,}, from cause to effect</h3>\n<ol class='stages'>{stages}</ol>"
    )


def _strip(agreed: int, diverging: int, last: int) -> str:
    """Draw the steps from 0 to `last`: those that agree, those from where the two diverge."""
    spans = [
        ("agreed", 0, agreed + 1, f"the same up to step {agreed:,}"),
        (
            "unknown",
            agreed + 1,
            diverging,
            f"steps {agreed + 1:,} to {diverging - 1:,}: not recorded",
        ),
        ("parted", diverging, last + 1, f"apart from step {diverging:,} on"),
    ]
    spans = [span for span in spans if span[1] < span[2]]
    summary = "; ".join(words for _, _, _, words in spans)
    bars = legend = ""
    for kind, start, end, words in spans:
        x, width = percent_of(start, last + 1), percent_of(end - start, last + 1)
        bars += f"<rect class='{kind}' x='{x}' y='0' width='{width}' height='28'/>"
        swatch = f"<rect class='{kind}' width='14' height='14'/>"
        legend += f"<li><svg width='14' height='14' aria-hidden='true'>{swatch}</svg> {words}</li>"
    if diverging <= last:  # a mark that is seen however narrow its span is, and a magnifying glass
        x = percent_of(diverging, last + 1)
        bars += f"<line class='mark' x1='{x}' x2='{x}' y1='-6' y2='34'/>" + "".join(
            f"<line class='zoom' x1='{x}' x2='{end}' y1='34' y2='64'/>" for end in ("0%", "100%")
        )
    drawn = svg_picture(64 if diverging <= last else 28, "The steps of both", summary, HATCH + bars)
    return f"<ul class='legend'>{legend}</ul>\n{drawn}"


def _stage(name: str, found: Comparison) -> str:
    later = ("later", "≠ differs too") if name in found.stages else ("", "no difference found")
    kind, words = ("first", "≠ differs first") if name == found.stage else later
    meaning = MEANINGS.get(name, "")  # a comparison may come from another version
    return f"<li class='{kind}'><b>{escaped(name)}</b> {meaning}<span>{words}</span></li>"


class _Point(NamedTuple):
    """The losses of a step, and by how many ULP they are apart; None where one of them is NaN."""

    step: int
    a: float
    b: float
    ulp: int | None

    def __str__(self) -> str:
        if not self.ulp:
            return "NaN against a number" if self.ulp is None else "equal"
        return f"{self.ulp:,} ULP ({abs(self.a - self.b):.2e})"


def _points(found: Comparison) -> tuple[list[_Point], str]:
    """Return the steps of which both losses are recorded, and the dtype whose ULP are counted."""
    texts = [(step, a, b) for step, a, b in found.losses if a is not None and b is not None]
    losses = [(step, loss_of(a), loss_of(b)) for step, a, b in texts]
    with np.errstate(over="ignore"):  # what float32 cannot hold is of float64
        narrow = all(float(np.float32(x)) == x or x != x for _, a, b in losses for x in (a, b))
    kind = np.float32 if narrow else np.float64
    apart = [distance(kind(a), kind(b)) for _, a, b in losses]
    points = [
        _Point(*each, None if far.nan else far.ulp or 0)
        for each, far in zip(losses, apart, strict=True)
    ]
    return points, kind.__name__


def _growth(found: Comparison) -> str:
    """Draw how far the two losses are apart, step by step."""
    if found.verdict != "different" or not found.losses:
        return ""
    points, dtype = _points(found)
    apart = [point for point in points if point.ulp != 0]
    if not points:
        return "<p>No step has a recorded loss of both.</p>"
    if not apart:
        return "<p>The recorded losses are equal: the difference is not in them.</p>"
    largest = max(apart, key=lambda point: math.inf if point.ulp is None else point.ulp)
    marks = {"first": apart[0], "largest": largest, "last": points[-1]}
    summary = "; ".join(f"{word} {point} at step {point.step:,}" for word, point in marks.items())
    rows = [(f"{p.step:,}", repr(p.a), repr(p.b), str(p)) for p in points]
    plot = _plot(points, found.step or 0)
    drawn = svg_picture(HEIGHT, "How far the losses are apart", summary, plot)
    return (
        f"<figure><p>Distance of the losses in ULP of {dtype}: 1 is the least that two numbers can "
        f"differ by</p>\n<div>{drawn}</div>\n<figcaption>In numbers: {summary}.</figcaption>"
        "</figure>"
        f"\n<details><summary>The losses of {len(rows)} steps</summary>\n"
        f"{html_table(('step', 'loss of a', 'loss of b', 'distance'), rows)}</details>"
    )


def _plot(points: Sequence[_Point], origin: int) -> str:
    """Draw a distance for each step; across, the steps are counted from where the two diverge."""
    first, last = min(points[0].step - origin, 0), max(points[-1].step - origin, 0)
    place = _logarithm if last - first > LONG else float
    decades = max(1, *(math.ceil(math.log10(point.ulp or 1)) for point in points))

    def x(after: int) -> str:
        return percent_of(place(after) - place(first), place(last) - place(first))

    def y(ulp: int | None) -> float:
        if not ulp:
            return NO_NUMBER if ulp is None else EQUAL
        return BOTTOM - (BOTTOM - TOP) * math.log10(ulp) / decades

    rows = {_short(10**k): y(10**k) for k in range(0, decades + 1, math.ceil(decades / 6))}
    rows |= {"equal": EQUAL}
    rows |= {"NaN": NO_NUMBER} if None in (point.ulp for point in points) else {}
    drawn = "".join(
        f"<line class='grid' x1='0%' x2='100%' y1='{at:.1f}' y2='{at:.1f}'/>"
        f"<text x='-8' y='{at + 4:.1f}' text-anchor='end'>{label}</text>"
        for label, at in rows.items()
    )
    drawn += "".join(
        f"<text x='{x(n)}' y='{EQUAL + 20}' text-anchor='middle'>{'+' * (n > 0)}{_short(n)}</text>"
        for n in _ticks(first, last)
    )
    drawn += f"<line class='mark' x1='{x(0)}' x2='{x(0)}' y1='0' y2='{EQUAL}'/>"
    scale = ", logarithmic" if place is _logarithm else ""
    axis = f"steps after step {origin:,}{scale}"
    drawn += f"<text x='100%' y='{EQUAL + 40}' text-anchor='end'>{axis}</text>"
    return drawn + "".join(_dot(point, x(point.step - origin), y(point.ulp)) for point in points)


def _dot(point: _Point, x: str, y: float) -> str:
    """Draw a ring where both are equal, a cross where one is NaN, a pin elsewhere."""
    title = f"<title>step {point.step:,}: {point.a!r} and {point.b!r}, {point}</title>"
    if point.ulp is None:
        return f"<text class='cross' x='{x}' y='{y + 5:.1f}'>&#215;{title}</text>"
    kind = "dot" if point.ulp else "ring"
    pin = f"<line class='pin' x1='{x}' x2='{x}' y1='{y:.1f}' y2='{EQUAL}'/>" if point.ulp else ""
    return f"{pin}<circle class='{kind}' cx='{x}' cy='{y:.1f}' r='3'>{title}</circle>"


def _logarithm(after: int) -> float:
    """Return the place of a step in a long picture: early ones wide, later ones ever closer."""
    return math.copysign(math.log1p(abs(after)), after)


def _ticks(first: int, last: int) -> list[int]:
    """Choose some steps to be named, counted from where the two diverge."""
    if last - first > LONG:
        powers = [10**k for k in range(1, len(str(max(last, -first))), 2)]
        return [n for n in (*(-p for p in powers), 0, *powers) if first <= n <= last]
    unit = next(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if last - first <= 5 * n)
    return list(range(math.ceil(first / unit) * unit, last + 1, unit))


def _short(number: int) -> str:
    return str(number) if abs(number) < 1000 else f"{number:.0e}".replace("e+0", "e")


def _leaves(found: Comparison) -> str:
    if found.verdict != "different" or found.stage == "loss":
        return ""
    if not found.leaves:
        return "<p>The two are known only as a whole, so no leaf can be named.</p>"
    rows = [_distance_row(leaf, found) for leaf in found.leaves]
    return html_table(
        (f"leaf of {found.stage or 'the state'}", "dtype", "elements", "farthest"), rows
    )


def _distance_row(leaf: str, found: Comparison) -> tuple[str, str, str, str]:
    if leaf not in found.distances:
        return leaf, "not known", "not measured", "not measured"
    differ, _, farthest = str(found.distances[leaf]).partition(", ")
    return leaf, found.distances[leaf].dtype, differ, farthest or "-"


def _recomputation(found: Comparison, names: tuple[str, str]) -> str:
    """Say what came of computing the step again, and what finds the operation."""
    if found.recomputed is None:
        return "<p>The step was not computed again.</p>" if found.stage else ""
    lines = [
        f"{ANSWERS[outcome.answer]} {side}: {outcome.answer}. {outcome.reason}"
        for side, outcome in zip("ab", found.recomputed, strict=True)
    ]
    confirmed = all(outcome.answer == "confirmed" for outcome in found.recomputed)
    if not confirmed or found.stage not in STAGES[2:]:
        return html_list(lines)
    a, b = map(shlex.quote, names)
    command = f"reproducibility trace {a} --step {found.step} --against {b}"
    return f"{html_list(lines)}<p>This finds the operation: <code>{escaped(command)}</code></p>"


def _explanation_tables(found: Comparison) -> str:
    settings = [(name, *map(_shown_value, sides)) for name, sides in found.settings.items()]
    around = [
        (d.name, _shown_value(d.a), _shown_value(d.b), d.effect, d.why) for d in found.environment
    ]
    if not settings and not around:
        return "<p>No difference of settings, environment or programs is on record.</p>"
    return (
        "<p>They may explain a difference of bits. An explanation is never a verdict: that comes "
        "from digests and fingerprints alone.</p>\n"
        + (html_table(("setting", "a", "b"), settings) if settings else "")
        + (html_table(("environment", "a", "b", "effect", "why"), around) if around else "")
    )


def _shown_value(value: Any) -> str:
    return "not set" if value is None else str(value)
