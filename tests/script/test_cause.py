"""A cause is confirmed if it is one: simulated runs, many of them, and what two files tell."""

import dataclasses
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reproducibility.script import asking, cause
from reproducibility.script.dataflow import asked_by, calls_in, lines_behind, salted
from reproducibility.script.diverging import Alignment, Root
from reproducibility.script.hidden import Surroundings
from reproducibility.script.hidden_table import hidden_inputs
from reproducibility.script.programs import ProgramDifference
from reproducibility.script.reading import Event, SourceLine
from reproducibility.script.start import Finished

ROOT = Root("host", "", ("x",), "f", (SourceLine("a.py", 1, "f"),), (), "process-1", "Main", 4)
Outcome = Callable[[dict[str, str], random.Random], object]


class Simulated:
    """Runs whose outcome is a function of what is held, and of chance."""

    def __init__(self, outcome: Outcome, seed: int) -> None:
        self.outcome, self.chance = outcome, random.Random(seed)
        self.found: dict[tuple[str, int], object] = {}
        self.runs = self.reached = 0

    def again(self, number: int, hold: str, calls: int, place: int) -> Finished:
        """Run it."""
        self.runs += 1
        held = dict(each.split("=") for each in hold.split(",") if "=" in each)
        self.found[hold, place] = self.outcome(held, self.chance)
        return Finished(3 if self.found[hold, place] == "fails" else 0)

    def record(self, number: int, hold: str) -> Path:
        """Return a path that says which run it is."""
        return Path(f"{number}:{hold}")

    def compare(self, one: Path, other: Path) -> Alignment:
        """Compare two of them."""
        places = [(str(path).partition(":")[2], int(str(path)[0])) for path in (one, other)]
        same = self.found[places[0]] == self.found[places[1]]
        return Alignment([] if same else [ROOT], calls=5)


def search(outcome: Outcome, seed: int, monkeypatch: pytest.MonkeyPatch) -> cause.Cause | None:
    """Look for the cause of what two runs gave; None if those agree, so that nobody looks."""
    runs = Simulated(outcome, seed)
    finished = [runs.again(number, "", 0, number) for number in (1, 2)]
    if runs.found["", 1] == runs.found["", 2]:
        return None
    monkeypatch.setattr(cause, "compare_records", runs.compare)
    return cause._Search(ROOT, finished, runs).find(["entropy", "hash", "listing", "clock"])


def drawn(held: dict[str, str], name: str, chance: random.Random, outcomes: int) -> int:
    """Return what a thing that varies gives, held or not."""
    way = held.get(name)
    chance = chance if way is None else random.Random(f"{name} {way}")
    return chance.randrange(outcomes)


