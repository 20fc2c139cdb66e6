"""In which line a script asks for a hidden input that was seen to matter.

The rule: a recorded question first, then a line that has a word for it; lines behind the call count
most. It explains, and never decides.
Chapter: docs/guide/hidden_inputs.md
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from reproducibility.script.dataflow import (
    IN_PACKAGES,
    asked_by,
    is_seeded,
    lines_behind,
    own_files,
    salted,
)
from reproducibility.script.diverging import Root
from reproducibility.script.hidden import Change, Hidden
from reproducibility.script.reading import Event, SourceLine, processes_of

ORDER_OF_SETS = ("hash", "addresses")  # what the order of a set depends on

type Behind = dict[str, set[int]]


def variables_read(record: Path) -> list[str]:
    """Return the environment variables that a script reads.

    Args:
        record: that of a run.
    """
    asked = (event for event in _all_asked(record) if event.kind == "environment")
    return sorted({event.what.partition("=")[0] for event in asked})


def asked_in(hidden: Hidden, root: Root | None, record: Path) -> SourceLine | None:
    """Return the line that most likely asks for a hidden input; None if none is known.

    Args:
        hidden: which input.
        root: the call where it shows, if there is one.
        record: that of a run.
    """
    behind = _lines_that_may_be(root)
    events = _asked_before(root, record)
    mine = [event for event in events if _is_question(event, hidden)]
    found = next((line for event in mine for line in _lines_of_event(event, behind)), None)
    found = found or _with_words(hidden, own_files(behind))
    if found is None and mine:
        found = mine[0].site[0]
    return found or _with_words(hidden, dict.fromkeys(own_files(behind)))


def asks(hidden: Hidden, record: Path) -> bool:
    """Whether a script asks for a hidden input, as far as can be seen.

    Args:
        hidden: which input.
        record: that of a run.
    """
    if any(_is_question(event, hidden) for event in _all_asked(record)):
        return True
    return _with_words(hidden, dict.fromkeys(_files_of_script(record))) is not None


def ways_of(hidden: Hidden, record: Path) -> tuple[Change, ...]:
    """Return in which ways an input is changed: more where the script is seen to ask for it.

    Args:
        hidden: which input.
        record: that of a run.
    """
    if not (hidden.more and asks(hidden, record)):
        return hidden.changes
    files = dict.fromkeys(_files_of_script(record))
    more = [each for each in hidden.more if not each.words or _line_with(each.words, files)]
    return (*hidden.changes, *more)


def told_anyway(hidden: Hidden, record: Path) -> SourceLine | None:
    """Return the line that asks so that it is told the same, though the input was changed.

    Args:
        hidden: which input.
        record: that of a run.
    """
    for event in _all_asked(record):
        ways = hidden.told_anyway if event.site else ()
        if any(event.kind == kind and re.search(what, event.what) for kind, what in ways):
            return event.site[0]
    return _line_with(hidden.words_anyway, dict.fromkeys(_files_of_script(record)))


def _line_with(words: str, behind: Mapping[str, set[int] | None]) -> SourceLine | None:
    """Return the first line that has one of these words, among those given; None stands for all."""
    for file, lines in behind.items():
        for number, text in enumerate(linecache.getlines(file), start=1):
            if (lines is None or number in lines) and _says(text, words):
                return SourceLine(file, number, "<module>")
    return None


def _files_of_script(record: Path) -> set[str]:
    """Return the files of source from which JAX is called, or something is asked for."""
    found = {event.site[0].file for event in _all_asked(record) if event.site}
    for process in processes_of(record):
        for thread in process.threads:
            for call in thread.calls():
                found.update(line.file for line in call.pattern.site)
    return {file for file in found if not IN_PACKAGES.search(file)}


def _all_asked(record: Path) -> Iterable[Event]:
    return (event for process in processes_of(record) for event in process.events())


def _asked_before(root: Root | None, record: Path) -> list[Event]:
    """Return what was asked before a call, the latest first."""
    found = [
        event
        for process in processes_of(record)
        if root is None or process.path.name == root.process
        for event in process.events()
        if event.site and (root is None or event.after <= root.call)
    ]
    return found[::-1]


def _is_question(event: Event, hidden: Hidden) -> bool:
    if event.kind == "entropy" and event.site:
        line = event.site[0]
        if is_seeded(line.file, line.line) and not asked_by(line.file, line.line):
            return False
    return any(event.kind == kind and re.search(what, event.what) for kind, what in hidden.asks)


def _lines_that_may_be(root: Root | None) -> Behind:
    found: Behind = {}
    for line in (*root.site, *root.other_site) if root else ():
        found.setdefault(line.file, set()).update(lines_behind(line.file, line.line))
    return found


def _lines_of_event(event: Event, behind: Behind) -> Sequence[SourceLine]:
    return [line for line in event.site if line.line in behind.get(line.file, ())]


def _with_words(hidden: Hidden, behind: Mapping[str, set[int] | None]) -> SourceLine | None:
    """Return the first line that has a word for it, among those given; None stands for all."""
    if (found := _line_with(hidden.words, behind)) or hidden.name not in ORDER_OF_SETS:
        return found
    for file, lines in behind.items():
        if number := salted(file, lines):
            return SourceLine(file, number, "<module>")
    return None


def _says(text: str, words: str) -> bool:
    code = text.partition("#")[0].strip()
    imports = code.startswith(("import ", "from "))
    return bool(words and not imports and re.search(words, code))
