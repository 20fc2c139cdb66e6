"""Records of different commands: what is the same, what is not, and where that begins."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import record
from reproducibility.cli.commands import main
from reproducibility.errors import RecordDamagedError
from reproducibility.script.aligned import align_graphs, are_of_one_command, compare_aligned
from reproducibility.script.aligned_report import report_of_aligned
from reproducibility.script.descent import Descent
from reproducibility.script.drawn import page_of
from reproducibility.script.graph import CallGraph, Parent, graphs_of, shown_type
from reproducibility.script.matched import match
from reproducibility.script.reading import Event, SourceLine, processes_of
from reproducibility.script.sides import AlignedRecords
from reproducibility.script.updates import updates_of_both
from reproducibility.watch.versions_of_files import (
    CHANGED,
    digest_of_source,
    versions_of_files,
)
from tests.script.test_reading import values_in

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
gradients = as_user(lambda w, x: jnp.sin(w) * x + jnp.tanh(w - x) * jnp.cos(w), "gradients")
keeps = as_user(lambda w, x: (w * 0.9 + x, w), "step")  # it returns the old weights as well
keeps_only = as_user(lambda w, x: (w + 0 * x, w), "step")
large = as_user(
    lambda w, x: (jnp.tanh(w * 0.9 + x) * jnp.cos(w) + jnp.sin(x), jnp.sum(w * x)), "large"
)
probe = as_user(lambda p, w: jnp.cos(p) + w, "probe")
other_probe = as_user(lambda p, w: jnp.sin(p) + w, "other_probe")
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


@pytest.mark.parametrize("flags", [(), ("--aligned",)])
def test_a_data_file_that_changed_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
) -> None:
    """With the line that reads it; not one that did not change, nor what a run wrote before."""
    site = (SourceLine("train.py", 7, "load"),)

    def events(path: Path) -> list[Event]:
        own = (
            ("reads", "data.npy", path.name),
            ("reads", "kept.npy", "1"),
            ("reads", "a.py", path.name),
        )
        more = (
            ("reads", "kept.npy", "1"),
            ("writes", "log", ""),
            ("reads", "log", path.name),
            ("reads", "data.npy", "3"),
        )
        return [Event(1, kind, what, site, digest) for kind, what, digest in (*own, *more)]

    for name in "12":
        with record(tmp_path / name):
            doubled(jnp.float32(name))
    monkeypatch.setattr("reproducibility.script.inherited._events", events)
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path / "1"), str(tmp_path / "2"), "--json", *flags])
    assert ended.value.code == (3 if flags else 1)  # without updates there is no counterpart
    notes = json.loads(capsys.readouterr().out)["notes"]
    changed = "data.npy, which both read, has other contents in the second: train.py:7, in load"
    assert [each for each in notes if "other contents" in each] == [changed]


def test_what_is_added_is_no_difference(aligned: Aligned) -> None:
    """A function of another name, and an evaluation more, are the same; both are said."""
    found = aligned(train, lambda: train(renamed, each=lambda i, w: i % 2 or score(w)))
    assert (found.verdict, found.problems, found.equal) == ("same", [], 6)
    assert found.renamed == [("step", "train_step")]
    assert found.only[0] == []
    assert [(each.function, each.count) for each in found.only[1]] == [("score", 3)]
    assert "3 of score" in report_of_aligned(found)
    kinds = {kind for lanes in found.lanes for side in lanes.stretches for *_, kind in side}
    assert kinds == {"agrees", "alone"}
    assert "class='parted'" not in page_of(found, ["compare"])


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
    its_page_shows_the_update(found)


def its_page_shows_the_update(found: AlignedRecords) -> None:
    """The lanes have every call as it is to the other run, and the update of both is marked."""
    [lanes] = found.lanes
    assert lanes.calls == (12, 6)
    ours = [(0, 1, "agrees"), (1, 2, "alone"), (2, 3, "agrees"), (3, 4, "alone")]
    ours += [(n, n + 1, "alone" if n % 2 else "differs") for n in range(4, 12)]
    assert list(lanes.stretches[0]) == ours
    assert list(lanes.stretches[1]) == [(0, 2, "agrees"), (2, 6, "differs")]
    assert {mark.places for mark in lanes.marks} == {(4, 2)}
    page = page_of(found, ["compare", "a", "b"])
    tree = ElementTree.fromstring("<body>" + page.partition("<body>")[2].partition("</html>")[0])
    rects = [each for each in next(iter(tree.iter("figure"))).iter("rect") if each.get("y")]
    assert len(rects) == len(ours) + 2
    marks = [each.get("x1") for each in tree.iter("line") if each.get("class") == "mark"]
    assert marks == ["37.50%", "20.83%"]
    said = "".join(tree.itertext())
    assert "update 3 of 6, step: call 5 in A, 3 in B" in said
    assert "score" in said
    assert "reproducibility compare --html" in said


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
    assert aligned(lambda: train(keeps), lambda: train(keeps, last=keeps_only)).verdict == (
        "different"
    )


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


def returning_more() -> None:
    """Train with updates that return a mean as well."""
    w = jax.device_put(np.ones(10, np.float32))
    mean = jax.device_put(np.zeros(10, np.float32))
    for batch in BATCHES:
        w, _, mean = with_mean(w, batch, mean)


def test_more_is_returned(aligned: Aligned) -> None:
    """An update that returns the same and one array more is the same, and the array is named."""

    found = aligned(train, returning_more)
    assert (found.verdict, found.more) == ("same", ["[2] in B"])


def test_what_one_side_returns_the_other_may_compute(aligned: Aligned) -> None:
    """An update returns more, and the other side computes something of numbers of its own."""

    own = [np.full(10, 7.25 + number, np.float32) for number in range(6)]
    found = aligned(lambda: train(each=lambda i, w: doubled(own[i])), returning_more)
    assert found.verdict == "cannot be told"
    assert found.reason == "What the updates of B return is not in the other."


def test_evaluations_that_differ(aligned: Aligned) -> None:
    """An evaluation that comes to something else is a difference, though all updates agree."""
    found = aligned(
        lambda: train(each=lambda i, w: score(w)),
        lambda: train(renamed, each=lambda i, w: other_score(w)),
    )
    assert found.verdict == "different"
    assert found.first is None
    assert (found.beginnings[0].kind, found.equal) == ("program", 6)
    assert found.lanes[0].stretches[0][-1][2] == "differs"
    assert "All 6 updates come to the same; score differs" in page_of(found, ["compare"])


def test_what_may_stand_for_something_else_is_not_the_same(aligned: Aligned) -> None:
    """The last result is made otherwise, with one more argument: no call is only an addition."""

    def ended(last: Callable[[Any], Any]) -> Callable[[], Any]:
        return lambda: last(train())

    found = aligned(ended(score), ended(lambda w: probe(w, BATCHES[0])))
    assert found.verdict == "cannot be told"
    assert "Only A calls score (" in found.reason
    assert "one may stand for the other" in found.reason
    added = aligned(ended(score), ended(lambda w: (score(w), probe(w, BATCHES[0]))))
    assert added.verdict == "same"


def evaluated(of: Callable[[Any], Any], every: int = 2) -> Callable[[], Any]:
    """A training that now and then evaluates something of its weights."""
    return lambda: train(each=lambda i, w: i % every or score(of(w)))


def test_an_evaluation_of_something_else_is_no_addition(aligned: Aligned) -> None:
    """Of other weights at the same time it is a difference; at other times it is an addition."""
    start = jax.device_put(np.full(10, 2.0, np.float32))
    found = aligned(evaluated(lambda w: w), evaluated(lambda w: start * 2))
    assert (found.verdict, found.first, found.equal) == ("different", None, 6)
    assert {each.what for each in found.beginnings} == {"made by step in A, by multiply in B"}
    assert aligned(evaluated(lambda w: w), evaluated(lambda w: w, every=3)).verdict == "same"
    once_more = evaluated(lambda w: (score(w), w)[1])
    assert aligned(evaluated(lambda w: (score(w + 1), w)[1]), once_more).verdict == "different"
    assert aligned(evaluated(lambda w: w), once_more).verdict == "same"


def test_a_result_that_is_made_of_less_is_not_the_same(aligned: Aligned) -> None:
    """Both ends call the same function of a library, and one of them of a part of the weights."""
    found = aligned(lambda: jnp.sum(train()), lambda: jnp.sum(train()[1:]))
    assert found.verdict == "cannot be told"
    assert "at the same place: one may stand for the other" in found.reason


def test_a_model_that_passes_through_its_evaluation(aligned: Aligned) -> None:
    """As with Flax NNX: how often it is evaluated is no difference, what is evaluated is one."""
    update = as_user(lambda w, x: (w * 0.9 + jnp.sin(x) * w.mean() + x, jnp.sum(w * x)), "update")
    evaluate = as_user(lambda w, x: (w, jnp.sum(w - x)), "evaluate")

    def run(at: tuple[int, ...], by: float = 1.0) -> None:
        w = jax.device_put(np.ones(10, np.float32))
        for number, batch in enumerate(BATCHES):
            w, _ = update(w, batch)
            if number in at:
                w, _ = evaluate(w, np.full(10, by, np.float32))

    assert aligned(lambda: run((0, 2, 4)), lambda: run((0, 3, 5))).verdict == "same"
    assert aligned(lambda: run((0, 2, 4)), lambda: run((0, 3, 5), by=2.0)).verdict == "different"


@jax.jit
def three(w: Any, batches: Any) -> Any:
    """Make three updates in one program."""
    return jax.lax.scan(lambda w, x: step(w, x), w, batches)


@pytest.mark.parametrize(
    ("by", "verdict"), [((1, 1), "same"), ((2, 2), "different"), ((1, 2), "different")]
)
def test_updates_in_one_program(aligned: Aligned, by: tuple[int, int], verdict: str) -> None:
    """An update that does three of the other run is beside the third; all it carries on counts."""

    def compiled() -> None:
        w = jax.device_put(np.ones(10, np.float32))
        for i in (0, 1):
            w, _ = three(w, by[i] * BATCHES[3 * i : 3 * i + 3])

    assert aligned(train, compiled).verdict == verdict


scaled = as_user(lambda w, by: by * jnp.max(w), "scaled")


def test_numbers_from_the_host(aligned: Aligned) -> None:
    """An evaluation that takes another number is a difference, also if both runs know both."""
    numbers = ([2.0, 3.0], [3.0, 2.0])

    def run(first: int) -> None:
        w = train()
        for by in numbers[first]:
            scaled(w if by == numbers[first][0] else w + 1, by)

    found = aligned(lambda: run(0), lambda: run(1))
    assert (found.verdict, found.first) == ("different", None)
    assert {each.names for each in found.beginnings} == {("by",)}


def test_a_key_without_use(aligned: Aligned) -> None:
    """A seed of which only a key is made is none, and said; one that is drawn from is."""
    seeds = iter((71, 82, 71, 82))

    def idle_key() -> None:
        jax.random.split(jax.random.key(next(seeds)))
        train()

    def used_key() -> None:
        key = jax.random.key(next(seeds))
        train()
        jax.random.uniform(key, (3,))

    jax.clear_caches()  # whose types are known only if they are compiled in the record
    idle_keys = aligned(idle_key, lambda: (jax.clear_caches(), idle_key()))
    assert idle_keys.verdict == "same"
    assert "nothing is drawn from it" in idle_keys.notes[0]
    assert aligned(used_key, used_key).verdict == "different"


def test_another_loop_beside_it(aligned: Aligned) -> None:
    """A second loop leaves it open if each run has another one, and not if only one has it."""

    def run(function: Any, begins: int) -> None:
        weights: list[Any] = []
        train(large, each=lambda i, w: weights.append(w))
        p = weights[begins]
        for w in weights:
            p = function(p, w)

    found = aligned(lambda: run(probe, 1), lambda: run(other_probe, 2))
    assert found.verdict == "cannot be told"
    assert any("build on each other" in each for each in found.problems)
    assert aligned(lambda: train(large), lambda: run(probe, 1)).verdict == "same"


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


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop with an evaluation and a state of its own beside it."""
    path = tmp_path_factory.mktemp("graph") / "record"
    with record(path):
        counted = jnp.zeros(())
        w = jax.device_put(np.ones(10, np.float32))
        for i in range(6):
            g = gradients(w, BATCHES[i])
            w = moved(w, g)
            counted = counted + 1
            score(w)
    return path


