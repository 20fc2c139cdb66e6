"""Promises of `reproducibility.evidence.audit`: what is verified, refuted and unverifiable."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from reproducibility import (
    ConfigError,
    EvidenceError,
    ReproducibilityError,
    Request,
    Run,
    TrainConfig,
    audit,
    commit,
    train,
)
from reproducibility.cli.commands import main
from reproducibility.evidence import audit as auditing
from reproducibility.evidence.chosen import Part
from reproducibility.evidence.progress import Kept
from reproducibility.storage.files import readable_json
from tests.conftest import SMALL
from tests.evidence import forging
from tests.evidence.forging import FORGERIES, compute_here, honest, rebuild, verdict_of

LONG = pytest.mark.long
ALL = Request(random=99, challenge="all of it")


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compute in this process, outside of a repository, and keep progress in a folder."""
    monkeypatch.setattr(auditing, "in_environment", compute_here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def statement(run: Path) -> Path:
    """Write the commitment to a run beside it."""
    path = run.parent / "commitment.json"
    path.write_bytes(readable_json(commit(run).to_json()))
    return path


def test_an_honest_run_is_verified_and_the_verdict_says_how_much(run: Path) -> None:
    """Verified says how many steps, which, of how many, and the chance of a miss."""
    found = audit(run, request=Request(random=2, challenge="x"), commitment=statement(run))
    assert (found.verdict, found.steps, found.stretches) == ("verified", 12, 3)
    assert (len(found.recomputed), found.count, found.chance) == (2, 8, pytest.approx(1 / 3))
    assert found.result
    assert found.committed
    assert "8 of 12 steps were computed again here" in found.reason
    assert "the chance of missing it was 33.3%" in found.reason
    again = audit(run, request=Request(random=2, challenge="x"))
    assert (again.recomputed, again.committed) == (found.recomputed, False)
    whole = audit(run, request=ALL)
    assert (whole.count, whole.lines, whole.chance) == (12, 13, 0)
    assert whole.reason.startswith("All 12 steps")
    asked = audit(run, request=Request(steps=(5, 7)))
    assert (asked.recomputed, asked.lines, asked.chance) == (((4, 7),), 3, None)
    assert "Nothing follows for the others" in asked.reason
    assert audit(run, request=Request(budget=3600)).count == 12
    assert not list((run.parent / "cache").rglob("*.json"))


# Enough to see that each way to find out is there; the others take longer and come in the nights.
FAST = ("loss", "cut", "state", "result")


@pytest.mark.parametrize(
    "kind",
    [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.long) for kind in FORGERIES],
)
def test_a_forgery_is_never_verified(run: Path, kind: str) -> None:
    """One of each kind: refuted or unverifiable with a reason, when all is computed again."""
    FORGERIES[kind](run, random.Random(f"sample {kind}"))
    assert verdict_of(run, request=ALL) in ("refuted", "unverifiable", "refused")


def test_the_first_step_stage_and_leaf_are_named(run: Path) -> None:
    """Where a line was altered, the verdict names it, also in a loss; an unchosen one is missed."""
    forging.rebuild(run, line=lambda line: line["step"] == 6 and line.update(loss="0x1.0p+0"))
    found = audit(run, request=ALL)
    assert (found.verdict, found.step, found.stage) == ("refuted", 6, "loss")
    assert audit(run, request=Request(steps=(8, 12))).verdict == "verified"
    assert audit(run, request=Request(steps=(4, 5))).verdict == "verified"
    assert audit(run, request=Request(steps=(4, 6))).verdict == "refuted"


def test_a_commitment_fixes_the_run(run: Path) -> None:
    """A run that was changed afterwards, in whatever way, is refuted though it holds in itself."""
    given = statement(run)
    forging.rebuild(run, line=lambda line: line["step"] == 6 and line.update(loss="0x1.0p+0"))
    found = audit(run, request=Request(steps=(8, 12)), commitment=given)
    assert (found.verdict, found.exit_code) == ("refuted", 1)
    assert found.reason.startswith("The ledger was changed after the commitment was made")


def test_an_environment_that_differs_is_no_refutation(run: Path) -> None:
    """Other bits under a recorded setting that is not had here cannot be told apart from fraud."""
    forging.rebuild(
        run,
        line=lambda line: line["step"] == 6 and line.update(loss="0x1.0p+0"),
        attempt=lambda line: line.get("environment", {}).update({"cpu.model": "elsewhere"}),
    )
    found = audit(run, request=ALL)
    assert (found.verdict, found.exit_code, found.step) == ("unverifiable", 3, 6)
    assert "But cpu.model was elsewhere then" in found.reason


def test_other_programs_are_unverifiable_though_their_bits_agree(run: Path) -> None:
    """What is installed here has to make the recorded programs, else nothing is concluded."""
    rebuild(run, attempt=lambda line: line.get("programs", {}).update({"update": "0" * 64}))
    found = audit(run, request=ALL)
    assert found.verdict == "unverifiable"
    assert "makes a different program: program.update" in found.reason


@LONG
@pytest.mark.parametrize("kind", ["killed", "moved", "resumed", "grown"])
def test_an_honest_run_is_never_refuted(tmp_path: Path, kind: str) -> None:
    """Killed, moved, resumed and grown runs are verified, each with all of its steps."""
    run = honest(tmp_path / "honest", kind)
    found = audit(run, request=ALL)
    assert (found.verdict, found.reason[:4]) == ("verified", "All "), found.reason
    assert found.steps == (11 if kind == "killed" else 12)


