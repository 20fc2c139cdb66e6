"""What JAX hands to XLA for one call, and how XLA alone executes it; only where a call is kept.

The rule: private names of JAX, as in `hook`, each in one function with a test that it is there.
Chapter: docs/guide/any_script.md
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .compiled import Compiled


def tell_of_compilations(tell: Callable[[Any, Any, Any], None]) -> None:
    """Tell what XLA has loaded, and the module and the options that it was made from."""
    compiler: Any = importlib.import_module("jax._src.compiler")
    compile = compiler.compile_or_get_cached

    def compiled(
        backend: Any, module: Any, devices: Any, options: Any, *rest: Any, **more: Any
    ) -> Any:
        loaded = compile(backend, module, devices, options, *rest, **more)
        tell(loaded, module, options)
        return loaded

    compiler.compile_or_get_cached = compiled


def inputs_of(execute: Any, arguments: Sequence[Any]) -> list[Any]:
    """Return the arrays that a program is given, each where it has to lie."""
    execute = execute.args[0]
    given = [each for place, each in enumerate(arguments) if place in execute.kept_var_idx]
    given += execute.mut.in_mut if execute.mut else []
    return list(execute.in_handler(given))


def why_it_cannot_be_executed_alone(execute: Any) -> str:
    """Return what a program needs that no other process has, or nothing."""
    execute = execute.args[0]
    if execute.has_host_callbacks or execute.ordered_effects or execute.has_unordered_effects:
        return "it calls functions of the script"
    jax: Any = sys.modules["jax"]
    devices = execute.xla_executable.local_devices()
    if len({each.process_index for each in devices}) > 1 or jax.process_count() > 1:
        return "it runs on several processes"
    return ""


def why_not_twice(program: Compiled) -> str:
    """Return what computing a call of a program a second time could change, or nothing."""
    execute, jax = program.execution, sys.modules["jax"]
    if execute.has_host_callbacks or execute.ordered_effects or execute.has_unordered_effects:
        return "they call functions of the script"
    if execute.mut:
        return "they write to mutable arrays"
    if program.effects is None:
        return "they were compiled elsewhere"
    if execute.pgle_profiler is not None:
        return "JAX counts their executions"
    return program.effects or ("several processes compute" if jax.process_count() > 1 else "")


def compile_alone(module: bytes, options: bytes, devices: Sequence[Any]) -> Any:
    """Return what XLA makes of a program's StableHLO, loaded, without any function of JAX."""
    compiler: Any = importlib.import_module("jax._src.compiler")
    mlir: Any = importlib.import_module("jax._src.interpreters.mlir")
    library = importlib.import_module("jax._src.lib").xla_client
    compile = getattr(compiler, "backend_compile_and_load", None) or compiler.backend_compile
    with mlir.make_ir_context():
        parsed = mlir.ir.Module.parse(module)
        made_as = library.CompileOptions.ParseFromString(options)
        where = library.DeviceList(tuple(devices))
        return compile(devices[0].client, parsed, where, made_as, [])
