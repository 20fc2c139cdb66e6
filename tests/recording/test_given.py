"""Promises of `reproducibility.recording.given`: what is recorded has all of its bits."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import LeafError, Recorder, compare, root_key
from reproducibility.recording.given import HandedOver
from tests.recording.test_recorder import aligned, lines

OBJECTS = np.array(["a", "b"], object)
# Each differs from the one before it in the least that can differ.
DIFFERENT = {
    "Python floats": (0.1, np.nextafter(0.1, 1).item()),
    "Python integers": (2**33 + 7, 2**34 + 7),
    "an integer that JAX has": (5, 2**32 + 5),
    "integers of more than 64 bits": (2**70, 2**70 + 1),
    "negative ones": (-(2**63), -(2**63) - 1),
    "Python complex numbers": (1 + 1e-12j, 1 + 2e-12j),
    "float64": (np.array([1.0]), np.array([1.0 + 1e-12])),
    "int64": (np.array([5, 2**33 + 7]), np.array([5, 2**34 + 7])),
    "texts": ("doc-7", "doc-8"),
    "a text and its bytes": ("doc-7", b"doc-7"),
    "arrays of texts": (np.array(["a", "b"]), np.array(["a", "c"])),
    "where one text ends": (np.array(["ab", "c"]), np.array(["a", "bc"])),
    "arrays of bytes": (np.array([b"a"]), np.array([b"b"])),
    "objects that are texts": (OBJECTS, np.array(["a", "c"], object)),
    "dates": (np.array(["2026-01-01"], "M8[D]"), np.array(["2026-01-02"], "M8[D]")),
    "units of dates": (np.array([1], "m8[s]"), np.array([1], "m8[ms]")),
    "shapes of float0": (np.zeros(3, jax.dtypes.float0), np.zeros(4, jax.dtypes.float0)),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_least_difference_counts(tmp_path: Path, name: str) -> None:
    """What JAX would narrow, or does not know, is recorded by all of its bits.

    The control: the same value twice is the same.
    """
    one, other = DIFFERENT[name]
    for file, leaf in {"one": one, "again": one, "other": other}.items():
        with Recorder(tmp_path / file) as recorder:
            recorder.record(1, batch={"id": leaf, "x": jnp.ones(2)})
    assert compare(tmp_path / "one", tmp_path / "again").verdict == "same"
    found = compare(tmp_path / "one", tmp_path / "other")
    assert (found.verdict, found.stage, found.leaves) == ("different", "batch", ("id",))


def test_texts_are_the_same_in_arrays_of_any_kind(tmp_path: Path) -> None:
    """How NumPy keeps texts does not count: only what they are."""
    for name, leaf in {
        "a": OBJECTS,
        "b": np.array(["a", "b"]),
        "c": np.array(["a", "b"], "U9"),
    }.items():
        with Recorder(tmp_path / name) as recorder:
            recorder.record(1, batch=leaf)
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        (np.array([1, "a"], object), "got object values. Give its text, or leave it out"),
        (Path("here"), "got a value of type PosixPath. Give its text, or leave it out"),
        (np.ma.masked_array(np.zeros(2), [True, False]), "got a masked array. Put its data and"),
        (np.zeros(2, [("a", "f4"), ("b", "O")]), "got void64 values. Give its text|got void"),
    ],
)
def test_what_has_no_bits_is_named(tmp_path: Path, leaf: Any, said: str) -> None:
    """An object is refused by the name of its leaf, in one sentence; the step leaves no trace."""
    with Recorder(tmp_path / "ledger") as recorder:
        with pytest.raises(LeafError, match=rf"at batch.id: expected .*, ({said})"):
            recorder.record(1, batch={"x": jnp.zeros(2), "id": leaf})
        recorder.record(1, batch={"x": jnp.zeros(2)})
    assert [line["step"] for line in lines(tmp_path / "ledger")] == [1]


@pytest.mark.parametrize("leaf", [np.array([2**40]), "a text", 0.1])
def test_a_view_narrows_nothing(tmp_path: Path, leaf: Any) -> None:
    """A view computes on the device: what JAX would narrow for it is refused by its name."""
    with Recorder(tmp_path / "ledger", view=lambda batch: {"batch": batch}) as recorder:
        with pytest.raises(LeafError, match=r"at batch\.id: expected what JAX takes whole, as a v"):
            recorder.record(1, batch={"id": leaf})
        recorder.record(1, batch={"id": np.array([7])})


def test_keys_are_recorded_while_they_are_computed(tmp_path: Path) -> None:
    """Keys count by implementation and words, ready or not, and as a view has them."""
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 9, lambda _, y: jnp.sin(y), x))
    keys = {"a": jax.random.split(root_key(7), 3), "b": jax.random.key(3, impl="rbg")}

    def view(key: Any, params: Any) -> dict[str, Any]:
        return {"key": key, "params": params}

    for name, settings in {"one": {}, "view": {"view": view}}.items():
        with Recorder(tmp_path / name, level="leaf", **settings) as recorder:
            for step in (1, 2):
                recorder.record(step, key=keys, params=slow(jnp.ones(2**18)))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "view").read_bytes()
    with Recorder(tmp_path / "other", level="leaf") as recorder:
        other = {"a": jax.random.split(root_key(8), 3), "b": keys["b"]}
        recorder.record(1, key=other, params=slow(jnp.ones(2**18)))
    assert compare(tmp_path / "one", tmp_path / "other").leaves == ("a",)


@jax.jit
def busy(x: jax.Array) -> jax.Array:
    """Compute for some time, in threads of XLA."""
    return jax.lax.fori_loop(0, 20, lambda _, y: jnp.tanh(y @ x), x)


@pytest.mark.parametrize("size", [2**8, 2**18])
def test_a_copy_is_of_the_moment(size: int) -> None:
    """Of memory that NumPy writes to, what was there is recorded, also if it comes again.

    Beside something that is still being computed, as nothing is copied otherwise.
    """
    buffer = aligned(size)
    shared = jax.device_put(buffer, jax.devices()[0])
    assert shared.unsafe_buffer_pointer() == buffer.ctypes.data
    given, x, kinds = HandedOver(computes=False), jnp.ones((400, 400)), []
    for value in (0, 0, 0, 1, 1, 0, 2):
        buffer[:] = value
        tries = ([shared, busy(x)] for _ in range(100))
        found = (given.take(leaves, leaves) for leaves in tries)
        [copy, _], _ = next((taken, wait) for taken, wait in found if not wait)
        buffer[:] = -1
        assert (np.asarray(copy) == value).all()
        kinds.append(isinstance(copy, jax.Array))
        assert kinds[-1] or isinstance(copy, np.ndarray)
    assert kinds == [False, True, True, False, True, False, False]
