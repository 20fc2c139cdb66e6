"""The hidden inputs that change how numbers are computed: threads, devices, settings of JAX, flags.

The rule: one row for each; what it is changed to is never what it is.
Chapter: docs/guide/hidden_inputs.md
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

from reproducibility.script.hidden import BLAS, Change, Hidden, Surroundings, command_in_line

FLAGS = "XLA_FLAGS"


def hidden_numbers(around: Surroundings) -> list[Hidden]:
    """Return these rows; one that does not apply has no change.

    Args:
        around: what the script is run in.
    """
    return [*_of_threads(around), *_settings_of_jax(around), *_of_machine(around)]


def _of_threads(around: Surroundings) -> list[Hidden]:
    nproc = around.number("NPROC", around.cores)
    blas = around.number("OPENBLAS_NUM_THREADS", around.number("OMP_NUM_THREADS", around.cores))
    one, few = ("1" if blas > 1 else "2"), ("1" if nproc > 1 else "4")
    one_more = 2 * around.cores + 1  # half of it is another number, too
    few_and_many = (1 if around.cores > 1 else 2, 64 if around.cores != 64 else 128)
    return [
        Hidden(
            "processors",
            "the number of processors",
            "give the number of workers as an argument",
            (_processors(one_more),),
            (("machine", "cpu_count|/proc/|/sys/"),),
            r"cpu_count|affinity|NPROC",
            more=tuple(map(_processors, few_and_many)),
            told_anyway=(
                ("machine", "^/proc/cpuinfo$|^/sys/devices/system/(cpu|node)"),
                ("process", r"\('(nproc|lscpu|getconf)'\)"),
            ),
            words_anyway=rf"sysconf|psutil\.cpu_count|{command_in_line('nproc|lscpu|getconf')}",
        ),
        Hidden(
            "xla-threads",
            "the number of XLA's threads",
            f"NPROC={nproc}",
            (Change(f"NPROC={few}", variables={"NPROC": few}),),
        ),
        Hidden(
            "blas-threads",
            "the number of BLAS threads",
            f"OPENBLAS_NUM_THREADS={blas}",
            (Change(one, variables=dict.fromkeys(BLAS, one)),),
        ),
        Hidden(
            "blas-kernels",
            "the kernels of BLAS",
            "OPENBLAS_CORETYPE, to what all of your machines have",
            _other_kernels(around.environment.get("OPENBLAS_CORETYPE", "")),
        ),
    ]


def _processors(number: int) -> Change:
    return Change(f"{number}", {"processors": number})


def _other_kernels(now: str) -> tuple[Change, ...]:
    names = {"x86_64": ("Nehalem", "Haswell"), "aarch64": ("ARMV8", "NEOVERSEN1")}
    found = names.get(platform.machine(), ())
    name = next((each for each in found if each.lower() != now.lower()), "")
    variables = {"OPENBLAS_CORETYPE": name, "MKL_CBWR": "COMPATIBLE"}
    return (Change(f"OPENBLAS_CORETYPE={name}", variables=variables),) if name else ()


def _settings_of_jax(around: Surroundings) -> list[Hidden]:
    devices = 3 if around.devices != 3 else 2
    settings = around.settings
    return [
        Hidden(
            "devices",
            "the number of devices",
            "say in the script how many are used, and sum shards in a fixed order",
            (Change(f"{devices}", variables={"JAX_NUM_CPU_DEVICES": f"{devices}"}),)
            * ("jax_num_cpu_devices" in settings),
            words=r"device|mesh|Mesh|pmap|shard",
        ),
        _setting("x64", settings, "jax_enable_x64", {"True": "0", "False": "1"}),
        _setting(
            "prng", settings, "jax_default_prng_impl", {"threefry2x32": "rbg"}, "threefry2x32"
        ),
        _setting(
            "partitionable", settings, "jax_threefry_partitionable", {"True": "0", "False": "1"}
        ),
        _setting(
            "precision",
            settings,
            "jax_default_matmul_precision",
            {"bfloat16": "highest"},
            "bfloat16",
        ),
        Hidden(
            "cache",
            "JAX's cache of compiled programs",
            "JAX_ENABLE_COMPILATION_CACHE=false",
            (Change("filled by an earlier run", place="cache"),),
        ),
    ]


def _setting(
    name: str,
    settings: Mapping[str, str],
    setting: str,
    others: Mapping[str, str],
    default: str = "",
) -> Hidden:
    """Return the row of a setting of JAX that changes the bits of nearly every script."""
    now = settings.get(setting)
    other = others.get(now or "", default)
    change = Change(
        f"{setting.upper()}={other}", variables={setting.upper(): other}, setting=setting
    )
    value = now if now in ("True", "False", "None") else repr(now)
    pin = f"jax.config.update({setting!r}, {value})"
    return Hidden(name, setting, pin, (change,) * (now is not None), group="machine")


def _of_machine(around: Surroundings) -> list[Hidden]:
    """Return what belongs to the machine, and changes the bits of nearly every script."""
    flags = around.environment.get(FLAGS, "")
    x86 = platform.machine() == "x86_64"

    def flag(name: str, called: str, text: str, pin: str) -> Hidden:
        given = text.partition("=")[0] in flags
        change = Change(text, variables={FLAGS: f"{flags} {text}".strip()})
        return Hidden(name, called, pin, (change,) * (x86 and not given), group="machine")

    return [
        flag(
            "instructions",
            "the instruction set",
            "--xla_cpu_max_isa=SSE4_2",
            "--xla_cpu_max_isa in XLA_FLAGS, to what all of your machines have",
        ),
        flag(
            "fast-math",
            "fast mathematics of XLA",
            "--xla_cpu_enable_fast_math=true",
            "leave the flag alone",
        ),
        flag(
            "vectors",
            "the width of vectors",
            "--xla_cpu_prefer_vector_width=128",
            "--xla_cpu_prefer_vector_width=256 in XLA_FLAGS",
        ),
    ]
