"""A run that was stopped and resumed: what it lost is named, and a right resume is the same."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import record
from reproducibility.cli.commands import main
from reproducibility.errors import ConfigError
from reproducibility.script.lost import report_of_resumption, with_sentences
from reproducibility.script.moments import Interruptions
from reproducibility.script.parts import compare_resumed
from reproducibility.script.reading import CalledProgram, Process, SourceLine
from reproducibility.script.reprinted import difference_of_ends
from reproducibility.script.resuming import Resuming, note_starts
from reproducibility.script.resumption import Before, Resumption, begins_like, compare_process
from reproducibility.script.rounded import how_it_follows
from reproducibility.script.steps import RunOfSteps, of_one_name, run_of_steps, warming_up
from reproducibility.script.values import ResultOf, ValuedCall
from reproducibility.testing import assert_script_resumable
from reproducibility.watch.limit import StepLimit

STEPS, SAVED = 9, 5


class Moments(NamedTuple):
    """What an optimiser keeps."""

    count: jax.Array
    mu: dict[str, jax.Array]


class State(NamedTuple):
    """All that a training passes on; `shuffled` is the seed of the order of its data."""

    params: dict[str, jax.Array]
    opt_state: Moments
    ema: dict[str, jax.Array]
    key: jax.Array
    position: int
    shuffled: int


@jax.jit
def train_step(params: Any, opt_state: Moments, batch: Any, key: Any, scale: Any) -> Any:
    """Return the next parameters and moments."""

    def loss_of(p: Any) -> Any:
        kept = jax.random.bernoulli(key, 0.8, (4,))
        return (jnp.tanh(batch @ p["w"] + p["b"][None]) * kept[None] * p["c"][None] * scale).sum()

    gradient = jax.grad(loss_of)(params)
    mu = jax.tree.map(lambda m, g: 0.9 * m + g, opt_state.mu, gradient)
    rate = 0.1 / (1 + opt_state.count.astype(jnp.float32))
    params = jax.tree.map(lambda p, m: p - rate * m, params, mu)
    return params, Moments(opt_state.count + 1, mu)


@jax.jit
def ema_update(ema: Any, params: Any) -> Any:
    """Return the next average."""
    return jax.tree.map(lambda e, p: 0.9 * e + 0.1 * p, ema, params)


def first_state() -> State:
    """Return what a training begins with."""
    params = {"w": jax.random.normal(jax.random.key(0), (3, 4)), "b": jnp.linspace(0, 1, 4)}
    params["c"] = params["b"] + 1
    moments = Moments(jnp.int32(0), jax.tree.map(jnp.zeros_like, params))
    return State(params, moments, params, jax.random.key(1), 0, 0)


def train(state: State, steps: int) -> State:
    """Train with batches whose order is drawn on the host."""
    params, opt_state, ema, key, position, shuffled = state
    data = np.random.default_rng(9).normal(size=(64, 3)).astype("f")
    order = np.random.default_rng(shuffled).permutation(64)
    for number in range(steps):
        batch = data[order[(position + number) * 4 :][:4]]
        key, sub = jax.random.split(key)
        params, opt_state = train_step(params, opt_state, batch, sub, np.float32(2))
        ema = ema_update(ema, params)
    jax.block_until_ready(params)
    return State(params, opt_state, ema, key, position + steps, shuffled)


def from_disk(state: State) -> State:
    """Return a state as a checkpoint gives it back: arrays that no recorded call made."""

    def again(array: Any) -> Any:
        if not isinstance(array, jax.Array):
            return array
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(np.asarray(jax.random.key_data(array)))
        return jax.device_put(np.array(array))

    return jax.tree.map(again, state)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record a run that was never stopped."""
    path = tmp_path_factory.mktemp("whole") / "record"
    with record(path):
        train(first_state(), STEPS)
    return path


def resumed(whole: Path, folder: Path, fault: Callable[[State], State], steps: int) -> Resumption:
    """Compare a run that takes up what was saved after step 5, with a fault."""
    saved = train(first_state(), SAVED)
    with record(folder / "record"):
        train(fault(from_disk(saved)), steps)
    return compare_resumed(whole, folder / "record")


def cast(state: State) -> State:
    """Keep the parameters with fewer bits for a while."""
    params = {
        name: each.astype(jnp.bfloat16).astype(each.dtype) for name, each in state.params.items()
    }
    return state._replace(params=params)


def swapped(state: State) -> State:
    """Exchange two arrays of one shape."""
    params = state.params
    return state._replace(params={**params, "b": params["c"], "c": params["b"]})


def test_a_right_resume_is_the_same(whole: Path, tmp_path: Path) -> None:
    """All that follows is compared, to the end of the whole run."""
    found = resumed(whole, tmp_path, lambda state: state, STEPS - SAVED)
    assert (found.verdict, found.step) == ("same", "train_step")
    assert found.continues_at == SAVED + 1
    assert found.compared >= 2 * (STEPS - SAVED)


