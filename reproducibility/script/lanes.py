"""Two runs as lanes: the calls that agree and differ, and the way from a cause to what is printed.

The rule: a difference is drawn where it was compared, and a cause is claimed as the report does.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import linecache
from collections import Counter
from collections.abc import Sequence

from reproducibility.explain.page import (
    HATCH,
    escaped,
    html_list,
    html_table,
    percent_of,
    svg_picture,
)
from reproducibility.script.diverging import RUNS, Alignment, Lane, Root
from reproducibility.script.reading import SourceLine
from reproducibility.script.report import KINDS_OF_ROOT, cause_in_words, roots_by_line
from reproducibility.script.sites import near_place
from reproducibility.script.twice import Twice

LANES_SHOWN = 6  # threads
ROOTS_MARKED = 9  # lines where a difference begins
FUNCTIONS_SHOWN = 6  # that pass a difference on
BINS = 500  # of a lane, so that a page of a million calls is small
LANE, GAP = 20, 8  # height of a lane, and what is between two, in pixels
LABEL_WIDTH = 0.03  # of a lane's width


def sections_of_twice(found: Twice) -> dict[str, str]:
    """Return the sections of a page about two runs, by their headings.

    Args:
        found: what `twice` returned.
    """
    sections = sections_of_records(found.compared)
    way = {"From the cause to what is printed": _way_of_difference(found)}
    [(first, lanes), *rest] = sections.items()
    return {first: lanes, **way, **dict(rest)}


def sections_of_records(compared: Alignment) -> dict[str, str]:
    """Return the sections of a page about two records of one command, by their headings.

    Args:
        compared: what `compare_records` returned.
    """
    passed = f"is passed on by {by}" if (by := _passed_on_by(compared)) else ""
    return {
        "The two runs, call by call": _lanes_of_runs(compared),
        "Where a difference begins": _table_of_roots(compared),
        "Who passes it on": html_list([passed] * bool(passed)),
        "What limits the answer": html_list([*compared.notes, *compared.problems]),
    }


def _lanes_of_runs(compared: Alignment) -> str:
    """Draw both runs as lanes, thread by thread."""
    lanes = [each for each in compared.lanes if each.compared]
    shown = sorted(lanes, key=lambda each: (not each.stretches, -each.compared))[:LANES_SHOWN]
    if not shown:
        return ""
    numbers = {id(root): n for n, root in enumerate(_first_roots(compared), 1)}
    drawn = "".join(_lane(compared, each, numbers, hatch=not n) for n, each in enumerate(shown))
    more = len(lanes) - len(shown)
    rest = f"<p>and {more:,} more threads, whose calls are not drawn</p>" if more else ""
    return _legend(compared) + drawn + rest


def _legend(compared: Alignment) -> str:
    words = {"agreed": "calls that agree"}
    if compared.roots:
        words |= {"parted": "calls that differ", "unknown": "not compared"}
    items = "".join(
        f"<li><svg width='14' height='14' aria-hidden='true'>"
        f"<rect class='{kind}' width='14' height='14'/></svg> {text}</li>"
        for kind, text in words.items()
    )
    mark = "<li><b>①</b> where a difference begins, as listed below</li>" if compared.roots else ""
    return f"<ul class='legend'>{items}{mark}</ul>"


def _lane(compared: Alignment, lane: Lane, numbers: dict[int, int], *, hatch: bool) -> str:
    """Draw a thread of both runs: a bar each, and the marks of where a difference begins."""
    roots = [
        root
        for root in compared.roots
        if (root.process, root.thread) == (lane.process, lane.thread) and root.ordered
    ]
    whole = max(lane.compared, compared.of, *(root.call + 1 for root in roots), 1)
    bars = "".join(_bars(lane, whole, row * (LANE + GAP)) for row in range(len(RUNS)))
    marks = "".join(_mark(root, numbers[id(root)], whole) for root in roots if id(root) in numbers)
    differ = sum(last - first + 1 for first, last in lane.stretches)
    summary = f"{lane.compared:,} calls compared, {differ:,} differ"
    height = len(RUNS) * (LANE + GAP) + 26
    labels = "".join(
        f"<text x='-8' y='{row * (LANE + GAP) + 15}' text-anchor='end'>run {row + 1}</text>"
        for row in range(len(RUNS))
    )
    title = f"thread {escaped(lane.thread)}"
    drawn = (HATCH if hatch else "") + bars + labels + marks
    return (
        f"<figure><p>{title}: {summary}</p><div>"
        f"{svg_picture(height, title, summary, drawn)}</div></figure>"
    )


def _bars(lane: Lane, whole: int, y: int) -> str:
    """Draw one run of a thread: what agrees, what differs, and what was not compared."""
    spans = [(0, lane.compared, "agreed"), (lane.compared, whole, "unknown")]
    spans += [(first, last + 1, "parted") for first, last in _in_bins(lane.stretches, whole)]
    return "".join(
        f"<rect class='{kind}' x='{percent_of(start, whole)}' y='{y}' "
        f"width='{percent_of(end - start, whole)}' height='{LANE}'/>"
        for start, end, kind in spans
        if end > start
    )


def _in_bins(stretches: Sequence[tuple[int, int]], whole: int) -> list[tuple[int, int]]:
    """Join stretches that a page cannot show apart."""
    near = whole // BINS
    found: list[tuple[int, int]] = []
    for first, last in stretches:
        if found and first - found[-1][1] <= near + 1:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return found


def _mark(root: Root, number: int, whole: int) -> str:
    """Draw a line through both lanes, with the number of a root below."""
    x, end = percent_of(root.call, whole), len(RUNS) * (LANE + GAP) - GAP
    title = f"<title>{escaped(root_in_words(root))}</title>"
    return (
        f"<line class='mark' x1='{x}' x2='{x}' y1='-4' y2='{end + 4}'>{title}</line>"
        f"<text x='{x}' y='{end + 20}' text-anchor='middle'>{_circled(number)}</text>"
    )


def _circled(number: int) -> str:
    return chr(ord("①") + number - 1) if 1 <= number <= ROOTS_MARKED else ""


def _first_roots(compared: Alignment) -> list[Root]:
    """Return the first root of each line, those that are marked."""
    return [group[0] for group in roots_by_line(compared.roots)][:ROOTS_MARKED]


def root_in_words(root: Root) -> str:
    """Say which call differs first, and how.

    Args:
        root: where a difference begins.
    """
    names = f": {', '.join(root.names)}" if root.names else ""
    return f"call {root.call + 1:,}, {root.program}: {KINDS_OF_ROOT[root.kind]}{names}"


def _way_of_difference(found: Twice) -> str:
    """Show the way of a difference: what made it, where it enters, who passes it on, what shows."""
    compared = found.compared
    if not compared.roots:
        return ""
    root, boxes = compared.roots[0], list[tuple[str, str, list[str]]]()
    for event in found.sources[:ROOTS_MARKED]:
        at = [line_in_full(line) for line in event.site[:1]]
        may = "comes from" if found.confirmed and len(found.sources) == 1 else "may come from"
        boxes.append((may, event.what, at))
    if not found.sources and root.program_differs:
        lines = [line_in_full(line) for line in root.program_differs.lines]
        boxes.append(("the program differs", root.what, lines))
    boxes.append(("begins", root_in_words(root), [line_in_full(line) for line in root.site]))
    if passed := _passed_on_by(compared):
        boxes.append(("is passed on by", passed, []))
    if found.remark:
        boxes.append(("shows", found.remark, []))
    elif found.stopped:
        boxes.append(("shows", "the second run was ended before: --to-the-end lets it go on", []))
    items = "".join(
        f"<li><b>{escaped(head)}</b> {escaped(text)}"
        + "".join(f"<code>{escaped(line)}</code>" for line in lines)
        + "</li>"
        for head, text, lines in boxes
    )
    return f"<ol class='way'>{items}</ol>{html_list(cause_in_words(found))}"


def _passed_on_by(compared: Alignment) -> str:
    """Say which functions pass a difference on, and in how many calls."""
    counts = Counter[str]()
    for lane in compared.lanes:
        counts.update(lane.passed)
    shown = [f"{name} in {n:,} call{'s' * (n != 1)}" for name, n in counts.most_common()]
    more = len(shown) - FUNCTIONS_SHOWN
    return ", ".join(shown[:FUNCTIONS_SHOWN]) + (f" and {more} more functions" if more > 0 else "")


def _table_of_roots(compared: Alignment) -> str:
    groups = roots_by_line(compared.roots)
    if not groups:
        return ""
    rows = [
        (
            f"{_circled(number)} call {group[0].call + 1:,}",
            group[0].program,
            KINDS_OF_ROOT[group[0].kind],
            ", ".join(group[0].names) or group[0].what,
            _where(group[0].site),
            f"{len(group):,}",
        )
        for number, group in enumerate(groups, 1)
    ]
    heads = ("first at", "function", "what", "arguments or results", "line", "calls")
    return html_table(heads, rows)


def line_in_full(line: SourceLine) -> str:
    """Return a line with all that stands in it.

    Args:
        line: one of a record.
    """
    text = linecache.getline(line.file, line.line).strip()
    return f"{near_place(line)}, in {line.function}" + (f": {text}" if text else "")


def _where(site: Sequence[SourceLine]) -> str:
    return line_in_full(site[0]) if site else "not known"
