"""The step and the loop, both on one screen.

The rule: a step is three programs (one shard's gradient, the sum, the update), and none of them
sees how many devices there are. So the bits cannot depend on it.
Chapter: docs/workflow/complete_flow.md
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree, UInt

from reproducibility.errors import (
    CheckpointMismatchError,
    ConfigError,
    RunDamagedError,
    RunError,
)
from reproducibility.keys import (
    PRNG_IMPL,
    check_ambient_settings,
    index_key,
    root_key,
    step_key,
    stream_key,
)
from reproducibility.machine.environment import (
    CHANGES_BITS,
    Value,
    capture_environment,
    jax_settings,
)
from reproducibility.recording.ledger import LEDGER, Writer
from reproducibility.recording.recorder import Recorder
from reproducibility.reference.config import Identity, TrainConfig
from reproducibility.reference.data import Dataset, load_dataset
from reproducibility.reference.model import MLP, Params, apply, initialiser
from reproducibility.reference.run import Result, Run
from reproducibility.same.hashing import tree_digest
from reproducibility.scale.distributed import Layout
from reproducibility.scale.processes import assert_same_facts, on_first
from reproducibility.storage.checkpoint import CheckpointStore


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a run needs to go on: what a checkpoint holds and what the digest covers.

    There is no data position and no chain of keys: both are functions of `key`, `step` and the
    identity of the run.

    Same bits: two states are the same exactly if their `tree_digest` is.
    """

    step: UInt[Array, ""]
    """Completed updates."""
    params: Params
    """Parameters of the network."""
    opt_state: PyTree
    """State of the optimiser."""
    key: Key[Array, ""]
    """The root key of the run."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plan:
    """What is random in `PLANNED` steps: which rows each shard trains on, and its dropout key.

    A function of (seed, step) in integer arithmetic, so it may be computed ahead, for many steps
    in one call, without moving a bit of any of them.

    Same bits: everywhere.
    """

    rows: UInt[Array, "steps shards count"]
    """Row numbers of the training examples."""
    dropout: Key[Array, "steps shards"]
    """The key of each shard's dropout, by step and global number of the shard."""


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


type Ambient = tuple[tuple[str, Value], ...]  # options of JAX

SHARED = "Give all processes one --run-dir, which all of them see."
PLANNED = 64  # steps that one plan covers; it is made anew at every multiple


