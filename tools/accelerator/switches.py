"""Which flags and settings are tried on which platform, and what each is for.

The most important come first: where the time is short, the last ones are left out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Switch:
    """A flag or a setting, as environment variables."""

    name: str
    variables: dict[str, str]
    platforms: tuple[str, ...]


def _flag(flag: str, *platforms: str) -> Switch:
    return Switch(flag, {"XLA_FLAGS": flag}, platforms)


def _variable(name: str, value: str, *platforms: str) -> Switch:
    return Switch(f"{name}={value}", {name: value}, platforms)


DUMP, LOAD = "--xla_gpu_dump_autotune_results_to=", "--xla_gpu_load_autotune_results_from="
SWITCHES = (
    _flag("--xla_gpu_exclude_nondeterministic_ops=true", "gpu"),
    _flag("--xla_gpu_deterministic_ops=true", "gpu"),
    _flag("--xla_gpu_autotune_level=0", "gpu"),
    _variable("JAX_DEFAULT_MATMUL_PRECISION", "highest", "gpu", "tpu", "cpu"),
    _variable("NPROC", "1", "cpu"),
    _flag("--xla_cpu_max_isa=AVX", "cpu"),
    _variable("NVIDIA_TF32_OVERRIDE", "0", "gpu"),
    _flag("--xla_gpu_enable_triton_gemm=false", "gpu"),
    _flag("--xla_allow_excess_precision=false", "gpu", "tpu", "cpu"),
    _flag("--xla_gpu_enable_scatter_determinism_expander=true", "gpu"),
    _flag("--xla_gpu_enable_command_buffer=", "gpu"),
    _flag("--xla_cpu_enable_fast_math=true", "cpu"),
    _flag("--xla_cpu_prefer_vector_width=128", "cpu"),
    _flag("--xla_backend_optimization_level=0", "cpu"),
    _variable("JAX_DEFAULT_MATMUL_PRECISION", "bfloat16", "gpu", "tpu"),
    _variable("JAX_DEFAULT_MATMUL_PRECISION", "tensorfloat32", "gpu"),
    _variable("JAX_THREEFRY_PARTITIONABLE", "false", "gpu", "tpu", "cpu"),
    _variable("XLA_PYTHON_CLIENT_ALLOCATOR", "platform", "gpu"),
)


def switches_of(platform: str) -> list[Switch]:
    """Return what applies to a platform."""
    known = "gpu" if platform in ("gpu", "cuda", "rocm") else platform
    return [switch for switch in SWITCHES if known in switch.platforms]
