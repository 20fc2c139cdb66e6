"""Scripts that were not prepared, as somebody would run them: fresh processes, and a verdict."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from reproducibility import twice as run_twice
from reproducibility.script import growing, inherited
from reproducibility.script.reading import Event, processes_of

# A training that repeats; what is wrong with it is put into its empty lines.
TRAINING = """\
import os, random, sys, threading, time
import numpy as np
{first}
import jax
import jax.numpy as jnp

rng = np.random.default_rng({seed})
{before}
step = jax.jit(lambda w, x: (w * 0.9 + x, (w * x).sum()))
w = jnp.zeros(3)
for i in range(4):
    x = np.float32(rng.normal(size=3))
    {inside}
    w, loss = step(w, x)
print("loss", float(loss))
{last}
"""


def training(folder: Path, **lines: str) -> Path:
    """Write the training with some lines."""
    path = folder / "train.py"
    empty = dict.fromkeys(("first", "before", "inside", "last"), "pass")
    path.write_text(TRAINING.format(**{**empty, "seed": "7", **lines}))
    return path


def run(
    *arguments: str, folder: Path, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of ours in a folder, without the test session's own settings of JAX."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    command = [sys.executable, "-m", "reproducibility", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        env=kept,
        timeout=240,
    )


def twice(folder: Path, *options: str, script: str = "train.py") -> dict[str, Any]:
    """Return what `twice --json` says of a script, with its exit code and stderr."""
    done = run("twice", "--json", *options, "--", sys.executable, script, folder=folder)
    found = json.loads(done.stdout) if done.stdout else {}
    return {**found, "code": done.returncode, "stderr": done.stderr}


# What a watched script must not notice: threads that it did not start, and calls traced anew.
UNNOTICED = """
print(threading.enumerate()[1:], threading.active_count(), threading.Thread().name)
with jax.no_tracing():
    print(step(w, x))
    try:
        step(x[:2], x[:2])
    except RuntimeError as error:
        print("re-tracing" in str(error))
