"""Promises of `reproducibility.reference.check`."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reproducibility import (
    CheckpointStore,
    LedgerError,
    Run,
    RunError,
    RunLockedError,
    SetAsideWarning,
    TrainConfig,
    check,
    read_result,
    train,
    write_result,
)
from reproducibility.reference.run import locked
from reproducibility.storage.files import canonical_json, chained, with_digest
from reproducibility.storage.whole import Report
from tests.conftest import SMALL
from tests.replaying import another, rewrite_ledger

Small = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two attempts, with checkpoints at 4, 8 and 12."""
    folder = tmp_path_factory.mktemp("check") / "run"
    config = TrainConfig(seed=7, steps=12, checkpoint_every=4, **SMALL)
    train(dataclasses.replace(config, stop_after=8), run_dir=folder)
    train(config, run_dir=folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test to damage."""
    return shutil.copytree(finished, tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a directory with its bytes."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def found(report: Report) -> list[tuple[str, str]]:
    """Return kind and path of each finding."""
    return [(finding.kind, finding.path) for finding in report.findings]


def test_an_intact_run_is_intact(run: Path) -> None:
    """Every file is read and none is changed; the lock is the one that is not counted."""
    before = contents(run)
    report = check(run)
    assert (report.findings, report.exit_code, report.checkpoints) == ((), 0, (4, 8, 12))
    assert report.run == Run.read(run).name
    files = [content for path, content in before.items() if not path.endswith("/lock")]
    assert (report.files, report.bytes) == (len(files), sum(map(len, files)))
    assert contents(run) == before
    assert check(run, repair=True).findings == ()
    assert contents(run) == before


def test_an_unfinished_run_is_intact(small: Small, tmp_path: Path) -> None:
    """A run that was stopped, or has only begun, is intact as well."""
    with Run.work(tmp_path / "begun", {"seed": 7}):
        pass
    train(small(stop_after=4), run_dir=tmp_path / "stopped")
    train(small(steps=4), run_dir=tmp_path / "grown")
    train(small(stop_after=8), run_dir=tmp_path / "grown")
    for name in ("begun", "stopped", "grown"):
        assert check(tmp_path / name).findings == (), name


DAMAGE: dict[str, Callable[[Path], object]] = {
    "run.json": lambda run: (run / "run.json").write_text("{}"),
    "attempts.jsonl": lambda run: (run / "attempts.jsonl").write_bytes(
        (run / "attempts.jsonl").read_bytes().replace(b"stopped", b"stoqped")
    ),
    "ledger.jsonl": lambda run: (run / "ledger.jsonl").write_bytes(
        (run / "ledger.jsonl").read_bytes().replace(b'"step":9}', b'"step":8}')
    ),
    "result.json": lambda run: (run / "result.json").write_text("{}"),
    "checkpoints/00000008": lambda run: (run / "checkpoints/00000008/seal.json").unlink(),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_and_set_aside(run: Path, small: Small, name: str) -> None:
    """Each kind of damage has one finding; a repair sets it aside and `train` goes on.

    A damaged run.json stays where it is: only `train` knows the settings.
    """
    DAMAGE[name](run)
    before = contents(run)
    report = check(run)
    assert found(report) == [("damaged", name)]
    assert report.exit_code == 1
    assert contents(run) == before
    repaired = check(run, repair=True)
    assert set(before.values()) <= set(contents(run).values())
    if name == "run.json":
        assert found(repaired) == [("damaged", "run.json")]
        assert repaired.repaired == ()
        with pytest.warns(SetAsideWarning):
            train(small(), run_dir=run)
    else:
        aside = Path(name).with_name(f"damaged-{Path(name).name}").as_posix()
        assert found(repaired) == [("set aside", aside)]
        assert [finding.path for finding in repaired.repaired] == [name]
    assert train(small(), run_dir=run).digest == train(small()).digest
    assert check(run).exit_code == 0


def test_the_damaged_leaf_is_named(run: Path) -> None:
    """A checkpoint of which a file is altered is named together with the leaves it spoils."""
    files = sorted(
        (run / "checkpoints/00000012/arrays").rglob("d/*"), key=lambda f: f.stat().st_size
    )
    files[-1].write_bytes(bytes(byte ^ 1 for byte in files[-1].read_bytes()))
    report = check(run)
    [finding] = report.findings
    assert (finding.kind, report.checkpoints) == ("damaged", (4, 8))
    assert files[-1].name in finding.detail
    assert finding.leaves
    assert all(leaf in finding.detail for leaf in finding.leaves[:3])


def test_what_killed_processes_left_is_no_damage(run: Path) -> None:
    """Temporary files are named, are no damage, and a repair removes them."""
    (run / "checkpoints" / ".tmp-00000016").mkdir()
    (run / "checkpoints" / ".tmp-00000016" / "x").write_text("x")
    (run / ".tmp-result.json-7").write_text("{")
    report = check(run)
    left = [("left over", ".tmp-result.json-7"), ("left over", "checkpoints/.tmp-00000016")]
    assert (found(report), report.exit_code) == (left, 0)
    report = check(run, repair=True)
    assert ([(f.kind, f.path) for f in report.repaired], report.findings) == (left, ())


def test_foreign_things_are_named_and_stay(run: Path) -> None:
    """What this package did not write is no damage, is not followed, and is never removed."""
    (run / "notes.txt").write_text("mine")
    (run / "checkpoints" / "latest").symlink_to("00000012")
    report = check(run, repair=True)
    assert found(report) == [("foreign", "notes.txt"), ("foreign", "checkpoints/latest")]
    assert (report.exit_code, report.repaired) == (0, ())


def test_a_link_in_the_place_of_a_file_is_damage(run: Path, tmp_path: Path) -> None:
    """A run's own files are not links: they could lead anywhere."""
    shutil.move(run / "checkpoints", tmp_path / "elsewhere")
    (run / "checkpoints").symlink_to(tmp_path / "elsewhere")
    report = check(run)
    assert found(report) == [("damaged", "checkpoints")]
    assert report.checkpoints == ()


def test_what_belongs_to_another_run_is_damage(run: Path, small: Small, tmp_path: Path) -> None:
    """Intact files of another run are not intact files of this one."""
    train(small(seed=8, steps=16), run_dir=tmp_path / "other")
    shutil.copytree(tmp_path / "other/checkpoints/00000016", run / "checkpoints/00000016")
    shutil.copy(tmp_path / "other/result.json", run / "result.json")
    report = check(run)
    assert report.checkpoints == (4, 8, 12)
    assert {finding.path: finding.detail for finding in report.damaged} == {
        "checkpoints/00000016": f"it belongs to run {Run.read(tmp_path / 'other').name}",
        "result.json": "it is not the result of this run's checkpoint",
        "attempts.jsonl": "the line that says that step 16 was reached is gone",
    }


@pytest.mark.parametrize("field", ["run", "digest"])
def test_a_result_of_other_bits_is_damage(run: Path, field: str) -> None:
    """A result, intact by itself, must name this run and the digest of its sealed checkpoint."""
    result = read_result(run / "result.json")
    write_result(run / "result.json", dataclasses.replace(result, **{field: "d" * 64}))
    assert found(check(run)) == [("damaged", "result.json")]


def test_the_line_of_the_results_own_step_is_missed(run: Path, small: Small) -> None:
    """That some other step was finished does not stand in for the one of the result."""
    train(small(steps=16), run_dir=run)
    lines = (run / "attempts.jsonl").read_bytes().splitlines(keepends=True)
    (run / "attempts.jsonl").write_bytes(b"".join(lines[:-1]))
    assert found(check(run)) == [("damaged", "attempts.jsonl")]


def test_missing_records_are_damage(run: Path, small: Small) -> None:
    """Lines that must be there, because a result or checkpoints are, are missed; and mended."""
    attempts = run / "attempts.jsonl"
    lines = attempts.read_bytes().splitlines(keepends=True)
    for content in (b"".join(lines[:-1]), b"", None):
        if content is None:
            attempts.unlink()
        else:
            attempts.write_bytes(content)
        assert [finding.path for finding in check(run).damaged] == ["attempts.jsonl"]
        report = check(run, repair=True)
        assert (report.damaged, len(report.repaired)) == ((), 1)
    attempts.unlink()
    assert train(small(), run_dir=run).ended == "finished"
    assert check(run).exit_code == 0
    (run / "run.json").unlink()
    assert ("damaged", "run.json") in found(check(run))


def test_a_stopped_run_without_its_records_is_damaged(run: Path) -> None:
    """Checkpoints alone, without a result, tell that there must be lines."""
    (run / "result.json").unlink()
    (run / "attempts.jsonl").unlink()
    assert found(check(run)) == [("damaged", "attempts.jsonl")]


def test_a_run_killed_before_its_end_is_intact(run: Path) -> None:
    """Without its result a run looks as if it had been killed just before: no damage."""
    lines = (run / "attempts.jsonl").read_bytes().splitlines(keepends=True)
    (run / "attempts.jsonl").write_bytes(b"".join(lines[:-1]))
    (run / "result.json").unlink()
    assert check(run).findings == ()


def test_a_damaged_identity_hides_no_other_damage(run: Path) -> None:
    """Where run.json is damaged the seals tell the name, and everything else is checked by it."""
    for name in ("run.json", "attempts.jsonl", "result.json"):
        DAMAGE[name](run)
    assert {finding.path for finding in check(run).damaged} == {
        "run.json",
        "attempts.jsonl",
        "result.json",
    }


def test_seals_that_disagree_tell_no_name(run: Path, small: Small, tmp_path: Path) -> None:
    """Where run.json is damaged and the seals name two runs, neither is believed."""
    train(small(seed=8, steps=16), run_dir=tmp_path / "other")
    shutil.copytree(tmp_path / "other/checkpoints/00000016", run / "checkpoints/00000016")
    DAMAGE["run.json"](run)
    assert check(run).run is None


def test_a_run_at_work_is_not_checked(run: Path, small: Small) -> None:
    """While a process works on a run its files are in motion: refused with code 4."""

    def meanwhile(step: int, loss: object) -> None:
        with pytest.raises(RunLockedError) as caught:
            check(run)
        assert caught.value.exit_code == 4

    assert train(small(steps=13), run_dir=run, progress=meanwhile).ended == "finished"
    (run / "lock").unlink()
    assert check(run).findings == ()


def test_a_repair_is_alone(run: Path) -> None:
    """Two may check at once; a repair changes files, so it is refused while another looks."""
    with locked(run, shared=True):
        assert check(run).findings == ()
        with pytest.raises(RunLockedError):
            check(run, repair=True)


def test_damage_comes_first(run: Path) -> None:
    """Findings are sorted by how bad they are: the first one is what a reader is told."""
    (run / "a file of somebody").touch()
    (run / ".tmp-result.json-7").touch()
    (run / "damaged-result.json").touch()
    DAMAGE["result.json"](run)
    assert [finding.kind for finding in check(run).findings] == [
        "damaged",
        "left over",
        "set aside",
        "foreign",
    ]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    """A missing path, a file, an empty directory and another one are no runs."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").touch()
    for path in ("missing", "file", "folder"):
        with pytest.raises(RunError, match=r"expected a run directory with run\.json"):
            check(tmp_path / path)


def test_what_may_be_no_run_is_not_repaired(tmp_path: Path) -> None:
    """Where nothing tells the run's name, nothing is renamed or removed."""
    (tmp_path / "result.json").write_text('{"mine": 1}')
    (tmp_path / "checkpoints" / "00000040").mkdir(parents=True)
    (tmp_path / ".tmp-work").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert check(tmp_path, repair=True).exit_code == 1
    assert {*tmp_path.rglob("*")} - {tmp_path / "lock"} == set(before)


def test_a_run_of_another_format_is_refused(run: Path) -> None:
    """A run that a later version wrote is not called damaged, and not repaired away."""
    (run / "run.json").write_bytes(canonical_json(with_digest({"format": 2})))
    with pytest.raises(RunError, match="expected run format 1, got 2"):
        check(run, repair=True)


def test_a_result_without_any_checkpoint_is_damage(run: Path) -> None:
    """A result that rests on nothing cannot be checked."""
    shutil.rmtree(run / "checkpoints")
    assert found(check(run)) == [("damaged", "checkpoints")]


def test_checkpoints_alone_are_checked(tmp_path: Path) -> None:
    """Someone's own checkpoints are verified, without a run."""
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"w": np.zeros(1)})
    found = check(tmp_path)
    assert (found.run, found.checkpoints, found.exit_code) == (None, (1,), 0)


