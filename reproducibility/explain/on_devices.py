"""One operation of a program that runs on several devices, on all of them at once.

The rule: what the devices exchange, they exchange as in the program: each operation is one
`shard_map` of its own, over the same mesh.
Chapter: docs/guide/trace.md

A value inside is the stack of what the devices have: one axis more, in the order of the mesh. Its
digest is that of the one value that all of them have, or of their parts end to end: so a batch that
is cut up has the digest of the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reproducibility.same.leaves import key_data_or_leaf

# These say to the checker of types over which axes a value varies, and compute nothing.
TYPES_ONLY = {"pvary", "pbroadcast", "pcast"}


class Devices:
    """The devices of one `shard_map`.

    Args:
        params: Of its equation.
    """

    def __init__(self, params: dict[str, Any]) -> None:
        self.mesh: Mesh = params["mesh"]
        self._specs = params["in_specs"], params["out_specs"]
        self._check = bool(params.get("check_vma", False))
        self._stack: Any = PartitionSpec(self.mesh.axis_names)  # type: ignore[no-untyped-call]
        self._programs: dict[int, tuple[Any, Callable[..., Any]]] = {}

    @staticmethod
    def can(params: dict[str, Any]) -> bool:
        """Say whether a `shard_map` can be run operation by operation.

        Args:
            params: Of its equation.
        """
        mesh = params.get("mesh")
        names = {"in_specs", "out_specs", "newly_manual_axes"} <= params.keys()
        return (
            names
            and isinstance(mesh, Mesh)
            and set(params["newly_manual_axes"]) == set(mesh.axis_names)
        )

    def parts(self, arrays: Sequence[Any]) -> list[Any]:
        """Return the stack of what each device gets of each argument.

        Args:
            arrays: The arguments of the `shard_map`.
        """
        program = self._mapped(lambda *xs: [x[None] for x in xs], self._specs[0], self._stack)
        return list(program(*arrays))

    def whole(self, stacks: Sequence[Any]) -> list[Any]:
        """Return the results of the `shard_map`.

        Args:
            stacks: What the devices have of each.
        """
        program = self._mapped(lambda *xs: tuple(x[0] for x in xs), self._stack, self._specs[1])
        return list(program(*stacks))

    def everywhere(self, value: Any) -> Any:
        """Return the stack of a value that all devices have.

        Args:
            value: A constant.
        """
        array = jnp.asarray(value)
        stack = jnp.broadcast_to(array[None], (self.mesh.size, *array.shape))
        return jax.device_put(stack, NamedSharding(self.mesh, self._stack))

    @staticmethod
    def joined(stack: Any) -> Any:
        """Return what the digest of a stack is taken of.

        Args:
            stack: What the devices have of a value.
        """
        array = np.asarray(key_data_or_leaf(stack))
        first = array[0].tobytes()
        if all(part.tobytes() == first for part in array):
            return stack[0]
        return stack if stack.ndim == 1 else stack.reshape(-1, *stack.shape[2:])

    def call(self, equation: Any, stacks: Sequence[Any]) -> list[Any]:
        """Run one operation on all devices.

        Args:
            equation: Of the program inside.
            stacks: What the devices have of each input.
        """
        known = self._programs.get(id(equation))
        if known:
            return list(known[1](*stacks))
        primitive = equation.primitive
        bind = functools.partial(primitive.bind, **primitive.get_bind_params(equation.params))

        def one(*xs: Any) -> list[Any]:
            with equation.ctx.manager:
                results = bind(*(x[0] for x in xs))
            return [y[None] for y in (results if primitive.multiple_results else [results])]

        error: Exception | None = None
        for check in (self._check, not self._check):  # some operations know only one of the two
            program = self._mapped(one, self._stack, self._stack, check)
            try:
                results = list(program(*stacks))
            except (TypeError, ValueError, NotImplementedError) as raised:
                error = error or raised
                continue
            self._programs[id(equation)] = equation, program
            return results
        raise error or AssertionError

    def _mapped(
        self, function: Callable[..., Any], given: Any, returned: Any, check: bool = False
    ) -> Callable[..., Any]:
        specs = {"in_specs": given, "out_specs": returned, "check_vma": check}
        mapped: Callable[..., Any] = jax.jit(jax.shard_map(function, mesh=self.mesh, **specs))
        return mapped
