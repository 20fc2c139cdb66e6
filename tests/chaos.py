"""Kill runs at random moments, move them to other layouts, damage their files: `make chaos`.

Prints what happened. The short form of each is in tests/test_chaos.py.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import functools
import mmap
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from reproducibility import (
    ReproducibilityError,
    Run,
    SetAsideWarning,
    TrainConfig,
    check,
    root_key,
    train,
)
from reproducibility.reference.run import LEDGER, LOCK
from reproducibility.storage.checkpoint import saved_steps
from tests.conftest import SMALL

STEPS = 4_000  # of a run that is killed twenty times
LAYOUTS = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4), (4, 1))  # processes, devices
MEETING = 10  # seconds to wait for a process that may have been killed before it came
MOVES = 4_000  # steps of a run that is moved from layout to layout
EVERY = 25  # updates between two checkpoints of a run that is killed
# Of a run that is moved: shards for eight devices, and all that is random is on.
MOVED: dict[str, Any] = {**SMALL, "shards": 8, "batch_size": 64}
DEADLINE = 120  # seconds; a process that takes longer is killed, and that is an error

# Trains, and tells after each update how far it is, in memory that outlives it.
CHILD = """
import mmap, sys
from reproducibility import TrainConfig, train
run_dir, shared, settings = sys.argv[1], sys.argv[2], eval(sys.argv[3])
with open(shared, "r+b") as file, mmap.mmap(file.fileno(), 8) as step:
    def progress(number, loss):
        step[:] = number.to_bytes(8, "little")
    train(TrainConfig(**settings), run_dir=run_dir, progress=progress)
"""


@dataclasses.dataclass
class Kill:
    """One SIGKILL: where it hit, and what it cost."""

    step: int
    """The last update that was complete."""
    committed: int
    """The newest checkpoint that was committed."""
    saving: bool
    """Whether a checkpoint was being written."""

    @property
    def repeated(self) -> int:
        """Updates that are computed twice because of it."""
        return self.step - self.committed


def settings_of(seed: int, steps: int) -> dict[str, object]:
    """Return the settings of a run to be killed."""
    return {"seed": seed, "steps": steps, "checkpoint_every": EVERY, **SMALL}


def kill_until_done(folder: Path, seed: int, steps: int, kills: int) -> list[Kill]:
    """Train a run in processes of which the first `kills` are killed at random moments.

    The last one is left alone. Every other kill waits until a checkpoint is being written.
    """
    chance, found = random.Random(seed), []
    folder.mkdir()
    shared = folder / "step"
    while True:
        shared.write_bytes(bytes(8))
        command = [sys.executable, "-c", CHILD, str(folder / "run"), str(shared)]
        child = subprocess.Popen(
            [*command, repr(settings_of(seed, steps))], stderr=subprocess.PIPE, text=True
        )
        try:
            if len(found) < kills and reach_moment(child, shared, folder, chance, len(found)):
                child.kill()
                child.wait(DEADLINE)
                found.append(state_of(folder, shared))
                continue
            _, said = child.communicate(timeout=DEADLINE)
            assert child.returncode == 0, said
            return found
        finally:
            child.kill()
            child.communicate()


def reach_moment(
    child: subprocess.Popen[str], shared: Path, folder: Path, chance: random.Random, number: int
) -> bool:
    """Wait for the moment to kill a process; say whether it is still there then."""
    if number % 7 == 3:  # while it starts: importing, locking, restoring, compiling
        time.sleep(chance.uniform(0, 4))
        return child.poll() is None
    wait(child, lambda: any(shared.read_bytes()))
    time.sleep(chance.uniform(0, 0.3))
    if number % 2:
        checkpoints = folder / "run" / "checkpoints"
        wait(child, lambda: any(checkpoints.glob(".tmp-*")))
        time.sleep(chance.uniform(0, 0.03))  # a save takes about as long
    return child.poll() is None


def wait(child: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Wait until something is so or the process has ended."""
    end = time.monotonic() + DEADLINE
    while not condition() and child.poll() is None:
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.0005)


def state_of(folder: Path, shared: Path) -> Kill:
    """Look at what a killed process left."""
    checkpoints = folder / "run" / "checkpoints"
    committed = max(saved_steps(checkpoints), default=0)
    with open(shared, "rb") as file, mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ) as step:
        reached = int.from_bytes(step[:], "little")
    saving = checkpoints.is_dir() and any(checkpoints.glob(".tmp-*"))
    return Kill(reached or committed, committed, saving)


