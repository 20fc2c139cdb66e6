"""A hidden input is blamed if it matters, and called harmless only if it was really changed."""

import json
import linecache
import os
import platform
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reproducibility.cli.commands import main
from reproducibility.errors import ConfigError
from reproducibility.script import asking, dataflow, unheld
from reproducibility.script import sweep as sweeping
from reproducibility.script.changing import ChangedRuns
from reproducibility.script.diverging import Alignment, Root
from reproducibility.script.hidden import (
    Change,
    Hidden,
    Surroundings,
    is_wanted,
    script_in,
    shown_together,
)
from reproducibility.script.hidden_table import hidden_inputs
from reproducibility.script.inherited import Inherited
from reproducibility.script.mirror import mirror
from reproducibility.script.reading import Event, SourceLine
from reproducibility.script.screen import Screen
from reproducibility.script.start import Finished
from reproducibility.script.swept import Row, Sweep, report_of_sweep

LINE = SourceLine("train.py", 7, "<module>")
ROOT = Root("host", "", ("batch",), "step", (LINE,), (), "process-1", "MainThread", 4)
Outcome = Callable[[Change, random.Random], object]
SALT = Change("PYTHONHASHSEED=1", {"hash": 1})
X64 = Change("JAX_ENABLE_X64=1", variables={"JAX_ENABLE_X64": "1"}, setting="jax_enable_x64")


class Simulated:
    """Runs whose outcome is a function of what is changed, and of chance."""

    def __init__(self, outcome: Outcome, seed: int = 0) -> None:
        self.outcome, self.chance = outcome, random.Random(seed)
        self.found: dict[str, object] = {}
        self.changes: dict[str, Change] = {}
        self.runs, self.seconds, self.longest, self.own = 0, 0.0, 0.0, list[str]()
        self.wrote: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.files: dict[Path, bytes | None] = {}
        self.left = False
        self.unheld: set[str] = set()
        self.salts: tuple[str, str] = ("", "")  # those of a script that sets its own

    def one(self, name: str, change: Change | None = None, **limits: object) -> Finished:
        """Run it."""
        change = change or Change("")
        held = dict.fromkeys(self.unheld, -1)
        self.runs += 1
        self.found[name], self.changes[name] = (
            self.outcome(replace(change, hold={**change.hold, **held}), self.chance)
            if held
            else self.outcome(change, self.chance),
            change,
        )
        self.wrote[name] = {}
        return Finished(
            1 if self.found[name] == "fails" else 0, stopped=self.found[name] == "hangs"
        )

    def record(self, name: str) -> Path:
        """Return a path that says which run it is."""
        return Path(name)

    def has_record(self, name: str) -> bool:
        """Whether it was recorded."""
        return True

    def beside(self, base: str, name: str) -> Alignment:
        """Compare two of them."""
        differ = self.found[base] != self.found[name]
        return Alignment([ROOT] if differ else [], calls=5)

    def processes(self, record: Path) -> list[Any]:
        """Return the end of its process; the script sets what is named `own` itself."""
        change = self.changes[record.name]
        salt = str(change.hold.get("hash", 0))
        x64 = change.variables.get("JAX_ENABLE_X64", "0")
        began, ended = (own or salt for own in self.salts)
        end: dict[str, Any] = {
            "variables": {"PYTHONHASHSEED": ended},
            "settings": {"jax_enable_x64": x64},
        }
        start = {"variables": {"PYTHONHASHSEED": began}}
        undone = [name for name in change.variables if name in self.asked]
        end |= {"undone": undone, "devices": 1}
        return [SimpleNamespace(start=start, end=end, called=True)]


def sweep_of(
    outcome: Outcome,
    changes: Sequence[Change],
    monkeypatch: pytest.MonkeyPatch,
    *,
    seed: int = 0,
    own: Sequence[str] = (),
    salts: tuple[str, str] = ("", ""),
) -> Sweep:
    """Sweep simulated runs, with a row for each change."""
    runs = Simulated(outcome, seed)
    runs.asked, runs.salts = list(own), salts
    rows = [
        Hidden(f"row {n}", f"row {n}", "pin it", (each,), timing="timing" in each.hold)
        for n, each in enumerate(changes)
    ]
    found: Sweep = swept_by(runs, rows, monkeypatch).sweep(lambda _: True, 0, 0)
    return found


