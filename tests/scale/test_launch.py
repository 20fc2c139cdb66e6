"""Promises of `reproducibility.scale.launch`: output, codes, signals, and nobody left behind."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from reproducibility import Run, check
from reproducibility.cli import main
from reproducibility.scale import launch
from reproducibility.scale.launch import WATCHED
from reproducibility.storage.checkpoint import saved_steps

LONG = 120  # seconds; whoever takes longer is stuck
ROOT = Path(__file__).parents[2]
TRAIN = [
    "train",
    "--batch-size",
    "32",
    "--shards",
    "2",
    "--hidden",
    "8",
    "--checkpoint-every",
    "5",
    "--steps",
    "1000000",
    "--run-dir",
]

# Every script begins so; `which` is the number of the process.
BEGIN = """
import os, signal, sys, time
which = int(sys.argv[sys.argv.index("--process-index") + 1])
"""
LAUNCHER = """
import sys
from reproducibility import launch
sys.exit(launch([], 2, program=[sys.executable, "-c", sys.argv[1]]))
"""
STAY = """
from reproducibility.scale.launch import end_with_parent
end_with_parent()
print("ready", flush=True)
for _ in range(12_000):  # a signal just before one long sleep would be handled after it
    time.sleep(0.05)
"""


def start(
    script: str, processes: int = 2, command: tuple[str, ...] = (), grace: float = 10.0
) -> tuple[int, list[str]]:
    """Launch a script; return the code, and what was said of processes."""
    said: list[str] = []
    program = [sys.executable, "-c", BEGIN + script]
    return launch.launch(command, processes, program=program, say=said.append, grace=grace), said


def test_output_is_labelled(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line has the number of its process before it, on the stream where it was written."""
    code, said = start("""
print("out", which, end="\\n\\n   indented   ")
print("err", which, file=sys.stderr, flush=True)
os.write(2, b"no \\xff UTF-8\\n")
""")
    assert (code, said) == (0, [])
    out, err = (text.splitlines() for text in capsys.readouterr())
    for which in range(2):
        mine = [line for line in out if line.startswith(f"[{which}]")]
        assert mine == [f"[{which}] out {which}", f"[{which}] ", f"[{which}]    indented"]
        mine = [line for line in err if line.startswith(f"[{which}]")]
        assert mine == [f"[{which}] err {which}", f"[{which}] no \ufffd UTF-8"]
    assert (len(out), len(err)) == (6, 4)


def test_lines_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of several processes that write at the same time are never mixed."""
    start("print(*[f'{which}' * 500] * 200, sep='\\n')", processes=3)
    out, _ = capsys.readouterr()
    expected = [line for which in "012" for line in [f"[{which}] {which * 500}"] * 200]
    assert sorted(out.splitlines()) == expected


def test_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has written is printed, also where that takes longer than the process."""

    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            time.sleep(0.002)
            return super().write(text)

    monkeypatch.setattr(sys, "stdout", Slow())
    assert start("print(*range(500), sep='\\n')", processes=1) == (0, [])
    assert sys.stdout.getvalue() == "".join(f"[0] {number}\n" for number in range(500))


def test_each_process_knows_which_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Each gets the command, how many there are, its number, and one address for all.

    It is in a session of its own, so that Ctrl-C in a terminal reaches the launcher alone.
    """
    script = """
import json
alone = os.getsid(0) == os.getpid()
print(json.dumps([sys.argv[1:], alone, os.environ["REPRODUCIBILITY_LAUNCHED"]]))
"""
    assert start(script, 3, ("train", "--steps", "4"))[0] == 0
    found = dict(line[1:].split("] ", 1) for line in capsys.readouterr().out.splitlines())
    where = {json.loads(text)[0][-1] for text in found.values()}
    assert len(where) == 1
    assert where.pop().startswith("127.0.0.1:")
    for which, text in found.items():
        arguments, alone, watched = json.loads(text)
        told = ["--processes", "3", "--process-index", which, "--coordinator"]
        assert arguments[:-1] == ["train", "--steps", "4", *told]
        assert (alone, watched) == (True, "1")


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        (["pass", "pass"], 0, []),
        (["pass", "sys.exit(3)"], 3, []),
        (["sys.exit(3)", "pass"], 3, []),
        (["sys.exit(3)", "sys.exit(5)"], 3, []),
        (["pass", "os.kill(os.getpid(), 9)"], 4, ["Process {second} was ended by SIGKILL."]),
        (
            ["os.kill(os.getpid(), 11)", "sys.exit(3)"],
            4,
            ["Process {first} was ended by SIGSEGV."],
        ),
    ],
)
@pytest.mark.parametrize("first", [0, 1])
def test_the_code_is_that_of_the_first_that_failed(
    tmp_path: Path, ends: list[str], first: int, code: int, said: list[str]
) -> None:
    """The code is 0 when all end well, else that of the first that did not; 4 if it was killed."""
    script = f"""
