"""What surrounds a run, captured as data, and which differences can change its bits.

The rule: a digest means something only beside the environment that produced it.
Chapter: docs/fundamentals/reproducibility_basics.md

What was recorded is compared without JAX: it is imported only where an environment is captured.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

type Value = str | int | bool | None
type Environment = dict[str, Value]
type Effect = Literal["changes bits", "may change bits", "not known to change bits"]

# What is known, one fact a line. "Measured" is with jax 0.12.0.1 on XLA:CPU, x86-64. This is also
# the list of what to capture: an option of JAX (`config.`) or an environment variable (`env.`) is
# recorded because it is listed here.
CHANGES_BITS = {
    "version.jax": "JAX promises neither numerics nor draws across versions (API compatibility).",
    "version.jaxlib": "It holds the compiler, whose numerics may change (API compatibility).",
    "device.platform": "Numerics are not stable across platforms (JAX, API compatibility).",
    "device.kind": "XLA chooses its kernels, and so the order of sums, for the kind of device.",
    "device.count": "Measured: an ordinary sharded step differs on 1, 2 and 4 devices.",
    "device.local_count": "Measured: 2 processes of 2 devices differ from 1 process of 4.",
    "device.processes": "Measured: 2 processes of 2 devices differ from 1 process of 4.",
    "os.machine": "Another architecture is another instruction set (see cpu.isa).",
    "cpu.isa": "Measured: exp, tanh and jax.random.normal differ below AVX2.",
    "threads.xla_cpu": "Measured: conv gradients, some large sums differ on 1, 2, 4, 16.",
    "threads.blas": "Measured: svd, eigh, cholesky, qr, solve and inv differ, all LAPACK's.",
    "env.OPENBLAS_CORETYPE": "Measured: cholesky, svd and eigh differ; it picks kernels.",
    "config.jax_default_prng_impl": "Measured: every key and every draw differs.",
    "config.jax_threefry_partitionable": "Measured: every draw differs (JAX #18480).",
    "config.jax_random_seed_offset": "Measured: every key differs; it is added to the seed.",
    "config.jax_enable_x64": "Measured: default dtypes and draws differ.",
    "config.jax_default_matmul_precision": "It allows TF32 on GPU (JAX #24909); nothing on CPU.",
    "config.jax_high_dynamic_range_gumbel": "Measured: jax.random.gumbel differs.",
    "config.jax_numpy_dtype_promotion": "It decides the dtype of mixed operands (JAX docs).",
    "config.jax_disable_jit": "Measured: x * x + 0.3 * x under jit differs from one without.",
    "config.jax_disable_most_optimizations": "Measured: jax.random.normal and matvecs differ.",
    "xla_flags.xla_cpu_max_isa": "Measured: exp, tanh, jax.random.normal differ below AVX2.",
    "xla_flags.xla_cpu_prefer_vector_width": "Measured: a matrix by a vector, rsqrt differ.",
    "xla_flags.xla_cpu_enable_platform_dependent_math": "Measured: rsqrt differs.",
    "xla_flags.xla_cpu_enable_fast_math": "Measured: cumsum and jax.random.normal differ.",
    "xla_flags.xla_backend_optimization_level": "Measured: normal draws, matvecs differ at 0.",
    "xla_flags.xla_gpu_deterministic_ops": "It chooses GPU kernels (JAX #13672, #27796).",
    "xla_flags.xla_gpu_exclude_nondeterministic_ops": "It chooses GPU kernels (OpenXLA docs).",
}
MAY_CHANGE_BITS = {
    "version.flax": "Layers, initialisers and the keys they use are Flax's code.",
    "version.optax": "The arithmetic of the update is Optax's code.",
    "version.reproducibility": "The data, the model and the step of `train` are its code.",
    "version.numpy": "NumPy promises no random stream across versions (NEP 19).",
    "version.scipy": "It brings the LAPACK that jax.numpy.linalg calls on CPU.",
    "version.scikit-learn": "It brings the handwritten digits.",
    "git.commit": "The script that ran may differ.",
    "git.dirty": "The script that ran may differ from the commit.",
    "git.diff": "The uncommitted changes differ.",
    "cpu.model": "OpenBLAS picks its kernels by the model, also at one instruction set.",
    "device.version": "The runtime or driver chooses kernels; not measured.",
    "env.PYTHONHASHSEED": "It orders Python sets of strings, and what is built from them.",
    "env.MKL_NUM_THREADS": "It sizes the BLAS pool where SciPy is built on MKL; not measured.",
    "env.MKL_CBWR": "It picks kernels where SciPy is built on MKL; not measured.",
    "env.NCCL_ALGO": "It chooses the order of sums between GPUs; not measured.",
    "env.NCCL_PROTO": "It chooses how GPUs exchange sums; not measured.",
    "env.NVIDIA_TF32_OVERRIDE": "It turns TF32 off in NVIDIA's libraries; not measured.",
    "env.LIBTPU_INIT_ARGS": "It holds the TPU compiler's flags; not measured.",
    "config.jax_optimization_level": "A compiler setting; measured: nothing on CPU.",
    "config.jax_exec_time_optimization_effort": "A compiler setting; measured: nothing on CPU.",
    "config.jax_use_direct_linearize": "Derives gradients otherwise; measured: nothing on CPU.",
    "config.jax_use_shardy_partitioner": "It cuts programs over devices; not measured.",
    "config.jax_threefry_gpu_kernel_lowering": "It picks the GPU kernel of keys; not measured.",
    "config.jax_cpu_collectives_implementation": "It sums between processes; not measured.",
    "xla_flags.xla_allow_excess_precision": "It may keep more digits than the dtype has.",
    "program.gradient": "Other operations: other code, shapes or version of JAX or Flax.",
    "program.update": "Other operations: other code, shapes or version of JAX or Optax.",
}
NOT_KNOWN_TO_CHANGE_BITS = {
    "python.version": "Python computes no array.",
    "version.orbax-checkpoint": "It stores bytes; a digest says whether they came back.",
    "os.name": "The bits come from the processor and the libraries, which are recorded.",
    "env.NPROC": "It acts through threads.xla_cpu.",
    "env.PJRT_NPROC": "It acts through threads.xla_cpu, and wins over NPROC.",
    "env.OPENBLAS_NUM_THREADS": "It acts through threads.blas.",
    "env.GOTO_NUM_THREADS": "It acts through threads.blas.",
    "env.OMP_NUM_THREADS": "It acts through threads.blas.",
    "env.JAX_PLATFORMS": "It acts through device.platform.",
    "env.JAX_NUM_CPU_DEVICES": "It acts through device.count and threads.xla_cpu.",
    "env.JAX_LOCAL_DEVICE_IDS": "It says which GPUs; what they are is in device.kind.",
    "env.JAX_COMPILATION_CACHE_DIR": "Measured: the same bits with the cache and without.",
    "config.jax_debug_nans": "Measured: nothing differs.",
    "config.jax_cpu_enable_async_dispatch": "Measured: nothing differs.",
    "xla_flags.xla_cpu_multi_thread_eigen": "Measured: nothing differs; NPROC sizes the pool.",
    "xla_flags.xla_force_host_platform_device_count": "It acts through device.count.",
    "xla_flags.xla_dump_to": "It writes files.",
    "layout.devices": "A step is three programs, each of one device.",
    "layout.processes": "A step is three programs, each of one device.",
}
KNOWN_FACTS: dict[Effect, dict[str, str]] = {
    "changes bits": CHANGES_BITS,
    "may change bits": MAY_CHANGE_BITS,
    "not known to change bits": NOT_KNOWN_TO_CHANGE_BITS,
}
CODE = ("git.commit", "git.dirty", "git.diff")  # of the script that ran
DEVICE_COUNTS = ("device.count", "device.local_count", "device.processes")
_FACTS = {
    name: (effect, why) for effect, facts in KNOWN_FACTS.items() for name, why in facts.items()
}
_RANK = {effect: rank for rank, effect in enumerate(KNOWN_FACTS)}
_UNKNOWN: tuple[Effect, str] = ("may change bits", "Nothing is known about this setting.")

# Vector instruction sets, widest first, by the names that --xla_cpu_max_isa takes (x86) or that
# ARM gives them, each with the feature words of Linux and macOS that announce it.
_ISAS = {
    "AMX_FP16": {"amx_fp16"},
    "AMX": {"amx_tile"},
    "AVX512_BF16": {"avx512_bf16"},
    "AVX512_VNNI": {"avx512_vnni"},
    "AVX512": {"avx512f"},
    "AVX2": {"avx2"},
    "AVX": {"avx", "avx1_0"},
    "SSE4_2": {"sse4_2"},
    "SVE2": {"sve2"},
    "SVE": {"sve"},
    "NEON": {"asimd", "arm64"},
}
_SYSCTL_FEATURES = ("machdep.cpu.features", "machdep.cpu.leaf7_features")
_GIT_VARIABLES = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"),
    *("GIT_NAMESPACE", "GIT_PREFIX"),
}
_BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Difference:
    """One setting in which two environments differ; None is "not set" or "not recorded"."""

    name: str
    a: Value
    b: Value
    effect: Effect
    why: str


def capture_environment() -> Environment:
    """Describe what surrounds a run: versions, devices, CPU, threads, flags, settings, code.

    The names are stable: those of `KNOWN_FACTS`, then `xla_flags.<flag>` for each flag that is set
    and `env.JAX_<NAME>` for each variable that is set and names no recorded option. JAX starts its
    devices here if nothing has, so with several processes call it after
    `jax.distributed.initialize`. Flags and thread counts are those of the environment variables
    *now*; JAX read them when its devices started, and does not notice a later change.

    Nothing private is recorded: no host name, user name, address or path. Environment variables
    are recorded only if `KNOWN_FACTS` names them, and a value that holds a path becomes
    `"(path)"`. Of variables that begin with `JAX_`, which may hold paths and addresses, only that
    they are set; the options known to matter are recorded themselves, as `config.<option>`.

    `git.commit`, `git.dirty` and `git.diff` are those of the repository that holds the script that
    runs, wherever it was started. They are None where there is no script (a notebook, an
    interpreter, `python -c`), and where it is in no repository or in a place that git ignores, as
    programs in a virtual environment are. Of uncommitted changes only a digest is kept. Of the
    files that git does not track the script alone counts.

    **Same bits:** two calls in one process agree, unless a setting or the code changed between
    them. The result says nothing about the bits of anything else; `environment_differences`
    does.

    Returns:
        A flat, JSON-able dictionary; None where a value is not set or cannot be known.

    Examples:
        >>> from reproducibility import capture_environment
        >>> environment = capture_environment()
        >>> environment["config.jax_default_prng_impl"]
        'threefry2x32'
        >>> environment == capture_environment()
        True

    References:
        JAX documentation, "API compatibility", section "Numerics and randomness".
    """
    return {
        "python.version": platform.python_version(),
        **{name: _version(name.removeprefix("version.")) for name in _recorded("version.")},
        **_devices(),
        **_cpu(*_cpu_facts()),
        **_threads(_visible_cores()),
        **jax_settings(),
        **_recorded_variables(),
        **_flags(),
        **_git(),
        "os.name": platform.system(),
        "os.machine": platform.machine(),
    }


def jax_settings() -> Environment:
    """Return the options of JAX that are recorded, as `config.<option>`."""
    return {name: _option(name.removeprefix("config.")) for name in _recorded("config.")}


def environment_differences(a: Mapping[str, Value], b: Mapping[str, Value]) -> list[Difference]:
    """List the settings in which two captured environments differ, the gravest effect first.

    A difference explains why bits may differ; it is never itself a verdict on them.

    **Same bits:** everywhere; it compares two dictionaries.

    Args:
        a: One environment, from `capture_environment` or from the record of a run.
        b: The other. Either may hold names the other lacks, or names this version does not know.

    Returns:
        The differences, sorted by effect, then by name; none if there are none.

    Examples:
        >>> from reproducibility import environment_differences
        >>> [d] = environment_differences({"threads.xla_cpu": 1}, {"threads.xla_cpu": 2})
        >>> d.effect
        'changes bits'
        >>> d.why
        'Measured: conv gradients, some large sums differ on 1, 2, 4, 16.'
    """
    names = [name for name in a.keys() | b.keys() if a.get(name) != b.get(name)]
    found = [Difference(name, a.get(name), b.get(name), *_effect(name, a, b)) for name in names]
    return sorted(found, key=lambda difference: (_RANK[difference.effect], difference.name))


def facts_of(attempt: Mapping[str, Any]) -> Environment:
    """Return what is recorded about an attempt in one dictionary, to compare with another's.

    **Same bits:** everywhere.

    Args:
        attempt: a line of `attempts.jsonl` that says where work began: its environment, layout
            and the digests of its programs.

    Returns:
        The environment, and "layout.devices", "program.gradient" and the like.
    """
    groups = {"layout": attempt.get("layout", {}), "program": attempt.get("programs", {})}
    more = {f"{group}.{name}": v for group, facts in groups.items() for name, v in facts.items()}
    # A run that records its layout has programs of one device; how many there are is said there.
    counts = DEVICE_COUNTS if "layout" in attempt else ()
    environment = {name: v for name, v in attempt["environment"].items() if name not in counts}
    return {**environment, **more}


def variables_of(environment: Mapping[str, Value]) -> dict[str, str]:
    """Return the environment variables under which a process finds itself in an environment.

    What is not a setting (versions, the processor) cannot be had this way, nor what was recorded
    as "(set)" or "(path)" only. Flags and variables that this version does not know are left out,
    and so are values with a blank, a quote or a slash, which could hold another flag or a place to
    write to: a record must not be able to make a process do what nobody has looked at.

    **Same bits:** everywhere; it translates one dictionary into another.

    Args:
        environment: what `capture_environment` returned, in whatever process.

    Returns:
        Variables by name; all others of JAX and XLA are to be absent.

    Examples:
        >>> variables_of({"xla_flags.xla_cpu_max_isa": "AVX", "config.jax_enable_x64": False})
        {'XLA_FLAGS': '--xla_cpu_max_isa=AVX', 'JAX_ENABLE_X64': 'False'}
    """
    known = {name: environment[name] for name in _FACTS if _is_setting(environment.get(name))}
    flags = [
        f"--{name.removeprefix('xla_flags.')}={value}"
        for name, value in known.items()
        if name.startswith("xla_flags.") and name != "xla_flags.xla_dump_to"
    ]
    threads = {"threads.xla_cpu": "NPROC", "threads.blas": "OPENBLAS_NUM_THREADS"}
    named = {"XLA_FLAGS": " ".join(flags)} if flags else {}
    for name, value in known.items():
        group, _, rest = name.partition(".")
        if name in threads:
            named[threads[name]] = str(value)
        elif group == "config":
            named[rest.upper()] = str(value)
        elif group == "env" and rest not in _BLAS_VARIABLES and not rest.endswith("NPROC"):
            named[rest] = str(value)
    if environment.get("device.platform") == "cpu":
        named["JAX_PLATFORMS"] = "cpu"
    return named


def _is_setting(value: Value) -> bool:
    return value is not None and re.fullmatch(r"[\w.,:=+-]*", str(value), re.ASCII) is not None


def _effect(name: str, a: Mapping[str, Value], b: Mapping[str, Value]) -> tuple[Effect, str]:
    effect, why = _FACTS.get(name, _UNKNOWN)
    # A flag that is absent is not set. Every other setting that changes bits is always captured,
    # so one that is absent was not recorded, and whether it differed cannot be told.
    recorded = name in a and name in b
    if effect == "changes bits" and not recorded and not name.startswith("xla_flags."):
        return "may change bits", f"Only one side records it. {why}"
    return effect, why


def _recorded(prefix: str) -> list[str]:
    return [name for name in _FACTS if name.startswith(prefix)]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> Environment:
    import jax

    device = jax.local_devices()[0]  # this process's own: the first of all is process 0's
    return {
        "device.platform": jax.default_backend(),
        "device.kind": device.device_kind,
        "device.version": getattr(device.client, "platform_version", None),
        "device.count": jax.device_count(),
        "device.local_count": jax.local_device_count(),
        "device.processes": jax.process_count(),
    }


def _cpu(model: str, words: str) -> Environment:
    features = {*words.lower().replace(".", "_").split(), platform.machine().lower()}
    return {
        "cpu.model": model.strip() or None,
        "cpu.isa": next((isa for isa, names in _ISAS.items() if names & features), None),
    }


def _cpu_facts() -> tuple[str, str]:
    """Read the CPU's name and its feature words where Linux, or else macOS, keeps them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        model = _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
        return model, _output("sysctl", "-n", *_SYSCTL_FEATURES) or ""
    info = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    model = info.get("model name", platform.processor())
    return model, info.get("flags", info.get("Features", ""))


