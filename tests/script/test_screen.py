"""What the script prints and what we say share stderr, and neither breaks the other's lines."""

import io
import sys

import pytest

from reproducibility.script import screen
from reproducibility.script.screen import Screen, in_words


class Terminal(io.TextIOWrapper):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Take what reaches a terminal from now on."""
    taken = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", Terminal(taken, write_through=True))
    return taken


def test_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that says how far it is goes before anything else comes, and waits for its end."""
    shown = terminal(monkeypatch)
    seen = Screen(lambda text: print(text, file=sys.stderr))
    seen.progress("5 calls")
    seen.output(b"loss 1")
    seen.progress("6 calls")  # in the middle of a line of the script
    seen.output(b"\n")
    seen.progress("7 calls")
    seen.say("Run 2.")
    erase = b"\r\x1b[2K"
    assert shown.getvalue() == (
        erase + b"5 calls" + erase + b"loss 1\n" + erase + b"7 calls" + erase + b"Run 2.\n"
    )


def test_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file there is a line now and then, each break twice the one before."""
    now, said = [0.0], list[str]()
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    seen = Screen(said.append)
    for second in range(100):
        now[0] = float(second)
        seen.progress(f"{second} s")
    assert said == ["10 s", "30 s", "70 s"]


def test_a_stderr_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script still runs if nobody reads what it prints."""
    terminal(monkeypatch).close()
    seen = Screen(None)
    seen.output(b"loss 1\n")
    seen.output(b"loss 2\n")


def test_times_in_words() -> None:
    """They are read, not computed with."""
    assert [in_words(t) for t in (3.7, 200, 4000)] == ["3 s", "3 min 20 s", "1 h 6 min"]
