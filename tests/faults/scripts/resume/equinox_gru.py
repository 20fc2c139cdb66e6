"""An Equinox GRU that counts ones, serialised leaf by leaf."""
import argparse
import json
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax


class Counter(eqx.Module):
    cell: eqx.nn.GRUCell
    read: eqx.nn.Linear

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(1, 12, key=a)
        self.read = eqx.nn.Linear(12, 1, key=b)

    def __call__(self, sequence):
        h, _ = jax.lax.scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(12), sequence)
        return self.read(h)[0]


def draw(rng, size):
    x = (rng.random((size, 8, 1)) < 0.5).astype(np.float32)
    return x, x.sum((1, 2)) / 8


def save(folder, model, opt_state, slow, facts):
    with open(folder / "state.eqx.new", "wb") as f:
        f.write((json.dumps(facts) + "\n").encode())
        eqx.tree_serialise_leaves(f, (model, opt_state, slow))
    (folder / "state.eqx.new").rename(folder / "state.eqx")


def load(folder, model, opt_state, slow):
    with open(folder / "state.eqx", "rb") as f:
        facts = json.loads(f.readline())
        return *eqx.tree_deserialise_leaves(f, (model, opt_state, slow)), facts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=21)
    parser.add_argument("--halt", type=int, default=-1)
    parser.add_argument("--continue", dest="go_on", action="store_true")
    args = parser.parse_args()

    optim = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01, b1=0.8))

    @eqx.filter_jit
    def make_step(model, opt_state, x, y, noise_key):
        @eqx.filter_value_and_grad
        def loss(m):
            noisy = x + 0.05 * jax.random.normal(noise_key, x.shape)
            return jnp.mean((jax.vmap(m)(noisy) - y) ** 2)

        value, grads = loss(model)
        updates, opt_state = optim.update(grads, opt_state, model)
        return eqx.apply_updates(model, updates), opt_state, value

    @eqx.filter_jit
    def lookahead(slow, model):
        fast = eqx.filter(model, eqx.is_array)
        slow = jax.tree.map(lambda s, f: s + 0.5 * (f - s), slow, fast)
        return slow, eqx.combine(slow, model)

    model = Counter(jax.random.key(5))
    opt_state = optim.init(eqx.filter(model, eqx.is_array))
    slow = eqx.filter(model, eqx.is_array)
    rng, key, begin = np.random.default_rng(11), jax.random.key(6), 0
    if args.go_on:
        model, opt_state, slow, facts = load(args.folder, model, opt_state, slow)
        begin = facts["step"]
        rng.bit_generator.state = facts["generator"]
        key = jax.random.wrap_key_data(jnp.array(facts["key"], jnp.uint32))
    for step in range(begin, args.steps):
        if step == args.halt:
            return
        x, y = draw(rng, 16)
        key, noise_key = jax.random.split(key)
        model, opt_state, value = make_step(model, opt_state, x, y, noise_key)
        if step % 5 == 4:
            slow, model = lookahead(slow, model)
        if step % 3 == 2:
            save(args.folder, model, opt_state, slow, {
                "step": step + 1,
                "generator": rng.bit_generator.state,
                "key": np.asarray(jax.random.key_data(key)).tolist(),
            })
    parts = [float(np.abs(np.asarray(leaf, np.float64)).sum()) for leaf in jax.tree.leaves(slow)]
    print("result:", float(value).hex(), sum(parts).hex(), float(model.read.bias[0]).hex())


if __name__ == "__main__":
    main()
