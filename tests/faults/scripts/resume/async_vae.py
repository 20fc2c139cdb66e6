"""A small autoencoder, saved in the background while it trains."""
import argparse
import hashlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

LATENT = 3
tx = optax.inject_hyperparams(optax.adam)(learning_rate=0.01)


def init_params(key):
    sizes = {"enc": (8, 10), "mean": (10, LATENT), "var": (10, LATENT), "dec": (LATENT, 8)}
    keys = jax.random.split(key, len(sizes))
    return {name: jax.random.normal(k, s) * 0.3 for k, (name, s) in zip(keys, sizes.items())}


def loss_fn(params, x, key, beta):
    h = jnp.tanh(x @ params["enc"])
    mean, var = h @ params["mean"], h @ params["var"]
    z = mean + jnp.exp(0.5 * var) * jax.random.normal(key, mean.shape)
    kl = -0.5 * jnp.mean(1 + var - mean**2 - jnp.exp(var))
    return jnp.mean((z @ params["dec"] - x) ** 2) + beta * kl


@jax.jit
def train_step(carry, x, beta):
    key, use = jax.random.split(carry["key"])
    loss, grads = jax.value_and_grad(loss_fn)(carry["params"], x, use, beta)
    updates, opt = tx.update(grads, carry["opt"], carry["params"])
    best = jnp.minimum(carry["best"], loss)
    return {"params": optax.apply_updates(carry["params"], updates), "opt": opt,
            "key": key, "best": best}, loss


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", required=True)
    p.add_argument("--iterations", type=int, default=24)
    p.add_argument("--only", type=int, default=0, help="end after this iteration, as a quota does")
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    rng = np.random.default_rng(args.seed)
    data = (rng.normal(size=(96, 2)) @ rng.normal(size=(2, 8))).astype(np.float32)
    params = init_params(jax.random.key(args.seed))
    carry = {"params": params, "opt": tx.init(params), "key": jax.random.key(args.seed + 1),
             "best": jnp.float32(1e9)}
    checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
    done = sorted(int(n) for n in os.listdir(args.workdir) if n.isdigit())
    begin = 0
    if done:
        begin = done[-1]
        like = {**carry, "key": jax.random.key_data(carry["key"])}
        carry = checkpointer.restore(os.path.join(args.workdir, str(begin)),
                                     args=ocp.args.StandardRestore(like))
        carry["key"] = jax.random.wrap_key_data(carry["key"])
    for i in range(begin, args.iterations):
        order = np.random.default_rng(50 + i // 6).permutation(len(data))
        x = data[order[16 * (i % 6):16 * (i % 6) + 16]]
        beta = np.float32(min(1.0, i / 16))
        carry, loss = train_step(carry, x, beta)
        if i % 6 == 5:
            kept = {**carry, "key": jax.random.key_data(carry["key"])}
            checkpointer.save(os.path.join(args.workdir, str(i + 1)),
                              args=ocp.args.StandardSave(kept))
        if i + 1 == args.only:
            break
    checkpointer.wait_until_finished()
    checkpointer.close()
    digest = hashlib.blake2b(digest_size=12)
    for leaf in jax.tree.leaves((carry["params"], carry["opt"], carry["best"])):
        digest.update(np.asarray(leaf).tobytes())
    print("result:", digest.hexdigest())


if __name__ == "__main__":
    main()
