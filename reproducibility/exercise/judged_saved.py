"""What the exercises on checkpoints, on the whole run and on pitfalls ask for.

The rule: a run that is resumed in a different process ends with the bits of one that never stopped,
and may not do again what was done before.
Chapter: docs/guide/exercises.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reproducibility.exercise.bench import Bench

# The data of a run: a function of the step, which tells a run that begins again.
_BATCH = """
import numpy as np

def batch(step):
    if step < {first}:
        raise ValueError(f"step {{step}} was done before the interruption, and is done again")
    return np.random.default_rng([{data}, step]).normal(size=(8, 4)).astype(np.float32)
"""


def _run_resumed(bench: Bench, *given: Any) -> Any:
    """Note whether a run of 12 steps, saved and resumed, ends as the one that never stopped, and
    return its weights."""
    seed, other, data = bench.numbers(3)
    hidden = {f"from_{first}": _BATCH.format(first=first, data=data) for first in (0, 3, 5, 7)}
    hidden = {name: source.replace("batch", name) for name, source in hidden.items()}
    folders = [bench.folder() for _ in range(5)]

    def call(folder: str, of: int, until: int, first: int) -> tuple[Any, ...]:
        steps = (12, until) if given else (until,)
        return ("train", folder, of, *steps, f"from_{first}")

    whole, different, five, _, seven = bench.run(
        call(folders[0], seed, 12, 0),
        call(folders[1], other, 12, 0),
        call(folders[2], seed, 5, 0),
        call(folders[3], seed, 3, 0),
        call(folders[3], seed, 7, 3),
        hidden=hidden,
    )
    bench.differ("two seeds", whole, different)
    bench.differ("the weights after 5, 7 and 12 steps", five, seven, whole)
    calls = [call(folders[2], seed, 12, 5), call(folders[3], seed, 12, 7)]
    calls.append(call(folders[4], seed, 12, 0))
    once, often, again = bench.run(*calls, place="second", hidden=hidden)
    bench.same("12 steps whole, and resumed after 5", whole, once)
    bench.same("12 steps whole, and resumed after 3 and 7", whole, often)
    bench.same("12 steps in two processes", whole, again)
    return whole


def judge_resumed(bench: Bench) -> None:
    """A resumed run ends as the one that never stopped."""
    _run_resumed(bench)


def judge_checkpoint_3(bench: Bench) -> None:
    """A resumed run ends as the one that never stopped, and neither is rounded."""
    whole = _run_resumed(bench)
    full = bool(np.any(np.round(whole, 6) != whole))
    bench.holds("the digits of the weights", full, "all are kept" if full else "they are rounded")


def judge_flow_2(bench: Bench) -> None:
    """The schedule of a resumed run continues where it was."""
    _run_resumed(bench, "a schedule of its own length")


def judge_checkpoint_4(bench: Bench) -> None:
    """The best weights are those that had the smallest loss."""
    seed, other, *more = bench.numbers(6)
    bench.repeats("train", 12, seed=seed, other=other)
    for each in (seed, other, *more):
        [found] = bench.run(("train", each, 12))
        losses = np.asarray(found["losses"], np.float64)
        of_best, of_last = bench.run(("loss", found["best"]), ("loss", found["last"]))
        count = len(set(losses.tolist()))
        bench.holds(f"the losses of 12 steps, seed {each}", count == 12, f"{count} losses")
        best = int(losses.argmin())
        right = float(of_best) == losses[best]
        bench.holds(f"the best weights are of step {best}", right, f"loss {float(of_best):.6f}")
        right = float(of_last) == losses[-1]
        bench.holds("the last weights are of step 11", right, f"loss {float(of_last):.6f}")


def judge_checkpoint_6(bench: Bench) -> None:
    """What is damaged is not resumed from: the checkpoint before it is."""
    drawn = np.random.default_rng(bench.numbers(1)[0])
    for kind in ("intact", "a bit flipped", "a bit flipped", "a bit flipped", "cut short"):
        folder, weights = Path(bench.folder()), drawn.normal(size=(3, 50)).astype(np.float32)
        steps = sorted(drawn.choice(900, 3, replace=False).tolist())
        bench.run(*(("save", str(folder), *one) for one in zip(steps[:2], weights, strict=False)))
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        bench.run(("save", str(folder), steps[2], weights[2]))
        files = [p for p in folder.rglob("*") if p.is_file() and before.get(p) != p.read_bytes()]
        content = bytearray(max(files, key=lambda path: path.stat().st_size).read_bytes())
        if kind == "a bit flipped":
            content[drawn.integers(len(content) // 4, len(content))] ^= 1 << 5
        elif kind == "cut short":
            del content[len(content) * 2 // 3 :]
        max(files, key=lambda path: path.stat().st_size).write_bytes(content)
        [[step, values]] = bench.run(("newest", str(folder)), place="second")
        expected = {steps[2]: weights[2]} | ({} if kind == "intact" else {steps[1]: weights[1]})
        right = int(step) in expected and np.array_equal(values, expected[int(step)])
        seen = "the newest" if int(step) == steps[2] else "an older one"
        seen += "" if right else ", with weights that were never saved" * (kind != "intact")
        bench.holds(f"resumed from three checkpoints, the newest {kind}", right, seen)


def judge_flow_3(bench: Bench) -> None:
    """How often a run is logged changes no bit of it."""
    seed, other = bench.numbers(2)
    found = bench.repeats("train", 12, 0, seed=seed, other=other)
    more = bench.run(("train", seed, 12, 1), ("train", seed, 12, 4), ("train", seed, 11, 0))
    weights = [each["weights"] for each in (found, *more)]
    bench.same("12 steps, logged never, in each step, and every 4", *weights[:3])
    bench.differ("11 and 12 steps", weights[0], weights[3])
    counts = [len(each["logged"]) for each in (found, *more[:2])]
    bench.holds("what is logged", counts == [0, 12, 3], f"{counts} values")
    several = len({float(value) for value in more[0]["logged"]})
    bench.holds("the logged losses differ from step to step", several == 12, f"{several} of 12")


def judge_pitfalls_1(bench: Bench) -> None:
    """The second call in a process does what it would do as the first."""
    drawn = np.random.default_rng(bench.numbers(1)[0])
    one, other = drawn.normal(5, 1, (20, 3)), drawn.normal(9, 2, (20, 3))
    first, second = bench.run(("fitted", one), ("fitted", other))
    [alone] = bench.run(("fitted", other), place="second")
    bench.same("a data set after a different one, and alone", second, alone)
    for name, found, data in (("first", first, one), ("second", second, other)):
        right = np.allclose(found, data - data.mean(0))
        seen = "the data minus its mean" if right else "not the data minus its mean"
        bench.holds(f"the {name} data set", right, seen)


def judge_pitfalls_2(bench: Bench) -> None:
    """The order in which threads end does not decide in which order their results are added."""
    drawn = np.random.default_rng(bench.numbers(1)[0])
    parts = (drawn.normal(size=24) * 10.0 ** drawn.integers(-4, 1, 24)).astype(np.float32)
    delays = [[float(at % 8) / 200 for at in drawn.permutation(24)] for _ in range(4)]
    sums = bench.run(*(("total", parts, each) for each in delays))
    bench.same("the sum of 24 parts whose threads end in four orders", *sums)
    near = bool(np.isclose(float(sums[0]), parts.astype(np.float64).sum(), rtol=0, atol=2e-6))
    bench.holds("the sum", near, "near the exact sum" if near else "not near the exact sum")


def judge_pitfalls_3(bench: Bench) -> None:
    """A training with one learning rate does not depend on the rate of the one before."""
    seed, other = bench.numbers(2)
    rates = [each / 10_000 for each in bench.numbers(2, 500, 5000)]
    weights = bench.repeats("train", rates[1], 5, seed=seed, other=other)
    start, small, large = bench.run(*(("train", seed, rate, 5) for rate in (0.0, *rates)))
    bench.same("a rate after two others, and alone", weights, large)
    bench.differ("two rates", small, large)
    for rate, found in zip(rates, (small, large), strict=True):
        right = np.allclose(found, np.asarray(start) * (1 - rate) ** 5, rtol=1e-4)
        seen = "the weights of this rate" if right else "not the weights of this rate"
        bench.holds(f"5 steps with rate {rate}", right, seen)