@pytest.fixture(scope="module")
def graph(recorded: Path) -> CallGraph:
    """Its calls."""
    return graphs_of(*processes_of(recorded) * 2)[0]


def changed(graph: CallGraph, at: int, place: int, follow: Callable[[int], bool]) -> CallGraph:
    """Change one result, in it and in what takes it; `follow` says which calls pass that on."""
    other: dict[Parent, str] = {(at, place): "another"}
    nodes = []
    for node in graph.nodes:
        inputs = tuple(
            other.get(parent, array) if parent else array
            for parent, array in zip(node.parents, node.inputs, strict=True)
        )
        if inputs != node.inputs and follow(node.index):
            other |= {(node.index, i): f"{node.index}.{i}" for i in range(len(node.results))}
        results = tuple(other.get((node.index, i), array) for i, array in enumerate(node.results))
        nodes.append(replace(node, inputs=inputs, results=results))
    return CallGraph(graph.process, nodes)


@pytest.mark.parametrize("passed_on", ["to all", "to nothing"])
def test_no_result_of_the_training_differs_in_silence(graph: CallGraph, passed_on: str) -> None:
    """Whichever result of the loop is another one, whatever that does, they are not the same."""
    core = [node for node in graph.nodes if node.name in ("gradients", "moved", "score")]
    assert len(core) == 18
    for node in core:
        found = AlignedRecords()
        other = changed(graph, node.index, 0, lambda index: passed_on == "to all")
        align_graphs(found, graph, other)
        assert found.verdict == "different", node
        assert found.beginnings[0].one
        assert found.beginnings[0].one.index == node.index
        if passed_on == "to all" and node.name != "score" and node is not core[-2]:
            turn = core.index(node) // 3 + 1
            assert found.first
            assert found.first.numbers[0] in (turn, turn + 1)  # whichever function is the update


