"""What the exercises on scripts, the recorder, scaling out, a cluster and testing ask for.

The rule: each judge calls with numbers, orders and functions that the program cannot know.
Chapter: docs/guide/exercises.md
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

from reproducibility.exercise.bench import Bench, StoppedEarly
from reproducibility.machine.child import unused_port


def judge_script_1(bench: Bench) -> None:
    """The weights are the seed's, and each run still has a name of its own."""
    seed, other = bench.numbers(2)
    first, again, different = bench.run(("main", seed), ("main", seed), ("main", other))
    [elsewhere] = bench.run(("main", seed), place="second")
    bench.same("the weights of a seed", *(e["weights"] for e in (first, again, elsewhere)))
    bench.differ("the weights of two seeds", first["weights"], different["weights"])
    names = [each["name"] for each in (first, again, different, elsewhere)]
    bench.differ("the names of four runs", *names)
    bench.normal("the weights", first["weights"])


def _ledger(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a ledger, without the one at its head."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()[1:]]


def judge_recorder_1(bench: Bench) -> None:
    """A ledger tells which step differs first, and whether its batch or its gradients do."""
    seed, _, number = bench.numbers(3)
    folder, wrong = Path(bench.folder()), 2 + number % 4
    runs = {"none": 0, "again": 0, "batch": wrong, "gradients": wrong}
    bench.run(*(("train", str(folder / f"{n}.jsonl"), seed, at, n) for n, at in runs.items()))
    ledgers = {name: _ledger(folder / f"{name}.jsonl") for name in runs}
    steps = [line["step"] for line in ledgers["none"]]
    bench.holds("the steps of a ledger", steps == [1, 2, 3, 4, 5, 6], f"{steps}")
    bench.same("the ledgers of two equal runs", ledgers["none"], ledgers["again"])
    for name, agree in {"batch": [], "gradients": ["batch"]}.items():
        pairs = list(zip(ledgers["none"], ledgers[name], strict=True))
        stages = ("batch", "gradients", "params")
        first = next((a["step"] for a, b in pairs if any(a.get(s) != b.get(s) for s in stages)), 0)
        bench.holds(f"{name} changed at step {wrong}", first == wrong, f"differs from step {first}")
        one, two = pairs[wrong - 1]
        different = [s for s in stages if one.get(s) != two.get(s)]
        expected = [s for s in stages if s not in agree]
        seen = f"{', '.join(different) or 'nothing'} differs there"
        bench.holds(f"{name} changed: which stages differ", different == expected, seen)


def judge_scaling_1(bench: Bench) -> None:
    """The noise of an example does not depend on how many devices there are."""
    seed, other, step = bench.numbers(3)
    noise = bench.repeats("noise", step, 1, seed=seed, other=other)
    more = bench.run(*(("noise", seed, step, devices) for devices in (2, 4, 8)))
    bench.same("the noise on 1, 2, 4 and 8 devices", noise, *more)
    bench.normal("the noise", noise)
    [later] = bench.run(("noise", seed, step + 1, 4))
    bench.unrelated("the noise of examples and of steps", *noise, *later)


def judge_scaling_2(bench: Bench) -> None:
    """The mean of the shards has the same bits on any number of devices."""
    drawn = np.random.default_rng(bench.numbers(1)[0])
    scale = 10.0 ** (drawn.integers(-3, 2, 64) + drawn.integers(-1, 1, (8, 64)))
    shards = (drawn.normal(size=(8, 64)) * scale).astype(np.float32)
    means = bench.run(*(("mean", shards, devices) for devices in (1, 2, 4, 8)))
    bench.same("the mean on 1, 2, 4 and 8 devices", *means)
    exact = shards.astype(np.float64).mean(0)
    rounding = np.abs(shards).sum(0) * 2.0**-23
    far = float(np.max(np.abs(means[0] - exact) / rounding))
    bench.holds("the mean", far < 1, "near the exact one" if far < 1 else "not near the exact one")


def judge_cluster_1(bench: Bench) -> None:
    """All processes together read each example once."""
    seed, epoch = bench.numbers(2)
    bench.repeats("share", epoch, 1, 4, seed=seed, other=seed + 1)
    orders = []
    for of in (1, 2, 4):
        shares = bench.run(*(("share", seed, epoch, process, of) for process in range(of)))
        every = sorted(int(example) for share in shares for example in share)
        sizes = {len(share) for share in shares}
        right = every == list(range(48)) and len(sizes) == 1
        missing = len({*range(48)} - {*every})
        seen = "each example once" if right else f"{missing} examples are read by nobody"
        bench.holds(f"the shares of {of} processes", right, seen)
        orders.append([int(example) for example in shares[0]])
    [later] = bench.run(("share", seed, epoch + 1, 0, 4))
    bench.differ("the shares of two epochs", orders[2], list(map(int, later)))
    share = float(np.mean(np.diff(orders[0]) == 1))
    bench.holds("the order is shuffled", share < 0.3, f"{share:.0%} of them follow each other")


def judge_cluster_2(bench: Bench) -> None:
    """Two processes have the same weights, and each learns from the data of both."""
    seed, other, *data = bench.numbers(5)
    port, found = unused_port(), {}

    def work(process: int) -> None:
        calls: list[tuple[Any, ...]] = [("join", process, 2, port)]
        calls += [("train", seed, 3, process, data[process])] * 2
        calls += [("train", other, 3, process, data[process])]
        calls += [("train", seed, 3, process, data[2 * process])]
        try:
            found[process] = bench.run(*calls, place=f"process {process}")
        except StoppedEarly:
            found[process] = []

    threads = [threading.Thread(target=work, args=(process,)) for process in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in (0, 1):
        bench.forget(f"process {process}")
    if not all(found.values()):
        raise StoppedEarly("a process has ended")
    one, two = found[0][1:], found[1][1:]
    bench.same("the weights of process 0 and 1", one, two)
    bench.same("the weights of two trainings", one[0], one[1])
    bench.differ("two seeds, and other data for process 1", one[0], one[2], one[3])
    bench.holds("the weights move", bool(np.ptp(one[0]) > 0), f"from {np.min(one[0]):.2f}")


# A training that saves in a folder and continues from there.
_TRAINING = """
import pathlib
import numpy as np

def {name}(folder, steps):
    path = pathlib.Path(folder, "checkpoint.npz")
    w, v, first = np.linspace(0, 1, 4), np.zeros(4), 0
    if path.exists():
        saved = np.load(path)
        w, v, first = saved["w"], saved["v"], int(saved["step"])
    for step in range(first, steps):
        v = 0.9 * v + np.random.default_rng([{data}, step]).normal(size=4) * w
        w = w - 0.1 * v
    np.savez(path, w=w, v={saved}, step=steps - {back})
    return w
"""


def judge_testing_1(bench: Bench) -> None:
    """The test passes what resumes, and nothing else."""
    data = bench.numbers(1)[0]
    saved = {"right": "v", "forgetful": "0 * v", "rounding": "np.round(v, 7)", "repeating": "v"}
    hidden = {
        name: _TRAINING.format(name=name, data=data, saved=text, back=int(name == "repeating"))
        for name, text in saved.items()
    }
    folders = [bench.folder() for _ in hidden]
    calls = [("resumes", name, folder) for name, folder in zip(hidden, folders, strict=True)]
    for name, got in zip(hidden, bench.run(*calls, hidden=hidden), strict=True):
        right = bool(got) is (name == "right")
        bench.holds(f"resumes(a training that is {name})", right, f"{bool(got)}")


_SEEDED = {
    "right": "return np.random.default_rng(seed).normal(size=3)",
    "constant": "return np.random.default_rng(0).normal(size=3)",
    "unseeded": "return np.random.default_rng().normal(size=3)",
    "nan": "return np.random.default_rng(seed).normal(size=3) * [1, np.nan, 1]",
    "close": "return np.ones(3, np.float32) + np.float32(1e-6) * np.float32(seed % 97)",
    "often": "calls.append(0)\n    return np.random.default_rng(seed).normal(size=3) + len(calls)",
}


def judge_testing_2(bench: Bench) -> None:
    """The test passes what repeats and depends on its seed, and nothing else."""
    hidden = {
        name: f"import numpy as np\ncalls = []\ndef {name}(seed):\n    {body}"
        for name, body in _SEEDED.items()
    }
    calls = [("seeded", name) for name in hidden]
    for name, got in zip(hidden, bench.run(*calls, hidden=hidden), strict=True):
        right = bool(got) is (name in ("right", "nan", "close"))
        bench.holds(f"seeded(a training: {name})", right, f"{bool(got)}")
