"""Every byte of a run directory, checked against what was written; nothing is trained.

The rule: what is not as it was written is named. Nothing is changed unless a repair is asked for,
and a repair deletes only what never became part of the run.
Chapter: docs/components/checkpoint_explained.md
"""

from __future__ import annotations

import dataclasses
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from reproducibility.errors import (
    CheckpointDamagedError,
    CheckpointError,
    ResultError,
    RunDamagedError,
    RunError,
    SetAsideWarning,
)
from reproducibility.recording.ledger import LEDGER
from reproducibility.recording.mend import examine_ledger, repair_ledger
from reproducibility.reference.run import (
    ATTEMPTS,
    CHECKPOINTS,
    IDENTITY,
    LOCK,
    RESULT,
    Run,
    is_leftover,
    locked,
    read_attempts,
    read_result,
)
from reproducibility.storage.checkpoint import CheckpointStore
from reproducibility.storage.files import (
    SET_ASIDE,
    TEMPORARY,
    discard,
    saved_steps,
    set_aside,
)
from reproducibility.storage.found import SEAL, arrays_at
from reproducibility.storage.seal import Seal
from reproducibility.storage.whole import Finding, FindingKind, Report, check_stored

FILES = (IDENTITY, ATTEMPTS, LEDGER, RESULT, LOCK)
PARTS = {**dict.fromkeys(FILES, stat.S_ISREG), CHECKPOINTS: stat.S_ISDIR}