def test_a_report_is_json(run: Path) -> None:
    """A report can be written as JSON."""
    DAMAGE["result.json"](run)
    read = json.loads(json.dumps(check(run).to_json()))
    assert [finding["path"] for finding in read["findings"]] == ["result.json"]


# ---------------------------------------------------------------- the ledger
def cut(run: Path, step: int, *, more: int = 0) -> None:
    """End the ledger with the line of a step, and so many bytes more."""
    content = (run / "ledger.jsonl").read_bytes()
    end = content.index(b'"step":%d}' % step)
    (run / "ledger.jsonl").write_bytes(content[: content.index(b"\n", end) + 1 + more])


def test_a_line_that_was_cut_short_is_left_over(run: Path, small: Small) -> None:
    """What a kill leaves at the end of the ledger is no damage; a repair takes it away."""
    with pytest.warns(SetAsideWarning, match="Set aside"):
        train_on_from(run, 8, small)
    ledger = run / "ledger.jsonl"
    intact = ledger.read_bytes()
    ledger.write_bytes(intact + b'{"batch":"0')
    before = contents(run)
    report = check(run)
    assert (found(report), report.exit_code) == (
        [("left over", "ledger.jsonl"), ("set aside", "checkpoints/damaged-00000012")],
        0,
    )
    assert report.findings[0].detail.endswith("was cut short")
    assert contents(run) == before
    report = check(run, repair=True)
    assert [finding.path for finding in report.repaired] == ["ledger.jsonl"]
    assert ledger.read_bytes() == intact
    assert check(run, repair=True).repaired == ()


