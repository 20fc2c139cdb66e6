"""Run a command with every hidden input held that can be, and one of them changed.

The rule: two runs differ in what is changed and in nothing else that can be held: they have the
same paths too, of folders that are empty when a run begins.
Chapter: docs/guide/hidden_inputs.md
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import site
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reproducibility.script.align import compare_records
from reproducibility.script.cause import variables_that_hold
from reproducibility.script.diverging import Alignment
from reproducibility.script.growing import CountedCalls
from reproducibility.script.hidden import HELD, Change, script_in
from reproducibility.script.mirror import mirror
from reproducibility.script.screen import Screen, in_words
from reproducibility.script.start import Finished, SameInput, start
from reproducibility.script.written import Contents, contents_of

HELD_AS_IT_IS = Change("")
PATIENCE_WITH_A_RUN = 60.0  # seconds that a changed run has beside
TIMES_AS_LONG = 10  # as the base run
NO_CACHE = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


class ChangedRuns:
    """Runs the command, and counts how often and for how long."""

    def __init__(
        self,
        command: Sequence[str],
        records: Path,
        folders: Path,
        variables: Mapping[str, str],
        screen: Screen,
    ) -> None:
        self._command, self._records, self._folders = command, records, folders
        self._variables, self._screen = variables, screen
        self._stdin = SameInput()
        self._dir, self._tmp = folders / "dir-1-held", folders / "tmp"
        self.cache = folders / "cache"
        self.runs, self.seconds, self.longest = 0, 0.0, 0.0
        self.wrote: dict[str, dict[str, Contents]] = {}
        # What a run finds in files that a run before it wrote; None for no such file.
        self.files: dict[Path, bytes | None] = {}
        self.unheld: set[str] = set()  # what is not held, because the script cannot bear it
        self.left = False  # whether a run left something in the folder for temporary files

    @property
    def own(self) -> list[str]:
        """Names that belong to runs, and not to what they print."""
        return [str(self._folders)]

    def record(self, name: str) -> Path:
        """Return where a run's record is."""
        return self._records / name

    def has_record(self, name: str) -> bool:
        """Whether a Python was recorded in a run."""
        return any(self.record(name).glob("process-*"))

    def beside(self, base: str, name: str) -> Alignment:
        """Compare a run with another by what they computed; nothing is told of one not recorded."""
        if not (self.has_record(base) and self.has_record(name)):
            return Alignment(problems=["nothing was recorded of a run: it may have been killed"])
        return compare_records(self.record(base), self.record(name), texts=False)

    def one(
        self,
        name: str,
        change: Change = HELD_AS_IT_IS,
        *,
        calls: int = 0,
        seconds: float = 0,
        fill_cache: bool = False,
        give_up: Callable[[float], bool] | None = None,
    ) -> Finished:
        """Run it once; its record has that name. `give_up` says after how long it is ended."""
        self._empty(keep_temporary=change.place == "left")
        given = dict(change.variables)
        command, folder = self._placed(change, given)
        variables: dict[str, str | None] = {
            name: self._filled(text) for name, text in self._variables.items()
        }
        variables |= self._held(change, filled=fill_cache or change.place == "cache") | given
        variables["REPRODUCIBILITY_GIVEN"] = json.dumps(given)
        if calls:
            variables["REPRODUCIBILITY_CALLS"] = str(calls)
        if seconds:
            variables["REPRODUCIBILITY_UNTIL"] = str(time.monotonic() + seconds)
        record = self.record(name)
        record.mkdir(mode=0o700)
        began = time.monotonic()
        with self._stdin.again() as stdin:
            finished = start(
                command,
                record=record,
                variables=variables,
                keep=record,
                stdin=stdin,
                screen=self._screen,
                look=self._look(record, give_up),
                limited=bool(calls or seconds),
                folder=folder,
            )
        passed = time.monotonic() - began
        self.runs, self.seconds = self.runs + 1, self.seconds + passed
        self.wrote[name] = contents_of([self._dir], self.own)
        self.left = any(self._tmp.iterdir()) if self._tmp.is_dir() else False
        return finished

    def _filled(self, text: str) -> str:
        return text.replace("{run}", "1").replace("{dir}", str(self._dir))

    def _empty(self, *, keep_temporary: bool) -> None:
        for folder in (self._dir, *([] if keep_temporary else [self._tmp])):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, data in self.files.items():
            if data is None:
                file.unlink(missing_ok=True)
            else:
                file.write_bytes(data)

    def _held(self, change: Change, *, filled: bool) -> dict[str, str | None]:
        """Return the variables that hold what can be held, but for the change."""
        ways = {name: way for name, way in {**HELD, **change.hold}.items() if way >= 0}
        ways = {name: way for name, way in ways.items() if name not in self.unheld}
        found: dict[str, str | None] = {"TMPDIR": str(self._tmp)}
        found |= variables_that_hold(",".join(f"{name}={way}" for name, way in ways.items()))
        if not filled:
            return found | NO_CACHE
        found |= {"JAX_ENABLE_COMPILATION_CACHE": "true"}
        found |= {"JAX_COMPILATION_CACHE_DIR": str(self.cache)}
        found |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        return found | {"JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}

    def _placed(
        self, change: Change, given: dict[str, str | None]
    ) -> tuple[list[str], Path | None]:
        """Return the command and the folder in which it is run; add a changed home to `given`."""
        command = [self._filled(word) for word in self._command]
        place = self._folders / f"elsewhere-{change.place}"
        if change.place == "home":
            with contextlib.suppress(FileExistsError):
                place.symlink_to(os.environ["HOME"])
            given["HOME"] = str(place)
        elif change.place == "bare":
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            given |= {"HOME": str(place), "PYTHONUSERBASE": site.getuserbase()}
        elif change.place == "folder":
            here = Path.cwd()
            self._mirrored(here, place)
            inside = f"{here}{os.sep}"
            given |= {"PWD": str(place)} if "PWD" in os.environ else {}
            return [word.replace(inside, f"{place}{os.sep}") for word in command], place
        elif change.place == "empty":
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            given |= {"PWD": str(place)} if "PWD" in os.environ else {}
            return [_absolute(word) for word in command], place
        elif change.place == "script" and (number := script_in(command)) is not None:
            script = Path(command[number]).absolute()
            self._mirrored(script.parent, place)
            command[number] = str(place / script.name)
        return command, None

    def _mirrored(self, folder: Path, place: Path) -> None:
        shutil.rmtree(place, ignore_errors=True)
        mirror(folder, place)

    def _look(
        self, record: Path, give_up: Callable[[float], bool] | None = None
    ) -> Callable[[], bool]:
        """Return what is done while a run goes on: say how far it is, and end one that hangs."""
        began, counted = time.monotonic(), CountedCalls(record)
        until = (
            began + PATIENCE_WITH_A_RUN + TIMES_AS_LONG * self.longest
            if self.longest
            else float("inf")
        )

        def look() -> bool:
            now = time.monotonic()
            calls = f"{counted.count():,} calls of JAX"
            self._screen.progress(f"… {calls}, {in_words(now - began)}")
            return now > until or bool(give_up and give_up(now - began))

        return look


def _absolute(word: str) -> str:
    """Return a word of a command as it is understood elsewhere."""
    return os.path.abspath(word) if os.path.exists(word) else word


def how_it_ended(run: Finished) -> str:
    """Return the exit code of a run and its last words.

    Args:
        run: one that failed.
    """
    how = f"exit code {run.code}" if run.code >= 0 else f"killed by signal {-run.code}"
    return f"{how}, {run.last_words!r}"