"""


def test_a_script_that_repeats(tmp_path: Path) -> None:
    """Two runs that agree are the same, and the script's output is on stderr.

    The recorder's own thread is not among those that a script sees and numbers. Under
    `jax.no_tracing` a watched call is none that is traced anew; another shape is. Each run reads
    what comes through a pipe. `{run}` in the command is another argument, and no other script.
    """
    before = "data = np.float32(len(sys.stdin.read()))"
    training(tmp_path, before=before, inside="x = x + data", last=UNNOTICED)
    words = ("twice", "--json", "--", sys.executable, "train.py", "run{run}")
    done = run(*words, folder=tmp_path, given="abc" * 50_000)
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"], found["roots"]) == (0, "same", [])
    assert done.stderr.count("loss ") == 3  # twice with the recorder, once without
    seen = [line for line in done.stderr.splitlines() if line.startswith("[] 1 Thread-")]
    assert seen == seen[:1] * 3
    assert done.stderr.splitlines().count("True") == 3
    assert "Run 1 once more, without the recorder." in done.stderr


@pytest.mark.long
@pytest.mark.nightly
def test_a_generator_without_a_seed_is_named_and_confirmed(tmp_path: Path) -> None:
    """The line of the call, the argument, and the line where the generator was made."""
    training(tmp_path, seed="")
    found = twice(tmp_path)
    root = found["roots"][0]
    assert (found["code"], root["kind"], root["names"]) == (1, "host", ["x"])
    assert "train.py:14" in root["lines"][0]
    assert "First at train.py:14. More runs look for the cause." in found["stderr"]
    assert (found["cause"], found["confirmed"]) == ("entropy", True)
    assert "train.py:7" in found["source"]["lines"][0]


# What is planted, and how it is named: its kind, and the cause that is confirmed.
NIGHTLY = (pytest.mark.long, pytest.mark.nightly)


def a_few_each_time(names: Iterable[str], *few: str) -> list[Any]:
    """Return names as parameters of a test: most of them for the nights."""
    nightly = pytest.mark.nightly
    return [name if name in few else pytest.param(name, marks=nightly) for name in names]


PLANTED = {
    "global_numpy": ({"inside": "x = x + np.float32(np.random.rand())"}, "host", "entropy"),
    "python_random": ({"inside": "x = x * np.float32(random.random())"}, "host", "entropy"),
    "clock": ({"inside": "x = x + np.float32(time.time() % 1)"}, "host", "clock"),
    "salt": (
        {"before": "salt = np.float32(hash('a') % 2**20)", "inside": "x = x + salt"},
        "host",
        "hash",
    ),
    "entropy": ({"inside": "x = x + np.float32(os.urandom(1)[0])"}, "host", "entropy"),
    "key": ({"before": "k = jax.random.key(time.time_ns() % 2**31)"}, "host", "clock"),
    "constant": (
        {"before": "c = np.full(9, random.random(), 'f'); jax.jit(lambda v: v + c)(jnp.ones(9))"},
        "program",
        None,
    ),
    "path": ({"inside": "x = x if random.random() < 0.5 else np.tile(x, 1)[None]"}, "path", None),
}


@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.parametrize("name", a_few_each_time(PLANTED, "salt", "constant"))
def test_what_is_planted_is_named(tmp_path: Path, name: str) -> None:
    """A fault of each kind is named at its line, and its cause is confirmed."""
    lines, kind, cause = PLANTED[name]
    training(tmp_path, **lines)
    found = twice(tmp_path)
    assert (found["code"], found["verdict"]) == (1, "different")
    assert found["roots"][0]["kind"] == kind
    if cause:
        assert (found["cause"], found["confirmed"]) == (cause, True)


@pytest.mark.long
@pytest.mark.nightly
def test_the_order_of_a_folder(tmp_path: Path) -> None:
    """Files that are listed in another order are seen, and the listing is confirmed."""
    (tmp_path / "data").mkdir()
    lines = {
        "before": "names = os.listdir('data') if os.environ['RUN'] == '1' "
        "else os.listdir('data')[::-1]\nfor n in '', 'a', 'b', 'c': open('data/' + n + '_', 'w')",
        "inside": "x = x + np.float32(sum(ord(c) * 3**i for i, c in enumerate(''.join(names))))",
    }
    training(tmp_path, **lines)
    found = twice(tmp_path, "--env", "RUN={run}")
    assert (found["code"], found["roots"][0]["kind"]) == (1, "host")


@pytest.mark.long
@pytest.mark.nightly
def test_a_cache_of_programs_is_no_file_of_the_script(tmp_path: Path) -> None:
    """What JAX itself keeps from run to run is not what the script reads."""
    training(tmp_path)
    cache = (
        "JAX_COMPILATION_CACHE_DIR={dir}/../cache",
        *(
            f"JAX_PERSISTENT_CACHE_MIN_{name}"
            for name in ("COMPILE_TIME_SECS=0", "ENTRY_SIZE_BYTES=-1")
        ),
    )
    found = twice(tmp_path, "--env", *cache)
    assert (found["verdict"], found["inherited"]) == ("same", None)


# How a run finds what the one before it left, and what of that is said; and what is its own.
LEFT: dict[str, tuple[str, str, Any]] = {
    "a checkpoint": (
        "old = np.load('w.npy') if os.path.exists('w.npy') else np.zeros(3, 'f')",
        "np.save('w.npy', np.asarray(w))",
        ("reads", "w.npy"),
    ),
    "a folder that is renamed": (
        "old = np.load('c/1/w.npy') if os.path.isdir('c/1') else np.zeros(3, 'f')",
        "os.makedirs('c/t'); np.save('c/t/w.npy', np.asarray(w))\n"
        "os.path.isdir('c/1') or os.rename('c/t', 'c/1')",
        ("reads", "w.npy"),
    ),
    "a cache": (
        "import pickle\n"
        "try: old = pickle.load(open('c.pkl', 'rb'))\n"
        "except OSError: old = np.zeros(3, 'f')",
        "pickle.dump(np.asarray(w), open('c.pkl', 'wb'))",
        ("reads", "c.pkl"),
    ),
    "a log that grows": (
        "print('begin', file=open('log', 'a')); old = np.float32(len(open('log').read()))",
        "pass",
        ("reads", "log"),
    ),
    "a file that is used up": (
        "try: old = np.float32(len(open('given').read()))\nexcept OSError: old = np.float32(0)",
        "os.path.exists('given') and os.remove('given')",
        ("misses", "given"),
    ),
    "a listing": (
        "old = np.float32(len(os.listdir('data')))",
        "open(f'data/{time.time_ns()}', 'w').close()",
        ("lists", ""),
    ),
    "a mark": (
        "old = np.float32(os.path.exists('mark'))",
        "open('mark', 'w').close()",
        None,
    ),
    "a file of its own": (
        "np.save('x.npy', np.ones(3, 'f')); old = np.load('x.npy')\n"
        "os.makedirs('data', exist_ok=True)",
        "print(len(open('data/given').read()), open('given').read())",
        "same",
    ),
}


@pytest.mark.nightly
@pytest.mark.long
@pytest.mark.parametrize(
    "name", a_few_each_time(LEFT, "a checkpoint", "a listing", "a file of its own")
)
def test_what_the_first_run_left(tmp_path: Path, name: str) -> None:
    """A run that finds what the one before left is no second start, and that is said."""
    before, last, said = LEFT[name]
    (tmp_path / "data").mkdir()
    for path in ("data/given", "given"):
        (tmp_path / path).write_text("given")
    training(tmp_path, before=before, inside="x = x + old" if "old" in before else "", last=last)
    found = twice(tmp_path)
    if said == "same":
        assert (found["code"], found["inherited"]) == (0, None)
        return
    assert found["code"] == 1
    if said is None:
        assert (found["inherited"], found["left"]) == (None, [str(tmp_path / "mark")])
        return
    assert found["inherited"]["how"] == said[0]
    assert found["inherited"]["file"].endswith(said[1])
    assert "train.py" in found["inherited"]["lines"][0]


def test_a_folder_that_is_listed_by_its_number(tmp_path: Path) -> None:
    """What an open folder is called by is no name: `shutil.rmtree` lists what it removes so."""
    (tmp_path / "new").touch()
    times = (0.0, float("inf"))
    for listed, found in ((repr(str(tmp_path)), str(tmp_path / "new")), ("3", ""), ("b'.'", "")):
        event = Event(0, "listing", f"os.scandir({listed})", ())
        assert inherited._left_in(event, set(), times) == found


def test_a_link_to_a_package_is_no_write(tmp_path: Path) -> None:
    """An environment that is set up elsewhere links a package's file, which nobody wrote."""
    for folder, left in (("site-packages", False), ("data", True)):
        path = tmp_path / folder / "font.ttf"
        path.parent.mkdir()
        path.touch()
        os.utime(path, (1.0, 1.0))
        os.link(path, tmp_path / f"{folder}.ttf")
        assert inherited._is_left(path, set(), (2.0, float("inf"))) is left


