"""What a resumed run lost, in words: the table of its inputs, and what follows from it for certain.

The rule: the table is the answer. A sentence below it says only what the table, or the records,
leave no other reading for.
Chapter: docs/guide/interrupted.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reproducibility.script.inputs import FoundInput, InputRow, rows_of
from reproducibility.script.reading import SourceLine
from reproducibility.script.report import line_and_text
from reproducibility.script.resumption import Resumption
from reproducibility.script.values import ValuedCall

ROWS_SHOWN = 20  # rows of the table; --json has all
FURTHER = 3  # steps that have to agree with a lag
NAMES = 3  # names in a sentence
INTERRUPTIONS = {1: "the first interruption", 2: "the second interruption"}


def report_of_resumption(found: Resumption) -> str:
    """Return the report of a resumed run, without the verdict.

    Args:
        found: what `interrupt` or `compare_resumed` returned.
    """
    lines = []
    has_table = bool(found.inputs and found.call and found.beside is None)
    if found.verdict != "different" or not has_table:
        lines.append(found.reason)
    if found.inputs and found.call and found.verdict != "same":
        rows = rows_of(found.inputs)
        lines += [_title_of_table(found), *_table_of_inputs(rows), *sentences(found, rows)]
    lines += _program(found)
    if found.call:
        lines += [f"called in {line_and_text(line)}" for line in _own_lines(found.call)[:1]]
    lines += _further(found)
    notes = [found.remark, *found.notes] if found.remark else found.notes
    is_reason = found.verdict == "cannot be told"  # the first problem
    lines += [f"note: {note}" for note in (*notes, *found.problems[is_reason:])]
    return "\n".join(lines)


def with_sentences(found: Resumption) -> Resumption:
    """Give an answer the sentences of its report, for who reads it as JSON.

    Args:
        found: what came of a comparison; it is changed.
    """
    found.follows = sentences(found, rows_of(found.inputs)) if found.difference else []
    return found


def _program(found: Resumption) -> list[str]:
    """Say what differs in a program whose inputs agree."""
    if found.why is None:
        return []
    texts = [line_and_text(line) for line in found.why.lines]
    what = found.why.what.replace(" in one run", " in the whole run")
    what = what.replace(" in the other", " in the resumed run")
    if len(set(texts)) == 1:
        return [what, f"    at {texts[0]}"]
    runs = zip(("whole", "resumed"), texts, strict=False)
    return [what, *(f"    in the {run} run: {text}" for run, text in runs)]


def _further(found: Resumption) -> list[str]:
    """Say where else something begins to differ, and how many calls only pass it on."""
    lines: dict[str, None] = {}
    for root in found.roots[1:]:
        call = root.two or root.one
        if call is not None:
            name = call.program.result if root.kind == "results" else call.program.argument
            names = _names([name(place) for place in root.places]) if root.places else ""
            about = f": {names}" if names else ""
            lines[f"and begins in {_call_and_line(call)}{about}"] = None
    shown = list(lines)[:NAMES]
    if len(lines) > NAMES:
        shown.append(f"and in {len(lines) - NAMES} more places, which --json has")
    if found.passed_on:
        one = found.passed_on == 1
        calls = "1 more call" if one else f"{found.passed_on:,} more calls"
        shown.append(f"{calls} only {'passes' if one else 'pass'} it on")
    return shown


def _title_of_table(found: Resumption) -> str:
    assert found.call is not None
    name, steps = found.call.program.called, f"{found.whole_steps:,}"
    if found.beside is None:
        of = f"has, of the {steps} calls of the whole run,"
        if found.interruptions > 1:
            after = INTERRUPTIONS.get(found.start, f"interruption {found.start}")
            return f"the first call of {name} after {after} {of}"
        return f"the first resumed call of {name} {of}"
    return f"that call of {name} has, of the calls of the whole run,"


def _table_of_inputs(rows: Sequence[InputRow]) -> list[str]:
    width = max(len(row.title) for row in rows[:ROWS_SHOWN])
    lines = [f"    {row.title:<{width}}  {row.words}" for row in rows[:ROWS_SHOWN]]
    if len(rows) > ROWS_SHOWN:
        lines.append(f"    and {len(rows) - ROWS_SHOWN} more")
    return lines


def sentences(found: Resumption, rows: Sequence[InputRow]) -> list[str]:
    """Return what follows from the table for certain.

    Args:
        found: a resumed run that differs.
        rows: the table.
    """
    inputs = [each for each in found.inputs if each.kind != "every"]
    state = [each for each in inputs if each.carried]
    usual = found.values.usual(found.inputs) if found.values else 0
    started = [row for row in rows if row.calls == (1,)]
    others = [row for row in rows if row not in started]
    lines = [*_swapped(found), *_not_restored(started, state, alone=not others)]
    if found.beside is None:
        lines += _behind(found, others, _of_state(state))
    lines += _were_one(found)
    lines += found.rounded
    if usual > 1 and found.beside is None:
        lines += _as_before_the_first(others, usual)
    for row in others:
        if row.inputs[0].kind == "unseen":
            lines += _where_it_was_made(found, row)
    return lines + _restored_and_not_used(found, rows, usual)


def _of_state(state: Sequence[FoundInput]) -> int:
    """Return the call that most of the state is of, of what was restored; 0 if there is none."""
    sets = [set(each.calls) for each in state if each.kind == "calls" and each.calls != (1,)]
    best = Counter(call for calls in sets for call in calls).most_common(2)
    if not best or 2 * best[0][1] <= len(sets) or (len(best) > 1 and best[1][1] == best[0][1]):
        return 0
    return best[0][0]


def _names(names: Sequence[str]) -> str:
    shown = list(dict.fromkeys(names))
    if len(shown) > NAMES:
        return f"{', '.join(shown[:NAMES])} and {len(shown) - NAMES} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _not_restored(
    started: Sequence[InputRow], state: Sequence[FoundInput], *, alone: bool
) -> list[str]:
    """Say what equals what it was before step 1; `alone` if there is nothing else."""
    kept = [row for row in started if any(each.carried for each in row.inputs)]
    fed = [row for row in started if row not in kept]
    lines = []
    if not alone and state and all(each.calls == (1,) for each in state):
        return ["all that a step passes on equals what it was before step 1: it was not restored"]
    if kept:
        names = _names([row.name for row in kept])
        verb = "equals what it was" if len(kept) == 1 else "equal what they were"
        lines.append(f"{names} {verb} before step 1: not restored")
    if fed:
        names = _names([row.name for row in fed])
        lines.append(f"{names}: as in step 1 again")
    return lines


def _as_before_the_first(rows: Sequence[InputRow], usual: int) -> list[str]:
    """Say which part of the state is as it was before step 1, and before others that are alike."""
    found = []
    for row in rows:
        if row.calls[:1] == (1,) and usual not in row.calls and any(e.carried for e in row.inputs):
            found.append(
                f"{row.name} is not that of call {usual:,}, but as before step 1: not restored, or "
                "of a later step that begins with this value"
            )
    return found


def _behind(found: Resumption, rows: Sequence[InputRow], of_state: int) -> list[str]:
    """Say how far what is fed is from the state."""
    groups: dict[int, list[str]] = {}
    lines = []
    for row in rows:
        fed = not any(each.carried for each in row.inputs)
        if fed and of_state and len(row.calls) == 1 and row.calls[0] != of_state:
            if _goes_on(found, row, row.calls[0]):
                groups.setdefault(row.calls[0], []).append(row.name)
            else:
                lines.append(f"{row.name}: the next is not that of call {row.calls[0] + 1:,}")
    for call, names in groups.items():
        away = call - of_state
        count = f"{abs(away):,} step{'s' * (abs(away) > 1)}"
        what = "behind" if away < 0 else "ahead of"
        then = f"; that of call {call:,} is used twice" if away == -1 else ""
        then = f"; that of call {of_state:,} is left out" if away == 1 else then
        verb = "is" if len(names) == 1 else "are"
        lines.append(f"{_names(names)} {verb} {count} {what} the state{then}")
    return lines


def _goes_on(found: Resumption, row: InputRow, call: int) -> bool:
    """Whether the next steps take what followed in the whole run: one value agrees by chance."""
    steps = found.values.steps[call:] if found.values else []
    places = [each.place for each in row.inputs]
    return all(
        one.values[place] == two.values[place]
        for one, two in zip(steps[:FURTHER], found.after, strict=False)
        for place in places
    )


def _swapped(found: Resumption) -> list[str]:
    """Say which two inputs have each other's values."""
    if found.call is None or found.values is None:
        return []
    wrong = [each for each in found.inputs if each.kind == "elsewhere"]
    lines = []
    for number, one in enumerate(wrong):
        for two in wrong[number + 1 :]:
            mine, its = found.call.values[one.place], found.call.values[two.place]
            at = [
                n
                for n, step in enumerate(found.values.steps, 1)
                if (step.values[one.place], step.values[two.place]) == (its, mine)
            ]
            if at:
                lines.append(f"{one.name} and {two.name} are swapped: those of call {at[-1]:,}")
    return lines