def test_names_and_lines_decide_nothing(graph: CallGraph) -> None:
    """All functions of other names, in other lines, with other calls between them: the same."""
    nodes = []
    for node in graph.nodes:
        program = replace(node.call.program, name=f"{node.call.program.name}_new", text="other")
        call = replace(node.call, program=program, site=(), number=2 * node.call.number)
        nodes.append(replace(node, call=call))
    found = AlignedRecords()
    align_graphs(found, graph, CallGraph(graph.process, nodes))
    assert (found.verdict, found.equal, found.only) == ("same", 6, ([], []))


def looking(function: Any, isnan: bool = False) -> Callable[[], None]:
    """A training with an evaluation beside it, of which the script looks only at what it prints."""

    def run() -> None:
        jax.clear_caches()  # whose types are known only if they are compiled in the record

        def each(i: int, w: Any) -> None:
            found = function(i)
            if isnan:
                jnp.isnan(found)
                float(found)

        train(each=each)

    return run


mean = as_user(lambda x: jnp.mean(x), "mean")
maximum = as_user(lambda x: jnp.max(x), "maximum")
best = as_user(lambda x: jnp.argmax(x), "best")
counts = as_user(lambda x: x * 2, "counts")


@pytest.mark.parametrize(
    ("functions", "isnan", "verdict"),
    [
        ([lambda i: mean(BATCHES[i] + 2), lambda i: mean(BATCHES[i] + 1)], True, "different"),
        ([lambda i: mean(BATCHES[i]), lambda i: maximum(BATCHES[i])], True, "different"),
        ([lambda i: best(BATCHES[i]), lambda i: best(BATCHES[i][::-1])], False, "different"),
        (
            [lambda i, by=by: counts(np.array([1, 2, 3, by + i], np.uint32)) for by in (0, 100)],
            False,
            "different",
        ),
    ],
    ids=["other data, only isnan agrees", "another function", "the training's data", "no keys"],
)
def test_an_evaluation_that_differs_is_not_the_same(
    aligned: Aligned, functions: list[Any], isnan: bool, verdict: str
) -> None:
    """What is printed differs, though nothing that is made of it does, or it looks like keys."""
    found = aligned(*(looking(each, isnan) for each in functions))
    assert (found.verdict, found.equal) == (verdict, 6)


