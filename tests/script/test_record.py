"""Scripts of every kind, recorded in this process: nothing is missed, and no bit changes."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from reproducibility import Alignment, ConfigError, compare_records, record
from reproducibility.same.hashing import tree_digest
from reproducibility.script.reading import Call, processes_of
from reproducibility.watch import hook, prints

SCRIPTS: dict[str, Callable[[Any], Any]] = {}


def script(do: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Name a small script; it is given a perturbation, which is 0 if nothing is wrong."""
    SCRIPTS[do.__name__] = do
    return do


@script
def jitted_loop(wrong: float) -> Any:
    """A jitted step and batches of NumPy."""
    step = jax.jit(lambda w, x: (w * 0.9 + x.mean(0), (w @ w)))
    w, rng = jnp.zeros(4), np.random.default_rng(0)
    for _ in range(5):
        w, _ = step(w, np.float32(rng.normal(size=(8, 4)) + wrong))
    return w


@script
def optimiser(wrong: float) -> Any:
    """Optax, a dictionary of parameters, and typed keys."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))
    params = {"w": jax.random.normal(jax.random.key(0), (3, 3)), "b": jnp.zeros(3)}
    state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, key: jax.Array, x: Any) -> Any:
        x = x + 0.1 * jax.random.normal(key, x.shape)
        grads = jax.grad(lambda p: jnp.mean((x @ p["w"] + p["b"][None]) ** 2))(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for i in range(4):
        key = jax.random.fold_in(jax.random.key(1), i)
        params, state = step(params, state, key, np.full((2, 3), 1 + wrong, np.float32))
    return params, state


@script
def eager(wrong: float) -> Any:
    """Operations one by one."""
    x = jnp.arange(6.0) + wrong
    return jnp.sort(jnp.sin(x)[::-1]).cumsum() / 3


@script
def ahead_of_time(wrong: float) -> Any:
    """A program compiled before it is called."""
    program = jax.jit(lambda x: jnp.tanh(x) * 2).lower(jnp.ones(3)).compile()
    x = jnp.full(3, 0.5 + wrong)
    for _ in range(3):
        x = program(x)
    return x


@script
def exported(wrong: float) -> Any:
    """A program that was exported and is called."""
    shape = jax.ShapeDtypeStruct((3,), np.float32)
    again = jax.export.export(jax.jit(lambda x: x * 3 + 1))(shape)
    return again.call(again.call(jnp.full(3, 1 + wrong)))


@script
def scanned(wrong: float) -> Any:
    """A whole training in one program."""

    def body(carry: Any, x: Any) -> Any:
        carry = carry * 0.5 + x
        return carry, carry.sum()

    xs = np.arange(12, dtype=np.float32).reshape(4, 3) + np.float32(wrong)
    return jax.jit(lambda c, xs: jax.lax.scan(body, c, xs))(jnp.zeros(3), xs)


@script
def every_dtype(wrong: float) -> Any:
    """Arrays of every width."""
    found = []
    for dtype in (
        *("bool", "int8", "uint16", "int32", "float16", "bfloat16", "float32", "complex64"),
        *("int4", "uint4", "float8_e4m3fn", "float8_e5m2"),
    ):
        x = (np.arange(5) % 2 + wrong).astype(dtype)
        found.append(jax.jit(lambda x: x[::-1])(x))
        found.append(jnp.asarray(x)[1:])
    return found


@script
def wide(wrong: float) -> Any:
    """64 bits."""
    with jax.enable_x64(True):
        x = jnp.linspace(0, 1 + wrong, 5)
        return np.asarray(jax.jit(lambda x: x.cumsum() * 2)(x))


@script
def callbacks(wrong: float) -> Any:
    """A program that asks the host for numbers."""
    shape = jax.ShapeDtypeStruct((3,), np.float32)

    @jax.jit
    def program(x: Any) -> Any:
        y = jax.pure_callback(lambda x: np.asarray(x) * 2 + np.float32(wrong), shape, x)
        return y + 1

    return program(program(jnp.ones(3)))


@script
def mutable(wrong: float) -> Any:
    """An array that a program changes in place."""
    total = jax.new_ref(jnp.zeros(3))

    @jax.jit
    def add(x: Any) -> Any:
        total[...] = total[...] + x
        return x * 2

    x = jnp.full(3, 1 + wrong)
    for _ in range(3):
        x = add(x)
    return x, total[...]


@script
def threads(wrong: float) -> Any:
    """A thread that prepares batches."""
    batches: list[Any] = []

    def prepare() -> None:
        batches.extend(jnp.sqrt(jnp.arange(4.0) + i + wrong) for i in range(3))

    worker = threading.Thread(target=prepare, name="prepare")
    worker.start()
    worker.join()
    step = jax.jit(lambda w, x: w + x)
    return functools.reduce(step, batches, jnp.zeros(4))


@script
def cleared(wrong: float) -> Any:
    """A function that is compiled twice."""
    program = jax.jit(lambda x: x * 2 + wrong)
    x = program(jnp.ones(3))
    jax.clear_caches()
    return program(x)


@script
def without_jit(wrong: float) -> Any:
    """A function whose jit is disabled."""
    with jax.disable_jit():
        return jax.jit(lambda x: jnp.sin(x) + wrong)(jnp.ones(3))


@script
def guarded(wrong: float) -> Any:
    """A loop in which no transfer may happen by itself."""
    program = jax.jit(lambda x: x * 2)
    x = jnp.full(3, 1 + wrong)
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            x = program(x)
    return x


@script
def deleted_arrays(wrong: float) -> Any:
    """Arrays that were donated, and are used all the same."""
    step = jax.jit(lambda w: w * 0.9 + 1, donate_argnums=0)
    for w in (jnp.full(3, wrong), jax.device_put(np.zeros(3, np.float32))):
        step(w)
        for again in (step, lambda w: w + 1):
            with pytest.raises((RuntimeError, ValueError), match="deleted"):
                again(w)
    return step(jnp.full(3, wrong))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Any, Alignment]]:
    """Give what a script returns alone and recorded, and the comparison of two records."""
    folder = tmp_path_factory.mktemp("records")
    numbers = iter(range(10_000))

    def run(do: Callable[[float], Any], one: float = 0.0, other: float = 0.0) -> Any:
        places = [folder / str(next(numbers)) for _ in range(2)]
        found = []
        for place, wrong in zip(places, (one, other), strict=True):
            with record(place):
                found.append(jax.block_until_ready(do(wrong)))
        return found, compare_records(*places), places

    return run


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_clean_script_is_the_same(pairs: Any, name: str) -> None:
    """A script of each kind ends with the bits it has without the recorder; two runs agree."""
    plain = SCRIPTS[name](0.0)
    found, compared, _ = pairs(SCRIPTS[name])
    assert compared.problems == []
    assert compared.verdict == "same"
    assert compared.calls > 0
    digests = {tree_digest(jax.tree.map(jnp.asarray, each)) for each in (plain, *found)}
    assert len(digests) == 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_differs_is_named(pairs: Any, name: str) -> None:
    """A number that differs, wherever it comes from, makes the runs different."""
    _, compared, _ = pairs(SCRIPTS[name], 0.0, 1.0)
    assert compared.verdict == "different"


def calls_of(place: Path) -> list[Call]:
    """Return all calls of a record."""
    return [call for process in processes_of(place) for t in process.threads for call in t.calls()]


def executions(do: Callable[[], Any], folder: Path) -> int:
    """Return how many programs the runtime says that it executed, on any device."""
    with jax.profiler.trace(str(folder)):
        do()
    (trace,) = folder.rglob("*.xplane.pb")
    return sum(
        event.name == "CommonPjRtLoadedExecutable::ExecuteHelperOnSingleDevice"
        for plane in jax.profiler.ProfileData.from_file(str(trace)).planes
        for line in plane.lines
        for event in line.events
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_runtime_counts_as_many(pairs: Any, name: str, tmp_path: Path) -> None:
    """JAX's own count of executions, in a trace of its profiler, is the record's."""
    with contextlib.suppress(RuntimeError, ValueError):
        SCRIPTS[name](0.0)
    count = executions(lambda: SCRIPTS[name](0.0), tmp_path)
    _, _, places = pairs(SCRIPTS[name])
    assert len([call for call in calls_of(places[0]) if not call.error]) == count > 0


def test_a_function_that_was_compiled_before(tmp_path: Path) -> None:
    """Calls of a function that was compiled and called long before are recorded as well."""
    program = jax.jit(lambda x: x + 1)
    x = jnp.zeros(3)
    for _ in range(1000):
        x = program(x)
    with record(tmp_path / "record"):
        for _ in range(3):
            x = program(x)
    names = [call.pattern.program.called for call in calls_of(tmp_path / "record")]
    assert names.count("<lambda>") == 3
    program(x)  # and nothing is recorded any more
    assert len(calls_of(tmp_path / "record")) == len(names)


def test_where_a_call_is_and_what_it_takes(tmp_path: Path) -> None:
    """A call has its line, the names of arguments and results, and where each argument is from."""

    def step(params: Any, batch: Any) -> Any:
        return {"loss": (params["w"] * batch).sum(), "params": params}

    program = jax.jit(step)
    with record(tmp_path / "record"):
        params = {"w": jax.device_put(np.ones(3, np.float32))}
        for _ in range(3):
            params = program(params, np.ones(3, np.float32))["params"]
    calls = [c for c in calls_of(tmp_path / "record") if c.pattern.program.called == "step"]
    program_ = calls[0].pattern.program
    assert (program_.arguments, program_.results) == (
        ("params['w']", "batch"),
        ("result['loss']", "result['params']['w']"),
    )
    assert calls[0].pattern.site[0].file == __file__
    assert [call.pattern.references for call in calls] == [("e", "n"), ("r1.1", "n"), ("r1.1", "n")]


def test_an_array_that_numpy_overwrites(tmp_path: Path) -> None:
    """Memory that a JAX array shares with NumPy is looked at in each call that takes it."""
    program = jax.jit(lambda x: x + 1)

    def run(place: Path, overwritten: bool) -> None:
        memory = np.zeros(2**14 + 16, np.float32)
        buffer = memory[-memory.ctypes.data % 64 // 4 :][: 2**14]  # JAX copies what is not aligned
        with record(place):
            x = jax.device_put(buffer)
            jax.block_until_ready(program(x))
            if overwritten:
                buffer[0] = 7
            jax.block_until_ready(program(x))

    run(tmp_path / "a", False)
    run(tmp_path / "b", True)
    compared = compare_records(tmp_path / "a", tmp_path / "b")
    assert [root.kind for root in compared.roots] == ["host"]


def test_a_captured_constant_and_other_source(tmp_path: Path) -> None:
    """Programs that differ in a constant, and in an operation, are told apart."""

    def run(place: Path, constant: float, operation: Any) -> None:
        held = np.full(100, constant, np.float32)
        with record(place):
            jax.jit(lambda x: operation(x + held))(jnp.ones(100))

    run(tmp_path / "a", 1.0, jnp.sin)
    run(tmp_path / "b", 2.0, jnp.sin)
    run(tmp_path / "c", 1.0, jnp.cos)
    found_events = [compare_records(tmp_path / "a", tmp_path / each).roots[0].what for each in "bc"]
    found = [" ".join(what.replace(":", "").split()[:2]) for what in found_events]
    assert found == ["another constant", "another program"]


def test_an_error_of_the_script_is_its_own(tmp_path: Path) -> None:
    """What the script raises reaches it, and the record says which call failed."""

    def broken(x: Any) -> Any:
        raise ZeroDivisionError("of the script")

    program = jax.jit(lambda x: jax.pure_callback(broken, jax.ShapeDtypeStruct((), np.float32), x))
    with record(tmp_path / "record"), pytest.raises(jax.errors.JaxRuntimeError):
        jax.block_until_ready(program(np.float32(1)))
    assert compare_records(tmp_path / "record", tmp_path / "record").calls > 0


@pytest.mark.long
@pytest.mark.nightly
def test_a_call_that_fails_while_it_runs(tmp_path: Path) -> None:
    """Whether an error comes at once or where the result is used is chance, and no difference."""
    blocked = threading.Event()

    def refuse(x: Any) -> Any:
        blocked.wait(10)
        raise ValueError("no")

    def run(place: Path, *, late: bool) -> Alignment:
        (blocked.clear if late else blocked.set)()
        step = jax.jit(lambda x: jax.pure_callback(refuse, x, x) * 2)

        def use() -> None:
            result = step(jax.device_put(np.ones(3, np.float32)))
            blocked.set()
            jax.block_until_ready(result)

        with record(place), pytest.raises(jax.errors.JaxRuntimeError):
            use()
        return compare_records(tmp_path / "once", place)

    for name, late in (("once", False), ("again", False), ("late", True)):
        found = run(tmp_path / name, late=late)
        assert found.roots == []
        assert all("\n" not in problem for problem in found.problems)


def test_an_error_of_the_recorder_is_not_the_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the recorder fails, the script goes on, and nothing is called the same."""

    def broken(self: Any, arrays: Any) -> Any:
        raise OSError("of the recorder")

    monkeypatch.setattr(prints.Looking, "take", broken)
    with record(tmp_path / "record"):
        assert float(jax.jit(lambda x: x + 1)(jnp.float32(1))) == 2
    compared = compare_records(tmp_path / "record", tmp_path / "record")
    assert compared.verdict == "cannot be told"
    assert "of the recorder" in compared.problems[0]


