"""A run of somebody else is checked by computing a part of it again.

The rule: chain, seals, identity and result are checked whole, the steps that were chosen line by
line. What could not be checked is unverifiable, and what differs here for a known reason as well.
Chapter: docs/guide/verification.md
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from reproducibility.errors import EvidenceError, ReplayError, ReproducibilityError
from reproducibility.evidence.chosen import (
    Part,
    affordable,
    all_parts,
    chance_of_missing,
    drawn_parts,
    parts_over,
)
from reproducibility.evidence.claims import refuse_malformed
from reproducibility.evidence.commitment import (
    Commitment,
    commit,
    difference_from,
    read_commitment,
    unchanging,
)
from reproducibility.evidence.limits import refuse_unfit
from reproducibility.evidence.progress import Kept
from reproducibility.evidence.request import Request, refuse_option, unusual_settings
from reproducibility.evidence.verdict import Audit, AuditVerdict, words_of_success
from reproducibility.explain.child import in_environment, side_by_side
from reproducibility.explain.recompute import StretchTask
from reproducibility.explain.stretches import relevant_differences, stretches_of
from reproducibility.machine.environment import Environment
from reproducibility.reference.check import check
from reproducibility.reference.run import AttemptStart, Run, attempts_of

CHILD = "reproducibility.evidence.recheck"
_PILOT = 34  # steps by which the time of one is measured


class _Ended(Exception):
    """The verdict is known before everything was computed."""

    def __init__(self, verdict: AuditVerdict, reason: str, **where: Any) -> None:
        super().__init__(reason)
        self.verdict, self.reason, self.where = verdict, reason, where


def audit(
    run: str | os.PathLike[str],
    *,
    request: Request | None = None,
    commitment: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Audit:
    """Check a run of somebody else: all of what is on disk, and a part of it computed again.

    **Same bits:** those of the recorded steps, for the steps in `recomputed`, if it is "verified".

    Args:
        run: a run directory of `train`.
        request: what to compute again; by default one stretch that is drawn.
        commitment: the file of a commitment that was published before.
        progress: called with what is being done.

    Returns:
        The verdict, what it rests on, and what it does not cover.

    Raises:
        EvidenceError: there is nothing that could be audited.
        RunError: there is no run, or a process works on it now.

    Examples:
        >>> import tempfile
        >>> from reproducibility import TrainConfig, train
        >>> folder = Path(tempfile.mkdtemp()) / "run"
        >>> _ = train(TrainConfig(seed=7, steps=2, shards=1, hidden=(8,)), run_dir=folder)
        >>> audit(folder).verdict
        'verified'
    """
    path = Path(run)
    given = read_commitment(commitment) if commitment else None
    refuse_unfit(path)
    with unchanging(path):
        found = Run.read(path)
        with _readable(path):
            refuse_malformed(found)
        known = Audit(verdict="unverifiable", reason="", run=found.name, steps=0)
        try:
            return _Auditor(found, request or Request(), given, progress).audited(known)
        except _Ended as ended:
            return dataclasses.replace(
                known, verdict=ended.verdict, reason=ended.reason, **ended.where
            )


class _Auditor:
    """One audit of one run."""

    def __init__(
        self, run: Run, request: Request, given: Commitment | None, progress: Callable[[str], None]
    ) -> None:
        self.run, self.request, self.given, self.progress = run, request, given, progress
        self.notes: list[str] = []
        self.digests: dict[int, str] = {}

    def audited(self, known: Audit) -> Audit:
        """Check everything, and return the verdict."""
        now = self._whole()
        checkpoints = sorted(now.checkpoints)
        last = max([now.last, *checkpoints])
        parts = all_parts(checkpoints, last)
        if not parts:
            raise _Ended("unverifiable", "The run has no step that could be computed again.")
        known = dataclasses.replace(
            known, steps=last, stretches=len(parts), root=now.root, committed=bool(self.given)
        )
        try:
            [done] = side_by_side(lambda known: self._computed(known, now, parts), [known])
        except ReplayError as error:
            raise _Ended(
                "unverifiable", str(error).splitlines()[0], **_what_is_known(known)
            ) from error
        except _Ended as ended:
            raise _Ended(
                ended.verdict, ended.reason, **_what_is_known(known) | ended.where
            ) from None
        if commit(self.run.path) != now:
            raise _Ended("unverifiable", "The run changed while it was audited: audit a copy.")
        done = dataclasses.replace(done, notes=tuple(self.notes), verdict="verified")
        return dataclasses.replace(done, reason=words_of_success(done))

    def _whole(self) -> Commitment:
        """Check all that can be checked without computing: every byte, and the commitment."""
        path = self.run.path
        with _readable(path):
            report = check(path, progress=self.progress)
        if report.damaged:
            first = report.damaged[0]
            reason = f"The run contradicts itself: {first.path}: {first.detail}."
            raise _Ended("refuted", reason)
        self.notes += [f"{f.path} is no part of a run: ignored" for f in report.findings]
        try:
            now = commit(path)
        except ReproducibilityError as error:
            raise _Ended("unverifiable", str(error).splitlines()[0]) from error
        if self.given and (other := difference_from(self.given, self.run)):
            changed, reason = other
            raise _Ended("refuted" if changed else "unverifiable", reason, root=now.root)
        if not self.run.attempts():
            raise _Ended("unverifiable", "Nothing says in which environment the run was made.")
        return now

    def _computed(self, known: Audit, now: Commitment, parts: Sequence[Part]) -> Audit:
        """Compute again what was asked for, in the processes of this call."""
        kept = Kept(self.run.path, now.root, str(self.request))
        environment = self._states(now)
        chosen, challenge, chance = self._choose(parts, now.root, kept)
        done, lines = [], 0
        for part in chosen:
            self.progress(f"computing {part.start} to {part.end} again")
            if str(part) not in kept.done:
                kept.note(part, self._recomputed(part))
            lines += kept.done[str(part)]
            done.append((part.start, part.end))
        kept.forget()
        return dataclasses.replace(
            known,
            recomputed=tuple(done),
            lines=lines,
            chance=chance,
            challenge=challenge,
            result=now.result is not None,
            settings=unusual_settings(environment),
        )

    def _choose(
        self, parts: Sequence[Part], root: str, kept: Kept
    ) -> tuple[list[Part], str | None, float | None]:
        """Choose the stretches: those asked for, or drawn ones, and the chance of a miss."""
        if self.request.steps:
            return parts_over(parts, *self.request.steps), None, None
        count = self.request.random or 1
        if self.request.budget:
            count = self._affordable(parts, self.request.budget)
        count = min(count, len(parts))
        if count < len(parts):
            self._refuse_fewer_checkpoints(parts)
        challenge = self.request.challenge
        challenge = kept.challenge(secrets.token_hex(16)) if challenge is None else challenge
        drawn = drawn_parts(parts, count, root, challenge)
        return drawn, challenge, chance_of_missing(count, len(parts))

    def _refuse_fewer_checkpoints(self, parts: Sequence[Part]) -> None:
        """Draw from the committed stretches only: who takes some away chooses what is drawn."""
        there = {part.end for part in parts if part.sealed}
        committed = self.given.checkpoints if self.given else {}
        if gone := [step for step in committed if step and step not in there]:
            raise _Ended(
                "unverifiable",
                f"Checkpoint {gone[-1]} of the commitment is gone, so that what is drawn could "
                "have been chosen: ask for it, or audit all steps, or those that you name.",
            )

    def _affordable(self, parts: Sequence[Part], budget: float) -> int:
        pilot = Part(0, min(_PILOT, parts[0].end), False)
        self.progress("measuring how long a step takes")
        each = max(self._task(*stretches_of(self.run, pilot.end, 0)[0][:2], pilot.end)["each"], 0)
        count = affordable(parts, budget, each)
        if not count:
            longest = max(part.end - part.start for part in parts)
            got = f"{budget:.0f} s, and the longest stretch takes about {longest * each:.0f} s"
            refuse_option("--budget", "time for one stretch", got)
        return count

    def _states(self, now: Commitment) -> Environment:
        """Check what the checkpoints hold, and the result; return the last environment."""
        steps = sorted(now.checkpoints)
        last = steps[-1] if steps else now.last
        environment = stretches_of(self.run, last, max(last - 1, 0))[-1].environment
        task = {"run": str(self.run.path.absolute()), "steps": steps, "end": last}
        answer = self._ask(environment, task)
        self._same_programs(environment, answer)
        if answer["differs"]:
            step, stage, leaf = answer["differs"]
            reason = (
                f"Checkpoint {step} does not hold the state that the ledger has of that step: it "
                f"differs in {stage}{leaf and f', in {leaf}'}."
            )
            other = relevant_differences(environment, answer["environment"])
            ours = [d for d in other if d.name == "version.reproducibility"]  # it takes the prints
            self._judge(reason, ours, **_where_it_differs(answer["differs"]))
        self.digests = {int(step): digest for step, digest in answer["digests"].items()}
        self._seals_and_result(answer)
        return environment

    def _seals_and_result(self, answer: dict[str, Any]) -> None:
        from reproducibility.storage.seal import read_seal

        for step, digest in self.digests.items():
            sealed = read_seal(self.run.checkpoints / f"{step:08d}", step).digest
            if sealed != digest:
                reason = f"Checkpoint {step} has digest {digest}, and its seal says {sealed}."
                raise _Ended("refuted", reason, step=step)
        result = self.run.result()
        if not result:
            self.notes.append("the run has no result: it is not finished")
            return
        if result.run != self.run.name or result.steps != max(self.digests, default=-1):
            reason = f"The result is of step {result.steps}, which is not the last checkpoint."
            raise _Ended("refuted", reason, step=result.steps)
        exact = {"digest": self.digests[result.steps], "params_digest": answer["params_digest"]}
        for name, value in exact.items():
            if getattr(result, name) != value:
                reason = f"The result says {name} {getattr(result, name)}, and it is {value}."
                raise _Ended("refuted", reason, step=result.steps)
        for name in ("loss", "accuracy"):
            if getattr(result, name) != answer[name]:
                reason = f"The result says {name} {getattr(result, name)}, and it is {answer[name]}"
                known = [line for line in attempts_of(self.run) if isinstance(line, AttemptStart)]
                other = [relevant_differences(a.facts, answer["environment"]) for a in known]
                self._judge(f"{reason} here.", [d for found in other for d in found])

    def _recomputed(self, part: Part) -> int:
        """Compute a stretch again; return how many lines of the ledger were compared."""
        lines, answer = 0, None
        with tempfile.TemporaryDirectory() as folder:
            for environment, start, end in stretches_of(self.run, part.end, part.start):
                if not part.start <= start < end <= part.end:
                    raise _Ended("unverifiable", f"Checkpoint {part.start} cannot be used.")
                answer = self._task(environment, start, end, folder, part)
                lines += answer["compared"]
                if answer["problem"]:
                    other = relevant_differences(environment, answer["environment"])
                    where = _where_it_differs(answer["differs"])
                    self._judge(f"Computed again, {answer['problem']}.", other, **where)
                self._same_programs(environment, answer)
                if answer["lacking"]:
                    raise _Ended("unverifiable", f"Not all is recorded: {answer['lacking']}.")
        assert answer is not None
        if not part.sealed and answer["last"] != part.end:
            reason = f"The ledger has no line of step {part.end}, where the stretch ends."
            raise _Ended("unverifiable", reason)
        if part.sealed and answer["digest"] != self.digests[part.end]:
            other = relevant_differences(environment, answer["environment"])
            reason = f"Computed again, the state of step {part.end} is not that of its checkpoint."
            self._judge(reason, other, step=part.end)
        return lines

    def _task(
        self, environment: Environment, start: int, end: int, folder: str = "", part: Any = None
    ) -> dict[str, Any]:
        """Have a child compute a stretch in its recorded environment."""
        task = StretchTask(
            since=end,
            run=str(self.run.path.absolute()),
            folder=folder,
            start=start,
            end=end,
            first=part is None or start == part.start,
            last=part is None or end == part.end,
        )
        return self._ask(environment, vars(task))

    def _ask(self, environment: Environment, task: dict[str, Any]) -> dict[str, Any]:
        def say(line: str) -> None:
            self.progress(line.rpartition(": ")[2])

        answer = in_environment(environment, CHILD, task, say)
        if "denied" in answer:
            raise _Ended("refuted", answer["denied"])
        if "mismatched" in answer:
            other = relevant_differences(environment, answer["environment"])
            self._judge(
                answer["mismatched"], [d for d in other if not d.name.startswith("program.")]
            )
        if "refused" in answer:
            raise _Ended("unverifiable", answer["refused"])
        return answer

    def _same_programs(self, environment: Environment, answer: dict[str, Any]) -> None:
        """Refuse to go by other programs than those that the run recorded."""
        now = answer["environment"]
        for name in sorted(name for name in now if name.startswith("program.")):
            if environment.get(name) != now[name]:
                raise _Ended(
                    "unverifiable",
                    f"The code installed here makes a different program: {name} was "
                    f"{environment.get(name)} then and is {now[name]} here.",
                )

    def _judge(self, reason: str, other: Sequence[Any], **where: Any) -> NoReturn:
        """End with what came out different: refuted, unless the environment may explain it."""
        if other:
            first = other[0]
            reason = f"{reason} But {first.name} was {first.a} then and is {first.b} here."
        raise _Ended("unverifiable" if other else "refuted", reason, **where)


def _what_is_known(known: Audit) -> dict[str, Any]:
    names = ("steps", "stretches", "root", "committed")
    return {name: getattr(known, name) for name in names}


def _where_it_differs(differs: Sequence[Any] | None) -> dict[str, Any]:
    if not differs:
        return {}
    step, stage, leaf = differs
    return {"step": step, "stage": stage, "leaf": leaf or None}


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in a sentence that a run holds something that no run does; no traceback."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        expected, got = "values of the kind that `train` writes", f"{type(error).__name__} there"
        do = "Ask for an intact copy."
        raise EvidenceError(
            "audit", "a run", path=path, expected=expected, got=got, do=do
        ) from error
