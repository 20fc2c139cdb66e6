"""Promises of `train` on the command line: codes, streams and wording."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reproducibility import Run, TrainConfig, check, read_result, restore_state, train
from tests.calling import SMALL, Call, one_sentence


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
    "--record all": "record: expected one of auto, leaf, brief, group, off, got 'all'",
    "--record-every 0": "record_every: expected a whole number from 1",
    "--record-every often": "--record-every: expected a whole number, got 'often'",
    "--sede 3": "Unrecognized options: --sede, 3",
    "--out /": "Cannot use --out at /: expected a file",
    "--out missing/out.json": "got no such directory",
    "--resume require": "Cannot resume the run at run: expected a checkpoint, got none",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_bad_settings_are_refused(call: Call, tmp_path: Path, flags: str) -> None:
    """A bad setting gives one sentence on stderr that names it, code 2, and no training."""
    code, out, err = call("train", "--run-dir", "run", *flags.split())
    assert (code, out) == (2, "")
    assert REFUSED[flags] in one_sentence(err)
    assert not (tmp_path / "run" / "checkpoints").exists()


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
    config = TrainConfig(seed=0, steps=2, shards=1)
    assert train(config, run_dir=tmp_path / "run").digest == train(config).digest
    assert check(tmp_path / "run").findings == ()


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
    longer = TrainConfig(seed=0, steps=int(step) + 5, **flags)
    assert train(longer, run_dir=tmp_path / "run").digest == train(longer).digest


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