@pytest.mark.nightly
@pytest.mark.long
def test_a_folder_for_each_run(tmp_path: Path) -> None:
    """With `{dir}` there is nothing to find."""
    before, last = (
        line.replace("'w.npy'", "sys.argv[1] + '/w.npy'") for line in LEFT["a checkpoint"][:2]
    )
    training(tmp_path, before=before, inside="x = x + old", last=last)
    done = run("twice", "--", sys.executable, "train.py", "{dir}", folder=tmp_path)
    assert (done.returncode, "give each" in done.stdout) == (0, False)


@pytest.mark.long
@pytest.mark.nightly
def test_a_script_that_fails(tmp_path: Path) -> None:
    """If both runs fail nothing can be told; both exit codes are said. If one does, they differ."""
    training(tmp_path, last="sys.exit('no such data')")
    found = twice(tmp_path)
    assert found["code"] == 3
    assert found["stderr"].count("exit code 1, 'no such data'") == 1
    training(tmp_path, last="sys.exit(int(os.environ['RUN']) - 1)")
    found = twice(tmp_path, "--env", "RUN={run}")
    assert (found["code"], found["verdict"]) == (1, "different")


@pytest.mark.long
@pytest.mark.nightly
def test_a_script_that_skips_the_functions_at_exit(tmp_path: Path) -> None:
    """`os._exit` ends a record too."""
    training(tmp_path, last="sys.stdout.flush(); os._exit(status=0)")
    found = twice(tmp_path)
    assert (found["verdict"], found["problems"]) == ("same", [])


