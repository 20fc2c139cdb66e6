"""The settings of JAX: those of the recorder's own programs, and what is read of the script's.

The rule: the script's hold before and after; private names of JAX, as in `hook`.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from typing import Any

# Settings of the script's that change what is drawn or computed.
TOLD = (
    *("jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable"),
    *("jax_default_matmul_precision", "jax_random_seed_offset", "jax_num_cpu_devices"),
)


def settings_of_script() -> dict[str, str]:
    """Return the settings that may change what a script computes, as they are now."""
    jax: Any = sys.modules.get("jax")
    config = getattr(jax, "config", None)
    return {name: str(getattr(config, name)) for name in TOLD if hasattr(config, name)}


class SettingsOfCalls:
    """JAX's settings, as they are read where a call comes by.

    Under `no_tracing` JAX refuses any call that does not take the shortcut, as watched ones do not.
    Whatever is traced is still refused, where it is traced.
    """

    no_tracing = types.SimpleNamespace(value=False)

    def __init__(self, config: Any) -> None:
        self._config = config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)


def plain_settings(*, x64: bool | None = True) -> contextlib.AbstractContextManager[Any]:
    """The settings under which the recorder's own programs are compiled and called.

    Without `x64` numbers are as wide as in the script.
    """
    config, stack = _of_jax("config"), contextlib.ExitStack()
    off = "disable_jit debug_nans debug_infs check_tracer_leaks log_compiles no_tracing"
    values: dict[str, Any] = dict.fromkeys([*off.split(), "enable_compilation_cache"], False)
    for way in ("host_to_device", "device_to_device", "device_to_host"):
        values[f"transfer_guard_{way}"] = "allow"
    for name, value in values.items() if x64 is None else {"enable_x64": x64, **values}.items():
        state = getattr(config, name, None)
        if callable(state):
            stack.enter_context(state(value))
    _leave_mesh(stack)
    return stack


def _leave_mesh(stack: contextlib.ExitStack) -> None:
    """Leave the mesh that the script has set for all of its calls, for as long as `stack` lasts."""
    places = [_of_jax(name) for name in ("mesh", "sharding_impls", "config")]
    empty = {
        "abstract_mesh_context_manager": "empty_abstract_mesh",
        "device_context": "empty_concrete_mesh",
    }
    for names in empty.items():
        found: list[Any] = [
            next((getattr(place, name) for place in places if hasattr(place, name)), None)
            for name in names
        ]
        state, nothing = found
        if hasattr(state, "swap_local"):
            stack.callback(state.set_local, state.swap_local(nothing))


def _of_jax(name: str) -> Any:
    return importlib.import_module(f"jax._src.{name}")
