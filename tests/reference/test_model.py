"""Promises of `reproducibility.reference.model`."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from reproducibility import MLP, apply, initialise, leaf_digests, root_key, stream_key, tree_digest


def build(widths: dict[str, int], *, seed: int = 7, dropout: float = 0.5):
    """Initialise an MLP of these layers on 16 features."""
    return initialise(lambda key: MLP(16, widths, dropout=dropout, key=key), root_key(seed))


def test_inserting_a_layer_moves_no_other() -> None:
    """A layer put between two others leaves the initial values of both as they were.

    The control: with NNX's own counter of keys, the layer behind it moves.
    """
    _, before = build({"first": 8, "output": 4})
    _, after = build({"first": 8, "inserted": 8, "output": 4})
    for name in ("first", "output"):
        assert tree_digest(before["layers"][name]) == tree_digest(after["layers"][name])

    def counted(depth: int) -> jax.Array:
        rngs = nnx.Rngs(0)
        return [nnx.Linear(8, 8, rngs=rngs) for _ in range(depth)][-1].kernel[...]

    assert tree_digest(counted(2)) != tree_digest(counted(3))


def test_renaming_a_layer_moves_only_that_layer() -> None:
    """A layer under another name has other initial values; all others keep theirs."""
    _, before = build({"a": 8, "b": 8, "output": 4})
    _, after = build({"a": 8, "c": 8, "output": 4})
    b, c = before["layers"].pop("b"), after["layers"].pop("c")
    assert tree_digest(before) == tree_digest(after)
    assert tree_digest(b["kernel"]) != tree_digest(c["kernel"])


def test_no_two_layers_start_equal() -> None:
    """Two layers of one shape, and two seeds, have different initial kernels."""
    _, one = build({"a": 16, "b": 16, "output": 16})
    _, other = build({"a": 16, "b": 16, "output": 16}, seed=8)
    kernels = {n: d for n, d in leaf_digests([one, other]).items() if n.endswith("kernel")}
    assert len(set(kernels.values())) == len(kernels) == 6


def test_initialisation_follows_he_uniform() -> None:
    """Kernels are uniform within ±sqrt(6 / fan-in), biases zero."""
    _, params = build({"wide": 4096, "output": 4})
    kernel, bound = params["layers"]["wide"]["kernel"], (6 / 16) ** 0.5
    assert float(jnp.abs(kernel).max()) <= bound
    assert float(jnp.abs(kernel).max()) > 0.99 * bound
    assert abs(float(kernel.var()) - bound**2 / 3) < 0.01
    assert not params["layers"]["wide"]["bias"].any()


def test_dropout_is_on_in_training_only() -> None:
    """With a key units are dropped and the rest scaled; without one nothing is."""
    graph, params = build({"hidden": 512, "output": 4}, dropout=0.5)
    x = jnp.ones((3, 16))
    key = root_key(1)
    with_key = apply(graph, params, x, key=key)
    assert tree_digest(with_key) == tree_digest(apply(graph, params, x, key=jax.random.clone(key)))
    other = apply(graph, params, x, key=root_key(2))
    assert tree_digest(with_key) != tree_digest(other)
    plain = apply(graph, params, x)
    assert tree_digest(plain) != tree_digest(with_key)
    assert tree_digest(plain[0]) == tree_digest(plain[2])  # equal rows: nothing is drawn


def test_each_layer_drops_by_its_own_stream() -> None:
    """The mask of a layer is drawn from the stream of its name, not from the key itself."""
    graph, params = build({"hidden": 64, "output": 64}, dropout=0.5)
    params["layers"]["hidden"]["kernel"] = jnp.zeros((16, 64))
    params["layers"]["hidden"]["bias"] = jnp.ones(64)
    params["layers"]["output"]["kernel"] = jnp.eye(64)
    seen = apply(graph, params, jnp.ones((5, 16)), key=root_key(3)) > 0
    mask = jax.random.bernoulli(stream_key(root_key(3), "dropout/hidden"), 0.5, (5, 64))
    assert bool((seen == mask).all())


def test_state_that_is_no_parameter_is_refused() -> None:
    """A module that keeps a counter of random numbers is refused: resuming would lose it."""
    with pytest.raises(ValueError, match=r"expected only Param state, got .*Rng"):
        initialise(lambda key: nnx.Dropout(0.5, rngs=nnx.Rngs(key)), root_key(7))


@pytest.mark.parametrize("kind", ["convolution", "batch norm"])
def test_other_modules(kind: str) -> None:
    """`initialise` takes any module of parameters, and refuses batch statistics by name."""
    makers = {
        "convolution": lambda key: nnx.Conv(1, 4, (3, 3), rngs=nnx.Rngs(params=key)),
        "batch norm": lambda key: nnx.BatchNorm(4, rngs=nnx.Rngs(params=key)),
    }
    if kind == "convolution":
        graph, params = initialise(makers[kind], root_key(7))
        assert apply(graph, params, jnp.zeros((2, 8, 8, 1))).shape == (2, 8, 8, 4)
    else:
        with pytest.raises(ValueError, match="BatchStat"):
            initialise(makers[kind], root_key(7))