# Two processes of a kind call JAX on `numbers`; what they find is printed.
WORKERS = """\
import multiprocessing, sys
import numpy as np

def numbers(i):
    import jax.numpy as jnp
    {work}
    return float(jnp.sum(jnp.asarray(np.random.default_rng({seed}).normal(size=4)) * i))

def put(queue, i):
    queue.put(numbers(i))

if __name__ == "__main__":
    {main}
    import jax.numpy as jnp
    print(jnp.ones(2) + 1)
"""
FORKS = """\
context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=put, args=(queue, i)) for i in range(2)]
    [worker.start() for worker in workers]
    print(sorted(queue.get() for _ in workers))
    [worker.join() for worker in workers]
"""
POOL = """\
with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(numbers, range(4)))
"""


@pytest.mark.parametrize(
    ("main", "seed", "work", "verdict", "why"),
    [
        (FORKS, "", "pass", "cannot be told", "a fork of the process called JAX"),
        pytest.param(POOL, "0", "pass", "cannot be told", "it was killed", marks=NIGHTLY),
        pytest.param(POOL, "0", "return i", "same", "", marks=NIGHTLY),
    ],
    ids=["forks", "a pool", "a pool without JAX"],
)
def test_other_processes(
    tmp_path: Path, main: str, seed: str, work: str, verdict: str, why: str
) -> None:
    """What other processes do with JAX is compared, or said to be unseen."""
    script = WORKERS.format(main=main, seed=seed, work=work)
    if work != "pass":
        script = script.replace("    import jax.numpy as jnp\n    return", "    return")
    (tmp_path / "train.py").write_text(script)
    found = twice(tmp_path)
    assert (found["verdict"], found["roots"]) == (verdict, [])
    assert why in str(found["problems"])
    assert "Traceback" not in found["stderr"]


@pytest.mark.long
@pytest.mark.nightly
def test_a_script_that_prints_its_speed(tmp_path: Path) -> None:
    """What is printed decides nothing, unless that is asked for; times never do."""
    training(tmp_path, last="print(f'{time.perf_counter()} s'); print(time.perf_counter())")
    found = twice(tmp_path)
    assert found["verdict"] == "same"
    assert found["remark"].startswith("line 3 of what they print differs")
    assert twice(tmp_path, "--strict-output")["code"] == 1
    training(tmp_path, last="print(f'{time.perf_counter()} s')")
    assert twice(tmp_path, "--strict-output")["code"] == 0


@pytest.mark.long
@pytest.mark.nightly
def test_a_script_that_sees_the_recorder(tmp_path: Path) -> None:
    """If it prints something else without, nothing can be told."""
    training(tmp_path, last="print('REPRODUCIBILITY_RECORD' in os.environ)")
    found = twice(tmp_path)
    assert (found["code"], found["verdict"]) == (3, "cannot be told")
    assert "Watching changes this script" in found["stderr"]


@pytest.mark.long
@pytest.mark.nightly
def test_settings_before_the_import_still_hold(tmp_path: Path) -> None:
    """What a script sets before it imports JAX is what JAX sees: the recorder imports nothing."""
    training(
        tmp_path,
        first="os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=3'; "
        "assert 'jax' not in sys.modules",
        last="assert len(jax.devices()) == 3",
    )
    assert twice(tmp_path)["verdict"] == "same"


