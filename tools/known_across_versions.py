"""Ask several versions of JAX about the published faults, and print a table in Markdown.

    python tools/known_across_versions.py 0.9.2 0.10.2 0.12.0.1

Each version gets an environment of its own below a temporary directory, with the NumPy that is
resolved for it, and loses it again. It needs uv and a package index; the package itself need not
fit the version, because what runs there imports JAX and NumPy only. Not part of the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
# Every version since 0.6 has wheels for 3.12. What uv does not find it downloads.
PYTHON = next(map(str, sorted(PYENV.glob("3.12.*/bin/python"))), "3.12")
ASK = """
import dataclasses, json
from reproducibility import known_faults
print(json.dumps([dataclasses.asdict(answer) for answer in known_faults(deadline=300)]))
"""


def answers_of(version: str) -> list[dict[str, Any]]:
    """Return what a version answers, from an environment that exists only meanwhile."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if not uv:
        sys.exit("Cannot make environments: expected uv, got none. Try: pip install uv.")
    with tempfile.TemporaryDirectory(prefix="known-") as folder:
        python = Path(folder, "venv", "bin", "python")
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "UV_CACHE_DIR": str(Path(folder, "cache")),
        }
        environment.pop("VIRTUAL_ENV", None)
        for command in (
            [uv, "venv", "--quiet", "--python", PYTHON, str(python.parent.parent)],
            [
                uv,
                "pip",
                "install",
                "--quiet",
                "--python",
                str(python),
                f"jax=={version}",
                f"jaxlib=={version}",
                "lazy-loader",
            ],
        ):
            subprocess.run(command, env=environment, check=True)
        command = [str(python), "-c", ASK]
        done = subprocess.run(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, check=True
        )
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def verdicts(answers: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Return a verdict for each fault that applies, and for each pattern of one that is certain."""
    found = {}
    for answer in answers:
        verdict, name = answer["verdict"], (answer["name"], answer["source"])
        patterns = answer["patterns"] if answer["tries"] == 1 else {}
        if verdict == "not seen":
            verdict = f"not seen in {answer['tries']}"
        if verdict == "cannot be told":
            print(answer["name"], answer["detail"], file=sys.stderr)
        for pattern in list(patterns) or [""]:
            shown = ("**wrong**" if patterns[pattern] else "right") if patterns else verdict
            shown = "**wrong**" if shown == "wrong" else shown
            label = f"[{name[0]}]({name[1]})" + (f", {pattern}" if pattern else "")
            if verdict != "does not apply":
                found[name[0], label] = shown
    return found


def faults_table(versions: list[str]) -> str:
    """Return the table: a row for each fault and pattern, a column for each version."""
    columns = {}
    for version in versions:
        print(f"jax {version} …", file=sys.stderr, flush=True)
        columns[version] = verdicts(answers_of(version))
    rows = list(dict.fromkeys(key for column in columns.values() for key in column))
    lines = ["| fault | " + " | ".join(versions) + " |", "|---" * (len(versions) + 1) + "|"]
    for key in rows:
        shown = [columns[version].get(key, "-") for version in versions]
        lines.append(f"| {key[1]} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    print(faults_table(sys.argv[1:]))
