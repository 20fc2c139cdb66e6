"""Pairs of versions of small scripts, and what is right to say of each.

A pair is an edit of a script in `commits/`, or another command; `pairs.toml` there has them.
Whether it is the same is no opinion of ours: each script prints a digest of what it trained.
"""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "commits"


@dataclass(frozen=True)
class CommitPair:
    """Two versions of a script: `edits` make the second from the first.

    `verdict` is what is right, and `trained` whether both train to the same bits; `kind`, `call`
    and `line` are those of the call where the difference begins, `line` a part of its text in the
    first version; `update` is the first update that differs.
    """

    name: str
    script: str
    verdict: str
    edits: dict[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ("", "")
    trained: bool | None = None
    kind: str = ""
    call: str = ""
    line: str = ""
    update: int = 0
    only: Sequence[Sequence[str]] = ((), ())  # functions of the user
    no_effect: bool = False

    def texts(self) -> tuple[str, str]:
        """Return both versions."""
        one = other = (SCRIPTS / f"{self.script}.py").read_text(encoding="utf-8")
        for old, new in self.edits.items():
            assert other.count(old) >= 1, f"{self.name}: nothing to edit: {old}"
            other = other.replace(old, new)
        return one, other

    def judged(self, found: dict[str, Any]) -> list[str]:
        """Say what is wrong about an answer.

        Args:
            found: what `compare --json` printed.
        """
        wrong = []
        if found["verdict"] != self.verdict:
            wrong.append(f"verdict {found['verdict']}: {found['reason']}")
        begins = found["beginnings"][0] if found["beginnings"] else None
        if self.call and begins:
            call = begins["a"] or begins["b"]
            number = int(call["lines"][0].rpartition(":")[2].partition(",")[0])
            text = self.texts()[0 if begins["a"] else 1].splitlines()[number - 1]
            if (begins["kind"], call["function"]) != (
                self.kind,
                self.call,
            ) or self.line not in text:
                wrong.append(f"begins with {begins['kind']}, {call['function']}: {text.strip()}")
        elif self.call:
            wrong.append("no call is named")
        update = found["first"] and found["first"]["update"]["a"]
        if (update or 0) != self.update:
            wrong.append(f"the first update that differs is {update}")
        for side, functions in zip("ab", self.only, strict=True):
            named = {each["function"] for each in found["only"][side]}
            if lacking := set(functions) - named:
                wrong.append(f"only in {side}: not {lacking}, but {named}")
        may_have_none = self.verdict == "same" and not any(self.only)
        if found["no_effect"] < self.no_effect or found["no_effect"] > may_have_none:
            wrong.append(f"no effect: {found['no_effect']}")
        return wrong


def recorded(pair: CommitPair, folder: Path) -> list[str]:
    """Record both versions, as two commits in one place are; return the digests they print.

    Args:
        pair: one of the table.
        folder: where to write.
    """
    digests = []
    for text, words, name in zip(pair.texts(), pair.commands, "ab", strict=True):
        script = folder / name / "train.py"
        script.parent.mkdir(parents=True)
        script.write_text(text, encoding="utf-8")
        digests.append(_recorded_once(script, words, folder))
    return digests


_known: dict[tuple[str, str], tuple[str, Path]] = {}  # one version is run once


def _recorded_once(script: Path, words: str, folder: Path) -> str:
    key = script.read_text(encoding="utf-8"), words
    record = script.parent / "record"
    if key not in _known:
        command = [sys.executable, "-m", "reproducibility", "record", str(record), "--"]
        environment = {**os.environ, "XLA_FLAGS": ""}
        done = subprocess.run(
            [*command, sys.executable, script.name, *words.split()],
            cwd=script.parent,
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        _known[key] = done.stdout.rpartition("training ")[2].strip(), record
    digest, record = _known[key]
    (folder / f"{script.parent.name}.txt").write_text(str(record), encoding="utf-8")
    return digest


def compared(folder: Path) -> tuple[int, dict[str, Any]]:
    """Compare both records; return the exit code and the answer.

    Args:
        folder: that of `recorded`.
    """
    records = [(folder / f"{name}.txt").read_text(encoding="utf-8") for name in "ab"]
    command = [sys.executable, "-m", "reproducibility", "compare", *records, "--aligned", "--json"]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    return done.returncode, json.loads(done.stdout)


def _pairs() -> list[CommitPair]:
    """Read the table."""
    found = []
    for facts in tomllib.loads((SCRIPTS / "pairs.toml").read_text(encoding="utf-8"))["pair"]:
        edits = {each["old"]: each["new"] for each in facts.pop("edit", ())}
        found.append(CommitPair(**facts, edits=edits))
    return found


PAIRS = _pairs()
