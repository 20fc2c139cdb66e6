"""Every execution is told once, with its program, whether C++ or Python executes it."""

import os
import pickle
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import compare_records, record
from reproducibility.script.reading import Call, processes_of
from reproducibility.watch import hook, prints
from reproducibility.watch.begin import Session


@pytest.fixture(params=["fast", "slow"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """JAX's C++ executes programs by itself, or everything goes through Python."""
    if request.param == "slow":
        monkeypatch.setattr(hook, "CAN_BE_FAST", False)
    return str(request.param)


def calls_of(place: Path) -> list[Call]:
    """Return all calls of a record."""
    return [call for process in processes_of(place) for t in process.threads for call in t.calls()]


# What is used of JAX that it does not promise. If one of these fails, JAX has moved it: `hook` has
# to find another place, and `self_test` keeps scripts from being recorded with holes until then.
PRIVATE = {
    "interpreters.pxla": (
        "MeshExecutable.unsafe_call",
        "MeshComputation.compile",
        "UnloadedMeshExecutable.from_hlo",
        "ExecuteReplicated.__call__",
        "MeshExecutableFastpathData._replace",
        "MeshExecutableFastpathData.out_pytree_def",
        "MeshExecutableFastpathData.kept_var_bitvec",
        "MeshExecutableFastpathData.xla_executable",
    ),
    "pjit": (
        "config.no_tracing",
        "_get_fastpath_data",
        "_cpp_pjit_cache_fun_only.clear",
        "_cpp_pjit_cache_explicit_attributes.clear_all",
    ),
    "dispatch": ("_batched_device_put_impl",),
    "array": ("ArrayImpl.is_ready",),
    "dlpack": ("from_dlpack",),
    "mesh": ("empty_abstract_mesh", "empty_concrete_mesh"),
    "sharding_impls": ("set_mesh",),
    "traceback_util": ("register_exclusion",),
    "tree_util": ("dispatch_registry.register_node", "dispatch_registry.flatten"),
    "config": ("enable_x64", "transfer_guard_device_to_host"),
}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PRIVATE.items() for name in names]
)
def test_jax_has_what_is_used_of_it(module: str, name: str) -> None:
    """Each private name of JAX that the recorder uses is where it looks for it."""
    found = hook._private(module)
    for part in name.split("."):
        assert hasattr(found, part), f"jax._src.{module} of jax {jax.__version__} has no {name}"
        found = getattr(found, part)


def test_jax_calls_its_functions_as_python_says() -> None:
    """What is put on the class of jitted functions is called, in the versions that can be fast."""
    assert (sys.version_info >= (3, 12)) == hook.CAN_BE_FAST


def test_the_self_test_passes(way: str, tmp_path: Path) -> None:
    """Both ways see every call of the self-test, and the fast one stays fast."""
    with record(tmp_path / "record"):
        jnp.ones(3).sum()
        assert hook._fast == (way == "fast")
    assert compare_records(tmp_path / "record", tmp_path / "record").problems == []


def test_python_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If calls that C++ executes by itself cannot be seen, all go through Python, and are seen."""
    monkeypatch.setattr(hook, "_calling", lambda call: call)
    program = jax.jit(lambda x: x + 1)
    with record(tmp_path / "record"):
        for i in range(3):
            program(np.float32(i))
        assert not hook._fast
    compared = compare_records(tmp_path / "record", tmp_path / "record")
    assert (compared.problems, compared.calls) == ([], 3)


def many_kinds() -> Any:
    """Call what has static, dropped, named and captured arguments, and results of each kind."""
    captured = jnp.arange(3.0)

    @jax.jit
    def drops(unused: Any, x: Any, *, scale: Any = 2) -> Any:
        return {"none": None, "x": x * scale + captured, "pair": (x, jnp.ones(0))}

    power = jax.jit(lambda x, n, *, by: x**n * by, static_argnums=1, static_argnames="by")
    split = jax.jit(lambda key, pair: (jax.random.split(key), pair[1]))
    donates = jax.jit(lambda x: x * 2, donate_argnums=0)
    ahead = jax.jit(lambda d: d["a"] - 1).lower({"a": captured}).compile()
    x, key = jnp.ones(3), jax.random.key(0)
    for i in range(4):
        x = drops(np.full(i % 2 + 1, 7), x, scale=i)["x"]
        x = power(x, 2, by=0.5) + power(x, n=3, by=i % 2)
        keys, y = split(key, (None, np.float32(i)))
        key = keys[0]
        x = donates(jax.device_put(np.full(3, i, np.float32))) + y
        x = ahead({"a": x})
    return x


def test_both_ways_write_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What C++ executes by itself has the same line as what goes through Python."""
    for name in ("fast", "slow"):
        monkeypatch.setattr(hook, "CAN_BE_FAST", name == "fast")
        with record(tmp_path / name):
            many_kinds()
            assert hook._fast == (name == "fast")
    compared = compare_records(tmp_path / "fast", tmp_path / "slow")
    assert (compared.roots, compared.problems) == ([], [])
    fast, slow = calls_of(tmp_path / "fast"), calls_of(tmp_path / "slow")
    assert [(c.pattern, c.values, c.results) for c in fast] == [
        (c.pattern, c.values, c.results) for c in slow
    ]


