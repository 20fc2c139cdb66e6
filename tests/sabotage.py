"""Change one thing of a run on disk and give it a valid seal: what damage could never do."""

import shutil
from collections.abc import Callable
from pathlib import Path

from reproducibility import CheckpointStore, Run, TrainState, restore_state


def reseal(folder: Path, change: Callable[[TrainState], TrainState]) -> None:
    """Replace the checkpoints of a run by one, of the newest state with a change made to it."""
    run = Run.read(folder)
    state = restore_state(run)
    step = int(state.step)
    shutil.rmtree(run.checkpoints)
    with CheckpointStore(run.checkpoints, run=run.name) as store:
        store.save(step, change(state))