def test_results_in_another_order_are_the_same_only_if_the_same_is_read(aligned: Aligned) -> None:
    """Whoever reads the first of two has another one where they are returned the other way."""
    ends = as_user(lambda w: (jnp.min(w), jnp.max(w)), "ends")
    turned = as_user(lambda w: (jnp.max(w), jnp.min(w)), "ends")

    def run(function: Any, read: int) -> Callable[[], Any]:
        return lambda: train(each=lambda i, w: float(function(w)[read]))

    assert aligned(run(ends, 0), run(turned, 1)).verdict == "same"
    found = aligned(run(ends, 0), run(turned, 0))
    assert found.verdict == "cannot be told"
    assert "results of ends come in another order (" in found.reason


def test_the_end_of_another_step_is_no_repetition(aligned: Aligned) -> None:
    """What each run does once more at its end, it does with weights of another step."""

    def run(best: int) -> None:
        weights: list[Any] = []
        train(each=lambda i, w: weights.append((w, doubled(w))))
        if best:
            doubled(weights[best][0])

    assert aligned(lambda: run(2), lambda: run(2)).verdict == "same"
    assert aligned(lambda: run(0), lambda: run(2)).verdict == "same"
    assert aligned(lambda: run(2), lambda: run(4)).verdict == "different"