def check(
    path: str | os.PathLike[str],
    *,
    repair: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Check every byte of a run directory; train nothing, change nothing.

    A store of checkpoints, one checkpoint, a folder of Orbax's and a file of arrays are read as
    well. What carries no digests is read, and never called intact.

    **Same bits:** everywhere, for the same files. What it cannot see: that whole lines are gone
    from the end of `attempts.jsonl`, and that a whole checkpoint is gone.

    Args:
        path: a run directory, or something with arrays in it.
        repair: remove what killed processes left over, and set damaged files aside; then check
            again. A damaged `run.json` stays: `train` writes it anew, from its settings.
        progress: called with what is about to be read.

    Returns:
        What is intact, and everything that is not.

    Raises:
        RunError: there is no run at `path`.
        RunLockedError: a process works on it now, so that its files are in motion.

    Examples:
        >>> import tempfile
        >>> from reproducibility import TrainConfig, train
        >>> run = Path(tempfile.mkdtemp()) / "run"
        >>> _ = train(TrainConfig(seed=7, steps=2, shards=1), run_dir=run)
        >>> check(run).findings
        ()
        >>> seal = run / "checkpoints" / "00000002" / "seal.json"
        >>> _ = seal.write_bytes(seal.read_bytes()[:-1])
        >>> [finding.path for finding in check(run).damaged]
        ['checkpoints/00000002']
    """
    path = Path(path)
    if not any((path / name).exists() for name in (IDENTITY, ATTEMPTS, RESULT)):
        if found := arrays_at(path):
            return check_stored(found, repair=repair, progress=progress)
        Run.read(path)  # says what is there instead
    if not repair and not (path / LOCK).exists():  # then nobody holds it
        return _check_all(path, repair, progress)
    with locked(path, shared=not repair):
        return _check_all(path, repair, progress)


def _check_all(path: Path, repair: bool, progress: Callable[[str], None]) -> Report:
    report = _Check(path, progress).report()
    if not repair or report.run is None:  # who knows what it is
        return report
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SetAsideWarning)  # the report says it
        repaired = tuple(finding for finding in report.findings if _repair(path, finding))
    return dataclasses.replace(_Check(path, progress).report(), repaired=repaired)


class _Check:
    """One walk over a run directory."""

    def __init__(self, path: Path, progress: Callable[[str], None]) -> None:
        self.path, self.progress = path, progress
        self.files = self.bytes = 0
        self.seals: dict[int, Seal] = {}

    def report(self) -> Report:
        """Walk once over everything."""
        findings = [*self._entries(self.path, PARTS), *self._checkpoints()]
        names = {seal.run for seal in self.seals.values()}
        try:
            names = {Run.read(self.path).name}
            self._count(self.path / IDENTITY)
        except RunError as error:
            if (self.path / IDENTITY).is_file() and not isinstance(error, RunDamagedError):
                raise  # of another format
            findings.append(_damage(IDENTITY, error))
        name = names.pop() if len(names) == 1 else None
        if name:  # from run.json, or from all the seals where that is damaged
            findings += self._foreign_checkpoints(name)
            findings += self._records(name)
            findings += self._ledger(name)
        findings.sort(key=lambda finding: get_args(FindingKind.__value__).index(finding.kind))
        steps = tuple(sorted(self.seals))
        return Report(name, steps, self.files, self.bytes, tuple(findings))

    def _entries(self, folder: Path, known: dict[str, Callable[[int], bool]]) -> Iterator[Finding]:
        """Name what is in a directory and is no part of a run; follow no link."""
        for entry in sorted(folder.iterdir()):
            name = entry.relative_to(self.path).as_posix()
            if is_leftover(entry) or (known is not PARTS and entry.name.startswith(TEMPORARY)):
                yield Finding(name, "left over", "by a process that was ended; never read")
            elif entry.name.startswith(SET_ASIDE):
                yield Finding(name, "set aside", "as damaged, earlier; never read")
            elif entry.name not in known:
                yield Finding(name, "foreign", "not written by this package; not checked")
            elif not known[entry.name](entry.lstat().st_mode):
                yield Finding(name, "damaged", "a link or another kind of file, not followed")

    def _checkpoints(self) -> Iterator[Finding]:
        """Verify every checkpoint, and keep the seals of the intact ones."""
        folder = self.path / CHECKPOINTS
        if not folder.is_dir() or folder.is_symlink():
            return
        steps = saved_steps(folder)
        yield from self._entries(folder, {f"{step:08d}": stat.S_ISDIR for step in steps})
        with CheckpointStore(folder) as store:
            for step in steps:
                self.progress(f"checking checkpoint {step}")
                try:
                    seal = self.seals[step] = Seal.from_json(store.verify(step))
                except CheckpointDamagedError as error:
                    yield Finding(f"{CHECKPOINTS}/{step:08d}", "damaged", error.got, error.leaves)
                    continue
                for file in (*seal.files, SEAL):
                    self._count(folder / f"{step:08d}" / file)

    def _foreign_checkpoints(self, run: str) -> Iterator[Finding]:
        """Name the checkpoints that are intact and belong to another run."""
        for step, seal in list(self.seals.items()):
            if seal.run != run:
                del self.seals[step]
                detail = f"it belongs to run {seal.run}"
                yield Finding(f"{CHECKPOINTS}/{step:08d}", "damaged", detail)

    def _records(self, run: str) -> Iterator[Finding]:
        """Check the lines of the attempts, the result, and that they fit each other."""
        file = self.path / ATTEMPTS
        lines, problem = read_attempts(self.path, run)
        ended = {line.get("to_step") for line in lines if line.get("ended") == "finished"}
        mended = any(line.get("event") == "mended" for line in lines)  # so some may be missing
        try:
            result = read_result(self.path / RESULT) if (self.path / RESULT).exists() else None
        except ResultError as error:
            yield _damage(RESULT, error)
            result = None
        else:
            if result:
                self._count(self.path / RESULT)
                seal = self.seals.get(result.steps)
                if (result.run, result.digest) != (run, seal.digest if seal else result.digest):
                    detail = "it is not the result of this run's checkpoint"
                    yield Finding(RESULT, "damaged", detail)
                folder = self.path / CHECKPOINTS
                if not (saved_steps(folder) or any(folder.glob(f"{SET_ASIDE}*"))):
                    detail = "there is a result, and no checkpoint that it could be checked with"
                    yield Finding(CHECKPOINTS, "damaged", detail)
                if not (problem or mended or result.steps in ended):
                    problem = f"the line that says that step {result.steps} was reached is gone"
        if problem:
            yield Finding(ATTEMPTS, "damaged", problem)
        elif lines:
            self._count(file)

    def _ledger(self, run: str) -> Iterator[Finding]:
        """Follow the chain of the ledger, past what each checkpoint was sealed with."""
        file = self.path / LEDGER
        chains = ((step, seal.chain) for step, seal in self.seals.items())
        sealed = {step: chain for step, chain in chains if chain is not None and chain != run}
        if not os.path.lexists(file):
            if sealed and not any(self.path.glob(f"{SET_ASIDE}{LEDGER}*")):
                yield Finding(LEDGER, "damaged", "it is gone, and checkpoints were sealed with it")
            return
        if file.is_symlink() or not file.is_file():
            return  # named already
        self.progress("checking the ledger")
        complete = not any(self.path.glob(f"{SET_ASIDE}{LEDGER}*"))
        found = examine_ledger(file, run, sealed, complete=complete)
        if found.unreadable:
            if found.other_format:
                raise found.unreadable
            if sealed or not found.torn:
                yield _damage(LEDGER, found.unreadable)
            else:
                yield Finding(LEDGER, "left over", f"{found.problem}")
        elif found.problem:
            torn = found.torn and not found.unmet_seals
            yield Finding(LEDGER, "left over" if torn else "damaged", found.problem)
        elif found.unmet_seals:
            step = found.unmet_seals[0]
            detail = f"its lines up to step {step} are not those its checkpoint was sealed with"
            yield Finding(LEDGER, "damaged", detail)
        else:
            self._count(file)

    def _count(self, file: Path) -> None:
        self.files += 1
        self.bytes += file.stat().st_size


def _damage(name: str, error: RunError | CheckpointError) -> Finding:
    return Finding(name, "damaged", f"expected {error.expected}, got {error.got}")


def _repair(path: Path, finding: Finding) -> bool:
    """Take one thing out of the way; say whether that was possible."""
    target = path / finding.path
    if finding.path == LEDGER and finding.kind in ("left over", "damaged") and target.is_file():
        try:
            run = Run.read(path).name
        except RunDamagedError:
            return False
        repair_ledger(target, run, finding.detail if finding.kind == "damaged" else None)
    elif finding.kind == "left over":
        discard(target)
    elif finding.kind == "damaged" and finding.path == ATTEMPTS:
        try:
            return Run.read(path).mend_attempts(finding.detail)
        except RunDamagedError:
            return False
    elif finding.kind == "damaged" and finding.path != IDENTITY and target.exists():
        set_aside(target, finding.detail)
    else:
        return False
    return True
