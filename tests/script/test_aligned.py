"""Records of different commands: what is the same, what is not, and where that begins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import record
from reproducibility.script.aligned import compare_aligned
from reproducibility.script.aligned_report import report_of_aligned
from reproducibility.script.sides import AlignedRecords

Aligned = Callable[[Callable[[], Any], Callable[[], Any]], AlignedRecords]


def as_user(function: Callable[..., Any], name: str) -> Any:
    """Compile a function under a name."""
    function.__name__ = function.__qualname__ = name
    return jax.jit(function)


step = as_user(lambda w, x: (w * 0.9 + x, jnp.sum(w * x)), "step")
renamed = as_user(lambda w, x: (w * 0.9 + x, jnp.sum(w * x)), "train_step")
slower = as_user(lambda w, x: (w * 0.8 + x, jnp.sum(w * x)), "step")
slower_renamed = as_user(lambda w, x: (w * 0.8 + x, jnp.sum(w * x)), "train_step")
idle = as_user(lambda w, x: (w + 0 * x, jnp.sum(w * x)), "step")
with_mean = as_user(lambda w, x, m: (w * 0.9 + x, jnp.sum(w * x), m * 0.5 + w), "step")
score = as_user(lambda w: jnp.max(w), "score")
other_score = as_user(lambda w: jnp.min(w), "score")
doubled = as_user(lambda w: 2 * w, "doubled")
moved = as_user(lambda w, g: w - 0.1 * g, "moved")
gradients = as_user(lambda w, x: jnp.sin(w) * x, "gradients")
BATCHES = np.arange(60, dtype=np.float32).reshape(6, 10) / 7


@pytest.fixture
def aligned(tmp_path: Path) -> Aligned:
    """Record two functions, and align the records."""

    def align(one: Callable[[], Any], other: Callable[[], Any]) -> AlignedRecords:
        numbered = len(list(tmp_path.iterdir()))
        records = [tmp_path / f"{numbered + side}" for side in (0, 1)]
        for path, do in zip(records, (one, other), strict=True):
            with record(path):
                do()
        return compare_aligned(*records)

    return align


def train(
    update: Any = step,
    order: Any = range(6),
    each: Callable[[int, Any], Any] = lambda i, w: None,
    last: Any = None,
) -> Any:
    """A loop; `each` is done after each update, and `last` is the last update."""
    w = jax.device_put(np.ones(10, np.float32))
    order = list(order)
    for number, i in enumerate(order):
        w, _ = (last if last and number == len(order) - 1 else update)(w, BATCHES[i])
        each(number, w)
    return w


def test_what_is_added_is_no_difference(aligned: Aligned) -> None:
    """A function of another name, and an evaluation more, are the same; both are said."""
    found = aligned(train, lambda: train(renamed, each=lambda i, w: i % 2 or score(w)))
    assert (found.verdict, found.problems, found.equal) == ("same", [], 6)
    assert found.renamed == [("step", "train_step")]
    assert found.only[0] == []
    assert [(each.function, each.count) for each in found.only[1]] == [("score", 3)]
    assert "3 of score" in report_of_aligned(found)


def test_the_first_update_that_differs(aligned: Aligned) -> None:
    """A batch that differs is named with its update, whatever was called in between."""
    found = aligned(
        lambda: train(each=lambda i, w: score(w)), lambda: train(order=[0, 1, 3, 2, 4, 5])
    )
    assert found.verdict == "different"
    assert found.first
    assert found.first.numbers == (3, 3)
    assert (found.first.one.call.number, found.first.two.call.number) == (4, 2)
    [begins] = found.beginnings
    assert (begins.kind, begins.names) == ("host", ("x",))
    assert "B is given A's value in call 4" in begins.what
    assert [(each.function, each.count) for each in found.only[0]] == [("score", 6)]


@pytest.mark.parametrize(("update", "name"), [(slower, "step"), (slower_renamed, "train_step")])
def test_another_program(aligned: Aligned, update: Any, name: str) -> None:
    """Equal inputs and other results are a difference, whatever the function is called."""
    found = aligned(train, lambda: train(update))
    assert found.first
    assert (found.first.numbers, found.beginnings[0].kind) == ((1, 1), "program")
    assert found.beginnings[0].two
    assert found.beginnings[0].two.name == name


def test_an_update_without_effect_is_not_the_same(aligned: Aligned) -> None:
    """What the last update was given is not what it returns: that both have it says nothing."""
    assert aligned(train, lambda: train(last=idle)).verdict == "different"


def test_updates_that_are_not_made(aligned: Aligned) -> None:
    """A run that goes on is another one, though all that both made agree."""
    found = aligned(train, lambda: train(renamed, range(4)))
    assert found.verdict == "different"
    assert found.reason == "All 4 updates that both make agree; A makes 2 more."


def by_hand(last: bool = True) -> None:
    """A loop whose updates are two functions, the second of which may be left out at the end."""
    w = jax.device_put(np.ones(10, np.float32))
    for i in range(6):
        g = gradients(w, BATCHES[i])
        if last or i < 5:
            w = moved(w, g)


def test_a_last_update_that_is_not_applied(aligned: Aligned) -> None:
    """What only the last turn lacks is no addition of the other run."""
    found = aligned(by_hand, lambda: by_hand(last=False))
    assert found.verdict != "same"


def test_more_is_returned(aligned: Aligned) -> None:
    """An update that returns the same and one array more is the same, and the array is named."""

    def more() -> None:
        w = jax.device_put(np.ones(10, np.float32))
        mean = jax.device_put(np.zeros(10, np.float32))
        for batch in BATCHES:
            w, _, mean = with_mean(w, batch, mean)

    found = aligned(train, more)
    assert (found.verdict, found.more) == ("same", ["[2] in B"])


def test_evaluations_that_differ(aligned: Aligned) -> None:
    """An evaluation that comes to something else is a difference, though all updates agree."""
    found = aligned(
        lambda: train(each=lambda i, w: score(w)),
        lambda: train(renamed, each=lambda i, w: other_score(w)),
    )
    assert found.verdict == "different"
    assert found.first is None
    assert (found.beginnings[0].kind, found.equal) == ("program", 6)


def test_nothing_in_common(aligned: Aligned) -> None:
    """Two records of unlike scripts are never the same."""

    def other() -> None:
        w = jnp.arange(3.0)
        for _ in range(4):
            w = doubled(w)

    assert aligned(train, other).verdict == "different"
    assert aligned(train, lambda: score(jnp.arange(3.0))).verdict == "cannot be told"
    assert (
        aligned(lambda: score(jnp.arange(3.0)), lambda: doubled(jnp.arange(3.0))).verdict != "same"
    )
