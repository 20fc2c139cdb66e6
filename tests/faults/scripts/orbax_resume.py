"""Train a flax classifier, save it asynchronously with Orbax, resume half-way."""
import argparse
import hashlib
import os
import shutil
import tempfile

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Dense(32)(x))
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(4)(x)


net = Net()
tx = optax.adamw(3e-3)


@jax.jit
def train_step(state, x, y, key):
    def loss_fn(params):
        logits = net.apply({"params": params}, x, True, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state["params"])
    updates, opt = tx.update(grads, state["opt"], state["params"])
    return {"params": optax.apply_updates(state["params"], updates), "opt": opt,
            "step": state["step"] + 1}, loss


def make_data(seed, n=256):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(4, 10)) * 2
    y = rng.integers(0, 4, n)
    x = centers[y] + rng.normal(size=(n, 10))
    return x.astype(np.float32), y.astype(np.int32)


def init_state(seed):
    params = net.init(jax.random.PRNGKey(seed), jnp.zeros((1, 10)), False)["params"]
    return {"params": params, "opt": tx.init(params), "step": jnp.zeros((), jnp.int32)}


def batch_rows(step, n, size=32):
    order = np.random.RandomState(1000 + step // (n // size)).permutation(n)
    at = (step % (n // size)) * size
    return order[at:at + size]


def run(mngr, state, data, first, last, seed):
    x, y = data
    base = jax.random.PRNGKey(seed + 1)
    for step in range(first, last):
        rows = batch_rows(step, len(x))
        key = jax.random.fold_in(base, step)
        state, loss = train_step(state, x[rows], y[rows], key)
        if step % 10 == 9:
            mngr.save(step, args=ocp.args.StandardSave(state), metrics={"loss": float(loss)})
            print(f"step {step} loss {float(loss):.5f} saved")
    return state


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=None)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    root = os.path.abspath(args.workdir or tempfile.mkdtemp(prefix="orbax_"))
    path = os.path.join(root, "ckpt")
    shutil.rmtree(path, ignore_errors=True)
    data = make_data(args.seed)
    options = ocp.CheckpointManagerOptions(max_to_keep=3, enable_async_checkpointing=True)

    with ocp.CheckpointManager(path, options=options) as mngr:
        run(mngr, init_state(args.seed), data, 0, 35, args.seed)
        mngr.wait_until_finished()

    # a new manager, as after a preemption
    with ocp.CheckpointManager(path, options=options) as mngr:
        steps = mngr.all_steps()
        last = mngr.latest_step()
        print("found", sorted(steps), "resuming from", last)
        template = jax.tree.map(ocp.utils.to_shape_dtype_struct, init_state(args.seed))
        state = mngr.restore(last, args=ocp.args.StandardRestore(template))
        state = run(mngr, state, data, last + 1, 60, args.seed)
        mngr.wait_until_finished()

    digest = hashlib.sha256()
    for name, leaf in jax.tree_util.tree_leaves_with_path(state["params"]):
        digest.update(np.asarray(leaf).tobytes())
    print("result:", int(state["step"]), digest.hexdigest()[:32])


if __name__ == "__main__":
    main()
