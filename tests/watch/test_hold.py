"""What is held is the same in each run, another one in another way, and breaks nothing."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from reproducibility.watch.hold import MOMENTS_OF_CLOCK, begin_of_clock, in_order
from tests.watch.watched import run_script

HELD = {
    "entropy": """
import multiprocessing, os, pathlib, random, secrets, sys, tempfile, threading, uuid
import numpy as np
print(bytes(multiprocessing.current_process().authkey))
print(os.urandom(3), os.getrandom(3), secrets.token_hex(3), secrets.randbelow(10**6))
print(uuid.uuid4(), uuid.uuid1(), random.Random().random(), random.SystemRandom().random())
print(random.random(), np.random.rand(), np.random.default_rng().random())
print(np.random.RandomState().rand(), np.random.SeedSequence().entropy)
print(random.seed(), random.random(), np.random.seed(), np.random.rand())
print(open("/dev/urandom", "rb").read(3), np.fromfile("/dev/urandom", np.uint8, 3))
print(pathlib.Path("/dev/random").open("rb").read(3), os.read(os.open("/dev/urandom", 0), 3))
print(os.path.basename(tempfile.mkdtemp(dir="{dir}")))
found = dict.fromkeys("abc")
draw = lambda name: found.update({name: os.urandom(3)})
threads = [threading.Thread(target=draw, args=(name,), name=name) for name in found]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(found)
""",
    "clock": """
import datetime, pickle, time
print(time.time(), time.perf_counter(), time.monotonic_ns(), time.process_time())
print(time.localtime()[:6], time.ctime(), time.strftime("%H:%M:%S"), time.clock_gettime(0))
now = datetime.datetime.now()
print(now, datetime.datetime.utcnow(), datetime.datetime.today(), datetime.date.today())
print(datetime.datetime.now(datetime.timezone.utc), pickle.loads(pickle.dumps(now)) == now)
""",
    "listing": """
import glob, os, pathlib
folder = "{data}"
print(os.listdir(folder), [e.name for e in os.scandir(folder)], glob.glob(folder + "/*"))
path = pathlib.Path(folder)
print(*([p.name for p in found] for found in (path.iterdir(), path.glob("*"), path.rglob("*"))))
print(list(os.walk(folder)))
""",
    "pid": "import os; print(os.getpid(), os.getppid())",
    "addresses": "print(id(object()), [id(object()) for _ in range(3)])",
}


def run(folder: Path, script: str, held: str) -> str:
    """Run a script with something held, and return what it prints."""
    record = folder / f"record-{len(list(folder.iterdir()))}"
    text = script.replace("{dir}", str(record)).replace("{data}", str(folder / "data"))
    variables = {"REPRODUCIBILITY_HOLD": held, "PYTHONHASHSEED": "0"}
    return run_script(folder, text, record=record, **variables)


@pytest.mark.parametrize("name", HELD)
def test_what_is_held(tmp_path: Path, name: str) -> None:
    """Two runs get the same in each line; held in another way it is another in each line."""
    (tmp_path / "data").mkdir()
    for each in ("b", "a", "d", "c"):
        (tmp_path / "data" / each).touch()
    one, again, other = (
        run(tmp_path, HELD[name], f"{name}={way}").splitlines() for way in (0, 0, 1)
    )
    assert one == again
    assert [line for line, otherwise in zip(one, other, strict=True) if line == otherwise] == []
    if name == "listing":
        assert one[0].startswith("['a', 'b', 'c', 'd'] ['a', 'b', 'c', 'd']")
    else:
        assert run(tmp_path, HELD[name], "").splitlines() != one


def test_several_things_are_held_at_once(tmp_path: Path) -> None:
    """Each is held as if it were alone."""
    script = "import os, time\nprint(time.time())\nprint(os.getpid())\nprint(os.urandom(3))"
    both = run(tmp_path, script, "clock=0,pid=1").splitlines()
    assert both[0] == run(tmp_path, script, "clock=0").splitlines()[0]
    assert both[1] == run(tmp_path, script, "pid=1").splitlines()[1]
    assert both[2] != run(tmp_path, script, "clock=0,pid=1").splitlines()[2]


def test_a_held_clock_breaks_nothing(tmp_path: Path) -> None:
    """Time passes for who looks, and for who sleeps; Python's own waiting is left alone."""
    script = """
import subprocess, threading, time, queue
begin = time.time()
while time.time() < begin + 0.1:
    pass
time.sleep(0.01)
print(time.time() - begin > 0.11, threading.Event().wait(0.01))
print(subprocess.run(["true"], timeout=60).returncode)
try:
    queue.Queue().get(timeout=0.01)
except queue.Empty:
    print("empty")
"""
    assert run(tmp_path, script, "clock=0").split() == ["True", "False", "0", "empty"]


def test_a_held_number_of_the_process_breaks_nothing(tmp_path: Path) -> None:
    """A signal to itself arrives, and a child has another number than its parent."""
    script = """
import os, signal
signal.signal(signal.SIGUSR1, lambda *_: print("heard", flush=True))
os.kill(os.getpid(), signal.SIGUSR1)
mine, (reads, writes) = os.getpid(), os.pipe()
if not os.fork():
    os.write(writes, str(os.getpid()).encode())
    os._exit(0)
os.wait()
print(int(os.read(reads, 99)) != mine)
"""
    assert run(tmp_path, script, "pid=0").split() == ["heard", "True"]


def test_one_processor(tmp_path: Path) -> None:
    """All threads of the process share one."""
    script = "import os; print(len(os.sched_getaffinity(0)))"
    assert run(tmp_path, script, "threads=0") == "1\n"


ASKED_OF_A_MOMENT: dict[str, Callable[[datetime], object]] = {
    "year": lambda now: now.year,
    "month": lambda now: now.month,
    "day of the week": lambda now: now.weekday(),
    "weekend": lambda now: now.weekday() >= 5,
    "hour": lambda now: now.hour,
    "half of the day": lambda now: now.hour < 12,
    "odd minute": lambda now: now.minute % 2,
    "odd second": lambda now: int(now.timestamp()) % 2,
    "past 2026": lambda now: now.year > 2026,
    "fraction": lambda now: now.microsecond,
}


@pytest.mark.parametrize("asked", ASKED_OF_A_MOMENT)
def test_the_ways_of_the_clock_differ(asked: str) -> None:
    """In whatever a script takes from a moment, in every time zone; the same way is the same."""
    ask = ASKED_OF_A_MOMENT[asked]
    for quarters in range(-48, 57):
        zone = timezone(timedelta(minutes=15 * quarters))
        ways = range(len(MOMENTS_OF_CLOCK))
        base, *others = (ask(datetime.fromtimestamp(begin_of_clock(way), zone)) for way in ways)
        assert any(other != base for other in others)
    assert begin_of_clock(7) != begin_of_clock(8)


def test_the_orders_of_a_listing_differ() -> None:
    """In the middle of three names, in the two at the ends and in those between, and in pairs."""
    names = ["c", "a", "d", "b", "e"]
    assert in_order(names, 0) == sorted(names)
    for ask in (
        lambda found: found[len(found) // 2],
        lambda found: {found[0], found[-1]},
        lambda found: set(found[1:-1]),
        lambda found: found[0] < found[1],
    ):
        for some in (names[:3], names):
            orders = [in_order(some, way) for way in range(5)]
            assert all(sorted(each) == sorted(some) for each in orders)
            assert any(ask(each) != ask(orders[0]) for each in orders[1:])
        assert ask(in_order(names, 0)) == ask(in_order(names[::-1], 0))
