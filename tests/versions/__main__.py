"""Make an environment for each version of Python and of JAX, and try the recorder in it.

`python -m tests.versions [PYTHON-JAX ...]` prints a table, and ends with 1 if a cell is not well.
A version of Python that is not here, and one of JAX that is not made for it, is said and is no
fault. `3.13-nightly` is tomorrow's JAX: what it does is shown and decides nothing.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from reproducibility import compare_records
from reproducibility.errors import ReproducibilityError
from reproducibility.script.start import WATCH

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
JAXES = ("0.6.2", "0.7", "0.8", "0.9", "0.10", "0.11", "0.12")
NIGHTLY = "nightly"
NIGHTLY_WHEELS = os.environ.get("JAX_NIGHTLY_INDEX", "")  # where the wheels of the night lie
ENVIRONMENTS = Path("build/versions")
BATTERY = Path(__file__).with_name("battery.py")
NO_SUCH = "No solution found"  # what uv says of a JAX that is not made for a Python
PATIENCE = 900  # seconds for a run of the battery


def main() -> int:
    """Try each cell."""
    wanted = sys.argv[1:] or [f"{python}-{jax}" for python in PYTHONS for jax in JAXES]
    well = True
    for cell in wanted:
        python, _, jax = cell.partition("-")
        found = tried(python, jax)
        print(f"| {python} | {jax} | {found} |", flush=True)
        well &= jax == NIGHTLY or found.startswith(("well", "not here", "not made"))
    return 0 if well else 1


def tried(python: str, jax: str) -> str:
    """Return what came of one cell."""
    interpreter = interpreter_of(python)
    if interpreter is None:
        return "not here: no such Python"
    executable = ENVIRONMENTS / f"{python}-{jax}" / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder:
        try:
            if not has_jax(interpreter, executable, jax):
                return "not made for this Python"
            return "; ".join(faults_of(executable, Path(folder))) or "well"
        except (OSError, subprocess.SubprocessError, ReproducibilityError) as error:
            return f"{type(error).__name__}: {str(error)[:200]}"


def has_jax(interpreter: Path, executable: Path, jax: str) -> bool:
    """Make the environment of a Python, once; return whether it can have such a JAX."""
    environment = executable.parents[1]
    if (environment / "made").exists():
        return True
    uv = [str(Path(sys.executable).with_name("uv")), "--quiet"]
    make = [*uv, "venv", "--allow-existing", "--python", str(interpreter), str(environment)]
    subprocess.run(make, check=True)
    packages = [f"jax=={jax}" + ".*" * (jax.count(".") == 1)]
    if jax == NIGHTLY:
        packages = ["jax", "--prerelease", "allow", "--extra-index-url", NIGHTLY_WHEELS]
    install = [*uv, "pip", "install", "--python", str(executable), *packages]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if NO_SUCH in done.stderr:  # any other failure, as of the network, is a fault
        return False
    done.check_returncode()
    (environment / "made").touch()
    return True


def interpreter_of(python: str) -> Path | None:
    """Return a Python of a version, on the path or among those of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [*sorted(pyenv.glob(f"{python}.*/bin/python")), shutil.which(f"python{python}")]
    for path in filter(None, candidates):
        found = subprocess.run([path, "-V"], capture_output=True, text=True, check=False)
        if found.stdout.startswith(f"Python {python}."):
            return Path(path)
    return None


def faults_of(executable: Path, folder: Path) -> list[str]:
    """Return what is not as it should be."""
    found = []
    for part, counting in (("one", {"COUNT": "1"}), ("eight", {})):
        *plain, last = run(executable, part, **counting).splitlines()
        plain += [] if counting else [last]
        records = [folder / f"{part}-{number}" for number in (1, 2)]
        for record in records:
            if run(executable, part, record).splitlines() != plain:
                found.append(f"{part}: another result with the recorder")
        compared = compare_records(*records)
        if compared.verdict != "same":
            found.append(f"{part}: two runs are {compared.verdict}: {compared.reason}")
        if counting and last != f"executions {compared.calls}":
            found.append(f"the runtime says {last}, the record has {compared.calls}")
    run(executable, "one", folder / "fault", FAULT="0.5")
    roots = compare_records(folder / "one-1", folder / "fault").roots
    if not roots or (roots[0].kind, roots[0].site[0].function) != ("host", "jitted"):
        found.append(f"a planted fault is {roots[:1]}")
    return found


def run(executable: Path, part: str, record: Path | None = None, **variables: str) -> str:
    """Run the battery, and return what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment = {**kept, **variables}
    if part == "eight":
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    if record is not None:
        record.mkdir()
        environment |= {"PYTHONPATH": str(WATCH), "REPRODUCIBILITY_RECORD": str(record)}
    command = [str(executable.absolute()), str(BATTERY), part]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