def swept_by(
    runs: Simulated | Outcome, rows: Sequence[Hidden], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Return what sweeps simulated runs."""
    runs = runs if isinstance(runs, Simulated) else Simulated(runs)
    monkeypatch.setattr(sweeping, "processes_of", runs.processes)
    monkeypatch.setattr(sweeping, "hidden_inputs", lambda around: rows)
    monkeypatch.setattr(sweeping, "variables_read", lambda record: [])
    monkeypatch.setattr(sweeping, "asked_in", lambda *_: LINE)
    monkeypatch.setattr(asking, "processes_of", lambda record: [])
    monkeypatch.setattr(sweeping, "look_for_inherited", lambda *_, **__: None)
    return sweeping._Sweeping(runs, Screen(None), ["python"], {})  # type: ignore[arg-type]


def test_what_matters_is_blamed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The changed input that differs, each time, is the one that is named, with its line."""
    found = sweep_of(lambda change, _: change is SALT, [SALT, X64], monkeypatch)
    assert [row.result for row in found.rows] == ["different", "same"]
    assert (found.verdict, found.exit_code) == ("different", 1)
    assert found.reason == "The script depends on row 0 (train.py:7)."
    report = report_of_sweep(found)
    assert "different: call 5, step: batch, train.py:7" in report
    assert "It came to the same with each of these changed alone: row 1 (in one way)." in report
    assert "does not depend" not in report
    assert "row 1  row 1         JAX_ENABLE_X64=1  same" in report
    assert json.loads(json.dumps(found.to_json()))["rows"][0]["line"].startswith("train.py:7")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.7])
