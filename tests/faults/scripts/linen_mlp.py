"""Spiral classification with a Flax Linen MLP and TrainState."""
import argparse
import hashlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state


class MLP(nn.Module):
    hidden: tuple
    classes: int
    rate: float = 0.1

    @nn.compact
    def __call__(self, x, train):
        for width in self.hidden:
            x = nn.Dense(width)(x)
            x = nn.gelu(x)
            x = nn.Dropout(self.rate, deterministic=not train)(x)
        return nn.Dense(self.classes)(x)


class TrainState(train_state.TrainState):
    dropout_key: jax.Array


def make_spirals(seed, n=1024, classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size=n)
    radius = rng.uniform(0.05, 1.0, size=n)
    angle = radius * 5.0 + labels * (2 * np.pi / classes)
    angle = angle + rng.normal(scale=0.15, size=n)
    xy = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return xy.astype(np.float32), labels.astype(np.int32)


def create_state(args, sample):
    model = MLP(hidden=(64, 64), classes=3)
    params_key, dropout_key = jax.random.split(jax.random.key(args.seed))
    variables = model.init(params_key, sample, train=False)
    schedule = optax.cosine_decay_schedule(args.lr, args.epochs * 8)
    return TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        tx=optax.adamw(schedule, weight_decay=1e-4),
        dropout_key=dropout_key,
    )


@jax.jit
def train_step(state, batch):
    drop = jax.random.fold_in(state.dropout_key, state.step)

    def loss_fn(params):
        logits = state.apply_fn({"params": params}, batch["x"], train=True, rngs={"dropout": drop})
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss


@jax.jit
def evaluate(state, x, y):
    logits = state.apply_fn({"params": state.params}, x, train=False)
    return (logits.argmax(-1) == y).mean()


def batches(x, y, batch_size, rng):
    order = rng.permutation(len(x))
    for start in range(0, len(x) - batch_size + 1, batch_size):
        idx = order[start:start + batch_size]
        yield {"x": x[idx], "y": y[idx]}


def digest(tree):
    h = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        h.update(np.asarray(leaf).tobytes())
    return h.hexdigest()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()

    x, y = make_spirals(args.seed)
    x_train, y_train, x_test, y_test = x[:896], y[:896], x[896:], y[896:]
    shuffle_rng = np.random.default_rng(args.seed + 1)
    state = create_state(args, x_train[:2])
    for epoch in range(args.epochs):
        losses = []
        for batch in batches(x_train, y_train, args.batch_size, shuffle_rng):
            state, loss = train_step(state, batch)
            losses.append(float(loss))
        accuracy = evaluate(state, x_test, y_test)
        print(f"epoch {epoch:2d} loss {np.mean(losses):.4f} acc {float(accuracy):.3f}")
    print("result:", digest(state.params))


if __name__ == "__main__":
    main()
