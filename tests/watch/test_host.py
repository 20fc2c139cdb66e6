"""What a script asks of the machine is seen at its line, and the script sees no difference."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from reproducibility.script.start import WATCH
from reproducibility.watch import host, wrap
from reproducibility.watch.host import SMALL_FILE, _facts_of
from tests.watch.watched import run_script

IMPORTS = (
    "import datetime, glob, os, pathlib, platform, random, secrets, socket, subprocess, sys\n"
    "import tempfile, threading, time, uuid\nimport numpy as np\n"
)


def run(folder: Path, script: str, *, watched: bool = True, **variables: str) -> str:
    """Run a script, and return what it prints."""
    return run_script(folder, script, record=folder / "record" if watched else None, **variables)


def events(folder: Path) -> list[dict[str, Any]]:
    """Return what was written down."""
    text = (folder / "record/process-1/host.txt").read_text()
    return [json.loads(line) for line in text.splitlines() if not line.startswith("#")]


# A line of a script, and what is seen of it.
SEEN = {
    "os.urandom(3)": "entropy the system's entropy",
    "os.getrandom(3)": "entropy the system's entropy",
    "secrets.token_hex(3)": "entropy the system's entropy",
    "secrets.randbelow(9)": "entropy the system's entropy",
    "uuid.uuid4()": "entropy the system's entropy",
    "uuid.uuid1()": "entropy uuid.uuid1()",
    "random.Random()": "entropy random.Random()",
    "random.SystemRandom().random()": "entropy the system's entropy",
    "np.random.default_rng()": "entropy the system's entropy",
    "np.random.RandomState()": "entropy the system's entropy",
    "np.random.SeedSequence()": "entropy the system's entropy",
    "open('/dev/urandom', 'rb').close()": "entropy /dev/urandom",
    "random.triangular(1, 2)": "draws random.triangular()",
    "np.random.laplace()": "draws numpy.random.laplace()",
    "time.time()": "clock time.time()",
    "time.process_time_ns()": "clock time.process_time_ns()",
    "time.clock_gettime(0)": "clock time.clock_gettime()",
    "time.localtime()": "clock time.localtime()",
    "time.strftime('%Y')": "clock time.strftime()",
    "datetime.datetime.now()": "clock datetime.datetime.now()",
    "datetime.datetime.utcnow()": "clock datetime.datetime.utcnow()",
    "datetime.date.today()": "clock datetime.date.today()",
    "os.listdir()": "listing os.listdir('.')",
    "glob.glob('*.py')": "listing os.scandir('.')",
    "list(pathlib.Path('.').iterdir())": "listing os.scandir('.')"
    if sys.version_info > (3, 13)
    else "listing os.listdir('.')",
    "list(os.walk('.'))": "listing os.scandir('.')",
    "os.getpid()": "process os.getpid()",
    "threading.get_ident()": "process threading.get_ident()",
    "socket.gethostname()": "machine socket.gethostname()",
    "os.cpu_count()": "machine os.cpu_count()",
    "open('/proc/self/stat').close()": "machine /proc/self/stat",
    "subprocess.run(['true'])": "process subprocess.Popen('true')",
    "os.environ.get('HOME')": "environment HOME",
    "os.getenv('OMP_NUM_THREADS')": "environment OMP_NUM_THREADS=2",
    "'MY_PASSWORD' in os.environ": "environment MY_PASSWORD",
}
# What is no cause of anything: a moment that is given, a seed. (NumPy's old generators take some
# entropy though they are given a seed.)
UNSEEN = (
    *("time.localtime(0)", "time.strftime('%Y', time.gmtime(0))", "np.random.default_rng(1)"),
    *("random.Random(1)", "datetime.datetime(2020, 1, 1)", "random.seed(1); random.random()"),
)


def test_what_is_asked_is_seen_at_its_line(tmp_path: Path) -> None:
    """Each thing that may differ from run to run is an event with the line of the script."""
    first = IMPORTS.count("\n") + 1
    script = IMPORTS + "\n".join([*SEEN, *UNSEEN])
    run(tmp_path, script, OMP_NUM_THREADS="2", MY_PASSWORD="hush")
    found: dict[int, set[str]] = {}
    for event in events(tmp_path):
        [_, line, _] = event["lines"][0]
        found.setdefault(line, set()).add(f"{event['kind']} {event['what']}")
    lacking = {
        text: found.get(number)
        for number, (text, seen) in enumerate(SEEN.items(), first)
        if seen not in found.get(number, set())
    }
    assert lacking == {}
    assert {line for line in found if line >= first + len(SEEN)} == set()
    assert "hush" not in (tmp_path / "record/process-1/host.txt").read_text()


def test_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    """A small file has the digest of what is in it, and a folder that of its order."""
    (tmp_path / "data").write_text("one")
    script = (
        "import os\nopen('data').close()\nopen('data', 'w').write('two')\nopen('data').close()\n"
        "os.listdir()\nos.listdir()\nopen('new', 'w').close()\nos.listdir()"
    )
    run(tmp_path, script)
    found = events(tmp_path)
    one, two = (event["digest"] for event in found if event["kind"] == "reads")
    assert one != two
    first, again, more = (event["order"] for event in found if event["kind"] == "listing")
    assert first == again != more
    assert [os.path.basename(e["what"]) for e in found if e["kind"] == "writes"] == ["data", "new"]


def test_a_large_file_has_the_digest_of_its_parts(tmp_path: Path) -> None:
    """Its size, its beginning and its end count; a file of one byte more than a small one too."""
    file, found = tmp_path / "data", []
    for size in (SMALL_FILE, SMALL_FILE + 1, 1 << 20):
        for place in (None, 0, size - 1):
            data = bytearray(size)
            if place is not None:
                data[place] = 1
            file.write_bytes(data)
            found.append(_facts_of(str(file), None)["digest"])
    assert len(set(found)) == len(found)


EARLY = """
import importlib.util, os, sys
print("numpy" in sys.modules)
os.listdir(".")
print(importlib.util.find_spec("numpy.random") is not None, "numpy.random" in sys.modules)
import numpy.random
numpy.random.rand()
"""


def test_what_the_script_has_not_imported_is_not_there(tmp_path: Path) -> None:
    """NumPy is not imported for the script; what it only looked for is watched once it comes."""
    assert run(tmp_path, EARLY) == "False\nTrue False\n"
    assert any(event["what"] == "numpy.random.rand()" for event in events(tmp_path))


CHILDREN = """
import os, subprocess, sys
os.environ["PYTHONPATH"] = "elsewhere"
ask = [sys.executable, "-c", "import os; print(os.environ.get('PYTHONPATH'))"]
for env in (None, {"A": "b"}, {b"PYTHONPATH": b"there"}):
    subprocess.run(ask, env=env, check=True)
