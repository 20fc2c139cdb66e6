"""The commands that read runs: are two the same, and if not, why; and is one intact?

The rule: they train nothing, and 0 is for a question that was answered with yes.
Chapter: docs/guide/using_the_project.md
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from reproducibility.cli.arguments import (
    arrays_without_a_run,
    check_output_file,
    check_there,
    checked_step,
)
from reproducibility.cli.terminal import (
    patient_progress,
    print_aligned,
    print_comparison,
    print_findings,
    print_operations,
    print_origin,
    print_outcome,
    print_report,
    print_resumption,
    print_script_report,
    say_on_stderr,
)
from reproducibility.errors import ConfigError, ExitCode, ReplayError, on_one_line

if TYPE_CHECKING:
    from reproducibility.script.diverging import Alignment
    from reproducibility.script.resumption import Resumption
    from reproducibility.script.sides import AlignedRecords
    from reproducibility.storage.found import FoundArrays
    from reproducibility.storage.whole import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareCommand:
    """Say whether two runs are the same, bit for bit; if not, where they part and how far.

    The ledgers tell the first step, stage and leaf that differ. That step is then computed again
    for both runs, each in a process with its recorded environment, to tell how many elements
    differ and by how many units in the last place (ULP). Of two scripts that `record` ran, the
    first call of JAX that differs is named, with its line.

    Stores of checkpoints, without any ledger, tell the last step at which both have equal ones and
    the first at which they differ. Two checkpoints, Orbax checkpoints or files of arrays (.npz,
    .npy, .safetensors) are compared array by array.

    Exit code: 0 the same, 1 different, 2 nothing to compare, 3 cannot be told.

    Example: reproducibility compare runs/first runs/second --html report.html
    """

    a: Path
    """A run directory, a ledger.jsonl, a result file that `train --out` wrote, what `record` wrote
    of a script, a store of checkpoints, or something else with arrays in it."""
    b: Path
    """Another one."""
    html: Path | None = None
    """Also write a page with pictures here, in one file."""
    no_replay: bool = False
    """Compute nothing again: only compare what is on disk."""
    resumed: bool = False
    """Of records of a script: B is a resumed run, and A the run that was never stopped."""
    aligned: bool = False
    """Of records of a script: put calls together by function and by array, not by number. Without
    it, that is done where the commands differ, or the files of the script."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> int:
        """Compare, print the verdict and the explanations."""
        from reproducibility.explain.compare import compare

        if self.html:
            inputs = dict.fromkeys((self.a, self.b), "what is compared")
            check_output_file("--html", self.html, inputs, "nothing was written")
        check_there(self.a, self.b)
        if any((each / "process-1").is_dir() for each in (self.a, self.b)):
            return self._of_records()
        if self.resumed or self.aligned:
            got, do = "runs of ours", "Leave it out: runs of ours continue by themselves."
            do = do if self.resumed else "Leave it out: runs of ours are aligned by their steps."
            option = "--resumed" if self.resumed else "--aligned"
            raise ConfigError("use", option, expected="two records", got=got, do=do)
        found = compare(self.a, self.b, replay=not self.no_replay, progress=patient_progress())
        if self.html:
            from reproducibility.explain.report import write_report

            write_report(self.html, found, names=(str(self.a), str(self.b)))
        reasons = [found.reason] if found.exit_code else []
        return print_outcome(found, print_comparison, reasons, as_json=self.json)

    def _of_records(self) -> int:
        """Compare two records of a script, in the way that was asked for or that they need."""
        from reproducibility.script.aligned import are_of_one_command

        if self.resumed and self.aligned:
            do = "Leave one out."
            raise ConfigError("use", "--aligned", expected="no --resumed", got="both", do=do)
        if self.resumed:
            return self._resumed()
        return (
            self._records()
            if not self.aligned and are_of_one_command(self.a, self.b)
            else self._aligned()
        )

    def _aligned(self) -> int:
        """Compare records of different commands."""
        from reproducibility.script.aligned import compare_aligned
        from reproducibility.script.inherited import files_changed

        found = compare_aligned(self.a, self.b)
        found.notes += files_changed(self.a, self.b)
        reasons = [found.reason] if found.exit_code else []
        self._write_page(found)
        return print_outcome(found, print_aligned, reasons, as_json=self.json)

    def _records(self) -> int:
        """Compare two records of a script."""
        from reproducibility.script.align import compare_records
        from reproducibility.script.inherited import files_changed

        records = compare_records(self.a, self.b)
        records.notes += files_changed(self.a, self.b)
        reasons = [records.reason] if records.exit_code else []
        self._write_page(records)
        return print_outcome(records, print_script_report, reasons, as_json=self.json)

    def _resumed(self) -> int:
        """Compare the record of a resumed run with that of a whole one."""
        from reproducibility.script.lost import with_sentences
        from reproducibility.script.parts import compare_resumed

        found = with_sentences(compare_resumed(self.a, self.b))
        reasons = [found.reason] if found.exit_code else []
        self._write_page(found)
        return print_outcome(found, print_resumption, reasons, as_json=self.json)

    def _write_page(self, found: Alignment | AlignedRecords | Resumption) -> None:
        """Write what was found about two records as a page, if one was asked for."""
        if self.html:
            from reproducibility.script.drawn import write_found

            options = ["--resumed"] * self.resumed + ["--aligned"] * self.aligned
            words = ["reproducibility", "compare", str(self.a), str(self.b), *options]
            write_found(self.html, found, words, by="compare")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TraceCommand:
    """Find the operation, with its source line, that first made two runs differ.

    Computes one step of both runs operation by operation, each in a process with its recorded
    environment. The first operation whose inputs agree and whose outputs differ is the cause.
    It finds the place and verifies nothing: compiled, the operations are fused.

    Exit code: 0 every operation agrees, 1 one differs, 2 not runs, 3 cannot be told.

    Example: reproducibility trace runs/first --step 17 --against runs/second
    """

    run: Path
    """A run directory."""
    step: int | None = None
    """The step, by completed updates after it; 0 is the initialisation. By default the first in
    which the ledgers of the two runs differ."""
    against: Path | None = None
    """Another run directory; without it, the operations of the one are listed."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> int:
        """Trace, print the operation."""
        from reproducibility.explain.origin import trace_steps

        runs = [self.run] if self.against is None else [self.run, self.against]
        found = trace_steps(runs, self._step(), progress=patient_progress())
        show = print_operations if found.divergence is None else print_origin
        reasons = [found.reason] if found.exit_code else []
        return print_outcome(found, show, reasons, as_json=self.json)

    def _step(self) -> int:
        """Return the step that was named, or the first that differs."""
        if self.step is None and self.against:
            from reproducibility.explain.compare import compare

            found = compare(self.run, self.against)
            if found.stage and found.since + 1 != found.step:  # not every step has a line
                found = compare(self.run, self.against, replay=True, progress=patient_progress())
            if found.stage and found.step is not None:
                return found.step
            raise ReplayError(
                "find",
                "the step where the runs part",
                path=self.run,
                expected="ledgers that differ",
                got=found.reason.rstrip("."),
                do="Name a step: --step N.",
            )
        return checked_step(self.step, "Name one: --step N.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigestCommand:
    """Compute the digest of a run's state again, from a checkpoint.

    Also of a store of checkpoints, of one checkpoint, of an Orbax checkpoint, and of a file of
    arrays (.npz, .npy, .safetensors).

    Example: reproducibility digest runs/first --leaves
    """

    run: Path
    """A run directory, or something with arrays in it."""
    step: int | None = None
    """Which checkpoint; by default the newest."""
    leaves: bool = False
    """Print a digest and a name for each array instead."""

    def __call__(self) -> int:
        """Restore, hash, print."""
        if self.step is not None:
            checked_step(self.step, "Name a checkpoint.")
        found = arrays_without_a_run(self.run, "digest")
        whole, leaves = self._stored(found) if found else self._restored()
        if self.leaves:
            for name, digest in leaves.items():
                print(f"{digest}  {on_one_line(name)}")
        else:
            print(whole)
        return ExitCode.SAME

    def _restored(self) -> tuple[str, dict[str, str]]:
        """Return the digests of a run's state."""
        from reproducibility.reference.resume import restore_state
        from reproducibility.reference.run import Run
        from reproducibility.same.hashing import leaf_digests, tree_digest

        state = restore_state(Run.read(self.run), step=self.step)
        return tree_digest(state), leaf_digests(state)

    def _stored(self, found: FoundArrays) -> tuple[str, dict[str, str]]:
        """Return the digests of arrays that are no run's, and say what vouches for none."""
        from reproducibility.storage.stored import arrays_of, whole_digest

        stored = arrays_of(found, self.step)
        whole = "" if self.leaves else whole_digest(stored)
        if not stored.seal:
            say_on_stderr(f"{stored.path} has no seal: these are the values that it has now.")
        for name in stored.unread:
            say_on_stderr(
                f"{name} in {stored.path} could not be read as arrays: not in the digest."
            )
        return whole, {name: leaf.digest for name, leaf in stored.leaves.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckCommand:
    """Say whether every byte of a run is as it was written; train nothing, change nothing.

    Also of a store of checkpoints, or of one. An Orbax checkpoint and a file of arrays are read,
    and as they have no seal, nothing can be told; a .npz has checksums. Of a record of a script it
    also says what `record --again` and `record --keys` have found.

    Exit code: 0 intact, 1 damaged, or something was found, 2 not a run, 3 cannot be told, 4 a
    process is at work on it.

    Example: reproducibility check runs/first
    """

    run: Path
    """A run directory, a record of a script, or something with arrays in it."""
    repair: bool = False
    """Remove what killed processes left over, and set damaged files aside; delete nothing else."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> int:
        """Check, print what is intact and what is not."""
        if (self.run / "process-1").is_dir():
            return self._record()
        from reproducibility.reference.check import check

        arrays_without_a_run(self.run, "check")
        found = check(self.run, repair=self.repair, progress=patient_progress())
        return print_outcome(found, print_report, self._reasons(found), as_json=self.json)

    def _record(self) -> int:
        """Check a record of a script."""
        from reproducibility.script.findings import findings_of

        if self.repair:
            do = "Record the script again."
            raise ConfigError("use", "--repair", expected="a run of ours", got="a record", do=do)
        found = findings_of(self.run)
        reasons = [found.reason] if found.exit_code else []
        return print_outcome(found, print_findings, reasons, as_json=self.json)

    def _reasons(self, found: Report) -> list[str]:
        """Say what is damaged, and what to do about the first."""
        if not found.damaged:
            return [found.unknown] if found.unknown else []
        first, rest = found.damaged[0], len(found.damaged) - 1
        advice = f"reproducibility check {self.run} --repair sets it aside"
        advice += ", and train goes on." if found.what == "a run" else "."
        if first.path == "run.json":
            advice = "The train command of this run, with all its settings, writes it anew."
        elif self.repair or found.what not in ("a run", "a store of checkpoints"):
            advice = "Take an intact copy of it."
        more = f"; and {rest} more" if rest else ""
        return [f"Damaged: {first.path}: {first.detail}{more}. {advice}"]