def test_hooks_that_miss_a_call_are_found_out() -> None:
    """The self-test says what did not come."""
    assert hook.self_test()  # nobody watches


def test_two_recorders_do_not_mix(tmp_path: Path) -> None:
    """A process has one recorder, and a directory that holds something is refused."""
    with record(tmp_path / "a"):
        with pytest.raises(ConfigError, match="one that nobody records"), record(tmp_path / "b"):
            pass
        jnp.ones(3).sum()
    with pytest.raises(ConfigError, match="a new or empty directory"), record(tmp_path / "a"):
        pass


@pytest.fixture(autouse=True)
def _nobody_records() -> Iterator[None]:
    yield
    assert not hook.is_installed()
    time.sleep(0)


def test_two_functions_with_one_program(tmp_path: Path) -> None:
    """Functions that compile to the same text keep each its names, whichever argument it drops."""

    def twofold(dropped: Any, x: Any) -> Any:
        return x * 2

    one, other = jax.jit(twofold), jax.jit(lambda y: y * 2)
    with record(tmp_path / "record"):
        for i in range(2):
            one(np.ones(5, np.float32), np.full(3, i, np.float32))
            other(np.full(3, i, np.float32))
    calls = calls_of(tmp_path / "record")
    assert [call.pattern.program.arguments for call in calls] == [("x",), ("y",)] * 2
    assert len({call.values for call in calls}) == 2


def test_a_program_that_cannot_be_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong while a program is compiled does not reach the script."""
    monkeypatch.setattr(hook, "text_of", lambda hlo: 1 / 0)
    with record(tmp_path / "record"):
        assert float(jax.jit(lambda x: x + 3)(np.float32(1))) == 4
    compared = compare_records(tmp_path / "record", tmp_path / "record")
    assert compared.verdict == "cannot be told"
