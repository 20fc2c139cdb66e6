"""Try a clean script or a planted fault, and keep what came of it.

The rule: what was tried stays, with the text and the package that it was tried with; the first
attempt at a fault is never written over.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import hidden, resumed, twice
from tests.faults.judge import Judgement, judge
from tests.faults.judge_hidden import judge_hidden
from tests.faults.judge_resumed import judge_resumed
from tests.faults.planted import Clean, Fault, HiddenFault, Item, Planted, ResumeFault
from tests.faults.running import BUILD, ROOT, SHOWN

ROOTS = 20  # of an answer that are kept
NOT_COUNTED = ("not a fault", "agreed by chance")
_OF_THIS_MACHINE = re.compile(rf"{re.escape(str(ROOT))}/(build/faults/runs/\w+/)?")


@dataclass(frozen=True)
class Attempt:
    """What came of a fault, or of a clean script, and what it was tried with.

    `answer` is what was printed about a fault, so that it can be judged again; `differed` says
    whether the runs did that it is about.
    """

    id: str
    outcome: str
    got: str
    confirmed: bool
    seconds: int
    text: str  # digest of the script that ran
    package: str  # digest of the package
    answer: dict[str, Any] | None = None
    differed: bool = False

    @property
    def is_current(self) -> bool:
        """Whether it was tried with the package as it is now."""
        return self.package == package_digest()


def package_digest() -> str:
    """Return the digest of the code that an answer depends on."""
    digest = hashlib.sha256()
    for room in ("script", "watch"):
        for path in sorted((ROOT / "reproducibility" / room).glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def kept(item: Item, *, first: bool = False) -> Attempt | None:
    """Return the last attempt at this text, or the first one, judged by what is expected now."""
    path = _place(item, first=first)
    if not path.exists():
        return None
    found = Attempt(**json.loads(path.read_text()))
    if found.text != _digest(item.text):
        return None
    if not isinstance(item, Fault) or found.answer is None:
        return found
    judged = _judged(item, found.answer, differed=found.differed)
    return dataclasses.replace(found, outcome=judged.outcome, got=_shown(judged.got))


def attempt(item: Item, python: Path, *, keep: bool = True) -> Attempt:
    """Try a clean script or a fault, and keep what came of it."""
    start = time.monotonic()
    found, answer, differed = _tried(item, python, alone=not keep)
    done = Attempt(
        item.id,
        found.outcome,
        _shown(found.got),
        found.confirmed,
        round(time.monotonic() - start),
        _digest(item.text),
        package_digest(),
        answer and answer | {"roots": answer.get("roots", [])[:ROOTS]},
        differed,
    )
    if keep:
        _keep(item, done)
    return done


def _tried(
    item: Item, python: Path, *, alone: bool
) -> tuple[Judgement, dict[str, Any] | None, bool]:
    """Ask the command that an item is for; `alone`: about nothing else, so that it is quick."""
    match item:
        case Planted():
            return twice.faulty(item, python)
        case ResumeFault():
            return resumed.faulty(item, python)
        case HiddenFault():
            return hidden.faulty(item, python, alone=alone)
        case Clean(kind_of_trial="hidden"):
            return hidden.clean(item, python), None, False
        case Clean(kind_of_trial="resume"):
            return resumed.clean(item, python), None, False
        case Clean():
            return twice.clean(item, python), None, False
    raise TypeError(item)


def _judged(fault: Fault, answer: dict[str, Any], *, differed: bool) -> Judgement:
    """Judge an answer by what is expected now."""
    if isinstance(fault, ResumeFault):
        return judge_resumed(fault, answer, differed=differed)
    if isinstance(fault, HiddenFault):
        return judge_hidden(fault.depends_on, answer)
    assert isinstance(fault, Planted)
    return judge(fault, fault.text, answer, differed=differed)


def _keep(item: Item, done: Attempt) -> None:
    """Write an attempt down; the first one that says something stays beside the last."""
    text = json.dumps(dataclasses.asdict(done), indent=1)
    path, first = _place(item), _place(item, first=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if done.outcome not in NOT_COUNTED and kept(item, first=True) is None:
        first.write_text(text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shown(text: str) -> str:
    """Return a line without this machine's folders."""
    return " ".join(_OF_THIS_MACHINE.sub("", text).split())[:SHOWN]


def _place(item: Item, *, first: bool = False) -> Path:
    name = f"{item.id}.clean" if isinstance(item, Clean) else item.id
    return BUILD / "attempts" / f"{name}.{'first' if first else 'last'}.json"