def train_on_from(run: Path, step: int, small: Small) -> None:
    """Spoil the last checkpoint, so that the run goes on from an earlier one."""
    DAMAGE["checkpoints/00000008"](run) if step < 8 else (
        run / "checkpoints/00000012/seal.json"
    ).unlink()
    (run / "result.json").unlink()
    train(small(stop_after=step + 1), run_dir=run)


@pytest.mark.parametrize("content", [b"", b'{"chain":"0', b'{"ch'])
def test_a_first_line_that_was_cut_short_is_left_over(
    small: Small, tmp_path: Path, content: bytes
) -> None:
    """A process that was killed while it wrote the first line left nothing that counts."""
    train(small(stop_after=4, record="off"), run_dir=tmp_path / "run")
    (tmp_path / "run/ledger.jsonl").write_bytes(b"hello")
    assert found(check(tmp_path / "run")) == [("damaged", "ledger.jsonl")]
    (tmp_path / "run/ledger.jsonl").write_bytes(content)
    report = check(tmp_path / "run")
    assert (found(report), report.exit_code) == ([("left over", "ledger.jsonl")], 0)
    assert check(tmp_path / "run", repair=True).findings == ()
    assert not (tmp_path / "run/ledger.jsonl").exists()
    train(small(), run_dir=tmp_path / "run")
    assert check(tmp_path / "run").findings == ()


LEDGERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (
        lambda run: (run / "ledger.jsonl").unlink(),
        "it is gone, and checkpoints were sealed with it",
    ),
    "empty": (
        lambda run: (run / "ledger.jsonl").write_bytes(b""),
        "expected a ledger of format 1, got a first line that is no header of one",
    ),
    "another file": (
        lambda run: (run / "ledger.jsonl").write_text("hello"),
        "expected a ledger of format 1, got a first line that is no header of one",
    ),
    "cut at a line": (
        lambda run: cut(run, 11),
        "its lines up to step 12 are not those its checkpoint was sealed with",
    ),
    "cut short": (lambda run: cut(run, 10, more=99), "line 14 was cut short"),
    "one bit": (
        lambda run: (run / "ledger.jsonl").write_bytes(
            (run / "ledger.jsonl").read_bytes().replace(b'"loss":"0x1', b'"loss":"0x0', 1)
        ),
        "line 4 does not continue the chain",
    ),
    "another step": (
        lambda run: rewrite_ledger(run, another(3, "params")),
        "its lines up to step 4 are not those its checkpoint was sealed with",
    ),
}


@pytest.mark.parametrize("name", LEDGERS)
def test_a_ledger_that_is_not_as_it_was_sealed_is_damage(
    run: Path, small: Small, name: str
) -> None:
    """The seals of checkpoints hold the chain: no line before them can be changed or be gone.

    A repair keeps the lines that can be trusted, and the rest under another name.
    """
    damage, detail = LEDGERS[name]
    damage(run)
    before = contents(run)
    report = check(run)
    assert [(f.kind, f.path, f.detail) for f in report.findings] == [
        ("damaged", "ledger.jsonl", detail)
    ]
    assert report.exit_code == 1
    assert contents(run) == before
    repaired = check(run, repair=True)
    if name == "gone":
        assert (repaired.repaired, repaired.exit_code) == ((), 1)
        return
    assert [finding.path for finding in repaired.repaired] == ["ledger.jsonl"]
    assert repaired.exit_code == 0
    if name in ("cut short", "one bit"):
        old, new = before[str(run / "ledger.jsonl")], (run / "ledger.jsonl").read_bytes()
        assert old.startswith(new)
        assert new.endswith(b'"step":%d}\n' % {"cut short": 10, "one bit": 0}[name])
    assert (run / "damaged-ledger.jsonl").read_bytes() == before[str(run / "ledger.jsonl")]
    assert (run / "ledger.jsonl").exists() is (name in ("cut short", "one bit"))
    assert train(small(steps=16), run_dir=run).digest == train(small(steps=16)).digest
    assert check(run).exit_code == 0