@pytest.mark.long
@pytest.mark.nightly
def test_arrays_on_several_devices(tmp_path: Path) -> None:
    """Shardings, moves between them, and shard_map: the same twice, and another value is seen."""
    training(
        tmp_path,
        first="os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=4'",
        last="""
from jax.sharding import NamedSharding as N, PartitionSpec as P
mesh = jax.make_mesh((2, 2), ("a", "b"))
v = np.arange(32, dtype=np.float32).reshape(8, 4) + WRONG
v = jax.device_put(v, N(mesh, P("a", "b")))
y = jax.jit(lambda v: v * 2 + v.sum())(v)
z = jax.device_put(y, N(mesh, P("b")))
f = jax.shard_map(lambda v: jax.lax.psum(v, "b"), mesh=mesh, in_specs=P("a", "b"), out_specs=P("a"))
print(np.asarray(jax.jit(f)(y)).sum(), np.asarray(z).sum())
""".replace("WRONG", "float(os.environ.get('WRONG', '0'))"),
    )
    assert twice(tmp_path)["verdict"] == "same"
    assert twice(tmp_path, "--env", "WRONG={run}")["roots"][0]["kind"] == "host"


@pytest.mark.long
@pytest.mark.nightly
def test_a_call_that_does_not_repeat(tmp_path: Path) -> None:
    """Equal inputs and other results: a callback that draws is a fault of the program's call."""
    training(
        tmp_path,
        last="""
shape = jax.ShapeDtypeStruct((), np.float32)
draw = jax.jit(lambda v: jax.pure_callback(lambda v: np.float32(random.random()), shape, v))
print(draw(jnp.float32(1)))
""",
    )
    root = twice(tmp_path)["roots"][0]
    assert (root["kind"], root["program"]) == ("program", "<lambda>")


