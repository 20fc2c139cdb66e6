"""The loop: from the state before a step to the state after it, recorded and saved.

The rule: what is recorded, saved, shown or asked on the way moves no bit of the state.
Chapter: docs/workflow/complete_flow.md
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from reproducibility.errors import RunDamagedError
from reproducibility.keys import check_ambient_settings
from reproducibility.machine.environment import CHANGES_BITS, capture_environment
from reproducibility.recording.ledger import LEDGER
from reproducibility.recording.recorder import Recorder
from reproducibility.recording.writer import Writer
from reproducibility.reference.config import TrainConfig
from reproducibility.reference.resume import open_run, resume_run, store_of
from reproducibility.reference.run import (
    AttemptEnd,
    AttemptStart,
    Result,
    Run,
    attempts_of,
    log_attempt,
)
from reproducibility.reference.step import (
    Advanced,
    Plan,
    Programs,
    TrainState,
    advance,
    programs_of,
    settings_of,
)
from reproducibility.same.hashing import tree_digest
from reproducibility.scale.agree import assert_same_facts, on_first
from reproducibility.scale.layout import Layout
from reproducibility.storage.checkpoint import CheckpointStore


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What `train` returns.

    Same bits: as `train` says.
    """

    state: TrainState
    """The state after the last completed update."""
    digest: str
    """`tree_digest(state)`."""
    ended: str
    """ "finished", "stopped" (at `stop_after`) or "interrupted"."""
    result: Result | None
    """What `result.json` holds; None unless the run is finished and has a directory."""