def _were_one(found: Resumption) -> list[str]:
    """Say which two inputs were equal in every call, and are not now."""
    if found.call is None or found.values is None or len(found.values.steps) < 2:
        return []
    steps, call, lines = found.values.steps, found.call, []
    numbers = _numbers(call)  # which may be equal by chance
    inputs = [each for each in found.inputs if each.place not in numbers]
    changing = [each for each in inputs if each.kind != "every"]
    columns = {each.place: tuple(step.values[each.place] for step in steps) for each in changing}
    for number, one in enumerate(changing):
        for two in changing[number + 1 :]:
            equal = columns[one.place] == columns[two.place]
            if equal and call.values[one.place] != call.values[two.place]:
                lines.append(f"{one.name} and {two.name} were equal in every call of the whole run")
    return lines


def _where_it_was_made(found: Resumption, row: InputRow) -> list[str]:
    """Say which call returned a value that the whole run never had there."""
    call = found.call
    assert call is not None
    for each in row.inputs:
        origin = call.origins[each.place] if each.place < len(call.origins) else None
        place = (origin.thread, origin.call) if origin else None
        maker = next((c for c in found.before if (c.thread, c.number) == place), None)
        if maker is not None:
            return [f"{each.name} was made by {_call_and_line(maker)}"]
    return []


