"""The sabotage matrix: whatever is changed before a run is resumed is refused or found.

Silence is the only wrong answer. The table stands in the checkpoint chapter; it is made here.
"""

import dataclasses
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reproducibility import (
    CheckpointDamagedError,
    CheckpointMismatchError,
    CheckpointStore,
    Dataset,
    IdentityMismatchError,
    Plan,
    Programs,
    SetAsideWarning,
    TrainConfig,
    TrainState,
    compare,
    load_dataset,
    root_key,
    stream_key,
    train,
)
from reproducibility.reference import step
from tests.conftest import SMALL
from tests.sabotage import reseal

PAGE = Path(__file__).parents[1] / "docs/reference/checkpoint_store.md"
BEGIN = "<!-- sabotage-matrix: made by tests/test_sabotage.py -->\n"
END = "<!-- /sabotage-matrix -->"
STOP = 6  # where each run is interrupted, of 12; it has checkpoints at 4 and 6
CONFIG = {"seed": 7, "steps": 12, "checkpoint_every": 4, **SMALL}
X86 = platform.machine() in ("x86_64", "AMD64")
FLAG = "--xla_cpu_max_isa=SSE4_2" if X86 else "--xla_cpu_enable_fast_math=true"


def another_bit(state: TrainState) -> TrainState:
    """Flip the lowest bit of one parameter."""
    layer, name = state.params["layers"]["output"], "bias"
    words = np.asarray(layer[name]).view(np.uint32).copy()
    words[0] ^= 1
    layer[name] = jnp.asarray(words.view(np.float32))
    return state


def another_dtype(state: TrainState) -> TrainState:
    """Store one leaf of the parameters in half the bits."""
    layer = state.params["layers"]["output"]
    layer["bias"] = layer["bias"].astype(jnp.bfloat16)
    return state


def swapped(state: TrainState) -> TrainState:
    """Exchange the two moments of Adam, which have one shape and one dtype."""
    moments, *rest = state.opt_state
    moments = moments._replace(mu=moments.nu, nu=moments.mu)
    return dataclasses.replace(state, opt_state=(moments, *rest))


def no_optimiser(state: TrainState) -> TrainState:
    """Begin the optimiser anew, as a checkpoint of the weights alone would."""
    return dataclasses.replace(state, opt_state=jax.tree.map(jnp.zeros_like, state.opt_state))


SEALED: dict[str, tuple[str, Callable[[TrainState], TrainState]]] = {
    "nothing": ("saved again by the same route", lambda state: state),
    "root key": (
        "that of a different seed",
        lambda state: dataclasses.replace(state, key=root_key(8)),
    ),
    "optimiser state": ("started from zero", no_optimiser),
    "step": (
        "one less",
        lambda state: dataclasses.replace(state, step=state.step - jnp.uint32(1)),
    ),
    "one parameter bit": ("the lowest of a bias, with a valid seal", another_bit),
    "one dtype": ("a bias in bfloat16", another_dtype),
    "two swapped leaves": ("the moments of Adam", swapped),
}


def another_stream(patch: pytest.MonkeyPatch) -> None:
    """Draw dropout from a stream of another name."""
    patch.setattr(
        step,
        "stream_key",
        lambda key, name: stream_key(key, "dropuot" if name == "dropout" else name),
    )


def another_position(patch: pytest.MonkeyPatch) -> None:
    """Give each step the rows of the step before it."""
    planned = Programs.plan

    def late(self: Programs, state: TrainState) -> Plan:
        plan = planned(self, state)
        return dataclasses.replace(plan, rows=jnp.roll(plan.rows, 1, axis=0))

    patch.setattr(Programs, "plan", late)


def another_example(patch: pytest.MonkeyPatch) -> None:
    """Change one number of the data."""

    def altered(*arguments: object, **settings: object) -> Dataset:
        data = load_dataset(*arguments, **settings)
        return dataclasses.replace(data, x=data.x.at[0, 0].add(1))

    patch.setattr(step, "load_dataset", altered)


IN_CODE: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "dropout stream": ("a different name in the code", another_stream),
    "data position": ("one step late", another_position),
    "data set": ("one number of it, under the same name", another_example),
}
SETTINGS: dict[str, tuple[str, dict[str, object]]] = {
    "data set, by name": ("digits", {"dataset": "digits"}),
    "batch size": ("twice as large", {"batch_size": 64}),
}
ON_DISK = "one bit of a file"
ENVIRONMENT = "instruction set" if X86 else "fast mathematics"
ROWS = [*SEALED, ON_DISK, *IN_CODE, *SETTINGS, ENVIRONMENT]


