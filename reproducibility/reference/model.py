"""One small network and its initialisation: key in, parameters out.

The rule: a parameter's first value is a function of (key, its layer's name), never of its place.
Chapter: docs/components/model_explained.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Key

from reproducibility.keys import stream_key

Params = dict[str, Any]
"""Nested dict of arrays: what `nnx.to_pure_dict` makes of a module's `nnx.Param` state."""


class MLP(nnx.Module):
    """A multilayer perceptron: ReLU and dropout after every layer but the last.

    A layer's parameters come from `stream_key(key, "params/<its name>")`, its dropout from
    `stream_key(key, "dropout/<its name>")`. NNX's usual `nnx.Rngs(0)` hands out keys in order of
    construction, so a layer put in front moves the initial values of all layers behind it; here
    it moves none.

    **Same bits:** the initial parameters on one backend and version, whatever layers stand
    around (uniform draws: the key bits are equal everywhere, the last scaling may round
    differently); outputs only within one compiled program.

    Args:
        features: width of the input.
        widths: name and width of each layer, in order; the last one gives the logits.
        dropout: probability with which a hidden unit is dropped, in [0, 1).
        key: the key that the layers' keys are derived from.

    Examples:
        >>> from reproducibility import root_key
        >>> model = MLP(32, {"hidden": 64, "output": 10}, dropout=0.1, key=root_key(7))
        >>> model(jax.numpy.zeros((5, 32))).shape
        (5, 10)
    """

    def __init__(
        self, features: int, widths: Mapping[str, int], *, dropout: float, key: Key[Array, ""]
    ) -> None:
        layers = {}
        for name, width in widths.items():
            layers[name] = nnx.Linear(
                features,
                width,
                kernel_init=nnx.initializers.he_uniform(),
                rngs=nnx.Rngs(params=stream_key(key, f"params/{name}")),
            )
            features = width
        self.layers = nnx.Dict(layers)
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self, x: Float[Array, "batch features"], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "batch classes"]:
        """Return the logits; with a `key` as in training, without one as in evaluation."""
        *hidden, last = self.layers.items()
        for name, layer in hidden:
            x = jax.nn.relu(layer(x))
            if key is not None:
                x = self.dropout(x, rngs=stream_key(key, f"dropout/{name}"))
        logits: Array = last[1](x)
        return logits


def initialise(
    make: Callable[[Key[Array, ""]], nnx.Module], key: Key[Array, ""]
) -> tuple[Any, Params]:
    """Build a module in one compiled program and take its parameters out of it.

    One program, because the same initialiser run operation by operation may give other bits.

    **Same bits:** one backend and version.

    Args:
        make: makes the module from a key. All of its state must be `nnx.Param`.
        key: a typed key, shape `()`.

    Returns:
        The module's structure (static, to be used with `apply`) and its parameters, a nested
        dict of arrays.

    Raises:
        ValueError: the module has state other than parameters (batch statistics, a counter of
            random numbers): it would be lost, and a resumed run would differ.

    Examples:
        >>> from reproducibility import root_key
        >>> graph, params = initialise(
        ...     lambda key: MLP(4, {"output": 2}, dropout=0.0, key=key), root_key(7)
        ... )
        >>> jax.tree.map(jax.numpy.shape, params)
        {'layers': {'output': {'bias': (2,), 'kernel': (4, 2)}}}
    """
    graph, build = initialiser(make, key)
    return graph, build(key)


def initialiser(
    make: Callable[[Key[Array, ""]], nnx.Module], key: Key[Array, ""]
) -> tuple[Any, Callable[[Key[Array, ""]], Params]]:
    """Compile what `initialise` does, to call it with many keys.

    **Same bits:** `initialiser(make, any_key)[1](key)` returns those of `initialise(make, key)[1]`.

    Args:
        make: as for `initialise`.
        key: any typed key, shape `()`: only its implementation counts.

    Returns:
        The module's structure, and a compiled function from a key to parameters.

    Raises:
        ValueError: as for `initialise`.

    Examples:
        >>> from reproducibility import root_key
        >>> _, build = initialiser(
        ...     lambda key: MLP(4, {"output": 2}, dropout=0.0, key=key), root_key(0)
        ... )
        >>> jax.tree.map(jax.numpy.shape, build(root_key(7)))
        {'layers': {'output': {'bias': (2,), 'kernel': (4, 2)}}}
    """
    abstract = nnx.eval_shape(make, key)
    variables = jax.tree.leaves(nnx.state(abstract), is_leaf=lambda v: isinstance(v, nnx.Variable))
    kinds = {
        type(variable).__name__ for variable in variables if not isinstance(variable, nnx.Param)
    }
    if kinds:
        raise ValueError(
            f"Cannot initialise this module: expected only Param state, got {sorted(kinds)}. "
            "Pass keys to the call instead of keeping nnx.Rngs, or carry that state yourself."
        )

    @jax.jit
    def build(key: Key[Array, ""]) -> Params:
        params: Params = nnx.to_pure_dict(nnx.state(make(key), nnx.Param))
        return params

    return nnx.graphdef(abstract), build


def apply(graph: Any, params: Params, *args: Any, **kwargs: Any) -> Any:
    """Call the module that `graph` and `params` describe.

    **Same bits:** within one compiled program; `jit` and eager calls differ in the last bits.

    Args:
        graph: the structure that `initialise` returned.
        params: parameters of that structure.
        *args: what the module's call takes.
        **kwargs: what the module's call takes.

    Returns:
        What the module's call returns.

    Examples:
        >>> from reproducibility import root_key
        >>> graph, params = initialise(
        ...     lambda key: MLP(4, {"output": 2}, dropout=0.0, key=key), root_key(7)
        ... )
        >>> apply(graph, params, jax.numpy.ones((3, 4))).shape
        (3, 2)
    """
    return nnx.merge(graph, nnx.State(params))(*args, **kwargs)
