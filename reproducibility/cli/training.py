"""The command that trains.

The rule: it returns when the run has a checkpoint, whether it finished, stopped or was interrupted.
Chapter: docs/guide/using_the_project.md
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reproducibility.cli.arguments import check_output_file
from reproducibility.cli.process_state import keep_stdout, stop_on_signal
from reproducibility.cli.terminal import print_training, say_on_stderr, training_progress
from reproducibility.errors import ExitCode
from reproducibility.reference.config import TrainConfig, select_settings

if TYPE_CHECKING:
    from reproducibility.reference.loop import TrainResult

type Progress = Callable[[int, Any], None]
type Stop = Callable[[], bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainCommand(TrainConfig):
    """Train a network, or go on training it: the same command again resumes.

    It can be killed at any moment and goes on from its newest intact checkpoint; what is damaged
    is set aside. The run directory refuses other settings than those it was made with (seed, data
    set, batch size, shards, hidden, dropout, learning rate). Steps may grow; the rest is free.

    Example: reproducibility train --run-dir runs/first --steps 400
    """

    run_dir: Path
    """Directory of the run; it is made if it is not there."""
    seed: int = 0
    """The integer from which every random number of the run is derived, 0 to 2**32-1."""
    out: Path | None = None
    """Also write a copy of result.json here when the run is finished."""
    processes: int | None = None
    """Processes of the run; SLURM, Open MPI and Kubernetes tell by themselves."""
    process_index: int | None = None
    """Which of them this one is, from 0."""
    coordinator: str | None = None
    """host:port of process 0, a port that is free there."""
    deadline: int = 60
    """Seconds to wait for the other processes to start."""

    @property
    def config(self) -> TrainConfig:
        """What `train` takes of these settings."""
        return select_settings(TrainConfig, vars(self))

    def __call__(self) -> int:
        """Train, print the result."""
        if self.out:
            inputs = {self.run_dir: "the run directory"}
            check_output_file("--out", self.out, inputs, "the run keeps its own result.json")
        with stop_on_signal() as stop, training_progress(self.steps) as progress:
            process, done = self._train(progress, stop)
        if process == 0:
            self._print(done)
        return ExitCode.INTERRUPTED if done.ended == "interrupted" else ExitCode.SAME

    def _train(self, progress: Progress, stop: Stop) -> tuple[int, TrainResult]:
        """Train in this process, which may be one of several; return which, and the result."""
        from reproducibility.scale.launch import end_with_parent
        from reproducibility.scale.start import initialize, this_process

        end_with_parent()
        count = initialize(
            processes=self.processes,
            process_index=self.process_index,
            coordinator=self.coordinator,
            devices=self.devices,
            deadline=self.deadline,
        )
        if count > 1:
            keep_stdout()
            progress, stop = _of_all_processes(progress, stop)
        from reproducibility.reference.loop import train

        done = train(self.config, run_dir=self.run_dir, progress=progress, stop=stop)
        return this_process()[0], done

    def _print(self, done: TrainResult) -> None:
        """Print the result, and write the copy that was asked for."""
        step = int(done.state.step)
        if done.ended == "interrupted":
            say_on_stderr(f"Interrupted after {step} updates; the same command goes on from there.")
            return
        print_training(done, step)
        if done.result and self.out:
            from reproducibility.reference.run import write_result

            write_result(self.out, done.result)
        elif done.ended == "stopped":
            rest = "" if self.out is None else f" {self.out} is written when the run is finished."
            say_on_stderr(f"Stopped after {step} of {self.steps} updates, as asked.{rest}")


def _of_all_processes(show: Progress, requested: Stop) -> tuple[Progress, Stop]:
    """Make of the progress of one process, and of a request to stop it, those of all: process 0
    shows how far they are, and all stop at the same step.

    JAX hears SIGTERM, in any of them, and finds a step after which all can stop.
    """
    from reproducibility.scale.agree import stop_together
    from reproducibility.scale.start import this_process

    reached, passed_on, first = 0, False, this_process()[0] == 0

    def progress(step: int, loss: Any) -> None:
        nonlocal reached
        reached = step
        if first:
            show(step, loss)

    def stop() -> bool:
        nonlocal passed_on
        if not passed_on and requested():  # by Ctrl-C, or before the processes had met
            passed_on = True
            os.kill(os.getpid(), signal.SIGTERM)
        ending = stop_together(reached)
        if ending and first and not passed_on:
            say_on_stderr("Interrupted: saving a checkpoint.")
        return ending

    return progress, stop
