"""The report fits a screen, whatever was found, and begins with what matters most."""

import dataclasses

from reproducibility.script.diverging import Alignment, Root
from reproducibility.script.inherited import Inherited
from reproducibility.script.programs import ProgramDifference
from reproducibility.script.reading import Event, SourceLine
from reproducibility.script.report import report_of
from reproducibility.script.sites import near_file, own_first
from reproducibility.script.twice import Twice


def root(line: int, number: int) -> Root:
    """Return one that begins in a function far down in a long name."""
    site = tuple(SourceLine(f"/a/{'long/' * 9}train.py", line + i, "main") for i in range(3))
    return Root("host", "", ("x", "y", "z", "u"), "step", site, site, "process-1", "Main", number)


def found(**more: object) -> Twice:
    """Return what came of two runs in which much differs."""
    roots = [root(line, 10 * line + i) for line in range(30) for i in range(7)]
    notes = [f"{name} is one in the first run, two in the second" for name in "abcdefgh"]
    compared = Alignment(roots, 5000, 4000, notes=notes, problems=["word " * 200])
    return Twice(compared.verdict, compared.reason, compared, **more)  # type: ignore[arg-type]


def test_much_fits_a_screen() -> None:
    """The lines of 30 places, of all notes and of a cause are at most 23, each of a width."""
    event = Event(0, "reads", "/w/ckpt.npz", (SourceLine("/a/train.py", 3, "load"),))
    report = report_of(
        found(
            cause="entropy",
            confirmed=True,
            sources=(event,) * 9,
            stopped=True,
            inherited=Inherited("reads", event, event.what),
        )
    ).splitlines()
    assert len(report) <= 23  # and the verdict above it
    assert max(len(line) for line in report) <= 200
    assert sum(len(line) > 100 for line in report) <= 4
    assert report[0] == "the second run reads what the first one wrote; give each its own {dir}:"
    assert report[2].startswith(
        "begins with call 1, step: an input that no earlier call made: x, y"
    )
    assert "    6 more begin on that line" in report
    assert "and on 26 more lines, which --json has" in report
    assert "3,790 more calls only pass it on" in report
    assert any("ended after 5,000 calls" in line for line in report)


def test_a_source_is_certain_only_if_it_is_the_only_one() -> None:
    """One source that was followed to the call is where its input comes from; two may be it."""
    one, other = (Event(0, "draws", "np.x()", (SourceLine("a.py", n, "f"),)) for n in (3, 4))
    held: dict[str, object] = {"cause": "entropy", "confirmed": True}
    alone = report_of(found(**held, sources=(one,), traced=True))
    assert "    x, y, z comes from np.x(), a.py:3, in f" in alone.splitlines()
    assert alone.count("    cure: give each generator a seed") == 1
    likely = report_of(found(cause="entropy", confirmed=False, sources=(one,)))
    assert "cure" not in likely
    assert "comes from" not in report_of(found(**held, sources=(one,)))
    both = report_of(found(**held, sources=(one, other))).splitlines()
    at = both.index("    it may come from np.x(), a.py:3, in f")
    assert both[at + 1] == "    or from np.x(), a.py:4, in f"
    assert "or from one of 2 more lines" in report_of(found(**held, sources=(one, other, one)))


def test_what_may_be_found_is_a_note() -> None:
    """Files that the first run left are named where no cause is confirmed."""
    assert "note: the second run may find what the first one left: /w/a and 1 more" in report_of(
        found(left=["/w/a", "/w/b"])
    )
    assert "/w/a" not in report_of(found(left=["/w/a"], cause="clock", confirmed=True))


def test_memory_that_is_shared_is_shown_with_its_line() -> None:
    """A race on memory has the line where the two began to share it, beside that of the call."""
    put, use = (SourceLine("/a/train.py", line, "main") for line in (41, 42))
    why = ProgramDifference("memory", "NumPy overwrote the memory", (put, use))
    one = dataclasses.replace(root(42, 3), kind="program", what=why.what, program_differs=why)
    compared = Alignment([one], 5)
    report = report_of(Twice("different", compared.reason, compared))
    assert "NumPy overwrote the memory" in report
    assert "shared with NumPy at /a/train.py:41" in report
    assert "in the second run" not in report


def test_what_was_left_is_told_once() -> None:
    """Where the second run reads what the first one wrote, that is what was found."""
    event = Event(0, "reads", "/w/log.txt", (SourceLine("/a/train.py", 3, "load"),))
    left = Inherited("reads", event, event.what)
    assert "no cause found" in report_of(found(tried=("entropy",)))
    report = report_of(found(tried=("entropy",), inherited=left))
    assert "no cause found" not in report
    assert "/w/log.txt" in report


def test_a_line_of_a_library_is_named_as_it_is_imported() -> None:
    """Where the environment lies differs from machine to machine, and says nothing."""
    inside = "flax/nnx/transforms/compilation.py"
    assert near_file(f"/home/a/.venv/lib/python3.13/site-packages/{inside}") == inside
    assert near_file(f"../env/lib/python3/dist-packages/{inside}") == inside


def test_the_lines_of_the_script_come_first() -> None:
    """Of a call inside a library, the reader's own line is what they look for."""
    library = SourceLine("/v/site-packages/flax/nnx/compilation.py", 1023, "__call__")
    mine, outer = SourceLine("/a/train.py", 92, "<module>"), SourceLine("/a/cli.py", 3, "main")
    assert own_first((library, mine, outer)) == (mine, outer, library)
    report = report_of(
        dataclasses.replace(
            found(),
            compared=Alignment(
                [Root("host", "", ("x",), "step", (library, mine), (), "process-1", "Main", 1)],
                1,
                1,
            ),
        )
    )
    assert "train.py:92" in report.splitlines()[1]