def test_chance_is_not_blamed(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a script that differs now and then it is said that nothing can be told."""
    blamed, same, runs = 0, 0, 200
    for seed in range(runs):
        found = sweep_of(lambda _, c: c.random() < share, [SALT, X64] * 6, monkeypatch, seed=seed)
        blamed += found.verdict == "different"
        same += found.verdict == "same"
    assert blamed <= 0.02 * runs
    assert same <= 0.02 * runs or share < 0.3


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_a_race_is_blamed_though_it_shows_now_and_then(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed timing need not differ each time; the base run has to agree each time."""
    late = Change("threads begin late", {"timing": 1})
    found = [
        sweep_of(lambda e, c: e is late and c.random() < share, [SALT, late], monkeypatch, seed=n)
        for n in range(100)
    ]
    blamed = sum(each.rows[1].result == "different" for each in found)
    assert blamed > 100 * share * 0.8
    assert all(each.rows[0].result == "same" for each in found)


def test_a_base_that_does_not_repeat_blames_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the base run differs from run to run, nothing is changed and nothing can be told."""
    found = sweep_of(lambda _, chance: chance.random(), [SALT], monkeypatch)
    assert (found.verdict, found.rows) == ("cannot be told", [])
    assert "does not come to the same" in found.reason


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("repeats", [True, False])
def test_what_an_earlier_run_left_is_blamed_if_it_repeats_without(
    made: bool, repeats: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the first run wrote matters if the base run repeats once that is held."""
    runs = Simulated(lambda *_: 0)
    runs.outcome = lambda *_: runs.runs * (not runs.files or not repeats) * (runs.runs > 1)
    cache = tmp_path / "cache.npz"
    cache.write_bytes(b"of a run")
    left = Inherited("reads", Event(3, "reads", str(cache), (LINE,)), str(cache))
    monkeypatch.setattr(sweeping, "processes_of", runs.processes)
    monkeypatch.setattr(sweeping, "hidden_inputs", lambda around: [])
    monkeypatch.setattr(sweeping, "variables_read", lambda record: [])
    monkeypatch.setattr(sweeping, "is_made_by", lambda *_: made)
    monkeypatch.setattr(sweeping, "is_written_by", lambda *_: True)
    monkeypatch.setattr(sweeping, "look_for_inherited", lambda *_, **__: left)
    search: Any = sweeping._Sweeping(runs, Screen(None), ["python"], {})  # type: ignore[arg-type]
    found: Sweep = search.sweep(lambda _: True, 0, 0)
    assert [row.name for row in found.rows] == (["left"] if repeats else [])
    assert found.verdict == ("different" if repeats else "cannot be told")
    assert list(runs.files.values()) == [None if made else b"of a run"]


def test_what_was_not_changed_is_not_called_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that the script sets itself is no input; neither is a setting that stayed."""
    stays = Change("", setting="jax_enable_x64")
    found = sweep_of(lambda *_: 0, [X64, stays], monkeypatch, own=["JAX_ENABLE_X64"])
    assert [row.result for row in found.rows] == ["set by the script"] * 2
    assert "came to the same" not in report_of_sweep(found)
    assert found.verdict == "same"


def test_a_salt_that_the_script_sets_too_late_is_no_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has its salt when it starts; only a process that was started with it has another."""
    late = sweep_of(lambda *_: 0, [SALT], monkeypatch, salts=("", "0"))
    assert [row.result for row in late.rows] == ["same"]
    assert "note: the script sets PYTHONHASHSEED itself" in report_of_sweep(late)
    begun = sweep_of(lambda *_: 0, [SALT], monkeypatch, salts=("0", "0"))
    assert ([row.result for row in begun.rows], begun.notes) == (["set by the script"], [])
    untouched = sweep_of(lambda *_: 0, [SALT], monkeypatch)
    assert ([row.result for row in untouched.rows], untouched.notes) == (["same"], [])


def test_a_script_that_cannot_bear_one_hold_is_run_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that row cannot be told; one that fails anyway is said to."""
    pid = Change("another number", {"pid": 1})
    fails = sweep_of(
        lambda c, _: "fails" if c.hold.get("pid") != -1 else 0, [pid, X64], monkeypatch
    )
    assert [row.result for row in fails.rows] == ["cannot be told", "same"]
    assert "note: the script fails where pid is held" in report_of_sweep(fails)
    anyway = sweep_of(lambda *_: "fails", [pid], monkeypatch)
    assert anyway.rows == []
    assert anyway.problem.startswith("the script fails, also with nothing held: exit code 1")
    bears = sweep_of(lambda *_: 0, [pid], monkeypatch)
    assert ([row.result for row in bears.rows], bears.notes) == (["same"], [])


@pytest.mark.parametrize(("budget", "note"), [(1.0, True), (20.0, False)])
def test_a_loop_that_waits_by_the_clock_is_ended(
    budget: float, note: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its first run is given up, and the clock is held unless that takes ten times as long."""
    runs = Simulated(lambda *_: 0)
    monkeypatch.setattr(unheld, "_looks_at_clock", lambda record: True)
    one, ran = runs.one, []

    def timed(name: str, change: Change | None = None, **limits: Any) -> Finished:
        ran.append(name)
        seconds = budget if "clock" in runs.unheld else 100.0
        give_up = limits.get("give_up")
        stopped = bool(give_up and give_up(seconds))
        return replace(one(name, change), began=0.0, ended=seconds, stopped=stopped)

    monkeypatch.setattr(runs, "one", timed)
    begun = unheld.begin(runs, "base", Screen(None), 0, 0)  # type: ignore[arg-type]
    assert not begun.finished.stopped
    assert bool(begun.notes) == note
    assert runs.unheld == ({"clock"} if note else set())
    assert ran == ["base", "base-without-clock"] + ["base-again"] * (not note)


def test_an_input_that_agrees_has_all_its_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way in which the run may fail, and fails, is none; and what is printed is kept."""
    row = Hidden("a", "a", "pin", (SALT, X64, Change("an empty one", {"pid": 9}, may_fail=True)))
    search: Any = swept_by(lambda c, _: "fails" if "pid" in c.hold else 0, [row], monkeypatch)
    [found] = search.sweep(lambda _: True, 0, 0).rows
    assert (found.result, found.ways) == ("same", 2)
    assert found.to_json()["ways"] == 2


def test_what_changes_nearly_every_script_belongs_to_the_machine() -> None:
    """Settings of JAX are changed where they are asked for, so that exit code 0 can be reached."""
    settings = dict.fromkeys(("jax_enable_x64", "jax_threefry_partitionable"), "False")
    rows = hidden_inputs(Surroundings(["python"], {}, settings, 2, 1, ()))
    plain = {r.name for r in rows if is_wanted(r, only=(), quick=False, machine=False)}
    every = {r.name for r in rows if is_wanted(r, only=(), quick=False, machine=True)}
    assert {"hash", "devices", "blas-threads"} <= plain
    assert {"x64", "prng", "partitionable", "precision"} <= every - plain
    assert any(is_wanted(row, only=("x64",), quick=False, machine=False) for row in rows)


@pytest.mark.parametrize(
    ("outcome", "result"), [("fails", "different"), ("hangs", "cannot be told")]
)
def test_a_changed_run_that_does_not_end_well(
    outcome: str, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails whenever it is changed differs; of one that does not end nothing is told."""
    found = sweep_of(lambda change, _: outcome if change is SALT else 0, [SALT], monkeypatch)
    assert [row.result for row in found.rows] == [result]


def test_a_sweep_that_tells_nothing_is_no_pass() -> None:
    """With nothing changed, or one input of which nothing can be told, it is not the same."""
    assert Sweep().exit_code == 3
    same, unknown = Row("a", "a", "same"), Row("b", "b", "cannot be told")
    assert Sweep([same]).exit_code == 0
    assert Sweep([same, unknown]).exit_code == 3
    assert Sweep([same, unknown, Row("c", "c", "different")]).exit_code == 1
    assert Sweep([Row("d", "d", "left out")]).exit_code == 3


def test_every_hidden_input_has_a_name_of_its_own() -> None:
    """Names are unique, each row says how to pin it, and each change changes something."""
    around = Surroundings(["python"], {}, {"jax_enable_x64": "False"}, 2, 1, ["BATCH", "CI"])
    rows = hidden_inputs(around)
    assert len({row.name for row in rows}) == len(rows)
    assert [row.name for row in rows if row.quick] == ["hash", "listing", "entropy", "clock"]
    for row in rows:
        assert row.pin
        assert all(each.hold or each.variables or each.place for each in row.changes)


def test_a_setting_is_changed_to_another_value() -> None:
    """What is changed is never what it was, whatever it was."""
    for now, other in (("True", "0"), ("False", "1")):
        around = Surroundings(["python"], {}, {"jax_enable_x64": now}, 2, 1, ())
        [row] = [each for each in hidden_inputs(around) if each.name == "x64"]
        assert row.changes[0].variables == {"JAX_ENABLE_X64": other}
    for cores in (1, 2, 3, 4, 8):
        around = Surroundings(["python"], {"NPROC": f"{cores}"}, {}, cores, cores, ())
        rows = {each.name: each for each in hidden_inputs(around)}
        assert rows["xla-threads"].changes[0].variables["NPROC"] != f"{cores}"
        assert set(rows["blas-threads"].changes[0].variables.values()) != {f"{cores}"}
        assert rows["processors"].changes[0].hold["processors"] != cores


def test_the_ways_of_a_row_could_show_it() -> None:
    """Halves, defaults, the middle one of three: one of the ways is seen by each of them."""
    given = {"SEED": "7", "MODE": "fast", "FLAG": "True"}
    for cores in (1, 2, 3, 64):
        around = Surroundings(["python"], given, {}, cores, 1, ["SEED", "MODE", "FLAG", "WORLD"])
        rows = {each.name: each for each in hidden_inputs(around)}
        row = rows["processors"]
        numbers = [each.hold["processors"] for each in (*row.changes, *row.more)]
        for asked in (lambda n: n // 2, lambda n: min(n, 8), lambda n: n >= 32):
            assert {asked(n) for n in numbers} != {asked(cores)}
    read = lambda name: [each.variables[name] for each in rows[name].changes]  # noqa: E731
    assert read("SEED") == [None, "8"]
    assert read("MODE") == [None, "fast1"]
    assert read("FLAG") == [None, "False"]
    assert read("WORLD") == ["1", "2"]
    salts = [each.hold["hash"] for each in (*rows["hash"].changes, *rows["hash"].more)]
    assert salts == list(range(1, 13))


def test_more_salts_are_tried_where_hash_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set has six; a comparison of hash() may need twice as many; no question needs but one."""
    rows = {each.name: each for each in hidden_inputs(Surroundings([], {}, {}, 2, 1, []))}
    monkeypatch.setattr(asking, "processes_of", lambda record: [])
    script = tmp_path / "train.py"
    monkeypatch.setattr(asking, "_files_of_script", lambda record: {str(script)})
    for text, ways in (("x = 1", 1), ("x = {2}", 6), ("x = hash('a') % 9", 12)):
        script.write_text(text)
        linecache.clearcache()
        dataflow._tree.cache_clear()
        assert len(asking.ways_of(rows["hash"], tmp_path)) == ways
        extra = 3 * (ways > 1)
        assert len(asking.ways_of(rows["addresses"], tmp_path)) == len(
            rows["addresses"].changes
        ) + extra * (platform.system() == "Linux")


def _row_told_anyway(name: str, folder: Path, line: str, events: Sequence[Event] = ()) -> object:
    """Return the line that is told the same by a change of this row, of a script with one line."""
    around = Surroundings([], {"HOME": "/home/me"}, {}, 2, 1, [])
    rows = {each.name: each for each in hidden_inputs(around)}
    script = folder / "train.py"
    script.write_text(f"import os\n{line}\n")
    linecache.clearcache()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "_files_of_script", lambda record: {str(script)})
        patch.setattr(asking, "_all_asked", lambda record: events)
        found = asking.told_anyway(rows[name], folder)
    return found and found.line


@pytest.mark.parametrize(
    ("name", "asks", "does_not"),
    [
        ("clock", 'x = np.datetime64("today")', 'x = np.datetime64("2020-01-01")'),
        ("clock", "x = pd.Timestamp.now()", 'x = pd.Timestamp("2020-01-01")'),
        ("clock", 'x = subprocess.check_output(["date", "+%Y"])', 'x = frame["date"]'),
        ("clock", 'x = os.popen("date +%s").read()', 'os.system("train --date 3")'),
        ("user", 'x = subprocess.run("whoami", shell=True)', "x = getpass.getuser()"),
        ("host", 'x = os.popen("hostname").read()', "x = socket.gethostname()"),
        ("processors", 'n = os.sysconf("SC_NPROCESSORS_ONLN")', "n = os.cpu_count()"),
        ("processors", 'n = subprocess.check_output(["nproc"])', 'n = "nproc"'),
        ("home", 'x = os.path.realpath(os.path.expanduser("~"))', 'x = os.path.expanduser("~")'),
        ("home", "x = Path.home().resolve()", "x = Path(__file__).resolve()"),
    ],
)
def test_a_line_that_is_told_the_same_anyway(
    name: str, asks: str, does_not: str, tmp_path: Path
) -> None:
    """It is found, and one that looks like it is not."""
    assert _row_told_anyway(name, tmp_path, asks) == 2
    assert _row_told_anyway(name, tmp_path, does_not) is None


@pytest.mark.parametrize(("installed", "told"), [("C POSIX C.utf8", None), ("C sv_SE.utf8", 2)])
def test_a_locale_is_changed_only_if_another_is_installed(
    installed: str, told: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C and POSIX tell `locale` the same, so nothing can be told of a script that asks it."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    done = subprocess.CompletedProcess([], 0, installed.replace(" ", "\n"), "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    found = _row_told_anyway("locale", tmp_path, 'locale.setlocale(locale.LC_ALL, "")')
    assert (found is None) == (told is not None)
    assert _row_told_anyway("locale", tmp_path, "x = open(path, encoding='utf-8')") is None


@pytest.mark.parametrize(
    ("name", "kind", "what", "other"),
    [
        ("clock", "process", "subprocess.Popen('date')", "subprocess.Popen('update')"),
        ("host", "reads", "/etc/hostname", "/etc/hosts"),
        ("processors", "machine", "/proc/cpuinfo", "/proc/self/status"),
        ("processors", "process", "subprocess.Popen('nproc')", "subprocess.Popen('git')"),
        ("user", "process", "os.posix_spawn('whoami')", "os.posix_spawn('sh')"),
    ],
)
def test_an_event_that_is_told_the_same_anyway(
    name: str, kind: str, what: str, other: str, tmp_path: Path
) -> None:
    """It is known by its kind and name, and another one is not."""
    asks, does_not = Event(0, kind, what, (LINE,)), Event(0, kind, other, (LINE,))
    assert _row_told_anyway(name, tmp_path, "", [does_not, asks]) == LINE.line
    assert _row_told_anyway(name, tmp_path, "", [does_not]) is None


def test_what_was_told_the_same_anyway_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing differs; what differs is blamed all the same."""
    monkeypatch.setattr(sweeping, "told_anyway", lambda *_: LINE)
    [row] = sweep_of(lambda *_: 0, [SALT], monkeypatch).rows
    assert (row.result, row.line) == ("cannot be told", LINE)
    assert "train.py:7" in row.why
    [row] = sweep_of(lambda change, _: change.hold.get("hash", 0), [SALT], monkeypatch).rows
    assert row.result == "different"


def test_what_agrees_says_in_how_many_ways_it_was_changed() -> None:
    """So that nobody takes one salt for all."""
    assert shown_together([]) == ""
    assert shown_together([SALT]) == "PYTHONHASHSEED=1"
    assert shown_together([SALT, X64, X64]) == "PYTHONHASHSEED=1, and 2 more"


def test_the_script_of_a_command(tmp_path: Path) -> None:
    """It is the file of Python that is run, and no argument of a module."""
    script = tmp_path / "train.py"
    script.write_text("")
    assert script_in(["python", "-u", str(script), "--steps"]) == 2
    assert script_in(["python", "-m", "train", str(script)]) is None


def test_a_mirror_looks_like_the_folder(tmp_path: Path) -> None:
    """Small files are copied, large ones and environments are linked, and nothing else is made."""
    folder = tmp_path / "work"
    (folder / "package").mkdir(parents=True)
    (folder / "package/code.py").write_text("x = 1")
    (folder / "large.bin").write_bytes(bytes(2 << 20))
    (folder / ".venv").mkdir()
    mirror(folder, tmp_path / "elsewhere/copy")
    copy = tmp_path / "elsewhere/copy"
    assert sorted(os.listdir(copy)) == [".venv", "large.bin", "package"]
    assert (copy / "package/code.py").read_text() == "x = 1"
    assert not (copy / "package/code.py").is_symlink()
    assert (copy / "large.bin").is_symlink()
    assert (copy / ".venv").is_symlink()
    (copy / "package/code.py").write_text("x = 2")
    assert (folder / "package/code.py").read_text() == "x = 1"


ASKS = """
import getpass, os, platform, socket, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor, as_completed
print("folder", os.getcwd())
print("script", os.path.abspath(sys.argv[0]))
print("user", getpass.getuser())
print("home", os.path.expanduser("~"))
print("host", socket.gethostname(), platform.node(), os.uname().nodename)
print("zone", time.localtime(0)[:5])
print("locale", os.environ["LC_ALL"])
print("processors", os.cpu_count(), len(os.sched_getaffinity(0)))
print("hash", hash("a"))
print("pid", os.getpid())
print("entropy", os.urandom(4).hex())
print("clock", time.time())
with ThreadPoolExecutor(4) as pool:
    tasks = [pool.submit(int, i) for i in range(4)]
    print("workers", [task.result() for task in as_completed(tasks)])
begun = []
thread = threading.Thread(target=lambda: begun.append(1))
thread.start()
print("races", len(begun))
thread.join()
print("variable", os.environ.get("BATCH"))
print("dir", os.listdir(sys.argv[1]), len(tempfile.mkdtemp()))
"""


def test_each_change_is_seen_by_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script without JAX that asks for each of them is told otherwise, and else the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    (tmp_path / "ask.py").write_text(ASKS)
    (tmp_path / "records").mkdir()
    (tmp_path / "folders").mkdir()
    runs = ChangedRuns(
        [sys.executable, "ask.py", "{dir}"],
        tmp_path / "records",
        tmp_path / "folders",
        {},
        Screen(None),
    )

    def told(name: str, change: Change) -> dict[str, str]:
        finished = runs.one(name, change)
        assert finished.code == 0, finished.last_words
        assert finished.output
        lines = finished.output.read_text().splitlines()
        return dict(line.split(" ", 1) for line in lines)

    base = told("base", Change(""))
    assert base == told("again", Change(""))
    around = Surroundings(["python", "ask.py"], dict(os.environ), {}, 2, 1, ["BATCH"])
    rows = {row.name: row for row in hidden_inputs(around)}
    rows["variable"] = rows.pop("BATCH")
    # Several at once where they do not touch each other.
    groups = [["folder"], ["script", "races"], ["home", "workers"]]  # no worker shifts entropy
    known = {name for names in groups for name in names}
    groups += [[name for name in base if name not in {*known, "dir"}]]
    for number, names in enumerate(groups):
        changes = [rows[name].changes[0] for name in names]
        both = Change(
            "",
            {name: way for each in changes for name, way in each.hold.items()},
            {name: text for each in changes for name, text in each.variables.items()},
            changes[0].place,
        )
        other = told(f"run-{number}", both)
        differ = {name for name in base if base[name] != other[name]}
        also = {"script"} if names == ["folder"] else set()
        assert differ == set(names) | also


def test_a_name_that_no_input_has_is_refused(tmp_path: Path) -> None:
    """Before anything is run, with the names that there are."""
    with pytest.raises(ConfigError, match="hash, listing, entropy"):
        sweeping.sweep([sys.executable, "-c", "pass"], only=["salt"])


def test_a_script_that_does_not_call_jax_cannot_be_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is no pass, and one sentence says why."""
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "--only", "hash", "--", sys.executable, "-c", "raise SystemExit(7)"])
    assert ended.value.code == 3
    assert "exit code 7" in capfd.readouterr().err


@pytest.mark.long
@pytest.mark.nightly
def test_a_real_script_is_swept(tmp_path: Path) -> None:
    """All that it depends on is found with its line, and nothing else."""
    (tmp_path / "data").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "data" / name).touch()
    (tmp_path / "train.py").write_text(TRAIN)
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "reproducibility",
            "sweep",
            "--json",
            "--",
            sys.executable,
            "train.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1, found.stderr[-2000:]
    rows = json.loads(found.stdout)["rows"]
    lines = {row["name"]: row["line"] for row in rows if row["result"] == "different"}
    expected = {
        line.split("# ")[1]: number
        for number, line in enumerate(TRAIN.splitlines(), start=1)
        if "# " in line
    }
    assert {name: int(line.split(":")[1].split(",")[0]) for name, line in lines.items()} == expected


TRAIN = """import os, socket, time
import jax, jax.numpy as jnp, numpy as np

jax.config.update("jax_enable_x64", False)
salted = [len(name) for name in {"cat", "monkey", "elephant", "ox"}]  # hash
files = [ord(name) for name in os.listdir("data")]  # listing
drawn = np.random.rand(2)  # entropy
now = [time.time() % 1000]  # clock
host = [sum(map(ord, socket.gethostname()))]  # host
here = [sum(map(ord, os.getcwd()))]  # folder
cores = [os.cpu_count()]  # processors

step = jax.jit(lambda p, x: p * 0.5 + x.sum())
p = np.ones(3, np.float32)
for each in (salted, files, drawn, now, host, here, cores):
    p = step(p, np.asarray(each, np.float32) * np.arange(1, len(each) + 1, dtype=np.float32))
"""
