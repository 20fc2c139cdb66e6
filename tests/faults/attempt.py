"""Try a clean script or a planted fault, and keep what came of it.

The rule: a fault counts only if the result of the plain script changes, and an answer is judged by
the two runs that it is about: those that agree by chance are tried again.
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

from tests.faults.judge import Judgement, judge
from tests.faults.planted import Planted, text_of_script
from tests.faults.running import (
    BUILD,
    ROOT,
    Ended,
    counted,
    fresh_copy,
    plain,
    recorded,
    results_in,
    twice,
)

PLAIN_RUNS = 3  # after which a script whose result has not changed has no fault
PAIRS = 3  # of runs that agree by chance, after which the fault varies too rarely to be judged
ROOTS = 20  # of an answer that are kept
NOT_COUNTED = ("not a fault", "agreed by chance")
SHOWN = 300  # characters of what was found
_OF_THIS_MACHINE = re.compile(rf"{re.escape(str(ROOT))}/(build/faults/runs/\w+/)?")


@dataclass(frozen=True)
class Attempt:
    """What came of a fault, or of a clean script, and what it was tried with.

    `answer` is what `twice` printed about a fault, so that it can be judged again; `differed` says
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


def kept(item: Planted | str, *, first: bool = False) -> Attempt | None:
    """Return the last attempt at this text, or the first one, judged by what is expected now."""
    path = _place(item, first=first)
    if not path.exists():
        return None
    found = Attempt(**json.loads(path.read_text()))
    text = _text(item)
    if found.text != _digest(text):
        return None
    if isinstance(item, str) or found.answer is None:
        return found
    judged = judge(item, text, found.answer, differed=found.differed)
    return dataclasses.replace(found, outcome=judged.outcome, got=_shown(judged.got))


def attempt(item: Planted | str, python: Path, *, keep: bool = True) -> Attempt:
    """Try a clean script (its name) or a fault, and keep what came of it."""
    start = time.monotonic()
    answer, differed = None, False
    if isinstance(item, str):
        found = clean(item, python)
    else:
        found, answer, differed = faulty(item, python)
    done = Attempt(
        item if isinstance(item, str) else item.id,
        found.outcome,
        _shown(found.got),
        found.confirmed,
        round(time.monotonic() - start),
        _digest(_text(item)),
        package_digest(),
        answer and answer | {"roots": answer["roots"][:ROOTS]},
        differed,
    )
    if keep:
        _keep(item, done)
    return done


def _keep(item: Planted | str, done: Attempt) -> None:
    """Write an attempt down; the first one that says something stays beside the last."""
    text = json.dumps(dataclasses.asdict(done), indent=1)
    path, first = _place(item), _place(item, first=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if done.outcome not in NOT_COUNTED and kept(item, first=True) is None:
        first.write_text(text)


def _text(item: Planted | str) -> str:
    """Return the script, with what is planted in it."""
    if isinstance(item, str):
        return text_of_script(item)
    return item.planted_in(text_of_script(item.script))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shown(text: str) -> str:
    """Return a line without this machine's folders."""
    return " ".join(_OF_THIS_MACHINE.sub("", text).split())[:SHOWN]


def clean(script: str, python: Path) -> Judgement:
    """Run a clean script alone, recorded, counted and twice: all must agree."""
    text = text_of_script(script)
    with fresh_copy(text) as folder:
        alone = plain(python, folder)
    if alone.code != 0:
        return Judgement("no answer", f"alone: {_failure(alone)}")
    with fresh_copy(text) as folder:
        watched, calls = recorded(python, folder)
    if (watched.code, watched.result) != (alone.code, alone.result):
        return Judgement("changed", f"{alone.result!r} alone, {watched.result!r} recorded")
    with fresh_copy(text) as folder:
        if _can_be_counted(text):
            ended, count = counted(python, folder)
            if ended.code == 0 and count not in (None, calls):
                return Judgement("miscounted", f"{calls} calls recorded, {count} in the profile")
        else:
            count = None
    with fresh_copy(text) as folder:
        ended, answer = twice(python, folder)
    how = f"{calls} calls, {'not counted' if count is None else 'as many in the profile'}"
    if answer is None:
        return Judgement("no answer", _failure(ended))
    if answer["verdict"] != "same":
        return Judgement(answer["verdict"], f"{answer['reason']} ({how})")
    return Judgement("same", how)


def _can_be_counted(text: str) -> bool:
    """Whether a profile of one process has each call once: no other process, no second device."""
    own = ("XLA_FLAGS", "num_cpu_devices", "subprocess", "multiprocessing", "os.environ[")
    return not any(word in text for word in own)


def faulty(fault: Planted, python: Path) -> tuple[Judgement, dict[str, Any] | None, bool]:
    """Run a script with a fault alone until its result changes, then twice.

    Returns:
        the judgement, the answer, and whether the two runs differed that it is about.
    """
    text = _text(fault)
    if (same := _does_not_vary(text, python)) is not None:
        return same, None, False
    for _ in range(PAIRS):
        with fresh_copy(text) as folder:
            ended, answer = twice(python, folder)
        if answer is None:
            return Judgement("no answer", _failure(ended)), None, False
        differed = len(set(results_in(ended.errors)[:2])) != 1
        if differed or answer["verdict"] == "different":
            break
    return judge(fault, text, answer, differed=differed), answer, differed


def _does_not_vary(text: str, python: Path) -> Judgement | None:
    """Say so if a few plain runs have one result."""
    with fresh_copy(text) as folder:
        first = plain(python, folder)
        for _ in range(PLAIN_RUNS - 1):
            if plain(python, folder).result != first.result:
                return None
    if first.code != 0:
        return Judgement("not a fault", f"it ends with {_failure(first)}")
    return Judgement("not a fault", f"{PLAIN_RUNS} plain runs had the same result")


def _failure(ended: Ended) -> str:
    """Say how a run failed."""
    last = (ended.errors.strip().splitlines() or ["nothing on stderr"])[-1]
    how = "took too long" if ended.code is None else f"exit code {ended.code}"
    return f"{how}: {last[:SHOWN]}"


def _place(item: Planted | str, *, first: bool = False) -> Path:
    name = f"{item}.clean" if isinstance(item, str) else item.id
    return BUILD / "attempts" / f"{name}.{'first' if first else 'last'}.json"
