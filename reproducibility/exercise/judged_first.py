"""What the exercises on sameness and on keys ask for.

The rule: each judge calls with numbers, names and orders that the program cannot know.
Chapter: docs/guide/exercises.md
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from reproducibility.exercise.bench import Bench


def judge_basics_1(bench: Bench) -> None:
    """The weights are a function of the seed."""
    seed, other = bench.numbers(2)
    weights = bench.repeats("start", seed=seed, other=other)
    bench.normal("start(seed)", np.concatenate([each.ravel() for each in weights]))


def judge_basics_2(bench: Bench) -> None:
    """A word has one row, in whichever process; two words have two."""
    seed, other = bench.numbers(2)
    words = [f"word{number}" for number in bench.numbers(30)]
    text = " ".join(bench.shuffled(words * 2))
    rows = bench.repeats("embed", text, seed=seed, other=other)
    by_word: dict[str, list[Any]] = {}
    for each, row in zip(text.split(), rows, strict=True):
        by_word.setdefault(each, []).append(row)
    bench.same("the two rows of each word", *map(list, zip(*by_word.values(), strict=True)))
    bench.differ("the rows of different words", *(first for first, _ in by_word.values()))
    bench.normal("the rows of all words", [first for first, _ in by_word.values()])


def judge_basics_3(bench: Bench) -> None:
    """The same means every bit, the shape and the dtype."""
    values = np.array(bench.numbers(9), np.float32)
    ulp, nan = values.copy(), np.array([1, np.nan, 2], np.float32)
    ulp[4] = np.nextafter(ulp[4], np.float32(np.inf))
    zeros, square = np.zeros(3, np.float32), values.reshape(3, 3)
    cases = {
        "an array and its copy": (values, values.copy(), True),
        "arrays with the same NaN": (nan, nan.copy(), True),
        "arrays that are one ULP apart in one place": (values, ulp, False),
        "0.0 and -0.0": (zeros, -zeros, False),
        "float32 and float64": (values, values.astype(np.float64), False),
        "ones of 3 and of 1": (np.ones(3, np.float32), np.ones(1, np.float32), False),
        "an array and its transpose": (square, square.T.copy(), False),
        "9 numbers and 3 by 3": (values, square, False),
    }
    found = bench.run(*(("same", first, second) for first, second, _ in cases.values()))
    for (case, (_, _, right)), got in zip(cases.items(), found, strict=True):
        bench.holds(f"same of {case}", bool(got) is right, f"{got}")


def judge_keys_1(bench: Bench) -> None:
    """Two layers have weights of their own."""
    seed, other = bench.numbers(2)
    weights = bench.repeats("init", seed=seed, other=other)
    [different] = bench.run(("init", other))
    for name in ("first", "second"):
        bench.normal(f"the {name} layer", weights[name])
        bench.unrelated(f"the {name} layer of two seeds", weights[name], different[name])
    bench.unrelated("the two layers", weights["first"], weights["second"])


def judge_keys_2(bench: Bench) -> None:
    """Each step has noise of its own."""
    seed, other = bench.numbers(2)
    noise = bench.repeats("noises", 5, seed=seed, other=other)
    bench.normal("the noise", noise)
    bench.unrelated("the noise of different steps", *noise)
    bench.unrelated("the noise of two seeds", noise[0], bench.run(("noises", other, 5))[0][0])


def judge_keys_3(bench: Bench) -> None:
    """The weights of a layer are a function of the seed and of its name."""
    seed, other, number = bench.numbers(3)
    name, turned = f"dense{number}a", f"{number}densea"
    weights = bench.repeats("weights", name, seed=seed, other=other)
    others = bench.run(("weights", seed, turned), ("weights", seed, f"dense{number}b"))
    bench.normal("weights(seed, name)", weights)
    bench.unrelated("the weights of three names", weights, *others)


def judge_keys_4(bench: Bench) -> None:
    """Each step drops elements of its own choice, which seed and step determine."""
    seed, other, step = bench.numbers(3)
    values = np.array(bench.numbers(400), np.float32)
    dropped = bench.repeats("drop", step, values, seed=seed, other=other)
    first, second = ("drop", seed, step, values), ("drop", seed, step + 1, values)
    one, two = bench.run(first, second)
    two_first, _ = bench.run(second, first)
    bench.differ("drop in two steps", one, two)
    bench.same("drop in a step, before and after a different one", two, two_first)
    kept = np.asarray(dropped) != 0
    share = kept.mean()
    bench.holds("half of the elements are kept", 0.35 < share < 0.65, f"{share:.0%} are kept")
    right = np.allclose(np.asarray(dropped)[kept], 2 * values[kept])
    bench.holds("what is kept is doubled", right, "doubled" if right else "not doubled")


def judge_keys_5(bench: Bench) -> None:
    """Each image of a batch gets noise of its own."""
    seed, other = bench.numbers(2)
    images = np.array(bench.numbers(6), np.float32)[:, None] * np.ones((6, 64), np.float32) / 1e5
    noise = bench.repeats("augment", images, seed=seed, other=other) - images
    bench.normal("the noise", noise)
    bench.unrelated("the noise of different images", *noise)


def judge_pattern_1(bench: Bench) -> None:
    """A layer that is added, or a different order, changes no other layer."""
    seed, other, *rest = bench.numbers(6)
    names = [f"layer{number}" for number in rest]
    weights = bench.repeats("init", names, seed=seed, other=other)
    more = bench.shuffled([*names, "added", "inserted"])
    fewer, more_weights = bench.run(("init", seed, names[2:]), ("init", seed, more))
    for name in names:
        bench.same(f"{name} alone and with layers added", weights[name], more_weights[name])
    bench.same(f"{names[3]} with two layers removed", weights[names[3]], fewer[names[3]])
    bench.unrelated("the weights of different layers", *more_weights.values())
    bench.normal("the weights", np.stack(list(more_weights.values())))


def judge_pattern_2(bench: Bench) -> None:
    """No two pairs of seed and step have the same noise."""
    seed, step = bench.numbers(2, high=50_000)
    noise = bench.repeats("noise", step, seed=seed, other=seed + 1)
    bench.normal("noise(seed, step)", noise)
    for width in (1, 10, 100, 1000, 10_000, 100_000, 1_000_000):
        pair = ("noise", seed, step + width), ("noise", seed + 1, step)
        bench.unrelated(f"seed and {width} steps more, seed + 1", *bench.run(*pair))
    bench.unrelated("seed and step exchanged", noise, *bench.run(("noise", step, seed)))


def judge_pattern_3(bench: Bench) -> None:
    """No number is drawn twice for two purposes."""
    seed, other = bench.numbers(2)
    draws = bench.repeats("draws", 4, seed=seed, other=other)
    [different] = bench.run(("draws", other, 4))
    bench.unrelated("weights and noise", draws["weights"], *draws["noise"])
    bench.unrelated("two seeds", draws["weights"], different["weights"], *different["noise"])
    bench.normal("weights", draws["weights"])
    bench.normal("noise", draws["noise"])


def judge_pattern_4(bench: Bench) -> None:
    """The noise of a step does not depend on where the loop began."""
    seed, other = bench.numbers(2)
    noise = bench.repeats("noises", 0, 6, seed=seed, other=other)
    parts = bench.run(("noises", seed, 2, 4), ("noises", seed, 4, 6), ("noises", other, 0, 6))
    for (first, last), part in zip(((2, 4), (4, 6)), parts, strict=False):
        tried = f"the noise of steps {first} to {last - 1}, begun there and at 0"
        bench.same(tried, list(noise[first:last]), list(part))
    bench.normal("the noise", noise)
    bench.unrelated("the noise of steps and of seeds", *itertools.chain(noise, parts[2]))