os.waitpid(os.posix_spawn(ask[0], ask, {}), 0)
print(os.environ["PYTHONPATH"], sys.stdout.flush())
os.environ.clear()
subprocess.run(ask, check=True)
subprocess.run([ask[0], "-W", "ignore", "-I", *ask[1:]], check=True)
os.execve(ask[0], ask, env={})
"""


def test_children_with_another_environment_are_recorded(tmp_path: Path) -> None:
    """Whatever a script makes of the environment, what it starts is recorded, or that is said."""
    first = [f"{WATCH}:elsewhere", f"{WATCH}", f"{WATCH}:there", f"{WATCH}"]
    printed = run(tmp_path, CHILDREN).split()
    assert printed == [*first, "elsewhere", "None", *[f"{WATCH}"] * 3]
    assert len(list((tmp_path / "record").glob("process-*"))) == 7
    end = json.loads((tmp_path / "record/process-1/end.json").read_text())
    assert end["problems"] == ["it started Python with -I, which cannot be recorded"]


def test_what_is_asked_often_is_counted(tmp_path: Path) -> None:
    """A place that asks thousands of times has some hundred lines; another place has its own."""
    script = "import time\nfor _ in range(5000):\n    time.time()\ntime.perf_counter()"
    run(tmp_path, script)
    found = [event for event in events(tmp_path) if event["what"] == "time.time()"]
    assert host.ENOUGH < len(found) < host.ENOUGH + 20
    assert found[-1]["times"] == 4096
    assert events(tmp_path)[-1]["what"] == "time.perf_counter()"


# Everything here prints the same with the recorder and without.
INVISIBLE = """\
import copy, inspect, pickle, types
class Timer:
    clock, draw, make = time.time, random.random, np.random.default_rng
assert Timer().clock() > 0 and Timer().draw() < 1
class Day(datetime.datetime):
    pass
class Mine(random.Random):
    def seed(self, a=None, version=2):
        super().seed(5, version)
now = datetime.datetime.now
print(type(Day.now()), type(now()), isinstance(now(), datetime.date), type(Day(2020, 1, 1)))
print(pickle.loads(pickle.dumps(Day(2020, 1, 1))), pickle.loads(pickle.dumps(now())) > Day.min)
print(Mine().random(), pickle.loads(pickle.dumps(random.Random(3))).random())
print(np.random.seed(3), random.seed(3), np.random.rand(), random.random(), np.random.choice(9))
functions = (
    *(time.time, time.strftime, os.urandom, os.getpid, uuid.uuid1, random.random, random.randint),
    *(np.random.rand, np.random.default_rng, now, random.Random.seed, threading.get_ident),
)
for function in functions:
    try:
        shown = inspect.signature(function)
    except ValueError as error:
        shown = "none"
    kinds = inspect.isbuiltin, inspect.isfunction, inspect.ismethod, inspect.isroutine, callable
    print(function.__name__, function.__qualname__, shown, len(function.__doc__ or ""))
    print([kind(function) for kind in kinds], isinstance(function, types.BuiltinFunctionType))
    again = pickle.loads(pickle.dumps(function))
    print(again.__name__, copy.deepcopy(function).__name__, copy.copy(function).__name__)
print(sorted(os.environ) == sorted(dict(os.environ)), "PATH" in os.environ, os.getenv("NO"))
"""


def test_the_script_sees_no_difference(tmp_path: Path) -> None:
    """Functions that are watched are bound, pickled, inspected and compared as they were."""
    watched = run(tmp_path, IMPORTS + INVISIBLE)
    assert watched == run(tmp_path, IMPORTS + INVISIBLE, watched=False)
    assert "none" in watched


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_use_what_is_watched(tmp_path: Path, method: str) -> None:
    """Functions of NumPy and Python are sent to other processes, and work there."""
    script = f"""
import multiprocessing, os, time
import numpy as np
if __name__ == "__main__":
    np.random.seed(0)
    with multiprocessing.get_context("{method}").Pool(1) as pool:
        print(pool.apply(np.random.rand), pool.apply(os.path.getsize, ["script.py"]))
        print(pool.apply(time.time) > 0, len(pool.apply(os.urandom, [3])))
"""
    assert run(tmp_path, script) == run(tmp_path, script, watched=False)


def test_a_function_that_is_put_around_another() -> None:
    """It is called with the same arguments, and tells before; its type cannot be set."""
    told: list[object] = []
    around = wrap.watched(len, lambda arguments, named: told.append(arguments))
    assert (around([1, 2]), told) == (2, [([1, 2],)])
    assert repr(around) == repr(len)
    with pytest.raises(TypeError):
        around.__class__ = int