class Programs:
    """The compiled programs of a run, and the state they start from.

    `gradient`, `total` and `update` are the three programs of the step. `plan`, which is exact, and
    `evaluate` stand outside of it.

    Same bits: whatever the layout, on one kind of device, instruction set and version of JAX, and
    on the CPU with one size of XLA's thread pool, which more virtual devices than cores enlarge.
    Each program is compiled for one device and never fused with another.

    Args:
        identity: what determines the bits.
        layout: the devices to compute on; by default one.

    Raises:
        ConfigError: the devices do not divide the shards.
    """

    def __init__(self, identity: Identity, layout: Layout | None = None) -> None:
        self.identity = identity
        self.layout = layout or Layout.of(1)
        mine = self.layout.shards(identity.shards)
        self.data: Dataset = self.layout.replicate(
            load_dataset(identity.dataset, seed=identity.seed, batch_size=identity.batch_size)
        )
        # Neither is given the seed, so what they compile is shared by the runs of all seeds.
        features, classes = self.data.x.shape[1], self.data.classes
        ambient = _ambient()
        self._network = _network_of(features, identity.hidden, classes, identity.dropout, ambient)
        self._optimiser = _optimiser_of(identity.learning_rate, self.layout, ambient)
        self.shards = [jnp.uint32(shard) for shard in mine]
        key = root_key(identity.seed)
        self.graph, params = self.initial(key)
        self.start = self.layout.replicate(self._optimiser.start(params, key))
        each = len(mine) // len(self.layout.local)
        self._owned = [self.shards[i : i + each] for i in range(0, len(mine), each)]

        self.gradient = self._network.gradient
        self.total = self.layout.mean
        self.update = self._optimiser.update
        self.evaluate = self._network.evaluate

    def initial(self, key: Key[Array, ""]) -> tuple[Any, Params]:
        """Make the network: its structure and its first parameters.

        **Same bits:** one backend, instruction set and version of JAX.

        Args:
            key: the root key of the run.
        """
        return self._network.graph, self._network.build(stream_key(key, "params"))

    def plan(self, state: TrainState) -> Plan:
        """Say what is random in the stretch of `PLANNED` steps that the next step belongs to.

        **Same bits:** everywhere.

        Args:
            state: the state before the step.
        """
        state, data = self.layout.copies((state, self.data))[0]
        plan = _planned(state.key, state.step, data, shards=self.identity.shards)
        everywhere: Plan = self.layout.replicate(plan)
        return everywhere

    def step(self, state: TrainState, plan: Plan) -> tuple[TrainState, Float[Array, ""], Params]:
        """Do one update: every shard's gradient, their mean, the optimiser. Nothing waits.

        **Same bits:** one backend, instruction set and version of JAX.

        Args:
            state: the state, which is donated.
            plan: of the stretch that the step belongs to.

        Returns:
            The next state, the mean loss of the batch, and its gradient, on the device.
        """
        copies = self.layout.copies((state, plan, self.data.x, self.data.y))
        parts = [
            self.gradient(state.params, state.step, plan, x, y, shard)
            for (state, plan, x, y), shards in zip(copies, self._owned, strict=True)
            for shard in shards
        ]
        loss, gradient = self.total(parts)
        return self.update(state, gradient), loss, gradient

    @staticmethod
    def stages(
        state: TrainState,
        plan: Plan | None = None,
        gradient: Params | None = None,
        data: Dataset | None = None,
    ) -> dict[str, PyTree]:
        """Say what a step was made of, for the ledger; the view of a `Recorder`.

        **Same bits:** everywhere; it selects and computes nothing.

        Args:
            state: the state after the step.
            plan: of the stretch that the step belongs to; None for the state before any step.
            gradient: the mean gradient of the step.
            data: what the batch was taken from.

        Returns:
            Trees by stage.
        """
        after = {"opt_state": state.opt_state, "params": state.params}
        if plan is None or data is None:
            return after
        done = (state.step - jnp.uint32(1)) % PLANNED
        rows = plan.rows[done].reshape(-1)
        batch, key = {"x": data.x[rows], "y": data.y[rows]}, {"dropout": plan.dropout[done]}
        return {"batch": batch, "key": key, "gradients": gradient, **after}

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each program's StableHLO text, to explain a difference with.

        **Same bits:** one version of JAX; the text does not know the instruction set or flags.
        """
        tree = (self.start, self.plan(self.start), self.data)
        describe: Any = jax.ShapeDtypeStruct  # an array would tell on which devices it lies
        state, plan, data = jax.tree.map(lambda x: describe(x.shape, x.dtype), tree)
        arguments = (state.params, state.step, plan, data.x, data.y, self.shards[0])
        part = jax.eval_shape(self.gradient, *arguments)
        lowered = {
            "gradient": self.gradient.lower(*arguments),
            "update": self._optimiser.alone.lower(state, part[1]),
        }
        return {k: hashlib.sha256(v.as_text().encode()).hexdigest() for k, v in lowered.items()}


class _Network:
    """The network and the programs that are made of it."""

    def __init__(
        self, features: int, hidden: tuple[int, ...], classes: int, dropout: float
    ) -> None:
        widths = {f"hidden_{i}": width for i, width in enumerate(hidden)} | {"output": classes}

        def make(key: Key[Array, ""]) -> MLP:
            return MLP(features, widths, dropout=dropout, key=key)

        self.graph, self.build = initialiser(make, root_key(0))
        self.gradient = jax.jit(self._gradient)
        self.evaluate = jax.jit(self._evaluate)

    def _gradient(
        self, params: Params, step: Array, plan: Plan, x: Array, y: Array, shard: Array
    ) -> tuple[Float[Array, ""], Params]:
        """Program 1: the loss and gradient of one shard."""
        rows, dropout = plan.rows[step % PLANNED, shard], plan.dropout[step % PLANNED, shard]

        def mean_loss(params: Params) -> Float[Array, ""]:
            return _cross_entropy(apply(self.graph, params, x[rows], key=dropout), y[rows])

        result: tuple[Array, Params] = jax.value_and_grad(mean_loss)(params)
        return result

    def _evaluate(self, params: Params, data: Dataset) -> tuple[Array, Array]:
        """Return the mean loss and the accuracy over the held-out examples."""
        logits = apply(self.graph, params, data.x_test)
        right = jnp.argmax(logits, axis=-1) == data.y_test
        return _cross_entropy(logits, data.y_test), right.mean()


class _Optimiser:
    """Adam, and the programs that are made of it."""

    def __init__(self, learning_rate: float, layout: Layout) -> None:
        # Flattened: the moments of all parameters lie in one vector each. Adam works element by
        # element, so this is the same arithmetic, with fewer buffers to hand to each call.
        self._adam = optax.flatten(optax.adam(learning_rate))
        self.start = jax.jit(self._start)
        self.update = layout.each(self._update, donate_argnums=0)
        self.alone = jax.jit(self._update, donate_argnums=0)  # on one device, whatever the layout

    def _start(self, params: Params, key: Key[Array, ""]) -> TrainState:
        return TrainState(jnp.uint32(0), params, self._adam.init(params), key)

    def _update(self, state: TrainState, gradient: Params) -> TrainState:
        """Program 3: the optimiser, and the step counter."""
        updates, opt_state = self._adam.update(gradient, state.opt_state, state.params)
        params: Params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + jnp.uint32(1), params, opt_state, state.key)


def _ambient() -> Ambient:
    """Return the settings of JAX: what was compiled under others is not used again.

    JAX itself looks at a part of them only; `jax_disable_most_optimizations` is none of those.
    """
    return tuple(sorted(jax_settings().items()))


@functools.lru_cache(maxsize=8)
def _network_of(
    features: int, hidden: tuple[int, ...], classes: int, dropout: float, ambient: Ambient
) -> _Network:
    return _Network(features, hidden, classes, dropout)


@functools.lru_cache(maxsize=8)
def _optimiser_of(learning_rate: float, layout: Layout, ambient: Ambient) -> _Optimiser:
    return _Optimiser(learning_rate, layout)


def _planned(key: Key[Array, ""], step: UInt[Array, ""], data: Dataset, *, shards: int) -> Plan:
    plan: Plan = _plan_of(shards, _ambient())(key, step, data)
    return plan


@functools.lru_cache(maxsize=8)
def _plan_of(shards: int, ambient: Ambient) -> Callable[..., Plan]:
    return jax.jit(functools.partial(_each_shard, shards=shards))


def _each_shard(key: Key[Array, ""], step: UInt[Array, ""], data: Dataset, *, shards: int) -> Plan:
    """Give each shard of each step its rows and its key, both by global numbers."""
    dropout, size = stream_key(key, "dropout"), data.batch_size

    def one(step: UInt[Array, ""]) -> Plan:
        keys = jax.vmap(index_key, (None, 0))(step_key(dropout, step), jnp.arange(shards))
        return Plan(data.rows(step, 0, size).reshape(shards, -1), keys)

    first = step // PLANNED * PLANNED
    plan: Plan = jax.vmap(one)(first + jnp.arange(PLANNED, dtype=jnp.uint32))
    return plan


def programs_of(identity: Identity, layout: Layout | None = None) -> Programs:
    """Return the programs of an identity, made once a process and for each settings of JAX.

    **Same bits:** those of a new `Programs(identity)`, whatever the layout.

    Args:
        identity: what determines the bits.
        layout: the devices to compute on; by default one.
    """
    return _programs_of(identity, layout, _ambient())


@functools.lru_cache(maxsize=4)
def _programs_of(identity: Identity, layout: Layout | None, ambient: Ambient) -> Programs:
    return Programs(identity, layout)


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

    With several processes (see `distributed.initialize`), all of them call this with the same
    arguments and a `run_dir` that all of them see. Process 0 writes what is written once.

    **Same bits:** one machine with one environment (see `environment`): every run of one
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
            run = _open(stack, run_dir, settings_of(programs))
            store = stack.enter_context(_store(run, keep=config.keep))
            state = _resume(config, run, store, state)
            done = _already_done(config, run, state)
            if done:
                return done
        recorder = _recorder(config, run, int(state.step))
        if recorder:
            stack.enter_context(recorder)
        return _attempt(config, programs, run, store, recorder, state, progress, stop)


def _agree(config: TrainConfig, programs: Programs) -> None:
    """Refuse to begin where another process would compute something else."""
    environment = capture_environment()
    on_cpu = environment["device.platform"] == "cpu"
    here = {
        name: value
        for name, value in environment.items()
        if name.startswith(("version.", "xla_flags.")) or name in CHANGES_BITS
        if on_cpu or not name.startswith(("cpu.", "threads.", "os."))
    }
    digests = {f"program.{name}": digest for name, digest in programs.digests().items()}
    chosen = {**dataclasses.asdict(config), "data_digest": settings_of(programs)["data_digest"]}
    start = {"start": tree_digest(programs.start)}
    assert_same_facts({**chosen, **here, **digests, **start}, thing="these settings")


def _open(stack: ExitStack, path: str | os.PathLike[str], settings: dict[str, Any]) -> Run:
    """Begin work on a run directory in process 0; the others read it when that is done."""
    opened: list[Run] = []
    on_first(lambda: opened.append(stack.enter_context(Run.work(path, settings))))
    try:
        return opened[0] if opened else Run.read(path)
    except RunError as error:
        raise RunError(
            "read", "the run of process 0", path=error.path, expected="the directory it made",
            got=error.got, do=SHARED,
        ) from error  # fmt: skip


def restore_state(run: Run, *, step: int | None = None) -> TrainState:
    """Read the state of a run from one of its checkpoints, without training.

    **Same bits:** the state that was saved, everywhere.

    Args:
        run: a run directory, opened with `Run.read`.
        step: which checkpoint; by default the newest.

    Returns:
        The state.

    Raises:
        CheckpointError: there is no such checkpoint, or it does not match the run's identity.
        CheckpointDamagedError: its bytes are not those that were sealed.
    """
    names = [field.name for field in dataclasses.fields(Identity)]
    identity = Identity(**{name: run.identity[name] for name in names})
    start = programs_of(identity).start
    with _store(run) as store:
        state: TrainState = store.restore(start, step=step)
        _check_state(state, start, run, store.steps()[-1] if step is None else step)
    return state


def _attempt(
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
    began, done, plan, whole = time.monotonic(), first, None, None
    state = jax.tree.map(jnp.copy, state)  # the loop donates it; whoever gave it may keep theirs
    try:
        if recorder and first == 0:
            recorder.record(0, state=state)
        for step in range(first + 1, last + 1):
            if plan is None or step % PLANNED == 1:  # this step begins a stretch
                plan = programs.plan(state)
                whole = programs.layout.divide(plan, axis=1)  # what each device takes of it
            state, loss, gradient = programs.step(state, plan)
            done = step  # the update is complete when there is a new state, whatever follows
            if recorder:
                parts = {"state": state, "plan": whole, "gradient": gradient, "data": programs.data}
                recorder.record(step, loss=loss, **parts)
            if progress:
                progress(step, loss)
            interrupted = stop is not None and stop()
            if store and (step % config.checkpoint_every == 0 or step == last or interrupted):
                programs.layout.assert_same_on_all_devices(state, step=step)
                store.save(step, state, chain=recorder.flush().result if recorder else None)
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
    digest = tree_digest(state)
    result = None
    if run and ended == "finished":
        result = Result(**on_first(lambda: _finish(programs, run, state, digest)))
    return TrainResult(state, digest, ended, result)


def _resume(config: TrainConfig, run: Run, store: CheckpointStore, start: TrainState) -> TrainState:
    """Return the newest saved state, or the start; as `config.resume` allows."""
    steps = store.steps()
    assert_same_facts({"checkpoints": steps}, thing="the run directory", do=SHARED)
    if config.resume == "require" and not steps:
        raise RunError(
            "resume", "the run", path=run.path, expected="a checkpoint", got="none",
            do="Use --resume auto to start from the beginning.",
        )  # fmt: skip
    if config.resume == "never" and steps:
        raise RunError(
            "start the run anew", "here", path=run.path, expected="no checkpoints",
            got=f"one of step {steps[-1]}",
            do="Choose another --run-dir, or --resume auto; nothing was overwritten.",
        )  # fmt: skip
    state: TrainState = store.resume(start)
    if steps:
        _check_state(state, start, run, store.steps()[-1])
    done = max(int(state.step), result.steps if (result := run.result()) else 0)
    if done > config.steps:
        raise ConfigError(
            "use", "steps", expected=f"at least {done}, which are complete",
            got=config.steps, do="A run can grow, not shrink.",
        )  # fmt: skip
    return state


def _check_state(state: TrainState, start: TrainState, run: Run, step: int) -> None:
    """Refuse a checkpoint that is intact but cannot be one of this run."""
    seed, keys = run.identity["seed"], (tree_digest(start.key), tree_digest(state.key))
    facts = {
        "step": (f"{step}, as the directory is named", step, int(state.step)),
        "key": (f"the root key of seed {seed}, with digest {keys[0]}", *keys),
    }
    for name, (expected, wanted, got) in facts.items():
        if got != wanted:
            raise CheckpointMismatchError(
                "use", f"leaf {name}", path=run.checkpoints, step=step, expected=expected, got=got,
                do="Something other than `train` wrote it: take an intact copy.",
            )  # fmt: skip


def _already_done(config: TrainConfig, run: Run, state: TrainState) -> TrainResult | None:
    """Return what there is to return if no update is left to do."""
    step, digest = int(state.step), tree_digest(state)
    result = run.result()
    if step == config.steps and result and result.steps == step:
        if (result.run, result.digest) != (run.name, digest):
            raise RunDamagedError(
                "trust", "the result", path=run.path, step=step, got=result.digest,
                expected=f"digest {digest}, as of the checkpoint",
                do="Set it aside with `reproducibility check --repair`; then train again.",
            )  # fmt: skip
        return TrainResult(state, digest, "finished", result)
    if config.stop_after is not None and config.stop_after <= step < config.steps:
        return TrainResult(state, digest, "stopped", None)
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
        seconds=sum(line.get("seconds", 0.0) for line in run.attempts()),
    )
    run.finish(result)
    return dataclasses.asdict(result)


def settings_of(programs: Programs) -> dict[str, Any]:
    """Return the content of run.json: the chosen identity, and what else determines the bits.

    **Same bits:** everywhere.

    Args:
        programs: of the run.
    """
    data = programs.data
    return {
        **dataclasses.asdict(programs.identity),
        "hidden": list(programs.identity.hidden),  # as JSON reads it back
        "data_digest": tree_digest([data.x, data.y, data.x_test, data.y_test]),
        "model": "mlp",
        "optimiser": "adam",
        "prng": PRNG_IMPL,
    }


def _recorder(config: TrainConfig, run: Run | None, done: int) -> Recorder | None:
    if run is None:
        return None
    if config.record == "off":
        there = os.path.lexists(run.path / LEDGER)
        if there and jax.process_index() == 0:  # it may be ahead of the checkpoint
            writer = Writer(run.path / LEDGER, run.name, first=done + 1)
            writer.part(f"the steps after {done} are computed again, and not recorded.")
        return None
    return Recorder(
        run.path / LEDGER, run=run.name, level=config.record, every=config.record_every,
        first=done + 1 if done else 0, view=Programs.stages,
    )  # fmt: skip


def _store(run: Run, keep: int = 3) -> CheckpointStore:
    return CheckpointStore(run.checkpoints, keep=keep, run=run.name)


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
    known = {} if step is None else {"to_step": step}
    if run:
        run.log(event="end", ended=ended, **known, seconds=time.monotonic() - began)


def _log_start(run: Run | None, step: int, programs: Programs) -> None:
    layout = programs.layout
    if run:
        run.log(
            event="start",
            from_step=step,
            environment=capture_environment(),
            layout={"devices": len(layout.local), "processes": layout.processes},
            programs=programs.digests(),
        )


def _cross_entropy(logits: Float[Array, "n classes"], labels: Array) -> Float[Array, ""]:
    losses: Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()