def check_killed(folder: Path, seed: int, steps: int, kills: list[Kill]) -> None:
    """Assert what a run promises that was killed: digest, ledger, work repeated, nothing left."""
    run = Run.read(folder / "run")
    result = run.result()
    uninterrupted = train(TrainConfig(**settings_of(seed, steps)), run_dir=folder / "reference")
    assert (result.digest, result.steps) == (uninterrupted.digest, steps)
    ledgers = [folder / name / LEDGER for name in ("run", "reference")]
    assert ledgers[0].read_bytes() == ledgers[1].read_bytes()
    assert check(folder / "run").findings == ()
    begun = [line["from_step"] for line in run.attempts() if line["event"] == "start"]
    assert set(begun) <= {0, *(kill.committed for kill in kills)}
    for kill in kills:
        # One interval, and what was computed while the next checkpoint was being written.
        assert kill.repeated <= 2 * EVERY, kill


def begin(
    folder: Path, config: TrainConfig, layout: tuple[int, int]
) -> list[subprocess.Popen[str]]:
    """Start the processes of a run on a layout of processes and devices of each."""
    processes, devices = layout
    settings = {**dataclasses.asdict(config), "devices": devices}
    command = [sys.executable, "-m", "reproducibility", "train", "--run-dir", str(folder)]
    command += ["--deadline", str(MEETING)]
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, tuple) else (value,)
            command += [f"--{name.replace('_', '-')}", *map(str, values)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
    which = [
        ["--processes", str(processes), "--process-index", str(index), "--coordinator", coordinator]
        for index in range(processes)
    ]
    return [
        subprocess.Popen(
            [*command, *each], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for each in which
    ]


def move_until_done(folder: Path, config: TrainConfig, seed: int, kills: int) -> dict[str, int]:
    """Kill a run at random moments, and go on each time on another layout; count what was killed.

    One process is killed, or all at once. When one is, the others have to end by themselves.
    """
    chance, counts, layout = random.Random(seed), collections.Counter[str](), (1, 1)
    for number in range(kills + 1):
        layout = chance.choice([each for each in LAYOUTS if each != layout])
        attempts, saved = len(begun(folder)), saved_steps(folder / "checkpoints")
        children = begin(folder, config, layout)
        try:
            if number == kills:
                said = [child.communicate(timeout=10 * DEADLINE)[1] for child in children]
                assert [child.returncode for child in children] == [0] * len(children), said
                continue
            if number % 5 == 3:  # while they start, meet, restore, compile
                time.sleep(chance.uniform(0, 6))
            else:
                wait(children[0], functools.partial(has_begun, folder, attempts))
                if number % 2:  # it has got further
                    wait(children[0], functools.partial(has_saved, folder, saved))
                time.sleep(chance.uniform(0, 0.5))
            alone = chance.random() < 0.5 and len(children) > 1
            doomed = [chance.choice(children)] if alone else children
            for child in doomed:
                child.kill()
            for child in children:
                _, said = child.communicate(timeout=3 * MEETING)
                assert child.returncode == (-9 if child in doomed else 4), said
            counts["one of several" if alone else "all"] += 1
            counts[f"{layout[0]}x{layout[1]}"] += 1
        finally:
            for child in children:
                child.kill()
                child.communicate()
    return dict(counts)


def has_begun(folder: Path, attempts: int) -> bool:
    """Say whether work on a run has begun once more."""
    return len(begun(folder)) > attempts


def has_saved(folder: Path, before: list[int]) -> bool:
    """Say whether there is a newer checkpoint than before."""
    return saved_steps(folder / "checkpoints")[-1:] > before[-1:]


def begun(folder: Path) -> list[dict[str, object]]:
    """Return the lines of a run's attempts that say that work began."""
    found = Run.read(folder).attempts() if (folder / "run.json").exists() else []
    return [line for line in found if line["event"] == "start"]


def check_moved(folder: Path, config: TrainConfig) -> None:
    """Assert that a run that was moved about is the uninterrupted one of one device."""
    uninterrupted = train(config, run_dir=folder.with_name("reference"))
    assert Run.read(folder).result().digest == uninterrupted.digest
    ledgers = [path / LEDGER for path in (folder, folder.with_name("reference"))]
    assert ledgers[0].read_bytes() == ledgers[1].read_bytes()
    assert check(folder).findings == ()


def finished_run(folder: Path) -> TrainConfig:
    """Make a run of two attempts and three checkpoints, to be damaged; return what goes on."""
    config = TrainConfig(seed=7, steps=12, checkpoint_every=4, **SMALL)
    train(dataclasses.replace(config, stop_after=6), run_dir=folder)
    train(config, run_dir=folder)
    return dataclasses.replace(config, steps=14, checkpoint_every=14)


def kind_of(path: Path) -> str:
    """Return the name of a file without what differs from one checkpoint to the next."""
    return re.sub(r"[0-9a-f]{32}", "*", re.sub(r"\d{8}", "*", path.as_posix()))


def damages(run: Path, seed: int, flips: int, cuts: int) -> Iterator[tuple[Path, str, bytes]]:
    """Yield files of a run with one bit flipped, or cut short: every kind of file equally often."""
    chance = random.Random(seed)
    kinds = collections.defaultdict(list)
    for path in sorted(run.rglob("*")):
        if path.is_file() and path.name != LOCK:  # the lock is empty, and nobody reads it
            kinds[kind_of(path.relative_to(run))].append(path)
    for number in range(flips + cuts):
        path = chance.choice(kinds[sorted(kinds)[number % len(kinds)]])
        content = bytearray(path.read_bytes())
        if number < flips:
            bit = chance.randrange(8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
            what = f"bit {bit}"
        else:
            length = chance.randrange(len(content))
            del content[length:]
            what = f"cut to {length} bytes"
        yield path.relative_to(run), what, bytes(content)


def damage(seed: int, flips: int, cuts: int, *, resume_every: int = 1) -> dict[str, int]:
    """Damage a run in many places, one at a time; assert that each is seen and none believed.

    Returns how many were seen by `check`, and how the runs that went on from there ended.
    """
    counts: dict[str, int] = collections.Counter()
    with tempfile.TemporaryDirectory() as place:
        intact, damaged = Path(place) / "intact", Path(place) / "damaged"
        longer = finished_run(intact)
        expected = train(longer).digest
        assert check(intact).findings == ()
        for number, (file, what, content) in enumerate(damages(intact, seed, flips, cuts)):
            shutil.copytree(intact, damaged)
            (damaged / file).write_bytes(content)
            report = check(damaged)
            named = [finding.path for finding in report.damaged]
            assert any(file.is_relative_to(name) for name in named), (file, what, report)
            counts["seen by check"] += 1
            if number % resume_every == 0:
                ended = resumed(longer, damaged, expected)
                assert ended, (file, what)
                counts[ended] += 1
            shutil.rmtree(damaged)
    return dict(counts)


def resumed(config: TrainConfig, folder: Path, expected: str) -> str:
    """Go on with a damaged run; say how it ended, and nothing if it ended wrongly."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SetAsideWarning)
        try:
            digest = train(config, run_dir=folder).digest
        except ReproducibilityError:
            return "refused"
    if digest != expected:
        return ""
    # What is older than the newest intact checkpoint is not read.
    return "the same digest, damage set aside" if said else "the same digest, damage not read"


def orbax_alone(seed: int, flips: int) -> dict[str, int]:
    """Flip bits, one at a time, in the largest file of an Orbax checkpoint; count what it says."""
    chance, counts = random.Random(seed), collections.Counter()
    saved = {"w": jax.random.bits(root_key(seed), (4096,))}
    with tempfile.TemporaryDirectory() as place, ocp.StandardCheckpointer() as orbax:
        folder = Path(place) / "saved"
        orbax.save(folder, saved)
        orbax.wait_until_finished()
        files = [path for path in folder.rglob("*") if path.is_file()]
        file = max(files, key=lambda path: path.stat().st_size)
        content = file.read_bytes()
        for _ in range(flips):
            altered, bit = bytearray(content), chance.randrange(8 * len(content))
            altered[bit // 8] ^= 1 << bit % 8
            file.write_bytes(altered)
            try:
                same = bool((orbax.restore(folder, saved)["w"] == saved["w"]).all())
                counts["the same values" if same else "other values, no error"] += 1
            except Exception:  # whatever it raises
                counts["an error"] += 1
    return dict(counts)


def main() -> None:
    """Do both, at the same time, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--moves", type=int, default=60)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    runs, each = max(1, asked.kills // 20), 20
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pool = stack.enter_context(ThreadPoolExecutor(2))
        seeds = range(asked.seed, asked.seed + runs)
        killed = [pool.submit(kill_until_done, place / str(s), s, STEPS, each) for s in seeds]
        for seed, future in zip(seeds, killed, strict=True):
            kills = future.result()
            check_killed(place / str(seed), seed, STEPS, kills)
            print(f"run {seed}: {len(kills)} kills, {time.monotonic() - began:.0f} s", flush=True)
        found = [kill for future in killed for kill in future.result()]
    over = [kill.repeated for kill in found if kill.repeated > EVERY]
    print(f"{len(found)} kills, {sum(k.saving for k in found)} of them inside a save")
    print(
        f"updates repeated: at most {max(k.repeated for k in found)}, interval {EVERY}; "
        f"more than one interval after {len(over)} kills"
    )
    with tempfile.TemporaryDirectory() as place:
        moved = Path(place) / "run"
        config = TrainConfig(seed=asked.seed, steps=MOVES, checkpoint_every=EVERY, **MOVED)
        counts = move_until_done(moved, config, asked.seed, asked.moves)
        check_moved(moved, config)
        print(f"{asked.moves} kills, each gone on from on another layout: {counts}; one digest")
    counts = damage(asked.seed, asked.flips, asked.cuts)
    print(f"{asked.flips} flips, {asked.cuts} truncations: {counts}")
    print(f"Orbax alone, 120 flips: {orbax_alone(asked.seed, 120)}")
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