def test_a_function_that_was_compiled_before_is_described(tmp_path: Path) -> None:
    """Its program has the text, and the names, that it has if it is compiled while recorded."""
    program = jax.jit(lambda x: jnp.sin(x) + 1)
    x = jnp.ones(3)
    for _ in range(1000):
        program(x)
    with record(tmp_path / "warm"):
        program(x)
    jax.clear_caches()
    with record(tmp_path / "cold"):
        program(x)
    warm, cold = calls_of(tmp_path / "warm"), calls_of(tmp_path / "cold")
    assert [call.pattern.program for call in warm] == [call.pattern.program for call in cold]
    assert compare_records(tmp_path / "warm", tmp_path / "cold").verdict == "same"


def test_each_record_knows_its_own_arrays(tmp_path: Path) -> None:
    """What an array is known by in one record says nothing in another, or of what was pickled."""
    step, x = jax.jit(lambda x: x + 1), jnp.ones(3)
    with record(tmp_path / "one"):
        x = step(step(x))
        step(pickle.loads(pickle.dumps(x)))
    with record(tmp_path / "other"):
        step(step(x))
    one, other = calls_of(tmp_path / "one"), calls_of(tmp_path / "other")
    assert [call.pattern.references for call in one] == [("e",), ("r1.0",), ("e",)]
    assert [call.pattern.references for call in other] == [("e",), ("r1.0",)]
    assert one[2].values == other[0].values == one[1].results


FIRST = {
    "zeros": lambda: jnp.zeros(1) + 1,
    "zeros of 64 bits": lambda: jnp.zeros(3).sum(),
    "ones": lambda: jnp.ones((2, 2)) * 2,
    "key": lambda: jax.random.key(0),
    "transfer": lambda: jnp.asarray([1.0]) + 1.0,
}


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("x64", [False, True])
def test_the_hooks_are_tested_inside_of_any_call(tmp_path: Path, first: str, x64: bool) -> None:
    """They are tested within the script's first call, which JAX will not begin again in itself."""
    jax.clear_caches()
    with jax.enable_x64(x64), record(tmp_path / "record"):
        FIRST[first]()
    compared = compare_records(tmp_path / "record", tmp_path / "record")
    assert (compared.verdict, compared.problems) == ("same", [])


def test_arguments_that_were_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An execution whose arguments did not come before it is never written down as if they had."""
    program = jax.jit(lambda x: x + 1)
    with record(tmp_path / "record"):
        program(np.float32(1))
        monkeypatch.setattr(Session, "_before", lambda *anything: None)
        hook._watch = hook._watch and hook._watch._replace(before=lambda *anything: None)
        program(np.float32(1))
    compared = compare_records(tmp_path / "record", tmp_path / "record")
    assert compared.verdict == "cannot be told"
    assert "were not seen" in compared.problems[0]


@pytest.fixture(autouse=True)
def _nobody_records() -> Iterator[None]:
    yield
    assert not hook.is_installed()


def test_an_error_has_no_line_of_ours(tmp_path: Path) -> None:
    """What a call raises, JAX's C++ or the script, looks as it does without a recorder."""

    def wrong(x: jax.Array) -> jax.Array:
        raise ValueError("the script's")

    def files(function: Any, argument: Any) -> list[str]:
        with pytest.raises((ValueError, RuntimeError)) as raised:
            function(argument)
        return [frame.path.name for frame in raised.traceback if isinstance(frame.path, Path)]

    kept, gone = jax.jit(lambda x: x + 1), jnp.ones(3)
    kept(gone)
    gone.delete()
    plain = [files(kept, gone), files(jax.jit(wrong), jnp.ones(3))]
    with record(tmp_path / "record"):
        watched = [files(kept, gone), files(jax.jit(wrong), jnp.ones(3))]
    assert watched == plain


class LateError(Exception):
    """What the script's function for a signal raises."""


def test_what_a_signal_raises_is_for_the_script(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that is to be interrupted is, even while its call is looked at."""

    def late(*_: Any) -> None:
        raise LateError

    def begin(*_: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, late)
    try:
        step, x = jax.jit(lambda x: x + 1), jnp.ones(3)
        with record(tmp_path / "record"):
            x = step(step(x))
            monkeypatch.setattr(prints.Looking, "take", begin)
            with pytest.raises(LateError):
                step(x)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_record_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script goes on, though the disk is full when it calls JAX first."""

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    with record(tmp_path / "record"):
        monkeypatch.setattr(os, "replace", full)
        assert jax.jit(lambda x: x + 1)(jnp.ones(3)).sum() == 6
        monkeypatch.undo()
    (process,) = processes_of(tmp_path / "record")
    assert process.problems == ("the record cannot be written: OSError: no space left on device",)