def train(
    config: TrainConfig,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, Float[Array, ""]], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train, or go on training, the network that `config` describes.

    With a `run_dir`, the run can be killed at any moment and gone on with by the same call, from
    its newest intact checkpoint. What is damaged is set aside with a `SetAsideWarning`.

    With several processes (see `initialize`), all of them call this with the same
    arguments and a `run_dir` that all of them see. Process 0 writes what is written once.

    **Same bits:** one machine with one environment (see `capture_environment`): every run of one
    identity, however often it was interrupted and resumed and on however many devices and
    processes, passes through the same states. With another device kind, instruction set or
    version of JAX the bits may differ.

    Args:
        config: identity and execution.
        run_dir: where the run lives on disk; None keeps nothing.
        progress: called after each update with the completed updates and the batch's mean loss,
            a device array that may still be being computed.
        stop: asked after each update; when it answers True, training ends with a checkpoint.
            With several processes it has to give the same answers on all of them.

    Returns:
        The state, its digest and how the run ended.

    Raises:
        ConfigError: a setting is refused, or a JAX setting would change every draw.
        RunError: `run_dir` cannot be used, or `resume` is not possible as asked.
        CheckpointError: a checkpoint cannot be written or holds another tree, or none is intact.
        ProcessError: another process is missing or has other settings, versions or programs.

    Examples:
        >>> config = TrainConfig(seed=7, steps=4, shards=1)
        >>> train(config).digest == train(config).digest
        True
    """
    check_ambient_settings()
    programs = programs_of(config.identity, Layout.of(config.devices))
    if programs.layout.processes > 1:
        _agree(config, programs)
    with ExitStack() as stack:
        run = store = None
        state = programs.start
        if run_dir is not None:
            run = open_run(stack, run_dir, settings_of(programs))
            store = stack.enter_context(store_of(run, keep=config.keep))
            state = resume_run(config, run, store, state)
            done = _already_done(config, run, state)
            if done:
                return done
        recorder = _recorder(config, run, int(state.step))
        if recorder:
            stack.enter_context(recorder)
        return run_attempt(config, programs, run, store, recorder, state, progress, stop)


def _agree(config: TrainConfig, programs: Programs) -> None:
    """Refuse to begin where another process would compute something else."""
    environment = capture_environment()
    on_cpu = environment["device.platform"] == "cpu"
    facts = {
        name: value
        for name, value in environment.items()
        if name.startswith(("version.", "xla_flags.")) or name in CHANGES_BITS
        if on_cpu or not name.startswith(("cpu.", "threads.", "os."))
    }
    digests = {f"program.{name}": digest for name, digest in programs.digests().items()}
    chosen = {**dataclasses.asdict(config), "data_digest": settings_of(programs)["data_digest"]}
    start = {"start": tree_digest(programs.start)}
    assert_same_facts({**chosen, **facts, **digests, **start}, thing="these settings")


def run_attempt(
    config: TrainConfig,
    programs: Programs,
    run: Run | None,
    store: CheckpointStore | None,
    recorder: Recorder | None,
    state: TrainState,
    progress: Callable[[int, Float[Array, ""]], None] | None,
    stop: Callable[[], bool] | None,
) -> TrainResult:
    """Train from `state` to where the config says, and keep what it asks for."""
    first, last = int(state.step), min(config.steps, config.stop_after or config.steps)
    diary = run if jax.process_index() == 0 else None
    _log_start(diary, first, programs)
    began, done = time.monotonic(), first
    state = jax.tree.map(jnp.copy, state)  # the loop donates it; whoever gave it may keep theirs
    try:
        if recorder and first == 0:
            recorder.record(0, state=state)
        for step, new, made_of in _steps(programs, state, first, last):
            state, done = new.state, step  # complete with its new state, whatever follows
            if recorder:
                recorder.record(step, loss=new.loss, **made_of)
            if progress:
                progress(step, new.loss)
            interrupted = stop is not None and stop()
            if store and (step % config.checkpoint_every == 0 or step == last or interrupted):
                _save(programs, store, recorder, step, state)
            if interrupted:
                break
        if store:
            store.wait()
    except BaseException:
        with suppress(OSError):  # the disk may be full: what made it end is what to report
            _log_end(diary, "failed", done if _is_computed(state, programs) else None, began)
        raise
    ended = "finished" if done == config.steps else "stopped" if done == last else "interrupted"
    _log_end(diary, ended, done, began)
    if not store:  # else that was done before it was saved
        programs.layout.assert_same_on_all_devices(state, step=done)
    return _result_of(programs, run, state, ended)


def _steps(
    programs: Programs, state: TrainState, first: int, last: int
) -> Iterator[tuple[int, Advanced, dict[str, Any]]]:
    """Do the updates after `first` up to `last`, each when it is asked for.

    With each comes what it was made of, as `Programs.stages` takes it; of its plan every device has
    what it takes.
    """
    plan: Plan | None = None
    divided: Any = None
    for step in range(first + 1, last + 1):
        new = advance(programs, state, step, plan)
        if new.plan is not plan:
            divided = programs.layout.divide(new.plan, axis=1)
        state, plan = new.state, new.plan
        made_of = {"plan": divided, "gradient": new.gradient, "data": programs.data}
        yield step, new, {"state": state, **made_of}


def _save(
    programs: Programs,
    store: CheckpointStore,
    recorder: Recorder | None,
    step: int,
    state: TrainState,
) -> None:
    programs.layout.assert_same_on_all_devices(state, step=step)
    store.save(step, state, chain=recorder.flush().result if recorder else None)


def _result_of(programs: Programs, run: Run | None, state: TrainState, ended: str) -> TrainResult:
    digest = tree_digest(state)
    result = None
    if run and ended == "finished":
        result = Result(**on_first(lambda: _finish(programs, run, state, digest)))
    return TrainResult(state, digest, ended, result)


def _already_done(config: TrainConfig, run: Run, state: TrainState) -> TrainResult | None:
    """Return what there is to return if no update is left to do."""
    step, result = int(state.step), run.result()
    if step == config.steps and result and result.steps == step:
        digest = tree_digest(state)
        if (result.run, result.digest) != (run.name, digest):
            raise RunDamagedError(
                "trust",
                "the result",
                path=run.path,
                step=step,
                got=result.digest,
                expected=f"digest {digest}, as of the checkpoint",
                do="Set it aside with `reproducibility check --repair`; then train again.",
            )
        return TrainResult(state, digest, "finished", result)
    if config.stop_after is not None and config.stop_after <= step < config.steps:
        return TrainResult(state, tree_digest(state), "stopped", None)
    return None


def _finish(programs: Programs, run: Run, state: TrainState, digest: str) -> dict[str, Any]:
    loss, accuracy = programs.evaluate(*programs.layout.copies((state.params, programs.data))[0])
    result = Result(
        run=run.name,
        steps=int(state.step),
        digest=digest,
        params_digest=tree_digest(state.params),
        loss=float(loss) if jnp.isfinite(loss) else None,  # JSON has no NaN
        accuracy=float(accuracy),
        seconds=sum(line.seconds for line in attempts_of(run) if isinstance(line, AttemptEnd)),
    )
    run.finish(result)
    return dataclasses.asdict(result)


def _recorder(config: TrainConfig, run: Run | None, done: int) -> Recorder | None:
    if run is None:
        return None
    if config.record == "off":
        ahead = os.path.lexists(run.path / LEDGER)  # of the checkpoint, perhaps
        if ahead and jax.process_index() == 0:
            writer = Writer(run.path / LEDGER, run.name, first=done + 1)
            writer.set_rest_aside(f"the steps after {done} are computed again, and not recorded.")
        return None
    return Recorder(
        run.path / LEDGER,
        run=run.name,
        level=config.record,
        every=config.record_every,
        first=done + 1 if done else 0,
        view=Programs.stages,
        environment=False,  # each attempt has it
    )


def _is_computed(state: TrainState, programs: Programs) -> bool:
    """Say whether a state is known to be there: JAX computes it later, and an error shows then."""
    leaves = jax.tree.leaves(state)
    try:
        if programs.layout.processes > 1 and not all(leaf.is_ready() for leaf in leaves):
            return False  # it may be waiting for a process that has gone
        jax.block_until_ready(leaves)  # type: ignore[no-untyped-call]
    except Exception:
        return False  # its computation failed, or a step that failed has taken it already
    return True


def _log_end(run: Run | None, ended: str, step: int | None, began: float) -> None:
    """Log the last complete update; nothing where it is not known, as of a process that died."""
    if run:
        seconds = time.monotonic() - began
        log_attempt(run, AttemptEnd(ended=ended, to_step=step, seconds=seconds))


def _log_start(run: Run | None, step: int, programs: Programs) -> None:
    layout = programs.layout
    if run:
        start = AttemptStart(
            from_step=step,
            environment=capture_environment(),
            layout={"devices": len(layout.local), "processes": layout.processes},
            programs=programs.digests(),
        )
        log_attempt(run, start)