def test_the_ledger_of_another_run_is_damage(run: Path, small: Small, tmp_path: Path) -> None:
    """It is named with the run that it belongs to, and a repair sets it aside."""
    train(small(seed=8, steps=4), run_dir=tmp_path / "other")
    shutil.copy(tmp_path / "other/ledger.jsonl", run)
    report = check(run)
    assert [(f.path, f.detail) for f in report.damaged] == [
        ("ledger.jsonl", f"it is the ledger of run {Run.read(tmp_path / 'other').name}")
    ]
    assert found(check(run, repair=True)) == [("set aside", "damaged-ledger.jsonl")]
    assert train(small(), run_dir=run).ended == "finished"


def test_a_run_without_its_name_keeps_its_ledger(run: Path) -> None:
    """While run.json is damaged no ledger is taken apart: only the run's name tells what holds."""
    DAMAGE["run.json"](run)
    cut(run, 10, more=99)
    before = (run / "ledger.jsonl").read_bytes()
    report = check(run, repair=True)
    assert (report.repaired, len(report.damaged)) == ((), 2)
    assert (run / "ledger.jsonl").read_bytes() == before


def test_a_ledger_of_a_later_format_is_not_repaired_away(run: Path) -> None:
    """A ledger that a later version wrote is not called damaged."""
    (run / "ledger.jsonl").write_bytes(chained("r", {"format": 2, "run": "r"})[0])
    with pytest.raises(LedgerError, match="format 1, got format 2"):
        check(run, repair=True)


def test_a_link_in_the_place_of_the_ledger_is_damage(run: Path, tmp_path: Path) -> None:
    """It is named once and not followed."""
    shutil.move(run / "ledger.jsonl", tmp_path / "elsewhere")
    (run / "ledger.jsonl").symlink_to(tmp_path / "elsewhere")
    assert found(check(run)) == [("damaged", "ledger.jsonl")]
    (tmp_path / "elsewhere").unlink()
    assert found(check(run)) == [("damaged", "ledger.jsonl")]
    (run / "ledger.jsonl").unlink()
    (run / "ledger.jsonl").mkdir()
    assert found(check(run)) == [("damaged", "ledger.jsonl")]


@pytest.mark.parametrize("record", ["off", "late"])
def test_a_run_that_recorded_nothing_yet_is_intact(
    small: Small, tmp_path: Path, record: str
) -> None:
    """Without a recorder, or before the first line that it is to write, there is no ledger."""
    train(small(record="off", stop_after=4), run_dir=tmp_path / "run")
    settings = {"record": "off"} if record == "off" else {"record_every": 10, "stop_after": 8}
    train(small(**settings), run_dir=tmp_path / "run")
    assert not (tmp_path / "run/ledger.jsonl").exists()
    assert check(tmp_path / "run").findings == ()
    if record == "late":
        train(small(record_every=10), run_dir=tmp_path / "run")
        assert (tmp_path / "run/ledger.jsonl").exists()
        assert check(tmp_path / "run").findings == ()