def check_page(rows: dict[str, list[str]], *, update: bool) -> None:
    """Compare the table on the page with what happened; write it there where that is asked for."""
    lines = ["| changed, and nothing else | how | what happens | named |", "|---|---|---|---|"]
    lines += [f"| {row} | {' | '.join(rows[row])} |" for row in ROWS]
    if not X86:  # the page shows what an x86 processor does in the last row
        lines[-1] = PAGE.read_text("utf-8").split(END)[0].splitlines()[-2]
    made = "\n" + "\n".join(lines) + "\n\n"
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    shown, after = rest.split(END)
    if update:
        PAGE.write_text(f"{before}{BEGIN}{made}{END}{after}", "utf-8")
    else:
        assert shown == made, "make update-outputs writes the table anew"


def flip_a_bit(checkpoints: Path) -> None:
    """Flip the first bit of the newest checkpoint's largest file, of those tried, that matters."""
    files = (checkpoints / f"{STOP:08d}" / "arrays").rglob("d/*")
    file = max(files, key=lambda file: file.stat().st_size)
    content = file.read_bytes()
    with CheckpointStore(checkpoints) as store:
        for position in range(0, len(content), 97):
            altered = bytearray(content)
            altered[position] ^= 1
            file.write_bytes(altered)
            with pytest.raises(CheckpointDamagedError) as caught:
                store.verify(STOP)
            if caught.value.leaves:
                return
    raise AssertionError("no bit of this file spoils a leaf")


def sabotage(row: str, folder: Path, patch: pytest.MonkeyPatch) -> tuple[str, dict[str, object]]:
    """Change one thing of an interrupted run or of what resumes it; say how, and the settings."""
    if row in SEALED:
        how, change = SEALED[row]
        with (
            patch.context() as lying
        ):  # `save` itself refuses a state that has come to another step
            lying.setattr("reproducibility.storage.checkpoint.refuse_other_step", lambda *_: None)
            reseal(folder, change)
    elif row in IN_CODE:
        how, alter = IN_CODE[row]
        alter(patch)
    elif row in SETTINGS:
        how, settings = SETTINGS[row]
        return how, settings
    elif row == ON_DISK:
        how = "of the newest checkpoint"
        flip_a_bit(folder / "checkpoints")
    else:
        how = f"`{FLAG}`"
    return how, {}


def forget_programs() -> None:
    """Let the next run make and compile its programs from scratch, of the code as it is then."""
    step._programs_of.cache_clear()
    jax.clear_caches()


def resumed(row: str, folder: Path, settings: dict[str, object]) -> None:
    """Go on with the run: here, or, where the environment is what changes, in another process."""
    if row != ENVIRONMENT:
        train(TrainConfig(**{**CONFIG, **settings}), run_dir=folder)
        return
    code = "import sys; from reproducibility import *; from tests.test_sabotage import CONFIG; "
    code += "train(TrainConfig(**CONFIG), run_dir=sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(folder.resolve())],
        check=True,
        timeout=120,
        cwd=PAGE.parents[2],
        env={**os.environ, "XLA_FLAGS": FLAG},
    )


def outcome(row: str, folder: Path, reference: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """Return how it was changed, what happened, and what was named."""
    how, settings = sabotage(row, folder, patch)
    if row in IN_CODE:
        forget_programs()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SetAsideWarning)
        try:
            resumed(row, folder, settings)
        except IdentityMismatchError as error:
            return [how, "refused", f"`{', '.join(error.settings)}`"]
        except CheckpointMismatchError as error:
            return [how, "refused", f"leaf `{error.thing.removeprefix('leaf ')}`"]
        finally:
            patch.undo()
            if row in IN_CODE:
                forget_programs()
    found = compare(reference, folder)
    aside = [warning for warning in caught if warning.category is SetAsideWarning]
    if found.verdict == "same":
        if not aside:
            return [how, "the same digest", "nothing"]
        said = r"arrays/\S+ altered, and with it \S.*\. Going on from step 4\."
        assert re.search(said, str(aside[0].message))
        return [how, "set aside; from the one before, the same digest", "the file, its leaf"]
    explained = [f", `{difference.name}`" for difference in found.environment]
    named = f"step {found.step}, `{found.stage}`{''.join(explained[:1])}"
    return [how, f"a different digest; `compare`: {found.verdict}", named]


@pytest.mark.long
def test_whatever_is_changed_is_refused_or_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Nothing that is changed goes unnoticed: it is refused by name, or the digest is another.

    The page shows what happened. One test, because the table is one.
    """
    monkeypatch.chdir(tmp_path)  # record no commit: it may change while the tests run
    train(TrainConfig(**CONFIG), run_dir="uninterrupted")
    rows = {}
    for row in ROWS:
        train(TrainConfig(**CONFIG, stop_after=STOP), run_dir=row)
        with pytest.MonkeyPatch.context() as patch:
            rows[row] = outcome(row, Path(row), Path("uninterrupted"), patch)
        assert (rows[row][1] == "the same digest") is (row == "nothing"), row
    check_page(rows, update=request.config.getoption("--update-outputs"))
