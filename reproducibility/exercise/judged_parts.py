"""What the exercises on models, data and digests ask for.

The rule: each judge calls with numbers, names and orders that the program cannot know.
Chapter: docs/guide/exercises.md
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np

from reproducibility.exercise.bench import Bench


def judge_model_1(bench: Bench) -> None:
    """Evaluation draws nothing, and training still drops elements."""
    seed, other, step = bench.numbers(3)
    x = np.array(bench.numbers(32), np.float32).reshape(4, 8) / 1e5
    bench.repeats("train_outputs", step, x, seed=seed, other=other)
    evaluated = bench.repeats("evaluate", step, x, seed=seed, other=other)
    steps = range(step, step + 64)
    trained = bench.run(*(("train_outputs", seed, each, x) for each in steps))
    bench.differ("train_outputs in two steps", trained[0], trained[1])
    [later] = bench.run(("evaluate", seed, step + 1, x))
    bench.same("evaluate in two steps", evaluated, later)
    mean, deviation = np.mean(trained, 0), np.std(trained, 0)
    far = float(np.max(np.abs(mean - evaluated) / (deviation / np.sqrt(64) + 1e-6)))
    seen = f"at most {far:.1f} standard errors from it"
    bench.holds("evaluate is near the mean of 64 train_outputs", far < 6, seen)


def judge_model_2(bench: Bench) -> None:
    """Evaluation changes no state, and an example's output does not depend on its neighbours."""
    seed, other, number = bench.numbers(3)
    mean = bench.repeats("train", 12, 0, seed=seed, other=other)
    evaluated = bench.run(("train", seed, 12, 1), ("train", seed, 12, 5), ("train", seed, 6, 0))
    bench.same("train with evaluation in each step, every 5 steps, and never", mean, *evaluated[:2])
    bench.differ("train with 6 and 12 steps", mean, evaluated[2])
    x = np.random.default_rng(number).normal(size=(6, 4))
    whole, one = bench.run(("outputs", seed, 12, x), ("outputs", seed, 12, x[:1]))
    bench.same("the output of an example, in a batch and alone", whole[0], one[0])
    bench.differ("the outputs of different examples", *whole)


def judge_model_3(bench: Bench) -> None:
    """A model that is restored continues the stream of its dropout masks."""
    seed, other = bench.numbers(2)
    outputs = bench.repeats("outputs", 6, 0, seed=seed, other=other)
    restored = bench.run(("outputs", seed, 6, 3), ("outputs", seed, 6, 5))
    bench.same("outputs restored at steps 3 and 5, and never", outputs, *restored)
    bench.differ("the masks of different steps", *outputs)
    share = float(np.mean(np.asarray(outputs) != 0))
    bench.holds("half of the elements are kept", 0.35 < share < 0.65, f"{share:.0%} are kept")


def _shuffles(bench: Bench, tried: str, orders: list[list[int]], count: int) -> None:
    """Note whether each order is a permutation, and looks drawn."""
    right = all(sorted(order) == list(range(count)) for order in orders)
    bench.holds(f"{tried} has each example once", right, "each once" if right else "not each once")
    steps = [np.diff(order) % count for order in orders]
    share = max(float(np.mean(each == np.bincount(each).argmax())) for each in steps)
    seen = f"{share:.0%} of the neighbours are equally far apart"
    bench.holds(f"{tried} is shuffled", share < 0.3, seen)


def judge_data_1(bench: Bench) -> None:
    """The order of an epoch is a function of seed and epoch."""
    seed, epoch = bench.numbers(2)
    order = bench.repeats("order", epoch, 60, seed=seed, other=seed + 1)
    calls = [("order", seed, epoch + 1, 60), ("order", seed + 1, epoch, 60)]
    after, of_next = bench.run(*calls)
    _, late = bench.run(("order", seed + 1, epoch, 31), ("order", seed, epoch, 60))
    bench.same("an epoch's order, after a different one was drawn", order, late)
    bench.differ("the orders of two epochs", order, after)
    bench.differ("the next epoch, and this one of the next seed", after, of_next)
    _shuffles(bench, "an epoch", [list(map(int, each)) for each in (order, after)], 60)


def judge_data_2(bench: Bench) -> None:
    """Each epoch has an order of its own."""
    seed, other = bench.numbers(2)
    epochs = bench.repeats("batches", 3, seed=seed, other=other)
    [different] = bench.run(("batches", other, 3))
    orders = [np.concatenate(epoch).astype(int).tolist() for epoch in [*epochs, *different]]
    bench.differ("the orders of three epochs and of two seeds", *orders)
    _shuffles(bench, "an epoch", orders, 40)


