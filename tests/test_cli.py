"""Promises of `reproducibility.cli`: codes, streams and wording."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reproducibility import Run, check, cli, read_result, restore_state, train
from tests.replaying import compute_here

SMALL = ["--batch-size", "32", "--shards", "2", "--hidden", "8"]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Call:
    """Run the command line in this process: its code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_quiet_orbax", lambda: None)  # it is for a process of its own

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


def one_sentence(err: str) -> str:
    """Check that stderr is one line without a traceback, and return it."""
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err.strip()


REFUSED = {
    "--seed -1": "seed: expected a whole number from 0 to 2**32-1, got -1",
    "--seed 1.5": "--seed: expected a whole number, got '1.5'",
    "--seed 4294967296": "seed: expected a whole number from 0 to 2**32-1, got 4294967296",
    "--steps 0": "steps: expected a whole number from 1",
    "--steps -3": "steps: expected a whole number from 1",
    "--steps 1e3": "--steps: expected a whole number, got '1e3'",
    "--steps 9999999999999": "steps: expected a whole number from 1 to 1,000,000,000",
    "--checkpoint-every 0": "checkpoint_every: expected a whole number from 1",
    "--batch-size 0": "batch_size: expected a whole number from 1",
    "--batch-size 65536": "batch_size: expected 1 to 2048, the examples of 'synthetic'",
    "--batch-size 65536 --dataset digits": "batch_size: expected 1 to 1437, the examples of 'digi",
    "--batch-size 60": "batch_size: expected a multiple of the 8 shards, got 60",
    "--shards 0": "shards: expected a whole number from 1",
    "--shards 6": "shards: expected a power of two, got 6",
    "--learning-rate 0": "learning_rate: expected a finite number above 0",
    "--learning-rate nan": "learning_rate: expected a finite number above 0, got nan",
    "--learning-rate -inf": "learning_rate: expected a finite number above 0, got -inf",
    "--learning-rate fast": "--learning-rate: expected a number, got 'fast'",
    "--dataset mnist": "dataset: expected one of synthetic, digits, got 'mnist'",
    "--resume perhaps": "resume: expected one of auto, never, require, got 'perhaps'",
    "--stop-after 0": "stop_after: expected a whole number from 1",
    "--record all": "record: expected one of auto, leaf, group, off, got 'all'",
    "--record-every 0": "record_every: expected a whole number from 1",
    "--record-every often": "--record-every: expected a whole number, got 'often'",
    "--sede 3": "Unrecognized options: --sede, 3",
    "--out /": "Cannot use --out at /: expected a file",
    "--out missing/out.json": "got no such directory",
    "--resume require": "Cannot resume the run at run: expected a checkpoint, got none",
}