def test_what_is_unknown_is_not_the_same(graph: CallGraph) -> None:
    """Results whose bits neither record has are not equal, whichever call returned them."""
    for at in (len(graph.nodes) - 2, len(graph.nodes) - 1):  # of which nothing else is made
        nodes = list(graph.nodes)
        nodes[at] = replace(nodes[at], results=("",) * len(nodes[at].results))
        found = AlignedRecords()
        align_graphs(found, CallGraph(graph.process, nodes), CallGraph(graph.process, nodes))
        assert found.verdict != "same"


def test_a_long_way_back(graph: CallGraph) -> None:
    """A thousand calls of other functions on either side are gone back through, to the host."""
    sides = []
    for name in "ab":
        nodes = [replace(graph.nodes[1], inputs=(name,), parents=(None,), results=(f"{name}0",))]
        for i in range(1, 1000):
            program = replace(nodes[0].call.program, name=f"{name}{i}")
            call = replace(nodes[0].call, program=program, number=i)
            ends = (f"{name}{i - 1}",), (f"{name}{i}",)
            nodes.append(replace(nodes[0], index=i, call=call, inputs=ends[0], results=ends[1]))
            nodes[-1] = replace(nodes[-1], parents=((i - 1, 0),))
        nodes[0] = replace(nodes[0], index=0)
        sides.append(CallGraph(graph.process, nodes))
    matched = match(*updates_of_both((sides[0], sides[1]), {}), {})
    [begins] = Descent(matched).beginnings(sides[0].nodes[-1], sides[1].nodes[-1])
    assert (begins.kind, begins.one) == ("host", sides[0].nodes[0])


