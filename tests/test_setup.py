"""Set-up finds a Python that has wheels of every package, on any machine, or says what to do."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSIONS = "3.12 3.13 3.14"
LOCK = f"""\
# Wheels of every package exist for Python {VERSIONS}
jax==1 \\
    --hash=sha256:0
uv==1 \\
    --hash=sha256:1
zipp==1 \\
    --hash=sha256:2
"""
# What the scripts call, besides Python and uv.
PROGRAMS = ("awk", "cat", "cksum", "dirname", "mkdir", "sed", "sh", "sort")

# A Python that says it is of another version and kind. `-m venv` and `-m pip` leave stand-ins.
PYTHON = """\
import sys, sysconfig, types
from pathlib import Path

here, version, kind, *arguments = sys.argv[1:]

def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\\n" + text)
    path.chmod(0o755)

uv = '''echo "uv $*" >> uv.calls
case "$1 $2" in
"python install") echo downloading; exit UV_FAILS ;;
"python find") echo "$PWD/managed/bin/python3" ;;
esac
'''.replace("UV_FAILS", "1" if kind == "with a uv that fails" else "0")

if arguments[0] == "-V":
    print("Python", version)
elif arguments[:2] == ["-m", "venv"]:
    folder = Path(arguments[-1])
    if folder.exists():
        __import__("shutil").rmtree(folder)
    program(folder / "bin" / "python", Path(here).read_text().partition("\\n")[2])
    program(folder / "bin" / "uv", uv)
elif arguments[:3] == ["-m", "pip", "install"]:
    if kind == "without pip":
        sys.exit("No module named pip")
    needed = Path(arguments[-1]).read_text()
    assert needed == "uv==1 \\\\\\n    --hash=sha256:1\\n", needed
    assert "--require-hashes" in arguments
    if "--target" in arguments:
        program(Path(arguments[arguments.index("--target") + 1]) / "bin" / "uv", uv)
elif arguments[0] == "-c":
    numbers = [int(number) for number in version.split(".")]
    sys.version_info = (*numbers, "final", 0)
    if kind == "without the GIL":
        sysconfig.get_config_var = {"Py_GIL_DISABLED": 1}.get
    if kind in ("venv", "ensurepip"):
        sys.modules[kind] = None
    if kind == "pypy":
        sys.implementation = types.SimpleNamespace(name="pypy")
    exec(arguments[1])
