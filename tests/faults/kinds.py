"""Kinds of state that people bring, each as a small loop: for the table that `states.py` makes.

A kind is a class of functions, so that another process finds it by name; what it needs is imported
in it. `advance` makes updates that read and write all of the state.
"""

from __future__ import annotations

import dataclasses
import enum
import random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from reproducibility import (
    from_grain,
    generator_from_state,
    generator_state,
    root_key,
    step_key,
)

X = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
Y = X.sum(axis=1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of state, and what is right where a tool may not take it."""

    name: str
    library: str
    start: Callable[[], Any]
    update: Callable[[Any], Any]
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    """By tool ("digest", "resume", "recorder", "assertion"), words of the sentence it must say."""

    def advance(self, state: Any, n: int) -> Any:
        """Return the state after so many more updates."""
        for _ in range(n):
            state = self.update(state)
        return state


KINDS: dict[str, Kind] = {}
ALL = ("digest", "resume", "recorder", "assertion")


def kind(name: str, library: str, **refused: str) -> Callable[[Any], Any]:
    """Add a class with `start` and `update` to the kinds."""

    def add(loop: Any) -> Any:
        KINDS[name] = Kind(name, library, loop.start, loop.update, refused)
        return loop

    return add


def everywhere(words: str, **others: str) -> dict[str, str]:
    """Return what all tools must say, but for those that say something else."""
    return dict.fromkeys(ALL, words) | others


def but_the_recorder(words: str) -> dict[str, str]:
    """Return what all tools must say, where the recorder keeps it by its bits."""
    return {tool: words for tool in ALL if tool != "recorder"}


def loss_of(apply: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """Return the loss of a network as a function of its parameters."""
    return lambda params: jnp.mean((apply(params, X) - Y) ** 2)


@kind("arrays and a typed key in a dict", "jax")
class Plain:
    def start() -> Any:
        return {"w": jnp.zeros((3, 1)), "step": jnp.uint32(0), "key": root_key(7)}

    def update(s: Any) -> Any:
        noise = jax.random.normal(step_key(s["key"], s["step"]), (3, 1))
        return {**s, "w": 0.9 * s["w"] + noise, "step": s["step"] + 1}


@kind("a legacy uint32 key", "jax")
class Legacy:
    def start() -> Any:
        return {"w": jnp.zeros(3), "key": jax.random.PRNGKey(7)}

    def update(s: Any) -> Any:
        key, draw = jax.random.split(s["key"])
        return {"w": 0.9 * s["w"] + jax.random.normal(draw, (3,)), "key": key}


@kind("arrays of keys of other implementations", "jax")
class Keys:
    def start() -> Any:
        keys = [jax.random.key(7, impl=name) for name in ("rbg", "philox4x32")]
        return {"w": jnp.zeros(2), "keys": [jax.random.split(key, 2) for key in keys]}

    def update(s: Any) -> Any:
        split = [jax.vmap(jax.random.split)(keys) for keys in s["keys"]]
        drawn = sum(jax.vmap(jax.random.uniform)(pair[:, 1]) for pair in split)
        return {"w": 0.5 * s["w"] + drawn, "keys": [pair[:, 0] for pair in split]}


@kind("narrow dtypes, NaN and -0.0", "jax")
class Narrow:
    def start() -> Any:
        names = ("int4", "uint2", "bool", "bfloat16", "float8_e4m3fn", "float16", "complex64")
        return {n: jnp.arange(4).astype(n) for n in names} | {
            "odd": jnp.array([-0.0, jnp.nan, jnp.inf]),
            "count": jnp.uint32(0),
        }

    def update(s: Any) -> Any:
        def roll(leaf: Any) -> Any:
            return jnp.roll(leaf, 1) if leaf.ndim else leaf + 1

        return jax.tree.map(roll, s)


@kind("weak types", "jax")
class Weak:
    def start() -> Any:
        return {"w": jnp.bfloat16(1), "rate": jnp.asarray(0.5), "n": jnp.asarray(1)}

    def update(s: Any) -> Any:
        return {"w": s["w"] * s["rate"] + 1, "rate": s["rate"] * 0.9, "n": s["n"] + 1}


@kind("NumPy arrays and scalars", "numpy")
class Numpy:
    def start() -> Any:
        return {"w": np.zeros(3, ">f4"), "n": np.int64(2**40), "f": np.asfortranarray(np.eye(3))}

    def update(s: Any) -> Any:
        return {"w": (s["w"] * 2 + 1).astype(">f4"), "n": np.int64(s["n"] + 1), "f": s["f"] * 2}


@kind("one NumPy buffer under two names, written in place", "numpy")
class Buffer:
    def start() -> Any:
        buffer = np.ones(3, np.float32)
        return {"buffer": buffer, "view": buffer}

    def update(s: Any) -> Any:
        s["buffer"] += 1
        s["view"] *= 2
        return s


@kind("containers of containers, empty ones and None", "jax")
class Containers:
    def start() -> Any:
        return {"a": [jnp.zeros(2), (jnp.ones(()), None, {})], "b": {}, "c": [jnp.zeros((0, 2))]}

    def update(s: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf + 1, s)


class Mode(enum.Enum):
    TRAIN = 1
    TEST = 2

    def __lt__(self, other: Mode) -> bool:
        return self.value < other.value


@kind("dictionaries keyed by tuples, NumPy integers and enums", "jax")
class Keyed:
    def start() -> Any:
        return {
            "t": {("a", 1): jnp.zeros(2), ("b", 0): jnp.ones(2)},
            "n": {np.int64(3): jnp.zeros(2)},
            "e": {Mode.TRAIN: jnp.zeros(2), Mode.TEST: jnp.ones(2)},
        }

    def update(s: Any) -> Any:
        return jax.tree.map(lambda leaf: 2 * leaf + 1, s)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WithField:
    w: Any
    epoch: int = dataclasses.field(metadata={"static": True})


@kind("a dataclass with a static field", "jax")
class Static:
    def start() -> Any:
        return WithField(jnp.zeros(3), 3)

    def update(s: Any) -> Any:
        return WithField(s.w + s.epoch, s.epoch)


@kind(
    "a static field that counts",
    "jax",
    resume="static field epoch",
    assertion="static field epoch",
)
class Counting:
    def start() -> Any:
        return WithField(jnp.zeros(3), 0)

    def update(s: Any) -> Any:
        return WithField(s.w + s.epoch, s.epoch + 1)


def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), ("d",))


@kind("sharded over 8 devices", "jax")
class Sharded:
    def start() -> Any:
        return {"w": jax.device_put(jnp.arange(16.0), NamedSharding(mesh(), P("d")))}

    def update(s: Any) -> Any:
        return {"w": s["w"] * 0.5 + 1}


@kind("replicated on 8 devices", "jax")
class Replicated:
    def start() -> Any:
        return {"w": jax.device_put(jnp.arange(4.0), NamedSharding(mesh(), P()))}

    def update(s: Any) -> Any:
        return {"w": s["w"] * 0.5 + 1}


@kind("copies on 8 devices that are no copies", "jax", **everywhere("other bits on"))
class Diverged:
    def start() -> Any:
        parts = [jax.device_put(jnp.full(4, float(n)), d) for n, d in enumerate(jax.devices())]
        return {
            "w": jax.make_array_from_single_device_arrays((4,), NamedSharding(mesh(), P()), parts)
        }

    def update(s: Any) -> Any:
        return {"w": s["w"] * 0.5 + 1}


@kind("a sparse matrix (BCOO)", "jax")
class Sparse:
    def start() -> Any:
        from jax.experimental import sparse

        return {"m": sparse.BCOO.fromdense(jnp.eye(4) * 2.0), "v": jnp.ones(4)}

    def update(s: Any) -> Any:
        from jax.experimental import sparse

        m = s["m"]
        known = {"indices_sorted": m.indices_sorted, "unique_indices": m.unique_indices}
        m = sparse.BCOO((m.data * 1.5, m.indices), shape=m.shape, **known)
        return {"m": m, "v": m @ s["v"] + 1}


def flax_network(norm: bool) -> Any:
    from flax import linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: Any, train: bool = True) -> Any:
            x = nn.Dense(4)(x)
            if norm:
                x = nn.BatchNorm(use_running_average=not train)(x)
                x = nn.Dropout(0.5, deterministic=not train)(x)
            return nn.Dense(1)(x)

    return Network()


@kind("Flax Linen: TrainState with Adam", "flax")
class Linen:
    def start() -> Any:
        from flax.training import train_state

        model = flax_network(norm=False)
        params = model.init(root_key(7), X)["params"]
        return train_state.TrainState.create(
            apply_fn=model.apply, params=params, tx=optax.adam(0.1)
        ).replace(step=jnp.int32(0))

    def update(s: Any) -> Any:
        grads = jax.grad(loss_of(lambda p, x: s.apply_fn({"params": p}, x)))(s.params)
        return s.apply_gradients(grads=grads)


@kind("Flax Linen: BatchNorm and dropout", "flax")
class LinenNorm:
    def start() -> Any:
        model = flax_network(norm=True)
        variables = model.init({"params": root_key(7), "dropout": root_key(8)}, X)
        opt = optax.sgd(0.1).init(variables["params"])
        return {"variables": variables, "opt": opt, "key": root_key(9)}

    def update(s: Any) -> Any:
        model = flax_network(norm=True)
        key, draw = jax.random.split(s["key"])

        def loss(params: Any) -> Any:
            variables = {**s["variables"], "params": params}
            y, new = model.apply(variables, X, rngs={"dropout": draw}, mutable=["batch_stats"])
            return jnp.mean((y - Y) ** 2), new

        grads, new = jax.grad(loss, has_aux=True)(s["variables"]["params"])
        ups, opt = optax.sgd(0.1).update(grads, s["opt"])
        params = optax.apply_updates(s["variables"]["params"], ups)
        return {"variables": {"params": params, **new}, "opt": opt, "key": key}


def nnx_classes() -> Any:
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.a, self.b = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.b(self.drop(self.norm(self.a(x))))

    class Tied(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.embed = nnx.Param(jax.random.normal(rngs.params(), (3, 3)))
            self.head = self.embed

        def __call__(self, x: Any) -> Any:
            return (x @ self.embed[...] @ self.head[...].T)[:, :1]

    return nnx, Net, Tied


def nnx_step(model: Any, opt: Any) -> None:
    from flax import nnx

    grads = nnx.grad(lambda m: jnp.mean((m(X) - Y) ** 2))(model)
    opt.update(model, grads)


@kind("Flax NNX: module, BatchNorm, dropout and optimiser", "flax")
class Nnx:
    def start() -> Any:
        nnx, net, _ = nnx_classes()
        model = net(nnx.Rngs(params=7, dropout=8))
        return {"model": model, "opt": nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)}

    def update(s: Any) -> Any:
        nnx_step(s["model"], s["opt"])
        return s


@kind("Flax NNX: the same by nnx.state", "flax")
class NnxState:
    def start() -> Any:
        nnx, _, _ = nnx_classes()
        return nnx.state(tuple(Nnx.start().values()))

    def update(s: Any) -> Any:
        nnx, _, _ = nnx_classes()
        both = tuple(Nnx.start().values())
        nnx.update(both, s)
        nnx_step(*both)
        return nnx.state(both)


@kind("Flax NNX: tied weights", "flax")
class NnxTied:
    def start() -> Any:
        nnx, _, tied = nnx_classes()
        return tied(nnx.Rngs(7))

    def update(s: Any) -> Any:
        from flax import nnx

        nnx_step(s, nnx.Optimizer(s, optax.sgd(0.05), wrt=nnx.Param))
        return s


@kind("Equinox: MLP and Adam", "equinox")
class Equinox:
    def start() -> Any:
        import equinox as eqx

        model = eqx.nn.MLP(3, 1, 4, 1, key=root_key(7))
        arrays, rest = eqx.partition(model, eqx.is_array)
        del rest
        return {"model": arrays, "opt": optax.adam(0.1).init(arrays)}

    def update(s: Any) -> Any:
        import equinox as eqx

        _, rest = eqx.partition(eqx.nn.MLP(3, 1, 4, 1, key=root_key(0)), eqx.is_array)

        def apply(arrays: Any, x: Any) -> Any:
            return jax.vmap(eqx.combine(arrays, rest))(x)

        grads = jax.grad(loss_of(apply))(s["model"])
        ups, opt = optax.adam(0.1).update(grads, s["opt"])
        return {"model": optax.apply_updates(s["model"], ups), "opt": opt}


@kind("Equinox: a module with its functions", "equinox", **everywhere("custom_jvp"))
class EquinoxWhole:
    def start() -> Any:
        import equinox as eqx

        return eqx.nn.MLP(3, 1, 4, 1, key=root_key(7))

    def update(s: Any) -> Any:
        import equinox as eqx

        grads = eqx.filter_grad(lambda m: jnp.mean((jax.vmap(m)(X) - Y) ** 2))(s)
        return eqx.apply_updates(s, jax.tree.map(lambda g: -0.1 * g, grads))


def haiku_network() -> Any:
    import haiku as hk

    def forward(x: Any) -> Any:
        x = hk.BatchNorm(True, True, 0.9)(hk.Linear(4)(x), is_training=True)
        return hk.Linear(1)(x)

    return hk.transform_with_state(forward)


@kind("Haiku: parameters and state", "haiku")
class Haiku:
    def start() -> Any:
        params, state = haiku_network().init(jax.random.PRNGKey(7), X)
        return {"params": params, "state": state}

    def update(s: Any) -> Any:
        def loss(params: Any) -> Any:
            y, state = haiku_network().apply(params, s["state"], None, X)
            return jnp.mean((y - Y) ** 2), state

        grads, state = jax.grad(loss, has_aux=True)(s["params"])
        params = jax.tree.map(lambda p, g: p - 0.1 * g, s["params"], grads)
        return {"params": params, "state": state}


def log_density(x: Any) -> Any:
    return -0.5 * jnp.sum(x**2)


# Its statistics are written in each update and never read.
@kind("NumPyro: state of NUTS", "numpyro", assertion="Nothing depends on part accept_prob")
class NumPyro:
    def kernel() -> Any:
        from numpyro.infer import NUTS

        return NUTS(potential_fn=lambda x: -log_density(x))

    def start() -> Any:
        kernel = NumPyro.kernel()
        return kernel.init(jax.random.PRNGKey(7), 10, jnp.ones(2), (), {})

    def update(s: Any) -> Any:
        kernel = NumPyro.kernel()
        kernel.init(jax.random.PRNGKey(7), 10, jnp.ones(2), (), {})
        return kernel.sample(s, (), {})


@kind("NumPyro: state of SVI", "numpyro")
class Svi:
    def svi() -> Any:
        import numpyro
        import numpyro.distributions as dist
        from numpyro.infer import SVI, Trace_ELBO
        from numpyro.infer.autoguide import AutoNormal

        def model() -> None:
            mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(mean, 1.0), obs=Y)

        return SVI(model, AutoNormal(model), numpyro.optim.Adam(0.1), Trace_ELBO())

    def start() -> Any:
        return Svi.svi().init(jax.random.PRNGKey(7))

    def update(s: Any) -> Any:
        svi = Svi.svi()
        svi.init(jax.random.PRNGKey(7))
        return svi.update(s)[0]


@kind("BlackJAX: state of NUTS", "blackjax")
class BlackJax:
    def sampler() -> Any:
        import blackjax

        return blackjax.nuts(log_density, 0.3, jnp.ones(2))

    def start() -> Any:
        return {"chain": BlackJax.sampler().init(jnp.ones(2)), "key": root_key(7)}

    def update(s: Any) -> Any:
        key, draw = jax.random.split(s["key"])
        return {"chain": BlackJax.sampler().step(draw, s["chain"])[0], "key": key}


def optax_loop(make: Callable[[], Any]) -> Any:
    """Return a loop that trains three weights and a bias with an optimiser."""

    class Loop:
        def start() -> Any:
            params = {"w": jnp.zeros((3, 1)), "b": jnp.zeros(1)}
            return {"params": params, "opt": make().init(params)}

        def update(s: Any) -> Any:
            grads = jax.grad(loss_of(lambda p, x: x @ p["w"] + p["b"]))(s["params"])
            ups, opt = make().update(grads, s["opt"], s["params"])
            return {"params": optax.apply_updates(s["params"], ups), "opt": opt}

    return Loop


def schedule() -> Any:
    return optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 10)


for _name, _make in {
    "Optax: clipping, AdamW and a schedule": lambda: optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule())
    ),
    "Optax: MultiSteps": lambda: optax.MultiSteps(optax.adam(0.1), 2),
    "Optax: one optimiser for each part": lambda: optax.multi_transform(
        {"a": optax.adam(0.1), "s": optax.sgd(0.1, momentum=0.9)}, {"w": "a", "b": "s"}
    ),
    "Optax: settings as part of the state": lambda: optax.inject_hyperparams(optax.adam)(
        learning_rate=schedule()
    ),
    "Optax: noise of a key": lambda: optax.chain(
        optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.ema(0.9), optax.sgd(0.1)
    ),
}.items():
    kind(_name, "optax")(optax_loop(_make))


@kind("an average of the weights beside them", "optax")
class Ema:
    def start() -> Any:
        w = jnp.zeros(3)
        return {"w": w, "ema": w}

    def update(s: Any) -> Any:
        w = 0.5 * s["w"] + 1
        return {"w": w, "ema": 0.9 * s["ema"] + 0.1 * w}


def generator_loop(make: Callable[[], Any], draw: Callable[[Any], Any]) -> Any:
    """Return a loop that draws from a generator of NumPy or Python."""

    class Loop:
        def start() -> Any:
            return {"w": np.zeros(3), "rng": generator_state(make())}

        def update(s: Any) -> Any:
            generator = generator_from_state(s["rng"])
            return {"w": 0.9 * s["w"] + draw(generator), "rng": generator_state(generator)}

    return Loop


def _integer_of(generator: Any) -> Any:
    return generator.integers(2**31, size=1, dtype=np.uint32).astype(float)


for _bits in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"):
    kind(f"NumPy's generator {_bits}", "numpy")(
        generator_loop(lambda b=_bits: np.random.Generator(getattr(np.random, b)(7)), _integer_of)
    )
kind("NumPy's RandomState", "numpy")(
    generator_loop(lambda: np.random.RandomState(7), lambda g: g.randn())
)
kind("Python's random.Random", "python")(
    generator_loop(lambda: random.Random(7), lambda g: g.gauss(0, 1))
)


@kind("a generator object itself", "numpy", **everywhere("Generator"))
class Generator:
    def start() -> Any:
        return {"w": np.zeros(3), "rng": np.random.default_rng(7)}

    def update(s: Any) -> Any:
        return {**s, "w": s["w"] + s["rng"].random(3)}


@kind("a Grain iterator", "grain")
class Grain:
    def batches() -> Any:
        import grain

        dataset = grain.MapDataset.range(40).seed(7).shuffle().repeat().batch(4)
        read = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        return from_grain(dataset.to_iter_dataset(read), settings={"seed": 7})

    def start() -> Any:
        return {"w": np.zeros(4), "data": Grain.batches().state()}

    def update(s: Any) -> Any:
        batches = Grain.batches()
        batches.restore(s["data"])
        return {"w": 0.5 * s["w"] + next(batches), "data": batches.state()}


@kind("Python numbers", "python", **but_the_recorder("a Python int"))
class Numbers:
    def start() -> Any:
        return {"w": jnp.zeros(3), "step": 0}

    def update(s: Any) -> Any:
        return {"w": s["w"] + s["step"], "step": s["step"] + 1}


@kind("texts", "python", **but_the_recorder("a value of type str"))
class Texts:
    def start() -> Any:
        return {"w": jnp.zeros(3), "name": "a"}

    def update(s: Any) -> Any:
        return {**s, "w": s["w"] + 1}


@kind("an array of objects", "numpy", **everywhere("dtype object", recorder="object values"))
class Objects:
    def start() -> Any:
        return {"w": jnp.zeros(3), "o": np.array([1, "a"], object)}

    def update(s: Any) -> Any:
        return {**s, "w": s["w"] + 1}


@kind("a masked array", "numpy", **everywhere("a masked array"))
class Masked:
    def start() -> Any:
        return {"w": np.ma.masked_array(np.zeros(3), [True, False, False])}

    def update(s: Any) -> Any:
        return {"w": s["w"] + 1}
