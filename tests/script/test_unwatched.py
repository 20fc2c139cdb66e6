"""The run without the recorder: what it says when it prints something else."""

from pathlib import Path

import pytest

from reproducibility.script import twice as command
from reproducibility.script.diverging import Alignment, Root
from reproducibility.script.start import Finished


class PlannedRuns:
    """Runs of which it is known what each prints, and what its calls of JAX are."""

    def __init__(self, folder: Path, printed: dict[str, str]) -> None:
        self._folder, self._printed = folder, printed
        self.own: list[str] = []

    def _finished(self, name: str) -> Finished:
        path = self._folder / name
        path.write_text(self._printed[name])
        return Finished(0, path)

    def one(self, number: int, place: int) -> Finished:
        """Run it with the recorder."""
        return self._finished(f"recorded {place}")

    def unwatched(self, place: int) -> Finished:
        """Run it without."""
        return self._finished(f"plain {place}")

    def record(self, number: int, hold: str) -> Path:
        """Return a record."""
        return self._folder


@pytest.mark.parametrize(
    ("plain", "recorded", "verdict", "says"),
    [
        ("aa", "a", "same", ""),
        ("bb", "a", "cannot be told", "Watching changes"),
        ("ba", "a", "cannot be told", "does not print the same twice"),
        ("bc", "a", "cannot be told", "does not print the same twice"),
        ("bb", "b", "same", "a third run"),
    ],
)
@pytest.mark.parametrize("third", ["same", "different"])
def test_what_is_printed_without_the_recorder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plain: str,
    recorded: str,
    verdict: str,
    says: str,
    third: str,
) -> None:
    """One run that prints something else may be chance; two and two say what it is."""
    planned = {"plain 1": plain[0], "plain 2": plain[1], "recorded 3": recorded}
    runs = PlannedRuns(tmp_path, {**planned, "recorded 1": "a", "recorded 2": "a"})
    root = Root("end", "", (), "f", (), (), "process-1", "MainThread", 3)
    compared = Alignment(calls=3, roots=[root] if third == "different" else [])
    monkeypatch.setattr(command, "compare_records", lambda *_: compared)
    found = command.Twice("same", "All 3 calls of JAX agree.", Alignment(calls=3))
    finished = [runs.one(1, 1), runs.one(2, 2)]
    command._look_without_the_recorder(found, runs, finished)  # type: ignore[arg-type]
    if third == "different" and plain[0] == "b":
        assert (found.verdict, found.compared) == ("different", compared)
    else:
        assert found.verdict == verdict
        assert says in found.reason + found.remark