def test_a_platform_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """JAX without the device that was asked for is a sentence with code 2, and no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "reproducibility", "train", "--run-dir", str(tmp_path / "run")],
        env={**os.environ, "JAX_PLATFORMS": "nonsense"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "Cannot use devices: expected a platform that JAX finds here" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flags", REFUSED)
def test_bad_settings_are_refused(call: Call, tmp_path: Path, flags: str) -> None:
    """A bad setting gives one sentence on stderr that names it, code 2, and no training."""
    code, out, err = call("train", "--run-dir", "run", *flags.split())
    assert (code, out) == (2, "")
    assert REFUSED[flags] in one_sentence(err)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("arguments", ["", "train", "fly", "compare one", "digest"])
def test_an_incomplete_command_is_refused(call: Call, arguments: str) -> None:
    """A missing or unknown command or argument gives one sentence with the way to the help."""
    code, out, err = call(*arguments.split())
    assert (code, out) == (2, "")
    assert one_sentence(err).startswith("Cannot read the command line: ")
    assert one_sentence(err).endswith("--help.")


def test_train_stops_resumes_and_compares(call: Call, tmp_path: Path) -> None:
    """A run stopped and resumed by the same command equals the uninterrupted one."""
    arguments = ["train", *SMALL, "--steps", 12, "--run-dir"]
    code, out, err = call(*arguments, "a", "--out", "a.json")
    assert code == 0
    assert "step 12 of 12, loss" in err
    digest = re.search(r"^digest +([0-9a-f]{64})$", out, re.MULTILINE)[1]
    assert read_result(tmp_path / "a.json").digest == digest

    code, out, err = call(*arguments, "b", "--stop-after", 5, "--out", "b.json")
    assert (code, (tmp_path / "b.json").exists()) == (0, False)
    assert "Stopped after 5 of 12 updates, as asked. b.json is written when" in err
    code, out, _ = call(*arguments, "b", "--resume", "require")
    assert code == 0
    assert digest in out

    assert call("digest", "b")[:2] == (0, f"{digest}\n")
    code, out, err = call("compare", "a.json", "b")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "verdict  same"
    assert all(line == line.rstrip() for line in out.splitlines())


def test_compare_says_what_differs(call: Call, tmp_path: Path) -> None:
    """Different runs give code 1, the reason on stderr, and the setting that explains it."""
    for seed in (1, 2):
        call("train", *SMALL, "--steps", 3, "--seed", seed, "--run-dir", seed)
    said = "They part at the start, first in params, layers.hidden_0.kernel and 1 more."
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
    assert one_sentence(err).startswith("They part at step 1, first in params, layers.hid")
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
        ("compare run missing", 2, "expected a readable JSON file, got No such file"),
        ("compare run run --html .", 2, "Cannot use --html at .: expected a file in a directory"),
        ("compare run run --html missing/page.html", 2, "got no such directory"),
        ("compare run file.jsonl", 2, "got a first line that is no header of one"),
        ("compare run run --html", 2, "Cannot read the command line: "),
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


def test_recording_is_chosen(call: Call, tmp_path: Path) -> None:
    """`--record` and `--record-every` say what the ledger has; the digest is the same."""
    digests = set()
    for name, flags in {
        "leaf": [],
        "group": ["--record", "group", "--record-every", 2],
        "off": ["--record", "off"],
    }.items():
        code, out, _ = call("train", *SMALL, "--steps", 4, *flags, "--run-dir", name)
        digests.add(re.search(r"^digest +(\w+)$", out, re.M)[1])
        assert code == 0
    assert len(digests) == 1
    first = [
        json.loads((tmp_path / n / "ledger.jsonl").read_text().splitlines()[0])
        for n in ("leaf", "group")
    ]
    assert [(line["level"], line["every"]) for line in first] == [("leaf", 1), ("group", 2)]
    assert not (tmp_path / "off/ledger.jsonl").exists()


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
        assert "expected a run directory with run.json" in one_sentence(err)
    assert "0 or more, got -1" in call("digest", "missing", "--step", -1)[2]


def test_a_damaged_checkpoint_is_damage(call: Call, tmp_path: Path) -> None:
    """A checkpoint whose files cannot be read gives code 1 and names the checkpoint."""
    call("train", *SMALL, "--steps", 2, "--run-dir", "run")
    (tmp_path / "run/checkpoints/00000002/seal.json").write_text("{")
    code, out, err = call("digest", "run")
    assert (code, out) == (1, "")
    assert "Cannot use a checkpoint at " in one_sentence(err)


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


def test_train_says_what_it_set_aside(call: Call, tmp_path: Path) -> None:
    """A damaged checkpoint is one sentence on stderr; the run ends with the same digest."""
    command = ["train", *SMALL, "--steps", 4, "--checkpoint-every", 2, "--run-dir", "run"]
    before = call(*command)[1]
    (tmp_path / "run/checkpoints/00000004/seal.json").write_text("{")
    code, out, err = call(*command)
    assert code == 0
    assert out.splitlines()[:5] == before.splitlines()[:5]
    [said] = [line for line in err.splitlines() if not line.startswith("step ")]
    assert said.startswith("Set aside ")
    assert said.endswith("Going on from step 2.")


# Makes root subject to permissions like anyone else (CAP_DAC_OVERRIDE), then runs a command.
WITHOUT_PRIVILEGES = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(24, 1)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_directory_that_cannot_be_written(tmp_path: Path, call: Call) -> None:
    """On a read-only directory `train` is refused in one sentence; reading commands work."""
    call("train", *SMALL, "--steps", 2, "--run-dir", "run")
    folders = [path for path in (tmp_path / "run").rglob("*") if path.is_dir()]
    for path in (*folders, tmp_path / "run", tmp_path / "run/lock", tmp_path):
        path.chmod(0o555)
    code = "from reproducibility.cli import main; import sys\n"
    code += "for command in ('train', 'check', 'digest'):\n"
    code += "    try: main([command, *{'train': sys.argv[1:]}.get(command, ['run'])])\n"
    code += "    except SystemExit as end: print('code', end.code)"
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                WITHOUT_PRIVILEGES,
                sys.executable,
                "-c",
                code,
                *SMALL,
                "--steps",
                "4",
                "--run-dir",
                "run",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    finally:
        for path in (tmp_path, tmp_path / "run", *folders):
            path.chmod(0o755)
    assert re.findall(r"^code (\d)$", done.stdout, re.M) == ["2", "0", "0"]
    assert "a directory this process may write to, got Permission denied" in one_sentence(
        done.stderr
    )


def test_another_identity_is_refused(call: Call) -> None:
    """A run directory of other settings is refused with code 2, naming what differs."""
    call("train", *SMALL, "--steps", 2, "--run-dir", "run")
    code, out, err = call("train", *SMALL, "--steps", 2, "--seed", 5, "--run-dir", "run")
    assert (code, out) == (2, "")
    assert "expected seed=0, got seed=5." in one_sentence(err)


def test_a_locked_run_is_a_failure(call: Call) -> None:
    """A run that another process works on gives code 4."""
    call("train", *SMALL, "--steps", 2, "--run-dir", "run")
    settings = {k: v for k, v in Run.read("run").identity.items() if k != "format"}
    with Run.work("run", settings):
        code, out, err = call("train", *SMALL, "--steps", 4, "--run-dir", "run")
    assert (code, out) == (4, "")
    assert "no other process" in one_sentence(err)


def test_a_full_disk_is_a_failure(tmp_path: Path) -> None:
    """When a checkpoint cannot be written, the code is 4 and one sentence says what is kept.

    The disk is full in earnest: the process may not write files of more than a few blocks. Once
    there is room the run goes on, and nothing is left of the failed save.
    """
    command = [sys.executable, "-m", "reproducibility", "train"]
    command += ["--steps", "2", "--shards", "1", "--run-dir", "run"]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 20; exec "$@"', "sh", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        # Neither compiled programs nor modules, which would be cut off and left for everyone else.
        env={k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION")}
        | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (done.returncode, done.stdout) == (4, "")
    *progress, reason = done.stderr.splitlines()
    assert all(line.startswith("step ") for line in progress), done.stderr
    assert reason.startswith("Cannot save a checkpoint at ")
    assert "File too large" in reason
    assert reason.endswith("earlier checkpoints are intact.")
    assert [finding.kind for finding in check(tmp_path / "run").findings] == ["left over"]
    config = cli.TrainCommand(run_dir=tmp_path, steps=2, shards=1).config
    assert train(config, run_dir=tmp_path / "run").digest == train(config).digest
    assert check(tmp_path / "run").findings == ()


def test_help_teaches_without_jax() -> None:
    """`--help` and a mistyped flag answer without loading JAX, and show an example of each."""
    code = """