@LONG
def test_what_is_drawn_cannot_be_chosen_by_taking_a_checkpoint_away(run: Path) -> None:
    """With a checkpoint of the commitment gone, a draw has no chance of a miss to be told."""
    given = statement(run)
    shutil.rmtree(run / "checkpoints" / "00000004")
    found = audit(run, request=Request(random=1, challenge="x"), commitment=given)
    assert found.verdict == "unverifiable"
    assert found.reason.startswith("Checkpoint 4 of the commitment is gone")
    assert audit(run, request=ALL, commitment=given).verdict == "verified"


def test_what_was_kept_is_of_the_same_attempts(run: Path) -> None:
    """No commitment covers them, and they say in which environment a stretch is computed."""
    Kept(run, "root", "asked").note(Part(0, 4, True), 5)
    assert Kept(run, "root", "asked").done == {"0:4": 5}
    with open(run / "attempts.jsonl", "ab") as file:
        file.write(b"\n")
    assert Kept(run, "root", "asked").done == {}


@LONG
def test_a_grown_run_is_more_than_its_commitment(tmp_path: Path) -> None:
    """An old commitment neither refutes a run that has grown, nor covers what came after."""
    config = TrainConfig(seed=11, steps=4, checkpoint_every=4, **SMALL)
    run = tmp_path / "growing"
    train(config, run_dir=run)
    given = statement(run)
    train(TrainConfig(**{**vars(config), "steps": 8}), run_dir=run)
    found = audit(run, request=ALL, commitment=given)
    assert found.verdict == "unverifiable"
    assert found.reason.startswith("The run has grown since")


def test_an_interrupted_audit_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What agreed before Ctrl-C is not computed twice, with the challenge that was drawn then."""
    asked: list[Any] = []

    def once(environment: Any, module: str, task: Any, progress: Any) -> dict[str, Any]:
        asked.append((task.get("start"), task["end"]))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return compute_here(environment, module, task, progress)

    monkeypatch.setattr(auditing, "in_environment", once)
    with pytest.raises(KeyboardInterrupt):
        audit(run, request=Request(random=2))
    found = audit(run, request=Request(random=2))
    assert (found.verdict, found.count) == ("verified", 8)
    assert len(asked) == len(set(asked[:3])) + 2  # the states again, and the stretch that was cut
    asked[:] = ["", "", "", ""]
    audit(run, request=Request(random=2))
    assert len(asked) == 7  # an audit that has ended leaves nothing for the next


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("result.json", {"steps": [12]}),
        ("result.json", {"loss": {}}),
        ("run.json", {"hidden": [2**16, 2**16, 2**16]}),
        ("run.json", {"seed": "x"}),
    ],
)
def test_values_of_the_wrong_kind_are_one_sentence(
    run: Path, file: str, change: dict[str, Any]
) -> None:
    """What no run holds is refused before anything goes by it, and without a traceback."""
    if file == "result.json":
        rebuild(run, result=lambda body: body.update(change))
    else:
        rebuild(run, identity=lambda settings: settings.update(change))
    with pytest.raises(ReproducibilityError) as caught:
        audit(run, request=ALL)
    assert caught.value.exit_code in (2, 3)


def test_attempts_of_the_wrong_kind_are_refused(run: Path) -> None:
    """An environment that is no dictionary, a step that is no number: one sentence."""
    for change in ({"environment": 5}, {"from_step": "0"}, {"layout": []}, {"event": "?"}):
        copy = shutil.copytree(run, run.parent / "copy", dirs_exist_ok=True)
        rebuild(copy, attempt=lambda line, change=change: line.update(change))
        with pytest.raises(EvidenceError, match="Cannot audit attempts"):
            audit(copy, request=ALL)


def test_what_is_asked_has_to_fit(run: Path) -> None:
    """Steps that do not exist, two ways to choose and a budget for nothing are refused."""
    for wrong in ({"steps": (1, 2), "random": 1}, {"random": 0}, {"budget": 0.0}):
        with pytest.raises(ConfigError):
            Request(**wrong)
    for steps in ((3, 3), (0, 13), (12, 13)):
        with pytest.raises(ConfigError, match="0 <= A < B <= 12"):
            audit(run, request=Request(steps=steps))
    with pytest.raises(ConfigError, match="time for one stretch"):
        audit(run, request=Request(budget=1e-9))


def test_the_command_ends_with_the_code_of_the_verdict(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0, 1 and 3, with the reason on stderr; JSON for programs; a proof by its file."""

    def ends(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["audit", *map(str, words)])
        return ended.value.code, *capsys.readouterr()

    given = statement(run)
    code, out, _ = ends(run, "--steps", "8:12", "--commitment", given, "--json")
    assert (code, json.loads(out)["fraction"]) == (0, pytest.approx(1 / 3))
    with pytest.raises(SystemExit):
        main(["commit", str(run), "--prove-step", "3", "--out", "proof.json"])
    assert ends("proof.json", "--commitment", given)[:2] == (
        0,
        "step 3 is in the commitment. Nothing was computed again.\n",
    )
    rebuild(run, line=lambda line: line["step"] == 6 and line.update(loss="0x1.0p+0"))
    code, out, reason = ends(run, "--random", 9)
    assert (code, out.split()[:2]) == (1, ["verdict", "refuted"])
    assert reason == "Computed again, step 6 came out different, first in loss.\n"
    for words in (["--steps", "4"], ["--budget", "10"]):
        assert ends(run, *words)[0] == 2
    assert Run.read(run)
