"""The state of a run, and its step: three programs.

The rule: a step is three programs (one shard's gradient, the sum, the update), and none of them
sees how many devices there are. So the bits cannot depend on it.
Chapter: docs/workflow/complete_flow.md

The state is `TrainState`, what is random is a `Plan`. The three programs are `_Network._gradient`,
`Layout.mean` and `_Optimiser._update`; `Programs.step` calls them, and `advance` is what training
and replay do for each step. A small network has the gradients of a device's shards in one call,
`_Network._gradients`: the same on every layout, as which shards is an argument.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree, UInt

from reproducibility.keys import PRNG_IMPL, index_key, root_key, step_key, stream_key
from reproducibility.machine.environment import Value, jax_settings
from reproducibility.reference.config import Identity
from reproducibility.reference.data import Dataset, load_dataset
from reproducibility.reference.model import MLP, Params, apply, initialiser
from reproducibility.same.hashing import tree_digest
from reproducibility.scale.layout import Layout
from reproducibility.scale.sum import Parts, Rows

type Ambient = tuple[tuple[str, Value], ...]  # options of JAX

PLANNED = 64  # steps that one plan covers; it is made anew at every multiple
# On the CPU, networks of which a loop over shards was compared with a call for each: the same bits.
# Not so with one example in a shard, where a product of matrices is one of a vector.
SMALL_LAYERS, SMALL_WIDTHS, SMALL_SHARDS, SMALL_EXAMPLES = (1, 2), (8, 128), (2, 16), (4, 64)


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
        own_shards = self.layout.shards(identity.shards)
        self.data: Dataset = self.layout.replicate(
            load_dataset(identity.dataset, seed=identity.seed, batch_size=identity.batch_size)
        )
        # Neither is given the seed, so what they compile is shared by the runs of all seeds.
        features, classes = self.data.x.shape[1], self.data.classes
        ambient = _ambient()
        self._network = _network_of(features, identity.hidden, classes, identity.dropout, ambient)
        self._optimiser = _optimiser_of(identity.learning_rate, self.layout, ambient)
        self.shards = [jnp.uint32(shard) for shard in own_shards]
        key = root_key(identity.seed)
        self.graph, params = self.initial(key)
        self.start = self.layout.replicate(self._optimiser.start(params, key))
        each = len(own_shards) // len(self.layout.local)
        self._shards_by_device = [
            self.shards[i : i + each] for i in range(0, len(own_shards), each)
        ]
        self._ends = [jnp.uint32(shard + 1) for shard in own_shards[each - 1 :: each]]

        self._small = is_small(identity) and self.layout.devices[0].platform == "cpu"
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
        plan = _plan_of(self.identity.shards, _ambient())(state.key, state.step, data)
        everywhere: Plan = self.layout.replicate(plan)
        return everywhere

    def step(
        self, state: TrainState, plan: Plan, data: Dataset | None = None
    ) -> tuple[TrainState, Float[Array, ""], Params]:
        """Do one update: every shard's gradient, their mean, the optimiser. Nothing waits.

        **Same bits:** one backend, instruction set and version of JAX.

        Args:
            state: the state, which is donated.
            plan: of the stretch that the step belongs to.
            data: what the batch is taken from; by default the data of the run.

        Returns:
            The next state, the mean loss of the batch, and its gradient, on the device.
        """
        loss, gradient = self.total(self._parts(state, plan, data or self.data))
        return self.update(state, gradient), loss, gradient

    def _parts(self, state: TrainState, plan: Plan, data: Dataset) -> Parts | Rows:
        # Which way is up to the identity, never to the layout; the bits are those of either.
        copies = self.layout.copies((state.params, state.step, plan, data.x, data.y))
        owned = zip(copies, self._shards_by_device, self._ends, strict=True)
        if not self._small:
            return [self.gradient(*copy, shard) for copy, shards, _ in owned for shard in shards]
        stacks = [self._network.gradients(*copy, shards[0], end) for copy, shards, end in owned]
        return Rows(stacks, self.identity.shards)

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
        gradients = self._network.gradients
        lowered = {
            "gradient": gradients.lower(*arguments, self._ends[0])
            if self._small
            else self.gradient.lower(*arguments),
            "update": self._optimiser.alone.lower(state, part[1]),
        }
        return {k: hashlib.sha256(v.as_text().encode()).hexdigest() for k, v in lowered.items()}


class Advanced(NamedTuple):
    """What a step came to, on the devices."""

    state: TrainState
    """The state after it."""
    plan: Plan
    """The plan of the stretch that it belongs to."""
    loss: Float[Array, ""]
    """The mean loss of its batch."""
    gradient: Params
    """The mean gradient of its batch."""


def advance(programs: Programs, state: TrainState, step: int, plan: Plan | None = None) -> Advanced:
    """Bring a run from the state before a step to the state after it. Nothing waits.

    If no plan is given, or the step begins a stretch of `PLANNED` steps, its plan is made first.

    **Same bits:** as `Programs.step`; a plan is a function of (seed, step), so who made it is
    all the same.

    Args:
        programs: of the run.
        state: the state before the step, which is donated.
        step: completed updates after it; `state.step` is one less.
        plan: that of the step before, if it was just computed.
    """
    if plan is None or step % PLANNED == 1:
        plan = programs.plan(state)
    state, loss, gradient = programs.step(state, plan)
    return Advanced(state, plan, loss, gradient)


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
        self.gradients = jax.jit(self._gradients)
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

    def _gradients(
        self, params: Params, step: Array, plan: Plan, x: Array, y: Array, first: Array, end: Array
    ) -> tuple[Float[Array, " shards"], Params]:
        """Program 1 for the shards from `first` to before `end`, each into its row of all."""

        def one(shard: Array) -> tuple[Float[Array, ""], Params]:
            return self._gradient(params, step, plan, x, y, shard)

        def body(shard: Array, rows: PyTree) -> PyTree:
            return jax.tree.map(lambda row, new: row.at[shard].set(new), rows, one(shard))

        count, form = plan.rows.shape[1], jax.eval_shape(one, first)
        zeros = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), form)
        rows: tuple[Array, Params] = jax.lax.fori_loop(first, end, body, zeros)
        return rows

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


def is_small(identity: Identity) -> bool:
    """Say whether a device's shards have their gradients in one call, on the CPU.

    A call for each is most of the time of a step there. The loop is for those networks of which it
    was compared with a call for each, on many widths and sizes: of those the bits are the same.

    **Same bits:** everywhere; and so are those of a step, whatever this says.

    Args:
        identity: what determines the bits.
    """
    measures = [
        (len(identity.hidden), SMALL_LAYERS),
        (identity.shards, SMALL_SHARDS),
        (identity.batch_size // identity.shards, SMALL_EXAMPLES),
        *[(width, SMALL_WIDTHS) for width in identity.hidden],
    ]
    return all(low <= value <= high for value, (low, high) in measures)


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


def _cross_entropy(logits: Float[Array, "n classes"], labels: Array) -> Float[Array, ""]:
    losses: Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()