def test_record_passes_everything_on(tmp_path: Path) -> None:
    """Output, errors and the exit code are the script's; two records can be compared later."""
    training(tmp_path, last="print('to stderr', file=sys.stderr); sys.exit(5)")
    plain = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    for name in ("a", "b"):
        done = run("record", name, "--", sys.executable, "train.py", folder=tmp_path)
        assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)
        assert done.stderr == plain.stderr
    compared = run("compare", "a", "b", folder=tmp_path)
    assert (compared.returncode, compared.stdout.splitlines()[0]) == (0, "same")
    assert oct((tmp_path / "a").stat().st_mode & 0o777) == "0o700"
    assert {oct(p.stat().st_mode & 0o77) for p in (tmp_path / "a").rglob("*")} == {"0o0"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("twice",), "expected a command after --, got none"),
        (("twice", "--", "no-such-program"), "got none of that name"),
        (("twice", "--", "mine.py"), "Put python before it: -- python mine.py."),
        (("twice", "--calls", "-1", "--", "python"), "expected 0 or more, got -1"),
        (("twice", "--for", "90", "--", "python"), "expected a time such as 90s, 10m or 1h"),
        (("twice", "python", "train.py"), "What to run comes after --"),
        (("twice", "--env", "A", "--", "python"), "expected NAME=VALUE, got 'A'"),
        (("record", "here", "--", "true"), "expected a new or empty directory"),
        (("compare", "here", "nowhere"), "no such path"),
    ],
)
def test_what_cannot_be_run(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """A mistake in the command is one sentence and code 2, and nothing was run."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.txt").write_text("mine")
    (tmp_path / "mine.py").write_text("print('mine')")
    done = run(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {path.name for path in tmp_path.rglob("*")} == {"here", "mine.txt", "mine.py"}


def test_a_command_that_is_no_python(tmp_path: Path) -> None:
    """It runs, nothing is recorded, and that is said; twice it cannot be told."""
    done = run("record", "a", "--", "echo", "hello", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert "Nothing was recorded" in done.stderr
    found = run("twice", "--", "echo", "hello", folder=tmp_path)
    assert found.returncode == 3


SAME_INPUT = """
import subprocess, sys
from reproducibility.script.start import SameInput

given = SameInput()
for _ in range(3):
    with given.again() as stdin:
        subprocess.run([sys.executable, "-c", "print(len(input()))"], stdin=stdin, check=True)
"""


def test_every_run_reads_the_same(tmp_path: Path) -> None:
    """What is in a file is read from its begin by each run, and so is what comes through a pipe."""
    data = b"abc" * 50_000
    (tmp_path / "data").write_bytes(data)
    command = [sys.executable, "-c", SAME_INPUT]
    with open(tmp_path / "data", "rb") as file:
        by_file = subprocess.check_output(command, stdin=file)
    by_pipe = subprocess.check_output(command, input=data)
    assert by_file == by_pipe == b"150000\n" * 3


@pytest.mark.long
@pytest.mark.nightly
def test_only_the_first_run_differs(tmp_path: Path) -> None:
    """What the first run left makes all later ones agree: no cause is confirmed by that."""
    lines = {
        "before": "left = os.path.isdir('left'); os.makedirs('left', exist_ok=True)",
        "inside": "x = x + np.float32(left)",
    }
    training(tmp_path, **lines)
    found = twice(tmp_path)
    assert (found["code"], found["cause"], found["confirmed"]) == (1, None, False)
    assert found["settled"]


@pytest.mark.long
@pytest.mark.nightly
def test_a_constant_that_the_host_drew(tmp_path: Path) -> None:
    """A number that a function captured comes from the host: its cause is looked for too."""
    (tmp_path / "train.py").write_text(
        "import jax, numpy as np\n"
        "w = np.random.rand(3).astype('f')\n"
        "print(float(jax.jit(lambda x: (x * w).sum())(np.ones(3, 'f'))))\n"
    )
    found = twice(tmp_path)
    assert found["roots"][0]["kind"] == "program"
    assert (found["cause"], found["confirmed"]) == ("entropy", True)
    assert "train.py:2" in found["source"]["lines"][0]


def test_a_script_that_is_killed(tmp_path: Path) -> None:
    """Its records are cut anywhere: nothing can be told, and nothing of ours fails."""
    training(tmp_path, last="os.kill(os.getpid(), 9)")
    found = twice(tmp_path)
    assert (found["code"], found["verdict"]) == (3, "cannot be told")
    assert "killed by signal 9" in found["reason"]
    assert "Traceback" not in found["stderr"]


# Steps that wait for one another's end, so that they can be stopped on the way.
STEADY = """
import sys, time
import jax, jax.numpy as jnp, numpy as np
step = jax.jit(lambda w, x: (w * 0.9 + x, (w * x).sum()))
w = jnp.zeros(3)
print("begins", flush=True)
for i in range({steps}):
    w, loss = step(w, np.float32(np.full(3, i % 7 + {wrong})))
    print(float(loss), flush=True)
    time.sleep(0.01)
"""


@pytest.mark.long
@pytest.mark.nightly
def test_both_runs_end_at_the_call_that_the_first_one_reached(tmp_path: Path) -> None:
    """After a time the first run is ended, and the second one at the same call, not at that time.

    What it has started is ended with it."""
    child = "import subprocess; c = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1)"
    steady = STEADY.format(steps=10**6, wrong="0").replace("print(", f"{child}\nprint(", 1)
    (tmp_path / "train.py").write_text(steady)
    found = twice(tmp_path, "--for", "8s", "--keep", "kept")
    ends = [
        json.loads((tmp_path / f"kept/run-{number}/process-1/end.json").read_text())["ended_at"]
        for number in (1, 2)
    ]
    assert (found["code"], ends[0]) == (0, ends[1])
    assert found["calls"] == ends[0] > 2
    assert f"up to call {ends[0]:,}, where both runs were ended" in found["reason"]
    assert processes_with(str(tmp_path / "kept")) == []


def processes_with(words: str) -> list[int]:
    """Return the processes in whose environment something stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            state = (path.parent / "stat").read_text().rpartition(")")[2].split()[0]
            if words.encode() in path.read_bytes() and state != "Z":
                found.append(int(path.parent.name))
    return found


@pytest.mark.long
@pytest.mark.nightly
def test_the_second_run_is_ended_once_it_has_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of hours is not finished for nothing: what agreed and what did not is still said."""
    monkeypatch.setattr(growing, "BEGINS_AFTER", 0)
    wrong = "(i == 3) * int(sys.argv[1]) / 8"
    script = STEADY.format(steps="(400, 10**6)[int(sys.argv[1]) - 1]", wrong=wrong)
    (tmp_path / "train.py").write_text(script)
    found = run_twice([sys.executable, str(tmp_path / "train.py"), "{run}"])
    assert (found.verdict, found.stopped) == ("different", True)
    assert found.compared.roots[0].kind == "host"
    assert "They diverge at call" in found.reason
    assert found.compared.of > 400
    assert found.compared.problems == []
    assert not found.remark  # of a run that was ended, what it printed says nothing


# Heeds Ctrl-C, which what a shell runs in the background is told to ignore.
AS_IN_A_TERMINAL = """\
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.nightly
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_an_interruption(tmp_path: Path, number: int) -> None:
    """One sentence, code 130, what ran is gone, and the record is read up to there."""
    (tmp_path / "train.py").write_text(STEADY.format(steps=10**6, wrong="0"))
    command = ["-m", "reproducibility", "twice", "--keep", "kept", "--", sys.executable, "train.py"]
    process = subprocess.Popen(
        [sys.executable, "-c", AS_IN_A_TERMINAL, *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    while b"begins" not in process.stderr.readline():
        pass
    for _ in range(40):  # of the steps
        process.stderr.readline()
    process.send_signal(number)
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, b"")
    assert errors.splitlines()[-1] == b"Interrupted; what was saved before is intact."
    assert b"Traceback" not in errors.split(b"KeyboardInterrupt")[-1]
    assert processes_with(str(tmp_path / "kept")) == []
    (record,) = processes_of(tmp_path / "kept" / "run-1")
    assert record.end is None
    done = run("compare", "kept/run-1", "kept/run-1", folder=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[0]) == (3, "cannot be told")


@pytest.mark.long
@pytest.mark.nightly
def test_a_script_that_starts_itself_again(tmp_path: Path) -> None:
    """What `exec` leaves is whole, and what it becomes is followed; a hole is said."""
    again = "if 'x' not in sys.argv: os.execv(sys.executable, [sys.executable, *sys.argv, 'x'])"
    training(tmp_path, last=again)
    found = twice(tmp_path)
    assert (found["verdict"], found["problems"], found["calls"]) == ("same", [], 12)
    training(tmp_path, last="try: os.execv('nothing', ['a'])\nexcept OSError: w = w + 1")
    found = twice(tmp_path)
    assert (found["code"], found["verdict"]) == (3, "cannot be told")
    assert "a call of os.exec failed, and what followed is unseen" in str(found["problems"])


@pytest.mark.long
@pytest.mark.nightly
def test_a_process_that_is_ended_with_its_run(tmp_path: Path) -> None:
    """It lacks its end because we ended it: that is no problem. One that was killed before is."""
    child = "import jax.numpy as jnp, time; print(jnp.ones(3) + 1, flush=True); time.sleep(600)"
    training(
        tmp_path,
        first="import subprocess\n"
        f"c = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=-1)\nc.stdout.readline()",
        before="if sys.argv[1:] == ['killed']: time.sleep(1); c.kill(); c.wait()",
    )
    found = twice(tmp_path, "--calls", "5")
    assert (found["verdict"], found["problems"]) == ("same", [])
    assert found["calls"] > 5
    command = ("twice", "--json", "--calls", "5", "--", sys.executable, "train.py", "killed")
    done = run(*command, folder=tmp_path)
    assert "has no end" in str(json.loads(done.stdout)["problems"])


# No file can be longer: as on a disk that is full.
WITH_LITTLE_ROOM = """\
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.long
@pytest.mark.nightly
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """The script runs on, whatever cannot be kept of it; that is said, and nothing is the same."""
    training(tmp_path, last="print('x' * 200_000)\nfor i in range(3000): w = w + 1")
    command = ["-m", "reproducibility", "twice", "--", sys.executable, "-c"]
    script = f"exec(open('{tmp_path}/train.py').read()); print('end')"
    done = subprocess.run(
        [sys.executable, "-c", WITH_LITTLE_ROOM, *command, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "JAX_ENABLE_COMPILATION_CACHE": "0"},
        timeout=240,
    )
    assert (done.returncode, done.stdout.splitlines()[0]) == (3, "cannot be told")
    assert done.stderr.count("\nend\n") == 2
    assert "File too large" in done.stdout
    assert "Traceback" not in done.stderr