def _threads(cores: int) -> Environment:
    import jax

    # XLA takes the first that is an integer, and at least one thread for each CPU device.
    asked = (os.environ.get(name, "") for name in ("PJRT_NPROC", "NPROC"))
    xla = next((int(n) for n in asked if re.fullmatch(r"\s*[+-]?\d+\s*", n)), cores)
    devices = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    # OpenBLAS takes the first that begins with a positive integer, up to the cores it sees.
    counts = (re.match(r"\s*0*([1-9]\d*)", os.environ.get(n, "")) for n in _BLAS_VARIABLES)
    blas = next((int(count[1]) for count in counts if count), cores)
    return {"threads.xla_cpu": max(xla, devices, 1), "threads.blas": min(blas, cores)}


def _visible_cores() -> int:
    # The cores this process may use, where the system tells (Linux); Python 3.13's
    # process_cpu_count is not the same: it obeys a variable that XLA does not read.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _option(name: str) -> Value:
    """Read an option of JAX; None where this JAX has no such option."""
    import jax

    value = jax.config.values.get(name)
    value = getattr(value, "value", value)  # an enum's
    return value if value is None or isinstance(value, str | int) else str(value)


def _recorded_variables() -> Environment:
    """Read the variables named in the table, and the names of other JAX_ variables that are set."""
    named = [name.removeprefix("env.") for name in _recorded("env.")]
    options = {name.removeprefix("config.").upper() for name in _recorded("config.")}
    others = [name for name in sorted(os.environ) if name.startswith("JAX_")]
    names = [*named, *(name for name in others if name not in options)]
    return {f"env.{name}": _variable(name) for name in names}


