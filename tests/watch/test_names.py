"""What a library numbers has in a record the name that the user gave it."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx

from reproducibility import record
from reproducibility.script.steps import run_of_steps
from reproducibility.watch.names import users_names


def names_in(path: Path, step: str) -> tuple[str, ...]:
    """Return the names of the arguments of a function in a record."""
    run = run_of_steps(path, "the run", step)
    assert run is not None
    return run.steps[0].program.arguments


def test_leaves_of_equinox_have_their_names(tmp_path: Path) -> None:
    """A leaf is called by its argument and attributes, given by place or by name."""

    @eqx.filter_jit
    def make_step(model: eqx.nn.Linear, rates: list[jax.Array], *, batch: jax.Array) -> jax.Array:
        return jax.vmap(model)(batch).sum() * rates[0] + rates[1]

    model = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    with record(tmp_path / "record"):
        make_step(model, [jnp.float32(1), jnp.float32(2)], batch=jnp.ones((4, 2)))
    expected = ("model.weight", "model.bias", "rates[0]", "rates[1]", "batch")
    assert names_in(tmp_path / "record", "make_step") == expected


def test_variables_of_nnx_have_their_names(tmp_path: Path) -> None:
    """A variable is called by its path in the module, also if another argument holds it."""

    @nnx.jit
    def train_step(model: nnx.Linear, twin: dict[str, nnx.Linear], batch: jax.Array) -> jax.Array:
        return model(batch).sum() + twin["same"](batch).sum() + twin["other"](batch).sum()

    model, other = (nnx.Linear(2, 3, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    with record(tmp_path / "record"):
        train_step(model, {"same": model, "other": other}, jnp.ones((4, 2)))
    found = names_in(tmp_path / "record", "train_step")
    assert found[:2] == ("model.bias", "model.kernel")
    assert found[-3:] == ("twin['other'].bias", "twin['other'].kernel", "batch")


def test_where_nobody_knows_better_the_name_stays() -> None:
    """Without the library's own call above, nothing is guessed."""
    names = ("dynamic_nodonate['rest'][3]", "model.states[0][1]", "batch")
    assert users_names(names) == names
    assert users_names(names[1:]) == names[1:]
