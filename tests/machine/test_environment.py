"""What `reproducibility.machine.environment` promises."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from reproducibility import capture_environment, environment_differences
from reproducibility.machine import environment
from reproducibility.machine.environment import KNOWN_FACTS, Difference, variables_of

REPOSITORY = Path(__file__).parents[2]


def test_the_device_is_one_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """With several processes, the kind of device is that of this process, not of the first: where
    two differ, they have to find out."""
    first, own = SimpleNamespace(device_kind="first", client=None), jax.local_devices()[0]
    monkeypatch.setattr(jax, "devices", lambda *which: [first, own])
    assert capture_environment()["device.kind"] == own.device_kind != "first"


# ---------------------------------------------------------------- across real processes
# Each child runs in an empty directory, prints its environment and the digests of three probes.
PROBE = """
import hashlib, json, sys
import jax, jax.numpy as jnp, numpy as np
from reproducibility import capture_environment

# JAX refuses this once a device has started, so it fails if the import started one.
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))

def digest(array):
    return hashlib.sha256(np.asarray(array).tobytes()).hexdigest()

images, filters = (
    np.random.RandomState(0).standard_normal(shape).astype(np.float32)
    for shape in ((16, 8, 8, 4), (3, 3, 4, 16))
)
layout = jax.lax.conv_dimension_numbers(images.shape, filters.shape, ("NHWC", "HWIO", "NHWC"))

@jax.jit
def loss(filters):
    out = jax.lax.conv_general_dilated(images, filters, (1, 1), "SAME", dimension_numbers=layout)
    return jnp.sum(out**2)

key = jax.random.key(0)
probes = {
    "key": digest(jax.random.key_data(key)),
    "normal": digest(jax.random.normal(key, (10_000,))),
    "convolution": digest(jax.grad(loss)(filters)),
}
print(json.dumps({"environment": capture_environment(), "probes": probes}))
"""
X86 = platform.machine().lower() in {"x86_64", "amd64"}
FLAG, VALUE = ("xla_cpu_max_isa", "SSE4_2") if X86 else ("xla_cpu_enable_fast_math", "true")
CHILDREN = {
    "plain": {},
    "threads": {"NPROC": "4", "OPENBLAS_CORETYPE": "Haswell"},
    "flag": {"XLA_FLAGS": f"--{FLAG}={VALUE}", "FOO_TOKEN": "hush", "JAX_FOO_TOKEN": "hush"},
    "config": {
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_DISABLE_JIT": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_ENABLE_X64": "1",
        "JAX_HIGH_DYNAMIC_RANGE_GUMBEL": "1",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_RANDOM_SEED_OFFSET": "1",
        "JAX_THREEFRY_PARTITIONABLE": "0",
    },
}


def start(settings: dict[str, str], directory: Path, devices: str) -> subprocess.Popen[str]:
    """Start the probe in an empty directory, with one thread unless the settings say otherwise."""
    ours = ("JAX_", "XLA_", "OMP_", "OPENBLAS_", "GOTO_", "GIT_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    inherited.pop("PJRT_NPROC", None)
    fixed = {"JAX_PLATFORMS": "cpu", "NPROC": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", PROBE, devices],
        env={**inherited, **fixed, "GIT_CEILING_DIRECTORIES": str(directory.parent), **settings},
        cwd=directory,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    """What the four children print; they run at the same time."""
    running = {
        name: start(settings, tmp_path_factory.mktemp(name), "3" if name == "config" else "1")
        for name, settings in CHILDREN.items()
    }
    try:
        return {name: json.loads(p.communicate(timeout=120)[0]) for name, p in running.items()}
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def changed(children, name: str) -> dict[str, Difference]:
    """List what a child's environment has otherwise than the plain child's, by name."""
    found = environment_differences(children["plain"]["environment"], children[name]["environment"])
    return {difference.name: difference for difference in found}


def probes_that_differ(children, name: str) -> set[str]:
    """Name the probes whose bits a child's settings changed."""
    plain, other = children["plain"]["probes"], children[name]["probes"]
    return {probe for probe in plain if plain[probe] != other[probe]}


def test_thread_settings_are_named_and_change_bits(children):
    """NPROC sizes XLA's pool, which is named, and which changes a gradient and no draw."""
    found = changed(children, "threads")
    assert set(found) == {"threads.xla_cpu", "env.NPROC", "env.OPENBLAS_CORETYPE"}
    pool = found["threads.xla_cpu"]
    assert (pool.a, pool.b, pool.effect) == (1, 4, "changes bits")
    assert found["env.OPENBLAS_CORETYPE"].effect == "changes bits"
    assert found["env.NPROC"].effect == "not known to change bits"
    assert probes_that_differ(children, "threads") == {"convolution"}