"""


class Machine:
    """A repository and a PATH of its own, both in folders with a space in their names."""

    def __init__(self, folder: Path, shell: str) -> None:
        self.repository, self.bin = folder / "a clone", folder / "the bin"
        self.pyenv, self.home = folder / "py env", folder / "my home"
        program, *rest = shell.split()
        self.shell = (shutil.which(program) or pytest.fail(f"no {program}"), *rest)
        for made in (self.repository / "tools", self.bin, self.home):
            made.mkdir(parents=True)
        for name in ("find_python.sh", "index.sh", "setup.sh"):
            shutil.copy(ROOT / "tools" / name, self.repository / "tools")
        shutil.copy(ROOT / "Makefile", self.repository)
        (self.repository / "requirements.lock").write_text(LOCK)
        (self.repository / "pyproject.toml").write_text("")
        for name in PROGRAMS:
            (self.bin / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))
        self.stand_in = folder / "stand_in.py"
        self.stand_in.write_text(PYTHON)

    def program(self, path: Path, text: str) -> Path:
        """Write a shell script."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def python(self, name: str, version: str, kind: str = "") -> str:
        """Put a Python on PATH, or at a path in pyenv; return where."""
        base = Path(sys._base_executable)
        path = self.bin / name
        call = f'exec "{base}" -I -S "{self.stand_in}" "$0" {version} "{kind}" "$@"'
        return str(self.program(path, call))

    def below_pyenv(self, name: str, version: str | None = None, kind: str = "") -> str:
        """Put a version below pyenv; None is one that does not run."""
        path = self.pyenv / "versions" / name / "bin" / "python3"
        if version is None:
            return str(self.program(path, "exit 1"))
        return self.python(str(path), version, kind)

    def uv(self, code: int = 0) -> None:
        """Put a uv on PATH whose Python is that of `managed`, and which ends with the code."""
        text = f"""\
echo "uv $*" >> uv.calls
case "$1 $2" in
"python install") echo downloading; echo "what uv says" >&2; exit {code} ;;
"python find") echo "$PWD/managed/bin/python3" ;;
esac"""
        self.program(self.bin / "uv", text)

    def managed(self, version: str) -> str:
        """Put a Python where the stand-in of uv installs it."""
        return self.python(str(self.repository / "managed/bin/python3"), version)

    def run(self, *command: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository, where nothing of the real PATH is; None is not set."""
        default = {"PATH": str(self.bin), "HOME": str(self.home), "PYENV_ROOT": str(self.pyenv)}
        return subprocess.run(
            command,
            cwd=self.repository,
            env={name: text for name, text in (default | variables).items() if text is not None},
            capture_output=True,
            text=True,
        )

    def find(self, **variables: str | None) -> subprocess.CompletedProcess[str]:
        """Run find_python.sh."""
        return self.run(*self.shell, "tools/find_python.sh", **variables)

    def found(self, **variables: str | None) -> str:
        """Return what find_python.sh prints; it says nothing else."""
        ended = self.find(**variables)
        assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
        return ended.stdout.rstrip("\n")

    def uv_calls(self) -> list[str]:
        """Return what uv was asked."""
        calls = self.repository / "uv.calls"
        return calls.read_text().splitlines() if calls.exists() else []


SHELLS = [name for name in ("sh", "dash", "bash", "busybox sh") if shutil.which(name.split()[0])]


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """A machine on which there is no Python at all."""
    return Machine(tmp_path, getattr(request, "param", "sh"))


def refused(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence that a refusal ends with."""
    assert ended.returncode == 2
    assert ended.stdout == ""
    said = [line for line in ended.stderr.splitlines() if not line.startswith("No Python ")]
    assert len(said) == 1, ended.stderr
    assert said[0].startswith("Cannot set up .venv: expected Python 3.12 to 3.14 with its venv ")
    return said[0]


def test_the_python_that_is_named_is_taken(machine: Machine) -> None:
    """PYTHON is taken, by name or by path, also where python3 would do."""
    machine.python("python3", "3.13.0")
    machine.python("python3.12", "3.12.7")
    assert machine.found(PYTHON="python3.12") == "python3.12"
    path = machine.below_pyenv("3.14.0", "3.14.0")
    assert machine.found(PYTHON=path) == path


@pytest.mark.parametrize(
    ("version", "kind", "said"),
    [
        ("3.11.7", "", "which is Python 3.11."),
        ("3.13.0", "venv", "which is Python 3.13 without venv."),
        ("3.13.0", "without the GIL", "which is Python 3.13 without the GIL."),
        ("3.13.0", "pypy", "which is Python 3.13 of another kind."),
    ],
)
def test_a_python_that_is_named_and_does_not_fit_is_refused(
    machine: Machine, version: str, kind: str, said: str
) -> None:
    """Nothing else is taken in its place, and one sentence says what it is and what to do."""
    machine.python("python3", "3.13.0")
    named = machine.python("mine", version, kind)
    sentence = refused(machine.find(PYTHON=named))
    assert f"got PYTHON={named}, {said} Name another one, or none" in sentence


@pytest.mark.parametrize("name", ["absent", "cat", "/nowhere/python3"])
def test_what_is_named_and_is_no_python_is_refused(machine: Machine, name: str) -> None:
    """A name that leads nowhere, or to another program, is refused in one sentence, too."""
    machine.python("python3", "3.13.0")
    assert f"PYTHON={name}, which is no Python 3 that runs." in refused(machine.find(PYTHON=name))


def test_python3_comes_first(machine: Machine) -> None:
    """The first name is python3, if it fits, also where there is a newer one."""
    machine.python("python3.14", "3.14.0")
    machine.python("python3", "3.12.0")
    assert machine.found() == "python3"


UNFIT = [
    ("3.11.7", ""),
    ("3.15.0", ""),
    ("3.13.0", "ensurepip"),
    ("3.13.0", "venv"),
    ("3.13.0", "without the GIL"),
    ("3.13.0", "pypy"),
]


@pytest.mark.parametrize(("version", "kind"), UNFIT)
def test_a_python3_that_does_not_fit_is_passed_over(
    machine: Machine, version: str, kind: str
) -> None:
    """Where python3 does not fit, the newest of the other names is taken."""
    machine.python("python3", version, kind)
    machine.python("python3.12", "3.12.0")
    machine.python("python3.13", "3.13.0")
    assert machine.found() == "python3.13"


def test_a_shim_without_a_version_is_passed_over(machine: Machine) -> None:
    """pyenv's shim is a program that says "command not found": what counts is that Python runs."""
    for name in ("python3", "python3.14"):
        machine.program(
            machine.bin / name, f'echo "pyenv: {name}: command not found" >&2\nexit 127'
        )
    machine.python("python3.13", "3.13.0")
    assert machine.found() == "python3.13"


@pytest.mark.parametrize("machine", SHELLS, indirect=True)
def test_the_newest_of_pyenv_that_fits_is_taken(machine: Machine) -> None:
    """By number, not by letter; broken, unfit, too old and too new ones are passed over."""
    machine.python("python3", "3.11.2")
    for version in ("3.9.1", "3.12.1", "3.13.1", "3.13.2", "3.13.10"):
        expected = machine.below_pyenv(version, version)
    machine.below_pyenv("3.13.11", None)
    machine.below_pyenv("3.13.12t", "3.13.12", "without the GIL")
    machine.below_pyenv("3.14.0", "3.14.0", "ensurepip")
    machine.below_pyenv("3.15.0", "3.15.0")
    (machine.pyenv / "versions" / "3.14.1").mkdir()
    assert machine.found() == expected


def test_pyenv_is_in_the_home_directory(machine: Machine) -> None:
    """Where PYENV_ROOT is not set, its versions are looked for below ~/.pyenv."""
    machine.pyenv = machine.home / ".pyenv"
    expected = machine.below_pyenv("3.13.1", "3.13.1")
    assert machine.found(PYENV_ROOT="") == expected
    assert machine.found(PYENV_ROOT=None) == expected


def test_uv_installs_one_where_there_is_none(machine: Machine) -> None:
    """The uv on PATH installs the newest that fits, and its Python is the one that is printed."""
    machine.python("python3", "3.11.2")
    machine.uv()
    expected = machine.managed("3.14.0")
    ended = machine.find()
    assert (ended.returncode, ended.stdout) == (0, f"{expected}\n")
    assert ended.stderr == "No Python 3.12 to 3.14 found: uv installs 3.14.\n"
    assert machine.uv_calls() == ["uv python install 3.14", "uv python find --managed-python 3.14"]


@pytest.mark.parametrize("where", ["python3", "python", "pyenv"])
def test_pip_gets_uv_where_there_is_none(machine: Machine, where: str) -> None:
    """Whatever Python 3 has pip gets uv, by the hash in the lock."""
    machine.python("python3", "3.11.2", "without pip")
    if where == "pyenv":
        machine.below_pyenv("3.9.1", "3.9.1")
    else:
        machine.python(where, "3.11.2")
    expected = machine.managed("3.14.0")
    ended = machine.find()
    assert (ended.returncode, ended.stdout) == (0, f"{expected}\n"), ended.stderr
    assert machine.uv_calls()[0] == "uv python install 3.14"


@pytest.mark.parametrize("machine", SHELLS, indirect=True)
def test_a_uv_that_fails_ends_in_one_sentence(machine: Machine) -> None:
    """One sentence says what was looked for and what to do; what uv said is in a file it names."""
    machine.python("python3", "3.11.2")
    machine.uv(code=1)
    sentence = refused(machine.find())
    assert f"got none as python3, below {machine.pyenv}/versions or from uv" in sentence
    assert "Install one and name it: make PYTHON=python3.14 ..." in sentence
    assert "what uv says" in (machine.repository / "build/uv.log").read_text()


def test_a_uv_that_installs_something_else_is_refused(machine: Machine) -> None:
    """What uv finds is asked like every other, before it is taken."""
    machine.uv()
    machine.managed("3.11.0")
    refused(machine.find())


def test_no_python_at_all_ends_in_one_sentence(machine: Machine) -> None:
    """Without Python and without uv there is nothing to get uv with."""
    refused(machine.find())
    refused(machine.find(HOME=None, PYENV_ROOT=None))


# ------------------------------------------------------------------------------------------------
# setup.sh


@pytest.mark.parametrize("machine", SHELLS, indirect=True)
def test_set_up_makes_the_environment_once(machine: Machine) -> None:
    """The first call makes .venv from the lock, the second nothing; a new lock makes it again."""
    machine.python("python3", "3.13.0")

    def set_up() -> str:
        ended = machine.run(*machine.shell, "tools/setup.sh")
        assert ended.returncode == 0, ended.stderr
        return ended.stderr

    said = "Setting up .venv with Python 3.13.0; this happens once per requirements.lock.\n"
    assert set_up() == said
    calls = [call.split(" --")[0] for call in machine.uv_calls()]
    assert calls == ["uv pip sync", "uv pip install"]
    assert set_up() == ""
    assert len(machine.uv_calls()) == 2
    (machine.repository / "requirements.lock").write_text(f"{LOCK}# newer\n")
    assert set_up() == said


def test_a_python_that_is_named_replaces_another(machine: Machine) -> None:
    """PYTHON makes .venv with that one, which then stays, and says what was there before."""
    machine.python("python3", "3.13.0")
    machine.python("python3.12", "3.12.4")
    assert machine.run(*machine.shell, "tools/setup.sh").returncode == 0
    again = machine.run(*machine.shell, "tools/setup.sh", PYTHON="python3.12")
    assert again.stderr == "Setting up .venv with Python 3.12.4; it had Python 3.13.0.\n"
    for variables in ({}, {"PYTHON": "python3.12"}):
        assert machine.run(*machine.shell, "tools/setup.sh", **variables).stderr == ""
    assert (
        machine.run(str(machine.repository / ".venv/bin/python"), "-V").stdout == "Python 3.12.4\n"
    )


@pytest.mark.parametrize("name", ["absent", "python3.11"])
def test_a_python_that_is_refused_changes_nothing(machine: Machine, name: str) -> None:
    """Where PYTHON does not fit, set-up ends with that sentence, and .venv is what it was."""
    machine.python("python3", "3.13.0")
    machine.python("python3.11", "3.11.0")
    assert machine.run(*machine.shell, "tools/setup.sh").returncode == 0
    refused(machine.run(*machine.shell, "tools/setup.sh", PYTHON=name))
    assert machine.run(*machine.shell, "tools/setup.sh").stderr == ""


def test_make_hands_on_the_python_that_is_named(machine: Machine) -> None:
    """`make setup PYTHON=…` takes a path with a space, as a variable and from the environment."""
    (machine.bin / "make").symlink_to(shutil.which("make") or pytest.fail("no make"))
    (machine.bin / "rm").symlink_to(shutil.which("rm") or pytest.fail("no rm"))
    named = machine.below_pyenv("3.12.4", "3.12.4")
    for path in machine.repository.glob("tools/*"):
        path.chmod(0o755)
    said = "Setting up .venv with Python 3.12.4; this happens once per requirements.lock.\n"
    assert machine.run("make", "setup", f"PYTHON={named}").stderr == said
    assert machine.run("make", "clean").returncode == 0
    shutil.rmtree(machine.repository / ".venv")
    assert machine.run("make", "setup", PYTHON=named).stderr == said
