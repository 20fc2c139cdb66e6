"""Two records that were compared, as sections of a page: lanes, and the way of the difference.

The rule: the page shows what the report says, and finds nothing by itself.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

from collections.abc import Sequence

from reproducibility.explain.page import (
    HATCH,
    escaped,
    html_list,
    html_table,
    percent_of,
    svg_picture,
)
from reproducibility.script.aligned_lanes import (
    AGREES,
    ALONE,
    DIFFERS,
    AlignedLanes,
    AlignedMark,
)
from reproducibility.script.aligned_report import KINDS_OF_BEGINNING, line_with_text
from reproducibility.script.descent import Beginning
from reproducibility.script.graph import CallNode, short_line
from reproducibility.script.lanes import GAP, LANE
from reproducibility.script.sides import AlignedRecords, FirstUpdate

MOST_PROCESSES_DRAWN = 4  # processes
MARKED = 9  # places where a difference begins
_TONES = {AGREES: "agreed", DIFFERS: "parted", ALONE: "unknown"}
_BETWEEN = 22  # the space between two lanes that are no pair call by call, in pixels


def sections_of_aligned(found: AlignedRecords) -> dict[str, str]:
    """Return the sections of a page about two records of different commands, by their headings.

    Args:
        found: what `compare_aligned` returned.
    """
    return {
        "What was compared": _table_of_sides(found),
        "The two runs, call by call": _lanes_of_sides(found),
        "From where it begins to the update that differs": _way_to_the_update(found),
        "Other inputs of that update": _table_of_other_inputs(found.first),
        "Where a difference begins": _table_of_beginnings(found),
        "Calls that only one run makes": _table_of_one_side(found),
        "Other names, and more results": html_list(
            [*(f"{one} in A is {two} in B" for one, two in found.renamed), *found.more]
        ),
        "What limits the answer": html_list([*found.notes, *found.problems]),
    }


def _table_of_sides(found: AlignedRecords) -> str:
    rows = [
        ("calls of JAX", *(f"{many:,}" for many in found.calls)),
        ("of them equal in both", *[f"{found.paired:,}"] * 2),
    ]
    if any(found.updates):
        pairs = zip(found.updates, found.names, strict=True)
        rows.append(("updates", *(f"{many:,} of {name}" for many, name in pairs)))
        rows.append(("updates that agree", *[f"{found.equal:,}"] * 2))
    differ = [f"the commands differ: {found.commands}"] * bool(found.commands)
    differ += [f"the files differ: {found.files}"] * bool(found.files)
    return html_table(("what", "in A", "in B"), rows) + html_list(differ)


def _lanes_of_sides(found: AlignedRecords) -> str:
    """Draw the calls of both runs, process by process."""
    lanes = found.lanes or [_all_agree(found.calls)] * found.in_order
    shown = sorted(lanes, key=lambda each: (not each.marks, -max(each.calls)))[
        :MOST_PROCESSES_DRAWN
    ]
    if not shown:
        return ""
    kinds = {kind for each in shown for side in each.stretches for *_, kind in side}
    words = {AGREES: "calls that agree", DIFFERS: "calls that differ", ALONE: "of one run only"}
    items = "".join(
        f"<li><svg width='14' height='14' aria-hidden='true'><rect class='{_TONES[kind]}' "
        f"width='14' height='14'/></svg> {text}</li>"
        for kind, text in words.items()
        if kind in kinds
    )
    if any(each.marks for each in shown):
        items += "<li><b>①</b> where a difference begins, as listed below</li>"
    drawn = "".join(_lanes_of_process(each, hatch=not n) for n, each in enumerate(shown))
    more = len(lanes) - len(shown)
    rest = f"<p>and {more:,} more processes, whose calls are not drawn</p>" if more else ""
    return f"<ul class='legend'>{items}</ul>{drawn}{rest}"


def _all_agree(calls: tuple[int, int]) -> AlignedLanes:
    """Return the lanes of runs whose calls all agree in their order: nothing was aligned."""
    one, other = (((0, many, AGREES),) * bool(many) for many in calls)
    return AlignedLanes("all calls, in their order", calls, (one, other))


def _lanes_of_process(lanes: AlignedLanes, *, hatch: bool) -> str:
    whole, rows = max(*lanes.calls, 1), (0, LANE + _BETWEEN)
    bars = "".join(
        f"<rect class='{_TONES[kind]}' x='{percent_of(start, whole)}' y='{y}' "
        f"width='{percent_of(end - start, whole)}' height='{LANE}'/>"
        for side, y in zip(lanes.stretches, rows, strict=True)
        for start, end, kind in side
    )
    labels = "".join(
        f"<text x='-8' y='{y + 15}' text-anchor='end'>run {name}</text>"
        for name, y in zip("AB", rows, strict=True)
    )
    marks = "".join(_mark_of_both(each, whole, rows) for each in _shown_marks(lanes.marks))
    summary = "; ".join(
        f"{name}: {many:,} calls, {_count(side, DIFFERS)} differ, {_count(side, ALONE)} only here"
        for name, many, side in zip("AB", lanes.calls, lanes.stretches, strict=True)
    )
    title = escaped(lanes.command)
    height = rows[1] + LANE + GAP + 18
    picture = svg_picture(
        height, title, escaped(summary), (HATCH if hatch else "") + bars + labels + marks
    )
    return f"<figure><p>{title}</p><div>{picture}</div></figure>"


def _count(side: Sequence[tuple[int, int, str]], kind: str) -> str:
    """Count calls in whole stretches: where there are many, those that agree between them too."""
    many = sum(end - start for start, end, each in side if each == kind)
    return f"{many:,}"


def _shown_marks(marks: Sequence[AlignedMark]) -> list[AlignedMark]:
    """Return the marks that can be told apart: one for each place, those of the table first."""
    found: dict[tuple[int | None, int | None], AlignedMark] = {}
    for mark in marks:
        if not mark.text.isdigit() or int(mark.text) <= MARKED:
            found.setdefault(mark.places, mark)
    return list(found.values())


def _mark_of_both(mark: AlignedMark, whole: int, rows: tuple[int, int]) -> str:
    """Draw the place of a call in each lane, and a line that joins the two."""
    xs = [None if each is None else percent_of(each + 0.5, whole) for each in mark.places]
    drawn = "".join(
        f"<line class='mark' x1='{x}' x2='{x}' y1='{y - 4}' y2='{y + LANE + 4}'/>"
        for x, y in zip(xs, rows, strict=True)
        if x
    )
    if xs[0] and xs[1]:
        drawn += (
            f"<line class='zoom' x1='{xs[0]}' x2='{xs[1]}' y1='{LANE + 4}' y2='{rows[1] - 4}'/>"
        )
    name = circled(int(mark.text)) if mark.text.isdigit() else mark.text
    return drawn + (
        f"<text x='{xs[1] or xs[0]}' y='{rows[1] + LANE + 20}' text-anchor='middle'>{name}</text>"
    )


def circled(number: int) -> str:
    """Return a number in a circle, from 1 to 9; else nothing.

    Args:
        number: it.
    """
    return chr(ord("①") + number - 1) if 1 <= number <= MARKED else ""


def _way_to_the_update(found: AlignedRecords) -> str:
    """Show how a difference comes to the first update that differs."""
    if not found.beginnings and not found.first:
        return ""
    boxes = [
        (
            "begins",
            f"{circled(number)} {_beginning_in_words(each)}",
            _lines_of_beginning(found, each),
        )
        for number, each in enumerate(found.beginnings[:MARKED], 1)
    ]
    if first := found.first:
        one = first.one
        names = ", ".join(one.call.program.argument(pair[0]) for pair, _, _ in first.inputs)
        if names and all(each.one is not one for each in found.beginnings):
            boxes.append(("comes to", f"{one.name} as another {names}", []))
        calls = f"call {one.call.number + 1:,} in A, {first.two.call.number + 1:,} in B"
        text = f"update {first.numbers[0]:,} of {found.updates[0]:,}, {one.name}: {calls}"
        boxes.append(("shows in", text, _lines_of(found, one, first.two)))
    items = "".join(
        f"<li><b>{escaped(head)}</b> {escaped(text)}"
        + "".join(f"<code>{escaped(line)}</code>" for line in lines)
        + "</li>"
        for head, text, lines in boxes
    )
    return f"<ol class='way'>{items}</ol>"


def _beginning_in_words(each: Beginning) -> str:
    names = f": {', '.join(each.names)}" if each.names else ""
    what = f" ({each.what})" if each.what else ""
    return f"{_function_of(each)}, {KINDS_OF_BEGINNING[each.kind]}{names}{what}"


def _function_of(each: Beginning) -> str:
    node = each.one or each.two
    return node.name if node else ""


def _lines_of_beginning(found: AlignedRecords, each: Beginning) -> list[str]:
    lines = [f"the program: {short_line(line)}" for line in each.why.lines] if each.why else []
    return [*dict.fromkeys(lines), *_lines_of(found, each.one, each.two)]


def _lines_of(found: AlignedRecords, one: CallNode | None, two: CallNode | None) -> list[str]:
    texts = [
        line_with_text(node.line, digests) if node and node.line else ""
        for node, digests in zip((one, two), found.digests, strict=True)
    ]
    if texts[0] == texts[1]:
        return [texts[0]] if texts[0] else []
    return [f"{side}: {text}" for side, text in zip("AB", texts, strict=True) if text]


def _table_of_other_inputs(first: FirstUpdate | None) -> str:
    if not first or not first.inputs:
        return ""
    argument = first.one.call.program.argument
    rows = [(argument(pair[0]), mine, theirs) for pair, mine, theirs in first.inputs]
    return html_table(("input", "in A from", "in B from"), rows)


def _table_of_beginnings(found: AlignedRecords) -> str:
    if not found.beginnings:
        return ""
    rows = [
        (
            f"{circled(number)} {_function_of(each)}".strip(),
            *(f"call {node.call.number + 1:,}" if node else "-" for node in (each.one, each.two)),
            KINDS_OF_BEGINNING[each.kind],
            ", ".join(each.names) or each.what or "-",
            "; ".join(_lines_of(found, each.one, each.two)) or "not known",
        )
        for number, each in enumerate(found.beginnings, 1)
    ]
    return html_table(("function", "in A", "in B", "what", "arguments or results", "line"), rows)


def _table_of_one_side(found: AlignedRecords) -> str:
    rows = [
        (
            each.function,
            side,
            f"{each.count:,}",
            short_line(each.line) if each.line else "not known",
        )
        for side, only in zip("AB", found.only, strict=True)
        for each in only
    ]
    return html_table(("function", "only in", "calls", "line"), rows) if rows else ""
