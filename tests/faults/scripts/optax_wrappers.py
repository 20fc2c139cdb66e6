"""Matrix factorisation with Optax wrappers: MultiSteps, masked, inject_hyperparams, lookahead."""
import argparse
import hashlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

N_USERS, N_ITEMS, RANK = 120, 80, 8


def synthetic_ratings(seed, n=6000):
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(N_USERS, 4))
    v = rng.normal(size=(N_ITEMS, 4))
    users = rng.integers(0, N_USERS, size=n)
    items = rng.integers(0, N_ITEMS, size=n)
    ratings = (u[users] * v[items]).sum(1) + rng.normal(scale=0.1, size=n)
    return users.astype(np.int32), items.astype(np.int32), ratings.astype(np.float32)


def init_params(key):
    ku, ki = jax.random.split(key)
    return {
        "user": jax.random.normal(ku, (N_USERS, RANK)) * 0.3,
        "item": jax.random.normal(ki, (N_ITEMS, RANK)) * 0.3,
        "user_bias": jnp.zeros(N_USERS),
        "item_bias": jnp.zeros(N_ITEMS),
    }


def predict(params, users, items):
    dot = (params["user"][users] * params["item"][items]).sum(-1)
    return dot + params["user_bias"][users] + params["item_bias"][items]


def decay_mask(params):
    return {name: not name.endswith("bias") for name in params}


def make_optimizer(lr, accumulate):
    base = optax.chain(
        optax.masked(optax.add_decayed_weights(1e-4), decay_mask),
        optax.inject_hyperparams(optax.adam)(learning_rate=lr),
    )
    fast = optax.MultiSteps(base, every_k_schedule=accumulate)
    return optax.lookahead(fast.gradient_transformation(), sync_period=6, slow_step_size=0.5)


def loss_fn(fast, users, items, ratings):
    return jnp.mean((predict(fast, users, items) - ratings) ** 2)


def make_train_step(optimizer):
    @jax.jit
    def train_step(params, opt_state, users, items, ratings):
        loss, grads = jax.value_and_grad(loss_fn)(params.fast, users, items, ratings)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return train_step


def set_learning_rate(opt_state, value):
    inner = opt_state.fast_state.inner_opt_state[1]
    inner.hyperparams["learning_rate"] = jnp.asarray(value, jnp.float32)
    return opt_state


def schedule(step, elapsed, base):
    warm = min(1.0, (step + 1) / 10)
    return base * warm * 0.98 ** (step / 10)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--batch", type=int, default=256)
    args = parser.parse_args()

    users, items, ratings = synthetic_ratings(args.seed)
    sampler = np.random.RandomState(args.seed)
    params = optax.LookaheadParams.init_synced(init_params(jax.random.PRNGKey(args.seed)))
    optimizer = make_optimizer(args.lr, accumulate=2)
    opt_state = optimizer.init(params)
    train_step = make_train_step(optimizer)
    begin = time.time()
    for step in range(args.steps):
        idx = sampler.choice(len(ratings), size=args.batch, replace=False)
        opt_state = set_learning_rate(opt_state, schedule(step, time.time() - begin, args.lr))
        params, opt_state, loss = train_step(params, opt_state, users[idx], items[idx], ratings[idx])
        if step % 30 == 0:
            print(f"step {step} loss {loss:.4f} ({time.time() - begin:.1f}s)")
    h = hashlib.sha1()
    for name in sorted(params.slow):
        h.update(np.asarray(params.slow[name]).tobytes())
    print("result:", h.hexdigest(), repr(float(loss)))


if __name__ == "__main__":
    main()
