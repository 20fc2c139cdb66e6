"""Small conv net on synthetic 8x8 glyphs. Flax Linen + Orbax CheckpointManager."""
import argparse
import hashlib
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax.training import train_state

BATCH = 16
NUM_TRAIN = 128
SEED = 7
SAVE_EVERY = 5
EMA_DECAY = 0.95


class TrainState(train_state.TrainState):
    batch_stats: dict
    ema: dict


class Net(nn.Module):
    dropout: float = 0.2

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.relu(x)
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(32)(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(10)(x)


def make_dataset():
    rng = np.random.default_rng(0)
    protos = rng.normal(size=(10, 8, 8, 1)).astype(np.float32)
    y = rng.integers(0, 10, size=NUM_TRAIN)
    x = protos[y] + 0.7 * rng.normal(size=(NUM_TRAIN, 8, 8, 1)).astype(np.float32)
    return x, y.astype(np.int32)


def create_state(args, rng):
    model = Net(dropout=args.dropout)
    variables = model.init({"params": rng}, jnp.zeros((1, 8, 8, 1)), train=False)
    tx = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, args.lr, 4, 40), weight_decay=1e-3)
    return TrainState.create(apply_fn=model.apply, params=variables["params"], tx=tx,
                             batch_stats=variables["batch_stats"],
                             ema=jax.tree.map(jnp.array, variables["params"]))


@jax.jit
def train_step(state, images, labels, dropout_key):
    def loss_fn(params):
        logits, updates = state.apply_fn({"params": params, "batch_stats": state.batch_stats}, images,
                                         train=True, mutable=["batch_stats"],
                                         rngs={"dropout": dropout_key})
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, updates

    (loss, updates), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    state = state.apply_gradients(grads=grads, batch_stats=updates["batch_stats"])
    ema = jax.tree.map(lambda e, p: EMA_DECAY * e + (1 - EMA_DECAY) * p, state.ema, state.params)
    return state.replace(ema=ema), loss


def digest(tree):
    h = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        h.update(np.asarray(leaf).tobytes())
    return h.hexdigest()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--steps", type=int, default=30)
    ap.add_argument("--workdir", required=True)
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--dropout", type=float, default=0.2)
    args = ap.parse_args()

    x, y = make_dataset()
    steps_per_epoch = NUM_TRAIN // BATCH
    init_key, dropout_root = jax.random.split(jax.random.key(SEED))
    state = create_state(args, init_key)
    shuffle = np.random.default_rng(SEED)
    step, position = 0, 0
    gen_state = shuffle.bit_generator.state  # as it was at the start of the running epoch

    ckpt_dir = os.path.abspath(os.path.join(args.workdir, "ckpt"))
    mngr = ocp.CheckpointManager(ckpt_dir, options=ocp.CheckpointManagerOptions(max_to_keep=2, create=True))
    if args.resume and mngr.latest_step() is not None:
        last = mngr.latest_step()
        saved = mngr.restore(last, args=ocp.args.Composite(
            state=ocp.args.StandardRestore(state), data=ocp.args.JsonRestore()))
        state = saved.state
        step = saved.data["step"]
        position = saved.data["position"]
        gen_state = saved.data["generator"]
        shuffle.bit_generator.state = gen_state
        print(f"resumed from step {step}", flush=True)

    loss = jnp.nan
    while step < args.steps:
        gen_state = shuffle.bit_generator.state
        order = shuffle.permutation(NUM_TRAIN)
        while position < steps_per_epoch and step < args.steps:
            idx = order[position * BATCH:(position + 1) * BATCH]
            key = jax.random.fold_in(dropout_root, step)
            state, loss = train_step(state, x[idx], y[idx], key)
            step += 1
            position += 1
            if step % SAVE_EVERY == 0:
                data = {"step": step, "position": position, "generator": gen_state}
                mngr.save(step, args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data)))
                mngr.wait_until_finished()
        if position == steps_per_epoch:
            position = 0
    mngr.close()
    print("digest", digest((state.params, state.ema, state.batch_stats)))
    print("last loss", float(loss))


if __name__ == "__main__":
    main()