def test_a_compiler_flag_is_named_and_changes_bits(children):
    """A flag the table blames is named with its value, and does change normal draws, not keys."""
    found = changed(children, "flag")
    assert found.pop(f"xla_flags.{FLAG}") == Difference(
        f"xla_flags.{FLAG}",
        None,
        VALUE,
        "changes bits",
        KNOWN_FACTS["changes bits"][f"xla_flags.{FLAG}"],
    )
    assert set(found) == {"env.JAX_FOO_TOKEN"}
    assert "normal" in probes_that_differ(children, "flag")
    assert "key" not in probes_that_differ(children, "flag")


def test_jax_settings_are_named_and_change_bits(children):
    """Each JAX_ variable that changes bits is named by its option, and they do change keys."""
    found = changed(children, "config")
    options = {f"config.{name.lower()}" for name in CHILDREN["config"]}
    assert options <= set(found)
    assert {found[name].effect for name in options} == {"changes bits"}
    assert found["config.jax_random_seed_offset"].b == 1
    assert found["config.jax_default_prng_impl"].b == "rbg"
    assert probes_that_differ(children, "config") >= {"key", "normal"}


def test_no_secret_is_recorded(children):
    """Of a variable that is not in the table, no value is recorded, whatever its name."""
    captured = children["flag"]["environment"]
    assert "hush" not in json.dumps(captured)
    assert "env.FOO_TOKEN" not in captured
    assert captured["env.JAX_FOO_TOKEN"] == "(set)"


def test_no_repository_is_none(children):
    """A directory that is in no git repository gives None, not an error."""
    captured = children["plain"]["environment"]
    assert [captured[f"git.{name}"] for name in ("commit", "dirty", "diff")] == [None] * 3


# ---------------------------------------------------------------- the record
def test_a_record_survives_json_and_repeats(children):
    """An environment is plain JSON, and a second capture is the same."""
    first = capture_environment()
    assert json.loads(json.dumps(first)) == first
    assert {type(value) for value in first.values()} <= {str, int, bool, type(None)}
    assert environment_differences(first, capture_environment()) == []


def test_every_fact_is_about_something_recorded(children):
    """The table and the record name the same settings, flags apart, which only show when set."""
    known = {name for facts in KNOWN_FACTS.values() for name in facts}
    captured = set(children["plain"]["environment"])
    of_the_run = ("xla_flags.", "layout.", "program.")  # the last two are recorded by `train`
    assert captured == {name for name in known if not name.startswith(of_the_run)}
    assert sum(map(len, KNOWN_FACTS.values())) == len(known), "a setting stands under two effects"


def test_every_option_exists():
    """The options in the table are spelled as this JAX spells them, so that each is really read."""
    names = {
        n.removeprefix("config.") for facts in KNOWN_FACTS.values() for n in facts if "config." in n
    }
    if jax.__version_info__ < (0, 11):
        assert names <= set(jax.config.values)
    assert "jax_default_prng_impl" in names


def test_importing_starts_no_device(children):
    """Importing the module starts no device, so a program may still choose its devices after it."""
    count = changed(children, "config")["device.count"]
    assert (count.a, count.b, count.effect) == (1, 3, "changes bits")


def test_devices_enlarge_the_thread_pool(children):
    """XLA gives each CPU device a thread, so more devices are more threads, and it is recorded."""
    pool = changed(children, "config")["threads.xla_cpu"]
    assert (pool.a, pool.b) == (1, 3)


def test_an_option_is_read_inside_its_context():
    """A setting made by a `with` is recorded as it holds there."""
    with jax.default_matmul_precision("highest"):
        assert capture_environment()["config.jax_default_matmul_precision"] == "highest"


def test_an_option_that_jax_lacks_is_none():
    """An option of another version of JAX is None, not an error."""
    assert environment._option("jax_no_such_option") is None


