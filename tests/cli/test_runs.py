"""Promises of the commands that read runs: codes, streams and wording."""

import json
import re
from pathlib import Path

import pytest

from tests.calling import SMALL, Call, one_sentence
from tests.replaying import compute_here


def test_compare_says_what_differs(call: Call, tmp_path: Path) -> None:
    """Different runs give code 1, the reason on stderr, and the setting that explains it."""
    for seed in (1, 2):
        call("train", *SMALL, "--steps", 3, "--seed", seed, "--run-dir", seed)
    said = "They diverge at the start, first in params, layers.hidden_0.kernel and 1 more."
    code, out, err = call("compare", "1", "2", "--no-replay")
    assert (code, one_sentence(err)) == (1, said)
    assert out.splitlines()[:2] == ["verdict  different", f"reason   {said}"]
    assert re.search(r"^params$", out, re.MULTILINE) or re.search(r"^params +distance$", out, re.M)
    assert re.search(r"^layers.hidden_0.kernel$", out, re.MULTILINE)
    assert re.search(r"^seed +1 +2$", out, re.MULTILINE)
    assert "computed again" not in out
    code, out, err = call("compare", "1", "2", "--no-replay", "--json")
    assert (code, one_sentence(err)) == (1, said)
    read = json.loads(out)
    assert (read["step"], read["stage"], read["recomputed"]) == (0, "params", None)
    assert read["settings"]["seed"] == [1, 2]
    (tmp_path / "2/ledger.jsonl").unlink()
    code, out, err = call("compare", "1", "2")
    assert code == 1
    assert re.search(r"^note +The ledger of 2 tells nothing: No such file or dir", out, re.M)
    assert one_sentence(err).startswith("The states differ after 3 updates, in ")