if which == {first}:
    open(sys.argv[1], "w").close()
    {ends[0]}
else:
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    time.sleep(1)  # so that the launcher has seen the first
    {ends[1]}
"""
    named = [each.format(first=first, second=1 - first) for each in said]
    assert start(script, 2, (str(tmp_path / "first"),)) == (code, named)


def test_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    """One process is a number of processes too."""
    assert start("print('here'); sys.exit(9)", processes=1) == (9, [])
    assert capsys.readouterr().out == "[0] here\n"


def test_the_others_do_not_outlive_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """When one has failed, the others have a while to end by themselves, and are then killed."""
    script = """
if which == 1:
    open(sys.argv[1], "w").close()
    sys.exit(7)
while which or not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
time.sleep(0.5)
print("tidied up")
"""
    code, said = start(script, 3, (str(tmp_path / "failed"),), grace=3.0)
    assert (code, said) == (7, ["Process 2 did not end within 3 s of that, and is killed."])
    assert capsys.readouterr().out == "[0] tidied up\n"


def test_who_is_done_does_not_end_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """After a process that ended well the others may work as long as they like."""
    assert start("time.sleep(1.0 * which); print('done')", grace=0.1) == (0, [])
    assert sorted(capsys.readouterr().out.splitlines()) == ["[0] done", "[1] done"]


def test_a_program_that_there_is_not() -> None:
    """Where nothing can be started, that is an error, and signals do again what they did."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(FileNotFoundError):
        launch.launch([], 2, program=["/nowhere/python"])
    assert start("") == (0, [])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@contextlib.contextmanager