@pytest.mark.parametrize("name", ["entropy", "hash", "listing", "clock"])
@pytest.mark.parametrize("outcomes", [3, 10, 10**6])
def test_what_is_the_cause_is_confirmed(
    name: str, outcomes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holding it, and nothing else, is confirmed, though the outcomes are few."""
    found = [
        search(lambda held, chance: drawn(held, name, chance, outcomes), seed, monkeypatch)
        for seed in range(60)
    ]
    looked = [each for each in found if each is not None]
    assert all(each.name in (name, "") for each in looked if each.confirmed)
    right = sum(each.name == name and each.confirmed for each in looked)
    assert right >= len(looked) * (0.6 if outcomes == 3 else 1)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.5])
def test_what_happens_now_and_then_has_no_confirmed_cause(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that shows by chance is not blamed on what happened to be held."""
    found = [
        search(lambda held, chance: chance.random() < share, seed, monkeypatch)
        for seed in range(2_000)
    ]
    looked = [each for each in found if each is not None]
    assert len(looked) > 100
    assert sum(each.confirmed for each in looked) <= len(looked) // 100


def test_holding_that_only_disturbs_is_no_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A race that vanishes when something is held is not blamed on it: another way of holding it
    gives the same results."""

    def race(held: dict[str, str], chance: random.Random) -> object:
        return 0 if "clock" in held else chance.random()

    found = search(race, 1, monkeypatch)
    assert found is not None
    assert (found.name, found.confirmed) == ("clock", False)


def test_a_run_that_makes_fewer_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """If one run ends sooner, held runs may end sooner too; elsewhere they must reach the call."""

    def steps(held: dict[str, str], chance: random.Random) -> object:
        return drawn(held, "entropy", chance, 10**6)

    short = Alignment(calls=2)
    monkeypatch.setattr(Simulated, "compare", compared_with(Simulated.compare, short))
    found = search(steps, 1, monkeypatch)
    assert found is not None
    assert (found.name, found.confirmed) == ("", False)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", dataclasses.replace(ROOT, kind="end"))
    found = search(steps, 1, monkeypatch)
    assert found is not None
    assert (found.name, found.confirmed) == ("entropy", True)


def compared_with(compare: Callable[..., Alignment], same: Alignment) -> Callable[..., Alignment]:
    """Return a comparison in which runs that agree made fewer calls."""

    def comparing(self: Simulated, one: Path, other: Path) -> Alignment:
        found = compare(self, one, other)
        return found if found.roots else same

    return comparing


def test_two_causes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held alone neither helps; the fewest that help together are confirmed."""

    def both(held: dict[str, str], chance: random.Random) -> object:
        return [drawn(held, name, chance, 10**6) for name in ("clock", "entropy")]

    found = search(both, 1, monkeypatch)
    assert found is not None
    assert (sorted(found.name.split("+")), found.confirmed) == (["clock", "entropy"], True)


def test_what_the_first_run_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all later runs agree, whatever is held, nothing is confirmed."""
    runs = iter([1, *[2] * 100])
    found = search(lambda held, chance: next(runs), 1, monkeypatch)
    assert found is not None
    assert (found.settled, found.confirmed, found.name) == (True, False, "")


def test_a_held_run_that_breaks_is_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """If holding something makes the script fail, that the runs agree says nothing."""

    def breaks(held: dict[str, str], chance: random.Random) -> object:
        return "fails" if held else chance.random()

    found = search(breaks, 1, monkeypatch)
    assert found is not None
    assert (found.name, found.confirmed, len(found.tried)) == ("", False, 4)


def test_variables_that_hold() -> None:
    """The salt is held by a variable, all else inside of the script."""
    assert cause.variables_that_hold("nothing held") == {}
    assert cause.variables_that_hold("hash=2") == {"PYTHONHASHSEED": "2"}
    both = cause.variables_that_hold("entropy=1,hash=0")
    assert both == {"REPRODUCIBILITY_HOLD": "entropy=1", "PYTHONHASHSEED": "0"}
    assert cause.variables_that_hold("threads=0")["OMP_NUM_THREADS"] == "1"


SCRIPT = """\
import numpy as np, time, random
rng = np.random.default_rng()
other = np.random.default_rng()
names = sorted(set("abc"))
def batches(n):
    for i in range(n):
        yield random.random()
seed = time.time()
for x in batches(4):
    y = rng.normal(size=3) + x
    rng2 = np.random.RandomState(seed=None)
    w = step(w, y)
    print(time.time() - seed, names, np.random.default_rng(7))
"""


def test_which_lines_are_behind_a_call(tmp_path: Path) -> None:
    """Names are followed to where they are assigned, and into functions; others are left out."""
    file = str(tmp_path / "a.py")
    Path(file).write_text(SCRIPT)
    behind = lines_behind(file, 12)
    assert {2, 5, 6, 7, 9, 10, 12} <= behind
    assert not behind & {3, 4, 8, 11, 13}
    assert lines_behind(str(tmp_path / "none.py"), 12) == set()
    assert asked_by(file, 2) == "np.random.default_rng(), unseeded"
    assert asked_by(file, 11) == "np.random.RandomState(), unseeded"
    assert asked_by(file, 13) == ""
    assert (salted(file, {4, 5}), salted(file, {5, 6})) == (4, 0)
    assert calls_in(file, {4}) == {"sorted", "set"}


def test_without_a_cause_no_event_is_its_source() -> None:
    """What is held for nothing is no source; an overwrite of shared memory is."""
    line = (SourceLine("a.py", 1, "f"),)
    events = [Event(1, kind, kind, line) for kind in ("leaves", "environment", "clock")]
    assert cause._sources(cause.Cause(), [events, events], ROOT, {}) == ()
    written = Event(1, "overwritten", "NumPy", line)
    assert cause._sources(cause.Cause(), [[*events, written], []], ROOT, {}) == (written,)
    clock = cause._sources(cause.Cause("clock"), [events, events], ROOT, {})
    assert clock == (events[2],)


CALLING = """
import os, tempfile, numpy as np
parser.add_argument("--workdir", default=tempfile.gettempdir())
args = parser.parse_args()
noise = np.random.default_rng()
more = np.random.default_rng()
def impact(orders): return np.random.uniform()
result = episode(args, noise.normal(), more.normal(), tempfile.mkdtemp(), drawn.normal())
drawn = np.random.default_rng(int.from_bytes(os.urandom(8), "little"))
"""


def test_a_source_is_one_line_or_each_that_may_be_it(tmp_path: Path) -> None:
    """A folder's name is none while a line asks for entropy; two lines that ask are both named;
    what a callback asks while its call runs comes before both."""
    path = tmp_path / "a.py"
    path.write_text(CALLING)
    file = str(path)

    def event(after: int, kind: str, line: int, function: str = "<module>") -> Event:
        return Event(after, kind, "x", (SourceLine(file, line, function),))

    call = (SourceLine(file, 8, "<module>"),)
    root = dataclasses.replace(ROOT, kind="program", site=call, other_site=call)
    behind = cause._lines_behind(root)
    folder, noise, more = (event(0, "entropy", line) for line in (3, 5, 6))

    def lines(*events: Event, root: Root = root) -> list[int]:
        found = cause._sources(cause.Cause("entropy"), [events, events], root, behind)
        return [each.site[0].line for each in found]

    assert lines(folder) == [3]
    assert lines(folder, noise) == lines(noise, folder) == [5]
    assert sorted(lines(folder, noise, more, noise)) == [5, 6]
    assert lines(event(0, "entropy", 8), event(0, "entropy", 9)) == [9]
    of_host = ProgramDifference("callback", "", (SourceLine(file, 7, "impact"),))
    calls_host = dataclasses.replace(root, program_differs=of_host)
    drawn = event(ROOT.call + 1, "draws", 7, "impact")
    assert lines(folder, noise, drawn, root=calls_host) == [7]
    assert cause._is_inside(drawn, calls_host)
    assert not cause._is_inside(drawn, root)


def test_the_line_of_a_cause_is_looked_for_in_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library through which JAX is called has sets of its own, and none of them is blamed."""
    library, script = tmp_path / "site-packages" / "layers.py", tmp_path / "train.py"
    library.parent.mkdir()
    library.write_text("names = tuple(set(kinds))\ndef call(f, x):\n    return f(x, names)\n")
    script.write_text("classes = list(set(labels))\ny = number(classes)\nlosses.append(step(y))\n")
    site = (SourceLine(str(library), 3, "call"), SourceLine(str(script), 3, "<module>"))
    root = dataclasses.replace(ROOT, site=site)
    monkeypatch.setattr(asking, "_asked_before", lambda *_: [])
    around = Surroundings(["python"], {}, {}, 2, 1, ())
    [salt] = [hidden for hidden in hidden_inputs(around) if hidden.name == "hash"]
    behind = {str(library): {1, 3}, str(script): {1, 2, 3}}
    [event] = cause._sources(cause.Cause("hash", confirmed=True), [[], []], root, behind)
    asked = asking.asked_in(salt, root, tmp_path / "record")
    assert event.site == (asked,) == (SourceLine(str(script), 1, "<module>"),)
    root = dataclasses.replace(root, site=site[:1])  # of the script no line is known
    asked = asking.asked_in(salt, root, tmp_path / "record")
    assert asked == SourceLine(str(library), 1, "<module>")