def test_a_number_of_python_equals_the_array_that_it_becomes(tmp_path: Path) -> None:
    """A counter that begins as a number, is an array later, and is restored as a number."""
    double = jax.jit(lambda i, x, yes: (i + 1, x * 2, yes))
    with record(tmp_path / "whole"):
        i, x, yes = double(0, 0.1, True)
        for _ in range(3):
            i, x, yes = double(i, x, yes)
    with record(tmp_path / "resumed"):
        i, x, yes = double(2, float(np.float32(0.1) * 4), True)
        double(i, x, yes)
    found = compare_resumed(tmp_path / "whole", tmp_path / "resumed")
    assert (found.verdict, found.continues_at) == ("same", 3), found.reason


# What is planted, how many steps follow, and what the report says.
FAULTS: dict[str, tuple[Callable[[State], State], int, list[str]]] = {
    "moments": (
        lambda s: s._replace(opt_state=first_state().opt_state),
        4,
        ["params     the value of call 6", "opt_state equals what it was before step 1"],
    ),
    "counter": (
        lambda s: s._replace(opt_state=s.opt_state._replace(count=jnp.int32(0))),
        4,
        ["opt_state.mu     the value of call 6", "opt_state.count equals what it was before step"],
    ),
    "key": (lambda s: s._replace(key=jax.random.key(1)), 4, ["key: as in step 1 again"]),
    "data": (
        lambda s: s._replace(position=3),
        4,
        ["batch      the value of call 4", "batch is 2 steps behind the state"],
    ),
    "twice": (lambda s: s._replace(position=4), 5, ["that of call 5 is used twice"]),
    "skipped": (lambda s: s._replace(position=6), 3, ["that of call 6 is left out"]),
    "epoch": (lambda s: s._replace(shuffled=1), 4, ["batch      not seen in the whole run"]),
    "bfloat16": (
        cast,
        4,
        ["params     not seen in the whole run", "was made by convert_element_type"],
    ),
    "average": (
        lambda s: s._replace(ema=s.params),
        4,
        ["that call of ema_update", "ema  the value of params of call 5"],
    ),
    "average_at_start": (
        lambda s: s._replace(ema=first_state().ema),
        4,
        ["ema equals what it was before step 1: not restored", "in train: ema = ema_update"],
    ),
    "state": (
        lambda s: s._replace(params=first_state().params, opt_state=first_state().opt_state),
        4,
        ["all that a step passes on equals what it was before step 1"],
    ),
    "swapped": (
        swapped,
        4,
        [
            "params['b']  the value of params['c'] of call 6",
            "params['b'] and params['c'] are swapped: those of call 6",
        ],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_a_resumed_run_lost_is_named(whole: Path, tmp_path: Path, name: str) -> None:
    """The argument that was lost is named with the call whose value it has, and no other is."""
    fault, steps, said = FAULTS[name]
    found = resumed(whole, tmp_path, fault, steps)
    report = report_of_resumption(found)
    assert found.verdict == "different", report
    for each in said:
        assert each in report, report
    if found.beside is None:
        assert any(each.kind == "every" and each.name == "scale" for each in found.inputs)


def test_a_run_that_began_from_zero_is_not_the_same(whole: Path, tmp_path: Path) -> None:
    """A second start that repeats the whole run has resumed nothing."""
    found = resumed(whole, tmp_path, lambda _: first_state(), STEPS)
    assert (found.verdict, found.exit_code) == ("cannot be told", 3)
    assert "began from zero" in found.reason


@pytest.mark.parametrize("flag", [(), ("--resumed",)])
def test_two_records_are_compared_as_a_resumed_run(
    whole: Path, tmp_path: Path, flag: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """With --resumed a second start is the same, which is another run without."""
    resumed(whole, tmp_path, lambda state: state, STEPS - SAVED)
    with pytest.raises(SystemExit) as end:
        main(["compare", str(whole), str(tmp_path / "record"), *flag])
    assert end.value.code == (0 if flag else 1), capsys.readouterr().out


def test_a_run_that_ends_too_early_is_different(whole: Path, tmp_path: Path) -> None:
    """A resumed run that makes fewer steps than were left is not the same."""
    found = resumed(whole, tmp_path, lambda state: state, STEPS - SAVED - 1)
    assert found.verdict == "different"
    assert "ends 1 step (" in found.reason
    assert "was it asked for as many" in report_of_resumption(found)


def test_a_step_with_other_arrays_is_different(tmp_path: Path) -> None:
    """A resumed run that calls its step with fewer arrays is no run without steps."""

    def run(folder: Path, more: tuple[Any, ...]) -> Path:
        @jax.jit
        def update(x: Any, *unused: Any) -> Any:
            return x + sum(unused)

        with record(folder):
            x = jnp.zeros(3)
            for _ in range(3):
                x = update(x, *more)
        return folder

    whole = run(tmp_path / "whole", (jnp.ones(3), jnp.ones(3)))
    found = compare_resumed(whole, run(tmp_path / "resumed", (jnp.ones(3),)))
    assert found.verdict == "different"
    assert found.reason == (
        "update takes 3 arrays in the whole run, 2 in the resumed; "
        "only the whole run has unused[1]."
    )


def test_what_other_threads_compute_is_never_called_the_same(whole: Path, tmp_path: Path) -> None:
    """Only the thread of the step function is compared: what another one computes is not known."""
    saved = from_disk(train(first_state(), SAVED))
    with record(tmp_path / "record"):
        train(saved, STEPS - SAVED)
        thread = threading.Thread(target=ema_update, args=(np.float32(1), np.float32(2)))
        thread.start()
        thread.join()
    found = compare_resumed(whole, tmp_path / "record")
    assert (found.verdict, found.difference) == ("cannot be told", "")
    assert "in other threads, 1 call of JAX" in found.problems[0]


@pytest.mark.parametrize("lost", [False, True])
def test_a_whole_loop_is_one_program(tmp_path: Path, *, lost: bool) -> None:
    """The carried state decides, where a resumed run makes fewer steps in its one call."""

    def body(state: Any, x: Any) -> Any:
        w, m = state
        m = 0.9 * m + x * w
        return (w - 0.1 * m, m), w.sum()

    @jax.jit  # compiled in this test: what was compiled before it began has no text in a record
    def whole_loop(state: Any, batches: Any) -> Any:
        return jax.lax.scan(body, state, batches)

    batches = np.linspace(0, 1, 24, dtype="f").reshape(8, 3)
    start = (jnp.ones(3), jnp.zeros(3))
    with record(tmp_path / "whole"):
        jax.block_until_ready(whole_loop(start, batches))
    with record(tmp_path / "part"):
        (w, m), _ = whole_loop(start, batches[:5])
    w, m = (jax.device_put(np.array(each)) for each in (w, start[1] if lost else m))
    with record(tmp_path / "resumed"):
        jax.block_until_ready(whole_loop((w, m), batches[5:]))
    found = compare_resumed(tmp_path / "whole", tmp_path / "resumed")
    report = report_of_resumption(found)
    assert found.verdict == ("different" if lost else "same"), report
    assert ("only the ends are compared" in report) == (not lost)
    assert ("state[1]  the value of call 1" in report) == lost


def test_what_a_thread_made_is_called_by_its_own_line(tmp_path: Path) -> None:
    """A thread that works ahead is compared where its results are taken, and named as the maker."""

    def run(begin: int, odd: int) -> None:
        made: dict[int, Any] = {}

        def feed() -> None:
            for i in range(begin, 6):
                made[i] = ema_update({"x": np.float32(i + (i == odd) / 2)}, {"x": np.float32(1)})

        thread = threading.Thread(target=feed, name="feeder")
        thread.start()
        thread.join()
        state = (jnp.full(3, 2.0**-begin), jnp.zeros(3))
        for i in range(begin, 6):
            state = halve(state, made[i]["x"])

    with record(tmp_path / "whole"):
        run(0, -1)
    with record(tmp_path / "right"):
        run(3, -1)
    with record(tmp_path / "wrong"):
        run(3, 4)
    same = compare_resumed(tmp_path / "whole", tmp_path / "right")
    assert (same.verdict, same.continues_at) == ("same", 4), same.reason
    found = compare_resumed(tmp_path / "whole", tmp_path / "wrong")
    assert (found.verdict, found.continues_at) == ("different", 4)
    assert "was made by ema_update" in report_of_resumption(found)


@jax.jit
def halve(state: Any, x: Any) -> Any:
    """Return half of the state; x is used, and changes nothing."""
    return jax.tree.map(lambda each: each * 0.5 + 0 * x, state)


def test_where_nothing_was_compared_nothing_is_the_same() -> None:
    """Without a compared call there is no verdict but that."""
    assert Resumption().verdict == "cannot be told"
    assert replace(Resumption(), compared=3).verdict == "same"


# A training that saves every third step; what is lost is said by its arguments.
SCRIPT = """\
import pickle, signal, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
folder, words = Path(sys.argv[1]), sys.argv[2:]
saved = folder / "saved"
step = jax.jit(lambda w, m, x: (w - 0.1 * (0.9 * m + x * w), 0.9 * m + x * w))
w, m, begin = jnp.ones(3), jnp.zeros(3), 0
if "--resume" in words and saved.exists():
    w, m, begin = pickle.loads(saved.read_bytes())
if "--deaf" in words:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "--half" in words and begin:
    w = jnp.asarray(w, jnp.bfloat16).astype(jnp.float32)
for i in range(begin, 8):
    w, m = step(w, jnp.zeros(3) if "--lose" in words and i == begin else m, np.float32(i + 1))
    if i % 3 == 2 and "--keep-nothing" not in words:
        saved.write_bytes(pickle.dumps((np.asarray(w), np.asarray(m), i + 1)))
    if "--stop" in words and i == 4:
        sys.exit()
print("end", w)
"""


def interrupt(folder: Path, *words: str) -> dict[str, Any]:
    """Return what `interrupt --json` says of the script, with its exit code and stderr."""
    (folder / "train.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "reproducibility", "interrupt", "--json", *words]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=240
    )
    found = json.loads(done.stdout) if done.stdout else {}
    return {**found, "code": done.returncode, "stderr": done.stderr}


def script(*words: str) -> list[str]:
    """Return what comes after the options."""
    return ["--", sys.executable, "train.py", "{dir}", *words]


def test_a_script_that_is_killed_and_resumes(tmp_path: Path) -> None:
    """It is killed in the middle of a step, and the steps since the checkpoint are compared too."""
    found = interrupt(tmp_path, "--at", "6", "--resume=--resume", "--keep", "kept", *script())
    assert (found["code"], found["verdict"], found["continues_at"]) == (0, "same", 4)
    assert found["resumed_steps"] == 5
    assert found["stderr"].count("end ") == 2
    part = run_of_steps(tmp_path / "kept/part-1", "the first part")
    assert part is not None
    assert len(part.steps) == 5


def test_a_script_that_loses_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An assertion fails with the report; it is interrupted twice, and the first resume loses."""
    (tmp_path / "train.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError) as error:
        assert_script_resumable(script()[1:], at=5, times=2, resume="--resume --lose")
    assert "m  the value of call 1" in str(error.value)
    assert "after the first interruption" in str(error.value)


@pytest.mark.long
@pytest.mark.nightly
def test_a_script_that_stops_by_itself(tmp_path: Path) -> None:
    """Nothing is killed then; what is lost is named as well."""
    found = interrupt(tmp_path, "--stop=--stop", "--resume=--resume --lose", *script())
    assert (found["code"], found["verdict"]) == (1, "different")
    assert [each["calls"] for each in found["inputs"]] == [[4], [1], [4]]


@pytest.mark.long
@pytest.mark.nightly
def test_a_script_that_is_interrupted_three_times(tmp_path: Path) -> None:
    """The moments are drawn, and the same seed draws them again."""
    found = interrupt(tmp_path, "--times", "3", "--seed", "5", "--resume=--resume", *script())
    assert (found["code"], found["verdict"]) == (0, "same"), found["stderr"]
    ends = Interruptions(0, 3, 5).steps(8, "step")
    assert found["starts_continue_at"] == [(end - 1) // 3 * 3 + 1 for end in ends]
    assert Interruptions(0, 3, 5).steps(8, "step") == Interruptions(0, 3, 5).steps(8, "step")


def test_moments_are_spread_or_drawn() -> None:
    """The first is the one that was asked for; those that are drawn are never the first step."""
    assert Interruptions(22, 3).steps(40, "step") == [22, 28, 34]
    assert all(1 not in Interruptions(0, 3, seed).steps(4, "step") for seed in range(20))
    assert len({tuple(Interruptions(0, 2, seed).steps(40, "step")) for seed in range(20)}) > 10
    with pytest.raises(ConfigError, match="at most 3 from there on"):
        Interruptions(6, 4).steps(8, "step")


def test_without_a_step_a_run_is_interrupted_halfway() -> None:
    """Who names no step gets one in the middle, or several apart, and never the first."""
    assert Interruptions().steps(24, "step") == [13]
    assert Interruptions(0, 3).steps(24, "step") == [7, 13, 19]
    for of, times in ((2, 1), (3, 2), (8, 7)):
        assert Interruptions(0, times).steps(of, "step") == list(range(2, times + 2))
    with pytest.raises(ConfigError, match="at most 7"):
        Interruptions(0, 8).steps(8, "step")


@pytest.mark.parametrize(
    ("fault", "own"), [(lambda s: s, 3), (lambda s: s._replace(key=jax.random.key(1)), 2)]
)
def test_a_start_is_ended_in_a_step_of_the_whole_run(
    whole: Path, tmp_path: Path, fault: Callable[[State], State], own: int
) -> None:
    """Step 8 is the third of a start that continues at 6; who continues at none is ended too."""
    saved, answered = train(first_state(), SAVED), tmp_path / "record" / "until.txt"
    run = run_of_steps(whole, "the whole run")
    assert run is not None
    resuming = Resuming(run, until=8, before=8)
    (tmp_path / "record").mkdir()
    resuming.answer(tmp_path / "record")
    assert not answered.exists()  # nothing is known yet
    (tmp_path / "record").rmdir()
    with record(tmp_path / "record"):
        train(fault(from_disk(saved)), 1)
    resuming.answer(tmp_path / "record")
    assert (resuming.own, answered.read_text()) == (own, str(own))
    asking = StepLimit("?2 1 step", tmp_path / "record")
    step: Any = SimpleNamespace(name="step", kept=None, mutable=())
    assert [asking.has_come(step, [0]) for _ in range(4)].index(True) + 1 == own


@pytest.mark.parametrize(
    ("starts", "until", "said"),
    [
        ([11, 21], [13, 22], "The starts resumed at calls 11, 21 of the whole run."),
        (
            [101, 101, 101],
            [150, 160, 170],
            "All 3 starts resumed at call 101. Checkpoints that are saved after call 170 were not "
            "tried: ask with --at 400.",
        ),
        ([101, 101], [150, 400], "All 2 starts resumed at call 101."),
    ],
)
def test_checkpoints_that_were_not_tried_are_said(
    starts: list[int], until: list[int], said: str
) -> None:
    """Where a run resumed is in the sentence of the verdict, and in the JSON."""
    found = Resumption("step", whole_steps=400, continues_at=starts[-1], compared=9, starts=starts)
    note_starts(found, until)
    assert found.reason.endswith(f"agree with the whole run. {said}")
    assert found.to_json()["starts_continue_at"] == starts


LINES = ["loading", *(f"step {n} loss {n / 7:.4f}" for n in range(20)), "done"]
START = ["loading", "restored step 12"]


@pytest.mark.parametrize(
    ("printed", "differs"),
    [
        ([*START, *LINES[13:]], None),
        ([*START, *LINES[13:15], "step 14 loss 0.1", *LINES[16:]], "step 14 loss 0.1"),
        ([*START, *LINES[13:15], "saved", *LINES[15:]], "saved"),
        ([*START, *LINES[13:15], *LINES[16:]], LINES[14]),
        ([*START, *LINES[13:-1], "finished"], "finished"),
        ([*LINES[13:]], None),
    ],
)
def test_what_a_resumed_run_prints(printed: list[str], differs: str | None) -> None:
    """A line of the loop that differs, comes more or is lacking; what a start says is its own."""
    found = difference_of_ends(LINES, printed)
    assert (found and found[1]) == differs


@pytest.mark.long
@pytest.mark.nightly
def test_a_script_that_rounds(tmp_path: Path) -> None:
    """What was never seen is said to be the right value, rounded; further runs kept both."""
    found = interrupt(tmp_path, "--stop=--stop", "--resume=--resume --half", *script())
    assert (found["code"], found["verdict"]) == (1, "different")
    assert found["rounded"] == ["w: equal to what it was in call 4, rounded to bfloat16"]


class OneInput:
    """A call that was kept, with one input."""

    def __init__(self, array: Any) -> None:
        self._array = np.asarray(array)

    def array(self, what: str, place: int) -> Any:
        """Return it."""
        assert (what, place) == ("input", 0)
        return self._array


@pytest.mark.parametrize(
    ("right", "got", "words"),
    [
        (np.float32([0.1, 7e5]), np.float32([0.1, 7e5]).astype("bfloat16"), "to bfloat16"),
        (np.float32([0.1, 7]), np.float32([0.1, 7]).astype("f2"), "to float16"),
        (np.float32([0.1, 7]), np.float32([0.1, 7.5]), ""),
        (np.float32([0.5, 7]), np.float32([0.5, 7]), ""),
        (np.int32([3, 1, 2]), np.int32([1, 2, 3]), "in another order"),
        (np.float32([0.1]), np.float64([0.1]), ""),
    ],
)
def test_how_a_value_follows_from_another(right: Any, got: Any, words: str) -> None:
    """Only what is so in every element is said."""
    got = got.astype(right.dtype) if got.dtype != np.float64 else got
    kept: list[Any] = [OneInput(right), OneInput(got)]
    found = how_it_follows(kept[0], kept[1], 0)
    assert words in found
    assert bool(words) == bool(found)


@pytest.mark.long
def test_a_script_that_saves_nothing(tmp_path: Path) -> None:
    """Its second start begins from zero, in these words."""
    found = interrupt(tmp_path, "--at", "6", "--resume=--resume", *script("--keep-nothing"))
    assert (found["code"], found["verdict"]) == (3, "cannot be told")
    assert "began from zero" in found["reason"]


@pytest.mark.long
@pytest.mark.nightly
def test_a_script_that_ignores_the_signal(tmp_path: Path) -> None:
    """It goes on to its end, in these words."""
    found = interrupt(tmp_path, "--at", "6", "--signal", "TERM", *script("--deaf"))
    assert (found["code"], found["verdict"]) == (3, "cannot be told")
    assert "ignores the signal" in found["reason"]


REFUSED = {
    "no_directory": (
        ["--at", "2", "--", sys.executable, "train.py"],
        "sh -c 'cd {dir} && python /path",
    ),
    "no_step": (["--at", "-1", *script()], "a step, from 2"),
    "two_moments": (["--random", "--at", "2", *script()], "no other moment"),
    "no_times": (["--at", "2", "--times", "0", *script()], "1 or more"),
    "no_signal": (["--at", "2", "--signal", "LOUD", *script()], "name of a signal"),
    "open_quote": (["--at", "2", "--resume='", *script()], "as in a shell"),
    "no_command": (["--at", "2", "--", "no-such-command", "{dir}"], "none of that name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_run_is_refused(tmp_path: Path, name: str) -> None:
    """One sentence, before anything is run."""
    words, said = REFUSED[name]
    found = interrupt(tmp_path, *words)
    assert found["code"] == 2
    assert said in found["stderr"]
    assert found["stderr"].count("\n") == 1


def test_a_step_that_is_not_reached_is_refused(whole: Path) -> None:
    """The number of steps that the whole run makes is said; so are the functions to choose from."""
    with pytest.raises(ConfigError, match="one of the 9 calls of train_step in the whole run"):
        Interruptions(22).steps(STEPS, "train_step")
    with pytest.raises(ConfigError, match=r"called: .*ema_update"):
        run_of_steps(whole, "the whole run", "train")


MADE_IN = "train.py"


def made_run(calls: Sequence[tuple[Any, ...]], *, process: int = 1) -> RunOfSteps:
    """Return a run of made calls: of each its name, line, inputs, results, and what it takes."""
    counts: dict[int, int] = {}
    found = []
    for name, line, values, results, *more in calls:
        where = more[0] if more else 0
        counts[where] = number = counts.get(where, 0) + 1
        shapes = tuple("f32[3]" for _ in values)
        names = tuple("abcdef"[: len(values)])
        program = CalledProgram(f"jit({name})", name, "", shapes, names, (), "")
        origins = more[1] if len(more) > 1 else [None] * len(values)
        site = (SourceLine(MADE_IN, line, "<module>"),)
        call = ValuedCall(
            where, number, program, site, tuple(values), tuple(results), tuple(origins)
        )
        found.append(call)
    read = Process(Path("process-0"), {"pid": process}, {}, (), (), 0, True, False)
    steps = [each for each in found if each.program.name == "jit(step)"]
    return RunOfSteps(read, sorted(found, key=lambda each: each.thread), steps)


def a_loop(begin: int, end: int, slow: int, *, head: bool = True) -> list[tuple[Any, ...]]:
    """Return the calls of a loop with an average at the head of each turn: `slow` is its value."""
    calls: list[tuple[Any, ...]] = [("load", 1, [f"file {begin}"], [f"p{begin}"])]
    for i in range(begin, end):
        if head or i > begin:
            calls.append(
                ("ema", 5, [f"s{slow + i - begin}", f"p{i}"], [f"s{slow + i - begin + 1}"])
            )
        calls.append(("step", 6, [f"p{i}", f"b{i}"], [f"p{i + 1}"]))
    return calls


@pytest.mark.parametrize(
    ("slow", "head", "verdict"),
    [
        (4, True, "same"),
        (0, True, "different"),
        (9, True, "different"),
        (4, False, "cannot be told"),
    ],
)
def test_what_comes_before_the_first_step_is_compared(
    slow: int, verdict: str, *, head: bool
) -> None:
    """The calls at the head of the first turn belong to the resume; one that is missing is said."""
    run, other = made_run(a_loop(0, 6, 0)), made_run(a_loop(4, 6, slow, head=head), process=2)
    if not head:  # only the first turn lacks it
        other = made_run(
            [("load", 1, ["f"], ["p4"]), ("step", 6, ["p4", "b4"], ["p5"]), *a_loop(5, 6, 5)[1:]],
            process=2,
        )
    found = compare_process(run, other, Before())
    assert found.verdict == verdict, found.reason
    if verdict == "different":
        assert (found.call and found.call.program.called, found.roots[0].places) == ("ema", (0,))
        assert "at step 5" in found.reason
        assert "called in train.py:5" in report_of_resumption(found)
    if verdict == "cannot be told":
        assert found.reason == "Before the first step, ema, train.py:5, in <module> is left out."


@pytest.mark.parametrize(("line", "verdict"), [(2, "same"), (7, "cannot be told")])
def test_a_call_before_the_first_step_in_a_line_of_the_loop(line: int, verdict: str) -> None:
    """What the whole run calls in the loop, with other inputs, is never passed over."""
    loop = a_loop(0, 6, 0)
    whole = made_run([*loop[:5], ("evaluate", 7, ["p2"], ["e"]), *loop[5:]])
    own = ("evaluate", line, ["another"], ["e"])
    found = compare_process(whole, made_run([own, *a_loop(4, 6, 4)], process=2), Before())
    assert found.verdict == verdict, found.reason
    assert ("evaluate, train.py:7" in found.reason) == (verdict != "same")


@pytest.mark.parametrize(("made", "verdict"), [("k", "same"), ("other", "different")])
@pytest.mark.parametrize("side", ["whole", "resumed"])
def test_a_call_that_only_copies_may_stand_in_one_run(made: str, verdict: str, side: str) -> None:
    """A restored array is put on a device in each turn; a call that makes a value is another."""

    def turns(begin: int, *, copies: bool) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []
        for i in range(begin, 6):
            calls += [("stage", 4, ["k"], [made])] if copies else []
            calls += [("wrap", 5, ["k"], ["w"]), ("step", 6, [f"p{i}", "w"], [f"p{i + 1}"])]
        return [*calls, *([("stage", 4, ["k"], [made])] if copies else [])]

    run = made_run(turns(0, copies=side == "whole"))
    other = made_run(turns(4, copies=side == "resumed"), process=2)
    found = compare_process(run, other, Before())
    assert found.verdict == verdict, found.reason


def test_a_step_is_never_a_copy() -> None:
    """A step that changes nothing and is done twice is a difference."""
    still = [("step", 6, ["p0", f"b{i}"], ["p0"]) for i in range(4)]
    twice = made_run([*still[2:], still[3]], process=2)
    found = compare_process(made_run(still), twice, Before())
    assert found.verdict == "different", found.reason


@pytest.mark.parametrize(("last", "verdict"), [("feed", "same"), ("evaluate", "cannot be told")])
def test_what_a_thread_did_last_is_not_passed_over(last: str, verdict: str) -> None:
    """A thread may have worked ahead; anything else it did at its end is not known to be made."""

    def fed(begin: int) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []
        for i in range(begin, 6):
            calls.append(("feed", 3, [f"d{i}"], [f"b{i}"], 1))
            origins = [None, ResultOf(1, i - begin + 1, 0)]
            calls.append(("step", 6, [f"p{i}", f"b{i}"], [f"p{i + 1}"], 0, origins))
        return calls

    ahead = (last, 3 if last == "feed" else 9, ["d6"], ["b6"], 1)
    found = compare_process(made_run([*fed(0), ahead]), made_run(fed(4), process=2), Before())
    assert found.verdict == verdict, found.reason


def chained(states: Sequence[int], *, first: int = 1) -> list[tuple[Any, ...]]:
    """Return steps that take these states; one takes a result of the step before if it is new."""
    calls: list[tuple[Any, ...]] = []
    for number, state in enumerate(states, 1):
        fresh = number > 1 and state == states[number - 2] + 1
        origin = ResultOf(0, number - 1, 0) if fresh else None
        inputs = [f"p{state}", f"b{first + number}"]
        calls.append(("step", 6, inputs, [f"p{state + 1}"], 0, [origin, None]))
    return calls


def warmed_in(
    states: Sequence[int], read: set[tuple[int, int]] | None = None, like: RunOfSteps | None = None
) -> int:
    """Return how many first calls only warm up; the first argument is what is passed on."""
    run = made_run(chained(states))
    run.passed_on = [0]
    return warming_up(run, read or set(), like)


@pytest.mark.parametrize(
    ("states", "warmed"),
    [
        ([0, 0, 1, 2, 3], 1),
        ([0, 0, 0, 1, 2, 3, 4], 2),
        ([0, 1, 2, 0, 1, 2, 3], 3),  # several in a row, of copies of the state
        ([50, 0, 1, 2, 3], 1),  # of zeros
        ([0, 1, 2, 3], 0),
        ([*range(9), *range(9)], 0),  # two trainings
        ([0], 0),
    ],
)
def test_a_call_that_warms_up_is_no_step(states: list[int], warmed: int) -> None:
    """Nobody takes what it returned, and the next call has other state; a real step is taken."""
    assert warmed_in(states) == warmed


def test_a_call_whose_result_comes_back_by_way_of_the_host_is_a_step() -> None:
    """No call takes a result of it, and the next one has its values all the same."""
    calls = chained([0, 1, 2, 3])
    calls[1] = (*calls[1][:5], [None, None])
    run = made_run(calls)
    run.passed_on = [0]
    assert warming_up(run, set()) == 0


@pytest.mark.parametrize(
    ("states", "read", "warmed"),
    [
        ([0, 20, 21, 22], False, 1),  # it warms up, and then it restores
        ([0, 20, 21, 22], True, 1),  # as in the whole run, so whoever reads it reads the same
        ([7, 20, 21, 22], False, 1),
        ([7, 20, 21, 22], True, 0),
        ([0, 20, 30, 31], False, 1),  # no more often than the whole run
        ([20, 20, 21, 22], True, 1),  # it restores, and then it warms up
        ([20, 21, 22, 23], False, 0),
    ],
)
def test_a_resumed_run_warms_up_as_the_whole_run_does(
    states: list[int], warmed: int, *, read: bool
) -> None:
    """The state that it restores after it is another; a result that the host reads is a step's."""
    whole = made_run(chained([0, 0, 1, 2]))
    whole.warming, whole.steps, whole.passed_on = whole.steps[:1], whole.steps[1:], [0]
    assert warmed_in(states, {(0, 1)} if read else set(), whole) == warmed


def test_a_run_that_does_not_warm_up_has_none_that_does() -> None:
    """A first step whose results are lost is no warming up if the whole run has none of its own."""
    whole = made_run(chained([0, 1, 2, 3]))
    assert warmed_in([20, 5, 6, 7], like=whole) == 0


def test_functions_of_one_name_are_not_taken_for_one() -> None:
    """Two lines that define functions of one name are said; one of a library tells nothing."""
    run = made_run(chained([0, 1, 2]))

    def defined(*places: str) -> str:
        pairs = zip(run.steps, places, strict=True)
        steps = [
            replace(each, program=replace(each.program, where=f"<lambda> at {place}"))
            for each, place in pairs
        ]
        return of_one_name(replace(run, steps=steps))

    assert defined("a.py:1", "a.py:1", "a.py:1") == ""
    assert defined("a.py:1", "a.py:1", "site-packages/flax/nnx.py:9") == ""
    assert "a.py:1 and a.py:2: give each" in defined("a.py:1", "a.py:2", "a.py:1")


@pytest.mark.parametrize(
    ("batches", "words"),
    [("b1 b2", "b is 3 steps behind the state"), ("b1 b4", "b: the next is not that of call 3")],
)
def test_a_lag_is_told_if_the_next_steps_agree_with_it(batches: str, words: str) -> None:
    """One batch may be that of an earlier step by chance, as in another order."""

    def loop(begin: int, fed: Sequence[str]) -> list[tuple[Any, ...]]:
        return [
            (
                "step",
                6,
                [f"p{i}", batch],
                [f"p{i + 1}"],
                0,
                [ResultOf(0, n, 0) if n else None, None],
            )
            for n, (i, batch) in enumerate(enumerate(fed, begin))
        ]

    whole = made_run(loop(0, [f"b{i}" for i in range(6)]))
    found = compare_process(whole, made_run(loop(4, batches.split()), process=2), Before())
    report = report_of_resumption(found)
    assert found.verdict == "different"
    assert words in report.splitlines()


@pytest.mark.parametrize(
    ("loaded", "words"),
    [
        ("p4", "a was restored right, and used otherwise: right in load, train.py:1, in <module>"),
        ("p9", "no call before it has the right a: saved or restored wrongly, or changed"),
    ],
)
def test_a_part_was_restored_wrongly_or_used_otherwise(loaded: str, words: str) -> None:
    """The right value was there before the first step, or it was in no call."""

    def loop(begin: int, state: str) -> list[tuple[Any, ...]]:
        states = [state, *(f"p{i}" for i in range(begin + 1, 6))]
        return [
            ("step", 6, [one, f"b{i}"], [f"p{i + 1}"], 0, [ResultOf(0, i - begin, 0), None])
            for i, one in enumerate(states, begin)
        ]

    load = [("load", 1, ["f"], [loaded]), ("cast", 2, [loaded], ["q"])]
    found = compare_process(
        made_run(loop(0, "p0")), made_run([*load, *loop(4, "q")], process=2), Before()
    )
    assert found.verdict == "different"
    assert words in report_of_resumption(found)


def test_a_part_that_begins_again_every_few_steps() -> None:
    """What is zero in steps 1, 4 and 7 is not that of step 6, and may not have been restored."""

    def loop(begin: int, first: str) -> list[tuple[Any, ...]]:
        return [
            (
                "step",
                6,
                [f"p{i}", f"m{i}", first if i == begin else f"a{i % 3}"],
                [f"p{i + 1}", f"m{i + 1}", f"a{(i + 1) % 3}"],
                0,
                [ResultOf(0, i - begin, place) for place in range(3)],
            )
            for i in range(begin, 9)
        ]

    found = compare_process(made_run(loop(0, "a0")), made_run(loop(5, "a0"), process=2), Before())
    words = "c is not that of call 6, but as before step 1: not restored, or of a later step"
    assert words in report_of_resumption(found)
    assert any(words in line for line in with_sentences(found).to_json()["follows"])


def test_the_sentence_that_decides_is_in_the_report() -> None:
    """Whoever keeps stdout alone can understand it."""
    run = made_run(a_loop(0, 6, 0))
    early = compare_process(run, made_run(a_loop(4, 5, 4), process=2), Before())
    assert early.verdict == "different"
    assert report_of_resumption(early).startswith("The resumed run ends 1 step (2 calls")
    untold = Resumption(problems=["it failed", "and more"])
    assert report_of_resumption(untold).splitlines() == ["It failed.", "note: and more"]


@pytest.mark.parametrize(("saved", "agree"), [(4, True), (3, False)])
def test_another_program_with_equal_results_is_explained(saved: int, *, agree: bool) -> None:
    """A reader knows what it means: below *same*, that all results agree, and nowhere else."""
    other = made_run(a_loop(4, 6, saved), process=2)
    for each in (other.steps, other.calls):
        each[:] = [
            replace(call, program=replace(call.program, text="with a sharding"))
            if call.kind == other.step
            else call
            for call in each
        ]
    found = compare_process(made_run(a_loop(0, 6, 0)), other, Before())
    assert found.verdict == ("same" if agree else "different")
    assert ("all of its results agree" in report_of_resumption(found)) == agree
    assert "compiled another program for step" in found.notes[0]


def test_two_records_that_are_swapped() -> None:
    """A resumed run with more steps than the whole one is asked about; else it is not."""
    long, short = made_run(a_loop(0, 6, 0)), made_run(a_loop(4, 6, 4), process=2)
    assert "swapped" in report_of_resumption(compare_process(short, long, Before()))
    odd = made_run(a_loop(40, 42, 4), process=2)
    assert "swapped" not in report_of_resumption(compare_process(long, odd, Before()))


def test_a_value_that_cannot_be_read_is_not_called_another() -> None:
    """Of a mutable array nothing is known: that is said, and not that it differs."""
    run = made_run([("step", 6, ["p0", ""], ["p1"])])
    assert "takes b, whose value is not known" in begins_like(run, run)
    part = made_run([("step", 6, ["p9", "b"], ["p1"])])
    assert "differs in a; ask twice" in begins_like(
        made_run([("step", 6, ["p0", "b"], ["p1"])]), part
    )


def test_the_first_step_is_no_place_to_stop() -> None:
    """Nothing can have been saved before it."""
    with pytest.raises(ConfigError, match="Nothing can have been saved"):
        Interruptions(1, 1).steps(9, "step")
    assert Interruptions(2, 1).steps(9, "step") == [2]


@pytest.mark.parametrize("lost", [False, True])
def test_what_was_lost_before_the_first_step_is_noted(*, lost: bool) -> None:
    """Where the first step is none of the whole run, what it was made from is compared."""

    def loop(begin: int, lost: int = 0) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []
        for i in range(begin, 6):
            made = f"d{i}" + "x" * lost
            calls.append(("second", 5, [f"m{i - lost}", f"b{i}"], [made]))
            calls.append(("step", 6, [f"p{i}", made, f"b{i}"], [f"p{i + 1}"]))
        return calls

    whole, other = made_run(loop(0)), made_run(loop(4, int(lost)), process=2)
    found = compare_process(whole, other, Before())
    assert found.verdict == ("different" if lost else "same")
    noted = "before it, second, train.py:5, in <module>, takes another a than before call 5"
    assert found.notes == [noted] * lost


def test_the_line_of_a_call_that_is_left_out_is_said() -> None:
    """Where the runs call other functions, the line of the whole run's call is in the sentence."""
    whole = made_run(a_loop(0, 6, 0))
    calls = [each for each in a_loop(4, 6, 4) if each[:2] != ("ema", 5) or each[2][1] == "p4"]
    found = compare_process(whole, made_run(calls, process=2), Before())
    assert found.reason.endswith("the whole run ema, train.py:5, in <module>.")