def launcher(*command: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Run a launcher in a process of its own; afterwards kill it, and those in the list."""
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    environment = {name: value for name, value in os.environ.items() if name != WATCHED}
    environment["PYTHONUNBUFFERED"] = ""  # the launcher itself prints each line at once
    with subprocess.Popen(
        [sys.executable, *command], **pipes, text=True, cwd=ROOT, env=environment
    ) as process:
        started: list[psutil.Process] = []
        try:
            yield process, started
        finally:
            for child in [*_children(process), *started]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            process.kill()


def _children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children()
    return []


def until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that the processes do."""
    end = time.monotonic() + LONG
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def kill_launcher(
    process: subprocess.Popen[str], started: list[psutil.Process]
) -> list[psutil.Process]:
    """Kill a launcher that has started two processes; return those that are left behind."""
    until(lambda: len(_children(process)) == 2, process)
    started += _children(process)
    process.kill()
    process.wait()
    return psutil.wait_procs(started, timeout=LONG)[1]


def test_nobody_outlives_the_launcher() -> None:
    """When the launcher itself is killed, the processes end too."""
    with launcher("-c", LAUNCHER, BEGIN + STAY) as (process, started):
        assert all("ready" in process.stdout.readline() for _ in range(2))
        assert kill_launcher(process, started) == []


@pytest.mark.long
def test_a_training_does_not_outlive_the_launcher(tmp_path: Path) -> None:
    """`train` ends when the launcher that started it was killed."""
    command = ["launch", "--processes", "2", "--", *TRAIN, str(tmp_path / "run")]
    with launcher("-m", "reproducibility", *command) as (process, started):
        assert kill_launcher(process, started) == []


def test_who_was_not_launched_needs_no_parent() -> None:
    """`end_with_parent` does nothing in a process that was started otherwise."""
    script = STAY.replace("12_000", "6") + "print('done')"
    environment = {name: value for name, value in os.environ.items() if name != WATCHED}
    done = subprocess.run(
        [sys.executable, "-c", f"import time\n{script}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG,
        cwd=ROOT,
        env=environment,
    )
    assert (done.returncode, done.stdout) == (0, "ready\ndone\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handed_on(number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM reach every process as a request to save and stop."""
    script = """
def stop(number, frame):
    os.write(1, f"asked by {signal.Signals(number).name}\\n".encode())  # `print` may be at work
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
"""
    with launcher("-c", LAUNCHER, BEGIN + script + STAY) as (process, _):
        said = [process.stdout.readline() for _ in range(2)]
        assert sorted(said) == ["[0] ready\n", "[1] ready\n"]
        process.send_signal(number)
        out, _ = process.communicate(timeout=LONG)
        assert sorted(out.splitlines()) == ["[0] asked by SIGTERM", "[1] asked by SIGTERM"]
        assert process.returncode == 130


def test_the_second_signal_kills() -> None:
    """Processes that go on after the first signal are killed by the second."""
    script = """
signal.signal(signal.SIGTERM, lambda number, frame: os.write(1, b"not now\\n"))
"""
    with launcher("-c", LAUNCHER, BEGIN + script + STAY) as (process, _):
        assert all("ready" in process.stdout.readline() for _ in range(2))
        process.send_signal(signal.SIGTERM)
        said = [process.stdout.readline() for _ in range(2)]
        assert sorted(said) == ["[0] not now\n", "[1] not now\n"]
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=LONG)
        assert sorted(out.splitlines()) == [f"Process {i} was ended by SIGKILL." for i in (0, 1)]
        assert process.returncode == 4


@pytest.mark.long
@pytest.mark.nightly
def test_a_training_that_is_asked_to_stop(tmp_path: Path) -> None:
    """SIGTERM to the launcher ends a training with a checkpoint and code 130.

    The same command goes on from there; a process of it that is killed takes the others with it.
    """
    run = tmp_path / "run"
    command = ["-m", "reproducibility", "launch", "--processes", "2", "--", *TRAIN, str(run)]
    with launcher(*command) as (process, _):
        until(lambda: bool(saved_steps(run / "checkpoints")), process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=LONG)
        assert (process.returncode, out) == (130, ""), err
    assert "[0] Interrupted: saving a checkpoint.\n" in err
    step = max(saved_steps(run / "checkpoints"))
    assert f"[0] Interrupted after {step} updates; the same command goes on from there." in err
    ends = [line["ended"] for line in Run.read(run).attempts() if "ended" in line]
    assert ends == ["interrupted"]
    assert check(run).damaged == ()

    with launcher(*command) as (process, started):
        until(lambda: max(saved_steps(run / "checkpoints")) > step, process)
        started += _children(process)
        started[1].kill()
        out, err = process.communicate(timeout=LONG)
        assert (process.returncode, out) == (4, ""), err
        assert psutil.wait_procs(started, timeout=LONG)[1] == []
    assert "[0] Process 1 was lost: it ended without a word.\n" in err
    assert "Process 1 was ended by SIGKILL.\n" in err
    assert "Traceback" not in err


def test_the_command_begins_at_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows `--`, or begins with `train`, is handed on as it is; its code is returned."""
    asked = []
    monkeypatch.setattr(launch, "launch", lambda *a, **_: asked.append(a) or 130)
    for rest in (["--", "train", "--run-dir", "train"], ["train", "--run-dir", "train"]):
        with pytest.raises(SystemExit) as end:
            main(["launch", "--processes", "2", *rest])
        assert end.value.code == 130
    assert asked == [(["train", "--run-dir", "train"], 2)] * 2


REFUSED = {
    "--processes 2": "Cannot launch nothing: expected a train command, got none after --.",
    "--processes 2 --": "Cannot launch nothing: expected a train command, got none after --.",
    "--processes 2 -- doctor": "Cannot launch doctor: expected a train command, got another.",
    "--processes 2 -- digest run": "Cannot launch digest: expected a train command, got another.",
    "--processes 2 -- launch --processes 2": "Cannot launch launch: expected a train command, got",
    "--processes 2 -- fly": "Cannot read the command line: ",
    "--processes 2 -- train": "Cannot read the command line: ",
    "--processes 2 -- train --run-dir run --steps 0": "steps: expected a whole number from 1",
    "--processes 2 -- train --run-dir run --processes 2": (
        "Cannot launch processes: expected a train command that does not say which it is, got one "
        "with --processes, --process-index or --coordinator. Leave those out: launch adds them."
    ),
    "--processes 2 -- train --run-dir run --process-index 0": "Cannot launch processes: expected",
    "--processes 2 -- train --run-dir run --coordinator a:1": "Cannot launch processes: expected",
    "--processes 0 -- train --run-dir run": "Cannot use --processes: expected 1 or more, got 0.",
    "--processes -1 -- train --run-dir run": "Cannot use --processes: expected 1 or more, got -1.",
    "--processes two -- train --run-dir run": "Cannot read the command line: ",
    "-- train --run-dir run": "Cannot read the command line: ",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_launched(
    arguments: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What `launch` is not for is refused in one sentence, and nothing is started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "launch", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(SystemExit) as end:
        main(["launch", *arguments.split()])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert REFUSED[arguments] in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