def _variable(name: str) -> str | None:
    # JAX_ variables may hold places, addresses or what JAX will add next: never their value.
    if name in os.environ and name.startswith("JAX_"):
        return "(set)"
    return _without_paths(os.environ.get(name))


def _without_paths(value: str | None) -> str | None:
    return "(path)" if value and ("/" in value or "\\" in value) else value


def _flags() -> Environment:
    """Read XLA_FLAGS as XLA does: a file or the flags themselves; the last of two wins."""
    text = os.environ.get("XLA_FLAGS", "").strip()
    try:
        words = shlex.split(text if text.startswith("-") or not text else Path(text).read_text())
    except (OSError, ValueError):
        return {"xla_flags.(unreadable)": "(set)"}
    pairs = (word.lstrip("-").partition("=") for word in words)
    flags = {name: _without_paths(value if equals else "true") for name, equals, value in pairs}
    return {f"xla_flags.{name}": flags[name] for name in sorted(flags)}


def _git() -> Environment:
    """Describe the repository of the script that runs; all None where there is none."""
    script = _script()
    # No monitor and no diff program of the repository may run, nor anything write to it (filters,
    # such as those of LFS, run as in `git status`); and no setting may change what a diff is.
    plain = ("core.fsmonitor=false", "diff.noprefix=false", "diff.mnemonicPrefix=false")
    chosen = [word for name in (*plain, "diff.ignoreSubmodules=none") for word in ("-c", name)]
    safe = ("--literal-pathspecs", "--no-optional-locks", *chosen)
    git = ("git", "-C", str(script.parent), *safe)
    exact = (
        "--full-index",
        "--no-color",
        "--no-ext-diff",
        "--no-textconv",
        "--no-relative",
        "--submodule=diff",
    )
    listed = ("--porcelain", "--ignored", "--untracked-files=all", "--", script.name)
    state = _output(*git, "status", *listed) if script.is_file() else None
    ours = state is not None and not state.startswith("!!")
    commit = _output(*git, "rev-parse", "--verify", "HEAD") if ours else None
    diff = _output(*git, "diff", "HEAD", *exact) if commit else None
    if diff is not None and state and state.startswith("??"):  # no commit holds it
        diff += script.read_bytes().decode(errors="surrogateescape")
    return {
        "git.commit": commit,
        "git.dirty": None if diff is None else diff != "",
        "git.diff": _sha256(diff) if diff else None,
    }


def _script() -> Path:
    """Return the file that Python was started with; one that is not there where it was none."""
    name = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(name or "no script").resolve()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _output(*command: str) -> str | None:
    """Run a program and return what it prints; None where it is missing, fails or is slow."""
    # These variables would make git speak of another repository than the one that it is asked for.
    variables = {name: value for name, value in os.environ.items() if name not in _GIT_VARIABLES}
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=5, env=variables)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="surrogateescape").strip()