def judge_data_3(bench: Bench) -> None:
    """The order of the files does not depend on how a folder is listed, or when each was made."""
    numbers = bench.numbers(8)
    names = [f"part{number}.csv" for number in numbers]
    contents = {
        name: [number + 5, number, number + 2]
        for name, number in zip(names, bench.shuffled(numbers), strict=True)
    }
    folders = bench.folder(), bench.folder()
    for folder in folders:
        for age, name in enumerate(bench.shuffled(names)):
            path = Path(folder, name)
            path.write_text("\n".join(map(str, contents[name])))
            os.utime(path, (10_000 * age, 10_000 * age))
    [values] = bench.run(("dataset", folders[0]))
    [backwards] = bench.run(("dataset", folders[0]), backwards=True)
    [elsewhere] = bench.run(("dataset", folders[1]), place="second", backwards=True)
    bench.same("a folder listed in one order and its reverse", values, backwards)
    bench.same("the same files in two folders", values, elsewhere)
    rows = sorted(np.asarray(values).reshape(-1, 3).astype(int).tolist())
    right = rows == sorted(contents.values())
    seen = "all values, file by file" if right else "not the values of the files"
    bench.holds("the values are those of the files", right, seen)


def judge_data_4(bench: Bench) -> None:
    """An example is augmented alike, whichever worker does it."""
    seed, other = bench.numbers(2)
    found = bench.repeats("augmented", 12, 1, seed=seed, other=other)
    more = bench.run(*(("augmented", seed, 12, workers) for workers in (2, 3, 4, 12)))
    bench.same("augmented by 1, 2, 3, 4 and 12 workers", found, *more)
    noise = np.asarray(found) - np.arange(12)[:, None]
    bench.normal("the noise", noise)
    bench.unrelated("the noise of different examples", *noise)


def judge_data_5(bench: Bench) -> None:
    """A loop that begins in the middle of an epoch reads the rest of it."""
    seed, other = bench.numbers(2)
    whole = bench.repeats("batches", 0, 20, seed=seed, other=other)
    for first in (3, 10, 13):
        parts = bench.run(("batches", seed, 0, first), ("batches", seed, first, 20))
        tried = f"steps 0 to 19, and begun again at step {first}"
        bench.same(tried, list(whole), [*parts[0], *parts[1]])
    epochs = [np.concatenate(list(whole)[at : at + 10]).astype(int).tolist() for at in (0, 10)]
    bench.differ("the orders of two epochs", *epochs)
    _shuffles(bench, "an epoch", epochs, 40)


def judge_data_6(bench: Bench) -> None:
    """An element of a pipeline is a function of seed and index, in whichever order it is read."""
    seed, other = bench.numbers(2)
    indices = list(range(24))
    found = bench.repeats("elements", indices, seed=seed, other=other)
    mixed = bench.shuffled(indices)
    [others] = bench.run(("elements", seed, mixed))
    by_index = dict(zip(mixed, list(others), strict=True))
    bench.same("elements read in a different order", list(found), [by_index[i] for i in indices])
    noise = np.asarray(found, np.float64).ravel() % 100 - 50
    bench.normal("the noise", noise)
    rounded = np.asarray(found, np.float64).ravel() // 100
    _shuffles(bench, "the pipeline", [rounded.astype(int).tolist()], 24)


def _tree_pairs(bench: Bench) -> dict[str, tuple[Any, Any, bool]]:
    """Return pairs of trees, and whether their digests are to be equal."""
    drawn = np.random.default_rng(bench.numbers(1)[0])
    w, b = drawn.normal(size=(60, 20)).astype(np.float32), np.zeros(20, np.float32)
    tree, middle, swapped = {"w": w, "b": b}, w.copy(), w[[1, 0, *range(2, 60)]]
    middle[30, 10] = np.nextafter(middle[30, 10], np.float32(9))
    return {
        "a tree and its copy": (tree, {"b": b.copy(), "w": w.copy()}, True),
        "two rows exchanged": (tree, tree | {"w": swapped}, False),
        "one ULP in the middle of 1,200 numbers": (tree, tree | {"w": middle}, False),
        "0.0 and -0.0": (tree, tree | {"b": -b}, False),
        "float32 and int32 with the same bytes": (tree, tree | {"w": w.view(np.int32)}, False),
        "the same numbers in a different shape": (tree, tree | {"w": w.reshape(20, 60)}, False),
        "a leaf with a different name": (tree, {"v": w, "b": b}, False),
        "values exchanged between names": ({"v": b, "w": b + 1}, {"v": b + 1, "w": b}, False),
        "a boundary that moves": ({"v": b[:5], "w": b[5:]}, {"v": b[:9], "w": b[9:]}, False),
    }


def judge_digest(bench: Bench) -> None:
    """A digest tells apart what differs, in each process alike."""
    cases = _tree_pairs(bench)
    pairs = itertools.chain.from_iterable((one, two) for one, two, _ in cases.values())
    calls = [("digest", tree) for tree in pairs]
    found, elsewhere = bench.run(*calls), bench.run(*calls, place="second")
    bench.same("the digests of two processes", found, elsewhere)
    two_each = itertools.batched(found, 2)
    for (case, (_, _, right)), pair in zip(cases.items(), two_each, strict=True):
        equal = pair[0] == pair[1]
        bench.holds(f"digests: {case}", equal is right, "equal" if equal else "different")
    long = max(len(str(each)) for each in found)
    bench.holds("a digest is short", long <= 128, f"at most {long} letters")
