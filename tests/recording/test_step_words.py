"""Promises of `reproducibility.recording.step_words`: a loop that is compiled whole is recorded."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import LeafError, Recorder, compare, root_key, step_fingerprints, tree_digest

STEPS = range(1, 6)


def step_of(carry: Any, step: Any) -> tuple[Any, Any]:
    """A step of gradient descent, and what it was made of."""
    params, key = carry
    key, own = jax.random.split(key)
    x = jax.random.normal(own, (8, 3))

    def mean_loss(w: jax.Array) -> jax.Array:
        return jnp.mean((x @ w - 1) ** 2)

    loss, gradient = jax.value_and_grad(mean_loss)(params["w"])
    params = {"w": params["w"] - 0.1 * gradient, "n": params["n"] + step}
    made = {"batch": x, "key": own, "gradients": gradient, "params": params}
    return (params, key), {"loss": loss, **made}


def start(key: jax.Array) -> Any:
    """Return what the loop begins with."""
    first, rest = jax.random.split(key)
    return {"w": jax.random.normal(first, (3,)), "n": jnp.int32(0)}, rest


def scanned(key: jax.Array, see: Callable[..., Any] | None = step_fingerprints) -> Any:
    """The loop, compiled whole."""

    def body(carry: Any, step: Any) -> Any:
        carry, made = step_of(carry, step)
        return carry, see(**made) if see else made["loss"]

    return jax.lax.scan(body, start(key), jnp.array(STEPS))


def by_hand(path: Path, key: jax.Array) -> None:
    """The same loop, with a recorder beside it."""
    carry, program = start(key), jax.jit(step_of)
    with Recorder(path) as recorder:
        for step in STEPS:
            carry, made = program(carry, step)
            recorder.record(step, **made)


def test_a_scan_has_the_ledger_of_its_loop(tmp_path: Path) -> None:
    """Fingerprints that a scan returns make a ledger that reads like that of a loop in Python.

    The names of all five stages are there, and the losses; another key is another ledger.
    """
    for name, seed in {"scan": 7, "again": 7, "other": 8}.items():
        with Recorder(tmp_path / name) as recorder:
            recorder.record_scan(STEPS, jax.jit(scanned)(root_key(seed))[1])
    by_hand(tmp_path / "loop", root_key(7))
    assert compare(tmp_path / "scan", tmp_path / "again").verdict == "same"
    assert compare(tmp_path / "scan", tmp_path / "other").stage == "batch"
    one, other = ((tmp_path / name).read_text().splitlines() for name in ("scan", "loop"))
    assert one[0] == other[0]  # the header: all names of leaves
    assert one[1] == other[1]


def test_a_scan_ends_with_the_same_bits(tmp_path: Path) -> None:
    """The loop ends in the same state with fingerprints and without, here."""
    with_them, without = (
        jax.jit(scanned, static_argnums=1)(root_key(7), see)[0] for see in (step_fingerprints, None)
    )
    assert tree_digest(with_them) == tree_digest(without)


def test_a_ledger_a_seed(tmp_path: Path) -> None:
    """Under `vmap` each seed has a ledger, of a scan as of a loop; as if it had been alone.

    A seed that has no effect shows: two ledgers are the same.
    """
    seeds = [7, 8, 8]
    keys = partial(jax.vmap(root_key), jnp.array(seeds))  # each time anew: a key is used once
    with Recorder(tmp_path / "scan", members=3) as recorder:
        recorder.record_scan(STEPS, jax.jit(jax.vmap(scanned))(keys())[1])
    carry, program = jax.vmap(start)(keys()), jax.jit(jax.vmap(step_of, (0, None)))
    common = {"opt_state": {"rate": 0.1, "name": "sgd"}}
    with Recorder(tmp_path / "loop", members=3, shared=["opt_state"]) as recorder:
        for step in STEPS:
            carry, made = program(carry, step)
            recorder.record(step, **common, **made)
    for folder in ("scan", "loop"):
        files = [tmp_path / folder / f"{n}.jsonl" for n in range(3)]
        assert compare(files[0], files[1]).stage == "batch"
        assert compare(files[1], files[2]).verdict == "same"
    own = jax.random.wrap_key_data(jax.random.key_data(made.pop("key"))[1])
    with Recorder(tmp_path / "alone") as recorder:
        recorder.record(5, key=own, **common, **jax.tree.map(lambda leaf: leaf[1], made))
    one, other = ((tmp_path / n).read_text().splitlines() for n in ("alone", "loop/1.jsonl"))
    assert one[-1].partition(',"gradients"')[2] == other[-1].partition(',"gradients"')[2]


def test_recording_from_inside_is_refused(tmp_path: Path) -> None:
    """`record` in a program that is traced says what to do instead, and writes nothing."""
    with Recorder(tmp_path / "ledger") as recorder:

        def body(number: Any, loss: Any, w: Any, step: Any) -> Any:
            loss = w.sum() if loss else None
            recorder.record(step if number is None else number, loss=loss, params=w)
            return w, None

        for number, loss, what in (
            (None, False, "the step"),
            (1, False, "an array"),
            (1, True, "the loss"),
        ):
            said = f"from inside of a program: {what} is traced by JAX. Return step_fingerprints"
            with pytest.raises(ValueError, match=said):
                jax.lax.scan(partial(body, number, loss), jnp.ones(3), jnp.arange(3))
    assert not (tmp_path / "ledger").exists()


def test_what_the_host_gives_to_a_scan_has_all_its_bits(tmp_path: Path) -> None:
    """64 bits, numbers of Python, texts and dates are recorded inside of a program as beside it."""
    batch = {
        **{"i": np.int64(2**40 + 1), "f": np.array([0.1]), "n": 0.1, "b": True, "t": "text"},
        **{"d": np.datetime64("2020-01-01"), "k": jax.random.key(1), "x": np.ones(2, np.float32)},
    }
    for name, of in {"one": batch, "other": {**batch, "i": np.int64(1)}}.items():
        with Recorder(tmp_path / name) as recorder:
            recorder.record_scan(
                [1],
                jax.jit(
                    lambda w, of=of: jax.tree.map(
                        lambda leaf: leaf[None], step_fingerprints(batch=of, params=w)
                    )
                )(jnp.ones(2)),
            )
    with Recorder(tmp_path / "beside") as recorder:
        recorder.record(1, batch=batch, params=jnp.ones(2))
    assert (tmp_path / "one").read_text() == (tmp_path / "beside").read_text()
    assert compare(tmp_path / "one", tmp_path / "other").leaves == ("i",)
    with pytest.raises(LeafError, match=r"Cannot record the leaf at batch\.o: expected an array"):
        step_fingerprints(batch={"o": object()})


def test_what_record_scan_refuses(tmp_path: Path) -> None:
    """Other numbers of steps, members and orders are refused in a sentence, before any is kept."""
    found = jax.jit(scanned)(root_key(7))[1]
    with Recorder(tmp_path / "ledger") as recorder:
        with pytest.raises(ValueError, match=r"Cannot record 4 steps: expected fingerprints of sh"):
            recorder.record_scan(range(4), found)
        with pytest.raises(ValueError, match="step 1: expected one after 1"):
            recorder.record_scan([1, 1, 2, 3, 4], found)
        recorder.record_scan(STEPS, found)
        with pytest.raises(ValueError, match="step 1: expected one after 5, which is recorded"):
            recorder.record_scan(STEPS, found)
    with Recorder(tmp_path / "members", members=2) as recorder:
        with pytest.raises(ValueError, match="what step_fingerprints came to, got a value of type"):
            recorder.record_scan(STEPS, found.words)
        with pytest.raises(ValueError, match=r"fingerprints of shape \(2, 5, '...'\), got \(5,"):
            recorder.record_scan(STEPS, found)
        said = r'Cannot record batch: expected 2 members along .* give shared=\("batch",\)'
        with pytest.raises(ValueError, match=said):
            recorder.record(1, batch=jnp.ones(3), params=jnp.ones((2, 3)))
        with pytest.raises(
            ValueError, match=r"a loss for each of 2 members, got one of shape \(\)"
        ):
            recorder.record(1, loss=1.0, params=jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="Cannot record grads: expected stages out of batch, key"):
        step_fingerprints(grads=jnp.ones(3))


def test_a_scan_every_so_many_steps(tmp_path: Path) -> None:
    """Of a scan, too, only multiples of `every` have a line."""
    with Recorder(tmp_path / "ledger", every=2) as recorder:
        recorder.record_scan(STEPS, jax.jit(scanned)(root_key(7))[1])
    text = (tmp_path / "ledger").read_text().splitlines()
    assert [line[line.index('"step"') :] for line in text[1:]] == ['"step":2}', '"step":4}']
