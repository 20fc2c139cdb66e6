"""Kinds of state times what one does with a state: works, or refused with its sentence.

    python -m tests.faults.states [--sample N --seed S] [--only NAME] [--page docs/…]

One process digests, records, asserts, runs each kind to its end and saves it on the way; another
resumes all of them. Whether a resumed run is the same is judged by rules of its own, which know
nothing of the package: bytes of every device's copy, weak types, structure, and two more updates,
which show what is one object. A cell in which a tool says nothing and the judge does is *silent*.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
VENV = ROOT / "build" / "faults" / "venv" / "bin" / "python"
RESULTS = Path(__file__).parent / "states.json"
TOOLS = {"digest": "digest", "resume": "save, resume", "recorder": "record", "assertion": "assert"}
# Of the sample, which .ci/run tries with the libraries that the package itself needs.
NEEDS = {"jax", "numpy", "python", "flax", "optax", "grain"}
HEADING = "## What came of each kind of state { #what-came-of-it }\n\n"
STOP, STEPS, MORE = 3, 6, 2


def main() -> int:
    """Try what was asked for; 1 if a cell is silent, or is not what is right for its kind."""
    asked = _arguments()
    found = _tried(asked.python.absolute(), _names(asked))
    wrong = {name: row for name, row in found.items() if not row["right"]}
    for name, row in wrong.items():
        print(f"{name}: {json.dumps(row['cells'], indent=1)}")
    print(f"{len(found)} kinds of state, {len(wrong)} of them not as they should be.")
    if asked.page:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        text = asked.page.read_text("utf-8").partition(HEADING)[0]
        asked.page.write_text(text + HEADING + table(found) + "\n", "utf-8")
    return int(bool(wrong))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.states", description=__doc__)
    add = parser.add_argument
    add("--sample", type=int, default=0, help="draw so many kinds that need no further library")
    add("--seed", type=int, default=0, help="of the sample")
    add("--only", action="append", default=[], help="the name of a kind")
    add("--python", type=Path, default=VENV, help="the Python that has the libraries")
    add("--page", type=Path, help="a page: write the table into it")
    return parser.parse_args()


def _names(asked: argparse.Namespace) -> list[str]:
    from tests.faults.kinds import KINDS

    if asked.sample:
        near = sorted(name for name, kind in KINDS.items() if kind.library in NEEDS)
        return random.Random(asked.seed).sample(near, asked.sample)
    return asked.only or list(KINDS)


def _tried(python: Path, names: list[str]) -> dict[str, Any]:
    """Try kinds in two processes, one after the other; return a row for each."""
    flags = "--xla_force_host_platform_device_count=8"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "names.json").write_text(json.dumps(names), "utf-8")
        for part in ("before", "after"):
            program = f"from tests.faults import states; states.{part}({folder!r})"
            subprocess.run([python, "-c", program], env=variables, check=True, cwd=ROOT)
        rows: dict[str, Any] = json.loads(Path(folder, "rows.json").read_text("utf-8"))
    return rows


def before(folder: str) -> None:
    """Be the first process: all but the resumed runs."""
    from tests.faults.kinds import KINDS

    # The fixtures of `testing` need it; the environments of scripts have none.
    sys.modules.setdefault("pytest", types.SimpleNamespace(fixture=lambda made: made))  # type: ignore
    rows = {}
    for number, name in enumerate(json.loads(Path(folder, "names.json").read_text("utf-8"))):
        kind = KINDS[name]
        rows[name] = {
            "library": kind.library,
            "judged": _ends(kind, kind.start(), STEPS),
            "cells": {
                "digest": _cell(_digest, kind),
                "resume": _cell(_save, kind, Path(folder, str(number))),
                "recorder": _cell(_record, kind, Path(folder, str(number))),
                "assertion": _cell(_assert, kind),
            },
        }
        print(f"{name}: {rows[name]['cells']}", flush=True)
    Path(folder, "rows.json").write_text(json.dumps(rows), "utf-8")


def after(folder: str) -> None:
    """Be the second process: resume what was saved, and judge it."""
    from tests.faults.kinds import KINDS

    rows = json.loads(Path(folder, "rows.json").read_text("utf-8"))
    for number, (name, row) in enumerate(rows.items()):
        kind, cells, judged = KINDS[name], row["cells"], row.pop("judged")
        if cells["resume"] == "works":
            cells["resume"] = _cell(_resume, kind, Path(folder, str(number)), judged)
        row["right"] = all(_is_right(cells[tool], kind.refused.get(tool)) for tool in TOOLS)
    Path(folder, "rows.json").write_text(json.dumps(rows), "utf-8")


def _is_right(cell: str, words: str | None) -> bool:
    return cell == "works" if words is None else cell.startswith("refused: ") and words in cell


def _cell(work: Callable[..., str], *args: Any) -> str:
    """Say what came of a tool: "works", "refused: …" in its own sentence, or what is wrong."""
    from reproducibility import ReproducibilityError

    try:
        return work(*args)
    except (ReproducibilityError, AssertionError) as error:
        # Without the folder, which is another one each time.
        return "refused: " + re.sub(rf"{re.escape(tempfile.gettempdir())}\S*/", "", str(error))
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"


def _ends(kind: Any, state: Any, n: int) -> list[str]:
    """Return what is judged of a state after so many updates, and after some more."""
    try:
        state = kind.advance(state, n)
        return [_judged(state), _judged(kind.advance(state, MORE))]
    except Exception as error:
        return [f"the loop itself failed: {type(error).__name__}: {error}"]


def _digest(kind: Any) -> str:
    from reproducibility import tree_digest

    one, again = tree_digest(kind.start()), tree_digest(kind.start())
    later = tree_digest(kind.advance(kind.start(), STOP))
    return "works" if one == again != later else "silent: a state that changed has one digest"


def _save(kind: Any, folder: Path) -> str:
    from reproducibility import CheckpointStore

    with CheckpointStore(folder / "store") as store:
        store.save(STOP, kind.advance(kind.start(), STOP))
    return "works"


def _resume(kind: Any, folder: Path, judged: list[str]) -> str:
    from reproducibility import CheckpointStore

    with CheckpointStore(folder / "store") as store:
        ends = _ends(kind, store.restore(kind.start()), STEPS - STOP)
    return "works" if ends == judged else "silent: the resumed run is another"


def _record(kind: Any, folder: Path) -> str:
    from reproducibility import Recorder, compare

    for file, ahead in (("a", 0), ("b", 0), ("c", 1)):
        state = kind.advance(kind.start(), ahead)
        with Recorder(folder / file) as recorder:
            for step in range(1, STOP + 1):
                state = kind.update(state)
                recorder.record(step, params=state)
    verdicts = [compare(folder / "a", folder / other).verdict for other in ("b", "c")]
    right = verdicts == ["same", "different"]
    return "works" if right else f"silent: equal and other runs are {' and '.join(verdicts)}"


def _assert(kind: Any) -> str:
    from reproducibility.testing import assert_resumable

    assert_resumable(kind.advance, kind.start(), steps=STEPS, stop=STOP)
    return "works"


def _judged(tree: Any) -> str:
    """Return a digest of all that a tree is, by rules that owe nothing to the package."""
    import jax
    import numpy as np

    leaves, structure = jax.tree.flatten(tree)
    parts = [re.sub(r"0x[0-9a-f]+", "", repr(structure))]
    for leaf in leaves:
        words = leaf
        if isinstance(leaf, jax.Array):
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                words = jax.random.key_data(leaf)
            parts.append(f"{leaf.dtype} {leaf.shape} {getattr(leaf, 'weak_type', False)}")
            shards = sorted(words.addressable_shards, key=lambda shard: shard.device.id)
            parts += [np.asarray(shard.data).tobytes().hex() for shard in shards]
        else:
            parts.append(repr(np.asarray(leaf).tolist()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def table(rows: dict[str, Any]) -> str:
    """Return the rows as a table, and below it the sentences of what is refused."""
    lines = [
        f"| kind of state | library | {' | '.join(TOOLS.values())} |",
        "|---|---|" + "---|" * 4,
    ]
    said: dict[str, int] = {}
    for name, row in rows.items():
        shown = []
        for cell in (row["cells"][tool] for tool in TOOLS):
            sentence = cell.removeprefix("refused: ").splitlines()[0]
            number = said.setdefault(sentence, len(said) + 1) if cell != "works" else 0
            shown.append("works" if not number else f"{cell.partition(':')[0]} ({number})")
        lines.append(f"| {name} | {row['library']} | {' | '.join(shown)} |")
    notes = [f"{number}. {_plain(sentence)}" for sentence, number in said.items()]
    return "\n".join([*lines, "", "Refused are, in the words of the tool:", "", *notes])


def _plain(sentence: str) -> str:
    return sentence.replace("<", "&lt;").replace("*", r"\*").replace("_", r"\_")


if __name__ == "__main__":
    sys.exit(main())