def test_types_are_written_as_they_are_read() -> None:
    """Also those with an x in their names."""
    shown = [shown_type(f"1f {kind}") for kind in ("3x4xcomplex<f32>", "ui8", "2xf8E4M3FN", "")]
    assert shown == ["complex<f32>[3,4]", "u8[]", "f8E4M3FN[2]", ""]


def as_another(
    record: Path, to: Path, command: list[str], sources: dict[str, str] | None = None
) -> Path:
    """Copy a record, as if another command had made it."""
    folder = Path(shutil.copytree(record, to)) / "process-1"
    for name, more in (("start", {"command": command}), ("end", {"sources": sources or {}})):
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**values_in(path), **more}))
    return to


def test_which_records_are_aligned(recorded: Path, tmp_path: Path) -> None:
    """Those of other words and other files; which Python it was and what is temporary are none."""
    command = ["python", "train.py", "--seed", "0", "--workdir", "/tmp/dir-1-abc"]
    words = [
        command,
        ["/bin/python", *command[1:-1], "/tmp/dir-2-xyz"],
        [*command[:3], "1", *command[4:]],
        command,
        command,
        command,
    ]
    files = [{"train.py": "a"}] * 3 + [{"train.py": "b"}, {"train.py": "a", "model": "c"}, {}]
    records = [
        as_another(recorded, tmp_path / f"{number}", *each)
        for number, each in enumerate(zip(words, files, strict=True))
    ]
    told = [are_of_one_command(records[0], each) for each in records]
    assert told == [True, True, False, False, False, True]
    found = [compare_aligned(records[0], each) for each in records]
    assert {each.verdict for each in found} == {"same"}
    assert [each.has_no_effect for each in found] == [not each for each in told]
    assert found[2].commands == "--seed 0 in A, --seed 1 in B"
    assert (found[3].files, found[4].files) == ("train.py", "model")
    assert "no effect on what JAX computes" in report_of_aligned(found[2])


def test_versions_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each module of the script's own has a digest; one that changed later has none of use."""
    for name, text in (("its_model", "A = 1"), ("its_data", "B = 1")):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setattr(sys.modules[name], "__file__", str(tmp_path / f"{name}.py"), False)
    since = (tmp_path / "its_data.py").stat().st_mtime + 1
    script = str(tmp_path / "its_model.py")
    found = versions_of_files(script, since)
    assert found["its_model.py"] == found["its_model"] == digest_of_source(b"A = 1")
    assert {"jax", "numpy", "json"}.isdisjoint(found)
    os.utime(tmp_path / "its_data.py", (since + 1, since + 1))
    assert versions_of_files(script, since)["its_data"] == CHANGED


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["RECORD", "RECORD", "--aligned", "--resumed"], "expected no --resumed, got both"),
        (["RECORD", "RECORD", "--html", "RECORD/a.html"], "a file outside of what is compared"),
        (["RECORD", "none", "--aligned"], "none"),
        (["RECORD", "text", "--aligned"], "a record of a script"),
        (["RECORD", "empty", "--aligned"], "a record of a script"),
        (["empty", "empty", "--aligned"], "expected two records"),
    ],
)
def test_what_cannot_be_aligned(
    recorded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    """Each wrong input is refused in one sentence."""
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("no record")
    Path("empty").mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["compare", *(each.replace("RECORD", str(recorded)) for each in arguments)])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_a_damaged_record(recorded: Path, tmp_path: Path) -> None:
    """A byte that is another one is said, and nothing is compared."""
    other = as_another(recorded, tmp_path / "other", ["python", "other.py"])
    [path] = other.rglob("thread-*.txt")
    data = path.read_bytes()
    path.write_bytes(data.replace(b">", b"<", 1))
    with pytest.raises(RecordDamagedError):
        compare_aligned(recorded, other)