# ---------------------------------------------------------------- flags, threads, CPU, code
@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("", {}),
        ("--a=1 --b", {"a": "1", "b": "true"}),
        ("--b --a=1", {"a": "1", "b": "true"}),
        ("--a=1 --a=2", {"a": "2"}),
        ("--a='x y'  --c=", {"a": "x y", "c": ""}),
        ("--xla_dump_to=/home/someone/dump", {"xla_dump_to": "(path)"}),
        ("--a='unclosed", {"(unreadable)": "(set)"}),
        ("no_such_file", {"(unreadable)": "(set)"}),
    ],
)
def test_flags_are_normalised(monkeypatch, text, flags):
    """XLA_FLAGS becomes one entry a flag: order does not count, the last of two wins, no paths."""
    monkeypatch.setenv("XLA_FLAGS", text)
    found = {k: v for k, v in capture_environment().items() if k.startswith("xla_flags.")}
    assert found == {f"xla_flags.{name}": value for name, value in flags.items()}


def test_flags_may_stand_in_a_file(monkeypatch, tmp_path):
    """XLA_FLAGS may name a file of flags, as XLA allows; what counts is what it holds."""
    (tmp_path / "flags").write_text("--xla_cpu_max_isa=AVX\n--xla_cpu_ftz\n")
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    captured = capture_environment()
    assert captured["xla_flags.xla_cpu_max_isa"] == "AVX"
    assert captured["xla_flags.xla_cpu_ftz"] == "true"