import sys
from reproducibility import cli
try:
    cli.main(sys.argv[1:])
finally:
    print("jax" in sys.modules, file=sys.stderr)
"""
    for arguments, expected in {
        ("--help",): 0,
        ("train", "--help"): 0,
        ("train", "--x"): 2,
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr.splitlines()[-1]) == (expected, "False")
        assert not expected or "reproducibility train" in done.stderr
        assert expected or "Example: reproducibility train" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_saves_and_the_same_command_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C, or what a scheduler sends, ends training with a checkpoint and code 130.

    The resumed run ends with the digest of an uninterrupted one.
    """
    steps = 40_000
    arguments = ["train", *SMALL, "--steps", str(steps), "--run-dir", "run"]
    started = subprocess.Popen(
        [sys.executable, "-m", "reproducibility", *arguments, "--checkpoint-every", str(steps)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "step 1 of" in started.stderr.readline()
        started.send_signal(number)
        out, err = started.communicate(timeout=60)
    finally:
        started.kill()
    assert (started.returncode, out) == (130, "")
    assert "Traceback" not in err
    [step] = re.findall(r"Interrupted after (\d+) updates; the same command goes on", err)
    run = Run.read(tmp_path / "run")
    assert int(restore_state(run).step) == int(step) < steps
    assert run.attempts()[-1]["ended"] == "interrupted"
    flags = {"batch_size": 32, "shards": 2, "hidden": (8,)}
    longer = cli.TrainCommand(run_dir=tmp_path, steps=int(step) + 5, **flags).config
    assert train(longer, run_dir=tmp_path / "run").digest == train(longer).digest


def test_a_second_signal_ends_at_once() -> None:
    """The first Ctrl-C asks for a checkpoint; whoever presses it again does not want to wait."""
    with cli._progress(2) as (_, stop):
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_training_goes_on_when_nobody_listens(tmp_path: Path) -> None:
    """A closed stderr ends no run: code 0 is for what is done."""
    command = [sys.executable, "-m", "reproducibility", "train", *SMALL, "--steps", "4"]
    subprocess.run(
        [
            "sh",
            "-c",
            '("$@"; echo $? >code) 2>&1 >/dev/null | true',
            "sh",
            *command,
            "--run-dir",
            "run",
        ],
        cwd=tmp_path,
        timeout=120,
        check=True,
    )
    assert (tmp_path / "code").read_text() == "0\n"
    assert Run.read(tmp_path / "run").result().steps == 4


def test_out_is_not_in_the_run(call: Call) -> None:
    """A copy of the result must not take the place of a file of the run."""
    code, out, err = call("train", *SMALL, "--run-dir", "run", "--out", "run/run.json")
    assert (code, out) == (2, "")
    assert "expected a file outside of the run directory" in one_sentence(err)


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """`reproducibility … | head` ends without a traceback."""
    command = f"{sys.executable} -m reproducibility train --help | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("usage: reproducibility train")
    assert "Traceback" not in done.stderr


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