def _call_and_line(call: ValuedCall) -> str:
    site = _own_lines(call)[:1]
    return call.program.called + "".join(f", {line_and_text(line)}" for line in site)


def _own_lines(call: ValuedCall) -> Sequence[SourceLine]:
    """Return the lines of a call from the first on that is in no library."""
    own = (i for i, line in enumerate(call.site) if "site-packages" not in line.file)
    return call.site[next(own, 0) :]


def _restored_and_not_used(found: Resumption, rows: Sequence[InputRow], usual: int) -> list[str]:
    """Say which right value was there before the call, and was not what it got; or was nowhere."""
    beside = found.beside
    if beside is None and found.values and usual:
        beside = found.values.steps[usual - 1]
    if beside is None or found.call is None:
        return []
    uses: dict[str, list[str]] = {}
    nowhere: list[str] = []
    for row in rows:
        for each in row.inputs:
            right = beside.values[each.place]
            usable = each.kind in ("unseen", "calls") and each.place not in _numbers(found.call)
            if not usable or right == found.call.values[each.place]:
                continue
            before = (each for each in found.before if each.thread == found.call.thread)
            use = next((c for c in before if right in (*c.values, *c.results)), None)
            if use is not None:
                uses.setdefault(_call_and_line(use), []).append(each.name)
                break
            if each.kind == "unseen" and each.carried and row.name not in nowhere:
                nowhere.append(row.name)
    lines = []
    for line, names in uses.items():
        were = "were" if len(names) > 1 else "was"
        lines.append(f"{_names(names)} {were} restored right, and used otherwise: right in {line}")
    if nowhere and not uses:
        lines.append(
            f"no call before it has the right {_names(nowhere)}: saved or restored wrongly, or "
            "changed without JAX"
        )
    return lines


def _numbers(call: ValuedCall) -> set[int]:
    """Return the places of single numbers, which are the same by chance."""
    shapes = call.program.shapes
    if len(shapes) != len(call.values):
        return set(range(len(call.values)))
    return {i for i, text in enumerate(shapes) if text.endswith("[]") and text[:3] != "key"}