def test_compare_computes_again(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step that differs is computed again: how far the leaves are apart is printed."""
    compute_here(monkeypatch)
    for name, rate in {"a": 0.001, "b": 0.01}.items():
        call("train", *SMALL, "--steps", 3, "--learning-rate", rate, "--run-dir", name)
    code, out, err = call("compare", "a", "b", "--html", "page.html")
    assert code == 1
    assert one_sentence(err).startswith("They diverge at step 1, first in params, layers.hid")
    for side in "ab":
        assert re.search(rf"^computed again +{side}: confirmed\. It has the recorded", out, re.M)
    assert re.search(r"^params +distance$", out, re.M)
    differ = r"\d+ of 10 elements differ, by up to \d+ ULP"
    assert re.search(rf"^layers\.output\.bias +{differ}$", out, re.M)
    assert all(line == line.rstrip() for line in out.splitlines())
    page = (tmp_path / "page.html").read_text()
    assert "layers.output.bias" in page
    assert re.search(differ, page) or "ULP" in page
    code, out, err = call("compare", "a", "a", "--html", "page.html")
    assert (code, err) == (0, "")
    assert (tmp_path / "page.html").read_text() != page


def test_many_leaves_are_counted(call: Call) -> None:
    """A table of leaves ends after a dozen with how many more there are; --json has them all."""
    deep = ["--hidden", *["8"] * 6, "--dropout", "0"]
    for rate in (0.001, 0.01):
        call("train", *SMALL[:4], *deep, "--steps", 1, "--learning-rate", rate, "--run-dir", rate)
    _, out, _ = call("compare", "0.001", "0.01", "--no-replay", "--json")
    leaves = json.loads(out)["leaves"]
    assert len(leaves) == 14
    code, out, _ = call("compare", "0.001", "0.01", "--no-replay")
    assert (code, out.count("layers.")) == (1, 1 + 12)
    assert re.search(r"^and 2 more$", out, re.M)


def test_a_comparison_that_cannot_be_told(call: Call, tmp_path: Path) -> None:
    """Where nothing tells, the code is 3 and the reason stands on stderr."""
    call("train", *SMALL, "--steps", 4, "--run-dir", "a")
    content = (tmp_path / "a/ledger.jsonl").read_bytes()
    (tmp_path / "torn.jsonl").write_bytes(content[:-9])
    code, out, err = call("compare", "a/ledger.jsonl", "torn.jsonl")
    assert code == 3
    assert out.startswith("verdict  cannot be told\n")
    assert re.search(
        r"^note +The ledger of torn.jsonl was read up to step 3: line 7 was cut", out, re.M
    )
    assert one_sentence(err) == (
        "A ledger is damaged; what both recorded before that agrees, to 3."
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            "compare run missing",
            2,
            "Cannot compare missing: expected a run, a record, a ledger, a result",
        ),
        (
            "compare run missing.jsonl",
            2,
            "or something with arrays in it, got no such path. Check its name.",
        ),
        ("compare missing missing", 2, "Cannot compare missing: "),
        ("compare run run --html .", 2, "Cannot use --html at .: expected a file in a directory"),
        ("compare run run --html missing/page.html", 2, "got no such directory"),
        ("compare run file.jsonl", 2, "got a first line that is no header of one"),
        ("compare run run --html", 2, "Cannot read the command line: "),
        ("comprae run run", 2, "There is no command comprae, and perhaps compare is meant. See"),
        ("compare run run --replay", 2, "Unrecognized options: --replay"),
        ("trace", 2, "Cannot read the command line: "),
        ("trace run", 2, "Cannot use step: expected 0 or more, got None"),
        ("trace run --step two", 2, "Error parsing --step: "),
        ("trace missing --step 2", 2, "expected a run directory with run.json"),
        ("trace run --step 2 --against missing", 2, "expected a run directory with run.json"),
        ("trace run --step 9", 3, "expected a step from 0 to 2, which are complete, got 9"),
        ("trace run --step -1", 2, "Cannot use step: expected 0 or more, got -1"),
        ("trace run --step 2 --against file.jsonl", 2, "expected a run directory with run.json"),
    ],
)
def test_what_cannot_be_compared_or_traced(
    call: Call, tmp_path: Path, arguments: str, code: int, said: str
) -> None:
    """Each wrong argument of `compare` and `trace` is one sentence on stderr, nothing on stdout."""
    call("train", *SMALL, "--steps", 2, "--run-dir", "run")
    (tmp_path / "file.jsonl").touch()
    assert (call(*arguments.split())[:2]) == (code, "")
    assert said in one_sentence(call(*arguments.split())[2])


def test_a_page_that_cannot_be_written(call: Call, tmp_path: Path) -> None:
    """A read-only place for the page is refused before anything is compared."""
    call("train", *SMALL, "--steps", 1, "--run-dir", "run")
    (tmp_path / "page.html").mkdir()
    code, out, err = call("compare", "run", "run", "--html", "page.html")
    assert (code, out) == (2, "")
    assert "Cannot use --html at page.html: expected a file in a directory that can be" in err


def test_a_page_never_takes_the_place_of_a_run(call: Call, tmp_path: Path) -> None:
    """--html refuses a file that is compared, or that lies in a run."""
    ledger = tmp_path / "run" / "ledger.jsonl"
    ledger.parent.mkdir()
    ledger.write_bytes(b"precious")
    for run in (ledger.parent, ledger):
        code, out, err = call("compare", str(run), str(run), "--html", str(ledger))
        assert (code, out) == (2, "")
        assert "expected a file outside of what is compared" in one_sentence(err)
    assert ledger.read_bytes() == b"precious"


def test_digest_of_leaves_and_steps(call: Call) -> None:
    """`digest --leaves` prints one line a leaf; `--step` reads another checkpoint."""
    call("train", *SMALL, "--steps", 4, "--checkpoint-every", 2, "--run-dir", "run")
    code, out, _ = call("digest", "run", "--leaves")
    assert code == 0
    assert all(re.fullmatch(r"[0-9a-f]{64}  \S+", line) for line in out.splitlines())
    assert {"key", "step", "params.layers.output.bias"} <= {
        line.split()[1] for line in out.splitlines()
    }
    assert call("digest", "run", "--step", 2)[1] != call("digest", "run")[1]
    code, out, err = call("digest", "run", "--step", 3)
    assert (code, out) == (2, "")
    assert "expected a committed checkpoint, got step 2, step 4" in one_sentence(err)


def test_digest_of_what_is_no_run(call: Call, tmp_path: Path) -> None:
    """`digest` of a missing path, a file or another directory is refused."""
    (tmp_path / "file").touch()
    for path in ("missing", "file", "."):
        code, out, err = call("digest", path)
        assert (code, out) == (2, "")
        assert "expected a run directory, a store of checkpoints" in one_sentence(err)
    assert "0 or more, got -1" in call("digest", "missing", "--step", -1)[2]


def test_check_says_what_is_intact_and_what_is_not(call: Call, tmp_path: Path) -> None:
    """`check` prints verdict and findings, with code 0 or 1; `--repair` takes damage away."""
    call("train", *SMALL, "--steps", 4, "--checkpoint-every", 2, "--run-dir", "run")
    code, out, err = call("check", "run")
    assert (code, err) == (0, "")
    assert re.search(r"^verdict +intact$", out, re.M)
    assert re.search(r"^checkpoints +2, 4 ", out, re.M)
    (tmp_path / "run/checkpoints/00000004/seal.json").write_text("{")
    (tmp_path / "run/checkpoints/.tmp-00000006").mkdir()
    code, out, err = call("check", "run")
    assert code == 1
    assert re.search(r"^verdict +damaged$", out, re.M)
    assert re.search(r"^damaged +checkpoints/00000004 ", out, re.M)
    assert re.search(r"^left over +checkpoints/.tmp-00000006 ", out, re.M)
    assert "Damaged: checkpoints/00000004: " in one_sentence(err)
    assert "reproducibility check run --repair" in err
    code, out, err = call("check", "run", "--json")
    assert (code, json.loads(out)["findings"][0]["kind"]) == (1, "damaged")
    code, out, err = call("check", "run", "--repair")
    assert (code, err) == (0, "")
    assert re.search(r"^damaged +checkpoints/00000004 ", out, re.M)  # under "repaired"
    assert re.search(r"^set aside +checkpoints/damaged-00000004 ", out, re.M)
    (tmp_path / "run/run.json").write_text("{")
    code, out, err = call("check", "run", "--repair")
    assert code == 1
    assert "The train command of this run, with all its settings, writes it anew." in err


def test_a_damaged_ledger_is_found_and_repaired(call: Call, tmp_path: Path) -> None:
    """`check` names a ledger that is not as it was sealed; after a repair the run goes on."""
    command = ["train", *SMALL, "--checkpoint-every", 2, "--run-dir", "run", "--steps"]
    call(*command, 4)
    content = (tmp_path / "run/ledger.jsonl").read_bytes()
    (tmp_path / "run/ledger.jsonl").write_bytes(content.replace(b'"step":3}', b'"step":4}'))
    code, out, err = call("check", "run")
    assert code == 1
    assert re.search(r"^damaged +ledger.jsonl +line 6 does not continue the chain$", out, re.M)
    assert one_sentence(err).startswith("Damaged: ledger.jsonl: line 6 does not continue the chain")
    code, out, err = call("check", "run", "--repair")
    assert (code, err) == (0, "")
    assert re.search(r"^set aside +damaged-ledger.jsonl ", out, re.M)
    assert call(*command, 6)[0] == 0
    assert call("check", "run")[0] == 0


def test_a_damaged_checkpoint_is_damage(call: Call, tmp_path: Path) -> None:
    """A checkpoint whose files cannot be read gives code 1 and names the checkpoint."""
    call("train", *SMALL, "--steps", 2, "--run-dir", "run")
    (tmp_path / "run/checkpoints/00000002/seal.json").write_text("{")
    code, out, err = call("digest", "run")
    assert (code, out) == (1, "")
    assert "Cannot use a checkpoint at " in one_sentence(err)