@pytest.mark.parametrize(
    ("variables", "xla", "blas"),
    [
        ({}, 4, 4),
        ({"NPROC": "2"}, 2, 4),
        ({"NPROC": "2", "PJRT_NPROC": "3"}, 3, 4),
        ({"NPROC": "2", "PJRT_NPROC": "many"}, 2, 4),
        ({"NPROC": "0"}, 1, 4),
        ({"NPROC": "16"}, 16, 4),
        ({"OMP_NUM_THREADS": "2"}, 4, 2),
        ({"OMP_NUM_THREADS": "2,1"}, 4, 2),
        ({"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "3"}, 4, 3),
        ({"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "0"}, 4, 2),
        ({"OPENBLAS_NUM_THREADS": "16"}, 4, 4),
    ],
)
def test_thread_counts(monkeypatch, variables, xla, blas):
    """Thread counts follow the rules of XLA and OpenBLAS, measured with jaxlib 0.12.0.1."""
    for name in ("NPROC", "PJRT_NPROC", *environment._BLAS_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    assert environment._threads(4) == {"threads.xla_cpu": xla, "threads.blas": blas}


@pytest.mark.parametrize(
    ("words", "isa"),
    [
        ("fpu sse4_2", "SSE4_2"),
        ("sse4_2 avx avx2 fma", "AVX2"),
        ("avx avx2 avx512f avx512_vnni", "AVX512_VNNI"),
        ("SSE4.2 AVX1.0", "AVX"),
        ("fp asimd sve", "SVE"),
        ("", None),
    ],
)
def test_the_widest_instruction_set_is_named(monkeypatch, words, isa):
    """The instruction set is the widest the CPU offers, by the name that XLA's cap uses."""
    monkeypatch.setattr(platform, "machine", lambda: "some machine")
    assert environment._cpu("A CPU", words) == {"cpu.model": "A CPU", "cpu.isa": isa}


def test_this_machine_has_a_known_instruction_set():
    """On the machines the project supports the instruction set is found."""
    assert capture_environment()["cpu.isa"] in environment._ISAS


SCRIPT = """
import json
from reproducibility.machine import environment
print(json.dumps(environment._git()))
"""
NOTHING = {"git.commit": None, "git.dirty": None, "git.diff": None}


def git(folder: Path, *command: str) -> str:
    """Run git in a folder; return what it prints."""
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *author, *command], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repositories(tmp_path: Path) -> dict[str, Path]:
    """Two repositories, "a" and "b", each with a script of one commit, and a folder outside."""
    folders = {name: tmp_path / name for name in ("a", "b", "outside")}
    for name, folder in folders.items():
        (folder / "deep").mkdir(parents=True)
        (folder / "script.py").write_text(SCRIPT)
        (folder / "other").write_text(name)
        if name != "outside":
            git(folder, "init", "-q")
            git(folder, "add", ".")
            git(folder, "commit", "-qm", f"first of {name}")
    return folders


def code_of(*command: str | Path, cwd: Path, **variables: str) -> dict[str, object]:
    """Return the code that a Python process says it runs, started in some directory."""
    variables = {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu", **variables}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, **variables},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def test_the_code_is_that_of_the_script(repositories):
    """The commit is that of the repository the script is in, from wherever it is started.

    The directory that one happens to be in, and variables that would lead git elsewhere, do not
    count; without a script, or outside of a repository, there is none.
    """
    a, b, outside = repositories.values()
    head = git(a, "rev-parse", "HEAD")
    expected = {"git.commit": head, "git.dirty": False, "git.diff": None}
    assert head != git(b, "rev-parse", "HEAD")
    for cwd in (b, a / "deep", outside):
        assert code_of(a / "script.py", cwd=cwd) == expected
    moved = {"GIT_DIR": str(b / ".git"), "GIT_WORK_TREE": str(b)}
    assert code_of(a / "script.py", cwd=b, **moved) == expected
    assert code_of(outside / "script.py", cwd=a) == NOTHING
    assert code_of("-c", SCRIPT, cwd=a) == NOTHING
    (outside / "link.py").symlink_to(a / "script.py")
    assert code_of(outside / "link.py", cwd=outside) == expected


def test_a_script_that_no_commit_holds_is_dirty(repositories, monkeypatch):
    """A script that git does not track yet is not the commit's; one in an ignored place has none.

    So a program of a virtual environment inside of a project does not count as the project.
    """
    a = repositories["a"]
    run_as(monkeypatch, a / "script.py")
    assert environment._git()["git.dirty"] is False
    (a / "new.py").write_text("one")
    run_as(monkeypatch, a / "new.py")
    first = environment._git()
    (a / "new.py").write_text("two")
    second = environment._git()
    assert (first["git.commit"], first["git.dirty"]) == (git(a, "rev-parse", "HEAD"), True)
    assert first["git.diff"] != second["git.diff"]
    (a / ".gitignore").write_text("bin/")
    (a / "bin").mkdir()
    (a / "bin/program").write_text("one")
    run_as(monkeypatch, a / "bin/program")
    assert environment._git() == NOTHING


def run_as(monkeypatch: pytest.MonkeyPatch, script: Path) -> None:
    """Let this process be one that was started with a script."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)


def test_edits_are_told_apart(repositories, monkeypatch):
    """An edit of any tracked file is dirty, two edits are not the same, others do not count."""
    a = repositories["a"]
    head = git(a, "rev-parse", "HEAD")
    (a / "deep/script.py").write_text(SCRIPT)
    git(a, "add", "deep")
    git(a, "commit", "-qm", "second")
    git(a, "config", "diff.relative", "true")
    run_as(monkeypatch, a / "deep/script.py")
    (a / "untracked").write_text("does not count")
    clean = environment._git()
    assert clean["git.commit"] != head
    assert (clean["git.dirty"], clean["git.diff"]) == (False, None)
    (a / "other").write_bytes(b"two \xff")
    edited = environment._git()
    (a / "other").write_bytes(b"two \xfe")
    again = environment._git()
    assert (edited["git.commit"], edited["git.dirty"]) == (clean["git.commit"], True)
    assert edited["git.diff"] != again["git.diff"]
    for name in ("noprefix", "mnemonicPrefix"):  # how somebody likes to see it is not the code
        git(a, "config", f"diff.{name}", "true")
    assert environment._git() == again


def test_what_is_inside_of_a_submodule_counts(repositories, monkeypatch):
    """Two edits inside of a submodule are two states, whatever is set to be left out."""
    a, b = repositories["a"], repositories["b"]
    git(a, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(b), "module")
    git(a, "commit", "-qm", "with a module")
    git(a, "config", "diff.ignoreSubmodules", "all")
    run_as(monkeypatch, a / "script.py")
    found = [environment._git()]
    for text in ("one", "two"):
        (a / "module/script.py").write_text(text)
        found.append(environment._git())
    assert [each["git.dirty"] for each in found] == [False, True, True]
    assert found[1]["git.diff"] != found[2]["git.diff"]


def test_no_git_is_none(monkeypatch):
    """Where the git program is missing, the code is None, not an error."""
    monkeypatch.setenv("PATH", "")
    run_as(monkeypatch, Path(__file__))
    assert environment._git() == NOTHING


# ---------------------------------------------------------------- differences
def test_gravest_differences_come_first():
    """Differences are sorted by effect, then by name."""
    a = {"os.name": "Linux", "version.flax": "1", "threads.blas": 1, "cpu.isa": "AVX", "odd": 1}
    found = environment_differences(a, dict.fromkeys(a))
    assert [d.name for d in found] == ["cpu.isa", "threads.blas", "odd", "version.flax", "os.name"]
    assert [d.effect for d in found] == [
        "changes bits",
        "changes bits",
        "may change bits",
        "may change bits",
        "not known to change bits",
    ]


def test_an_older_or_foreign_record_is_reported():
    """A name that one record lacks is reported, and not blamed for what nobody recorded."""
    [lacking] = environment_differences({}, {"threads.xla_cpu": 2})
    assert (lacking.a, lacking.b, lacking.effect) == (None, 2, "may change bits")
    assert lacking.why.startswith("Only one side records it.")
    [foreign] = environment_differences({"colour": "red"}, {"colour": "blue"})
    assert (foreign.effect, foreign.why) == (
        "may change bits",
        "Nothing is known about this setting.",
    )
    [flag] = environment_differences({}, {"xla_flags.xla_cpu_max_isa": "AVX"})
    assert flag.effect == "changes bits", "a flag that is absent is not set"
    assert environment_differences({}, {"git.commit": None}) == []


# ---------------------------------------------------------------- and back
def test_a_process_can_be_put_into_a_recorded_environment(children, tmp_path):
    """A process with the variables of a record finds itself in that environment, bits included."""
    settings = {"XLA_FLAGS": f"--{FLAG}={VALUE}", "NPROC": "3", "JAX_ENABLE_X64": "1"}
    recorded = children["plain"]["environment"] | {
        f"xla_flags.{FLAG}": VALUE,
        "threads.xla_cpu": 3,
        "config.jax_enable_x64": True,
    }
    found = [start(s, tmp_path, "1") for s in (settings, variables_of(recorded))]
    first, second = (json.loads(process.communicate(timeout=120)[0]) for process in found)
    assert first["probes"] == second["probes"] != children["plain"]["probes"]
    other = environment_differences(first["environment"], second["environment"])
    assert {d.effect for d in other} <= {"not known to change bits"}
    assert {d.name for d in other} <= {"env.NPROC", "env.OPENBLAS_NUM_THREADS", "env.JAX_PLATFORMS"}


@pytest.mark.parametrize(
    ("recorded", "variables"),
    [
        ({}, {}),
        ({"version.jax": "0.1", "cpu.isa": "AVX", "os.name": "Linux", "git.commit": "abc"}, {}),
        ({"threads.xla_cpu": 2, "threads.blas": 3}, {"NPROC": "2", "OPENBLAS_NUM_THREADS": "3"}),
        # The thread counts say what these came to.
        ({"env.NPROC": "2", "env.PJRT_NPROC": "2", "env.OMP_NUM_THREADS": "2,1"}, {}),
        ({"env.OPENBLAS_CORETYPE": "Haswell"}, {"OPENBLAS_CORETYPE": "Haswell"}),
        ({"env.JAX_PLATFORMS": "(set)", "device.platform": "cpu"}, {"JAX_PLATFORMS": "cpu"}),
        ({"env.JAX_PLATFORMS": "(set)", "device.platform": "gpu"}, {}),
        ({"env.JAX_COMPILATION_CACHE_DIR": "(set)", "env.LIBTPU_INIT_ARGS": "(path)"}, {}),
        ({"config.jax_enable_x64": False}, {"JAX_ENABLE_X64": "False"}),
        ({"config.jax_random_seed_offset": 0}, {"JAX_RANDOM_SEED_OFFSET": "0"}),
        ({"config.jax_default_matmul_precision": None}, {}),
        ({"config.jax_nobody_knows": "1", "env.LD_PRELOAD": "x", "xla_flags.a": "1"}, {}),
        ({"xla_flags.xla_dump_to": "here", "xla_flags.(unreadable)": "(set)"}, {}),
        (
            {"xla_flags.xla_cpu_max_isa": "AVX", "xla_flags.xla_cpu_enable_fast_math": ""},
            {"XLA_FLAGS": "--xla_cpu_max_isa=AVX --xla_cpu_enable_fast_math="},
        ),
        ({"xla_flags.xla_cpu_max_isa": "AVX --xla_dump_to=here"}, {}),
        ({"xla_flags.xla_cpu_max_isa": "AVX\n"}, {}),
        ({"env.OPENBLAS_CORETYPE": "$(touch here)"}, {}),
    ],
)
def test_only_known_settings_are_passed_on(recorded, variables):
    """What is no setting, is not known, was not recorded or is no plain word is left out."""
    assert variables_of(recorded) == variables
