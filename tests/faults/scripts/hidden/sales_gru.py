"""Next-hour demand of a few shops from a CSV log: haiku GRU, optax, truncated windows.

Usage: python sales_gru.py --seed 0 --workdir /tmp/x
"""
import argparse
import csv
import getpass
import hashlib
import os
import socket
import sys
import time
from datetime import date, datetime, timezone

os.environ.pop("XLA_FLAGS", None)
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

if not __debug__:
    raise SystemExit("haiku 0.0.17 does work inside asserts and fails under python -O / PYTHONOPTIMIZE")
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", False)
jax.config.update("jax_disable_jit", False)
jax.config.update("jax_disable_most_optimizations", False)
jax.config.update("jax_random_seed_offset", 0)
jax.config.update("jax_threefry_partitionable", True)
jax.config.update("jax_default_matmul_precision", "float32")

SHOPS = ["Örebro", "zürich", "Ahus", "ålesund", "Zwolle", "arnhem"]
START = 1_700_000_000 // 3600 * 3600
HOURS, WINDOW, HIDDEN = 96, 12, 10


def write_log(path, seed):
    """CSV log, rows grouped by hour; demand is a whole number of units."""
    rng = np.random.default_rng(seed)
    with open(path, "w", newline="", encoding="utf-8") as f:
        out = csv.writer(f)
        out.writerow(["epoch", "shop", "units", "price"])
        for hour in range(HOURS):
            for i, shop in enumerate(SHOPS):
                wave = 6 if (hour + 2 * i) % 24 in range(8, 19) else 0
                out.writerow([START + 3600 * hour, shop, wave + int(rng.integers(0, 6)), f"{1 + rng.integers(0, 64) / 64:.6f}"])


def parse_price(text):
    return float(text)


def read_log(path):
    with open(path, newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    names = sorted({row["shop"] for row in rows})
    series = np.zeros((len(names), HOURS, 4), np.float32)
    for row in rows:
        at = int(row["epoch"])
        when = datetime.fromtimestamp(at, tz=timezone.utc)
        series[names.index(row["shop"]), (at - START) // 3600] = (
            int(row["units"]) / 16,
            parse_price(row["price"]),
            when.hour / 32,
            (when.date() - date(2023, 11, 1)).days / 64,
        )
    return names, series


def windows(series):
    x = np.stack([series[:, t : t + WINDOW] for t in range(0, HOURS - WINDOW, 3)])
    y = np.stack([series[:, t + WINDOW, 0] for t in range(0, HOURS - WINDOW, 3)])
    return x, y


def forward(x):
    # the shop's number is a learned embedding, so the order of `names` is part of the result
    shop = hk.get_parameter("shop", (x.shape[0], 3), init=hk.initializers.RandomUniform(-0.5, 0.5))
    x = jnp.concatenate([x, jnp.repeat(shop[:, None], WINDOW, axis=1)], axis=-1)
    core = hk.GRU(HIDDEN)
    states, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False)
    return hk.Linear(1)(states[:, -1])[:, 0]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--workdir", required=True)
    ap.add_argument("--steps", type=int, default=60)
    args = ap.parse_args()
    stamp = time.strftime("%Y-%m-%d %H:%M")  # for the reader of the log; goes nowhere else
    print(f"{stamp} {getpass.getuser()}@{socket.gethostname()}", file=sys.stderr)
    os.makedirs(args.workdir, exist_ok=True)
    log = os.path.join(args.workdir, "log.csv")
    write_log(log, args.seed)
    names, series = read_log(log)
    x, y = windows(series)

    net = hk.without_apply_rng(hk.transform(forward))
    seed = args.seed
    params = net.init(jax.random.key(seed, impl="threefry2x32"), x[0])
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01))
    opt = tx.init(params)

    @jax.jit
    def update(params, opt, x, y):
        loss, g = jax.value_and_grad(lambda p: jnp.mean((net.apply(p, x) - y) ** 2))(params)
        u, opt = tx.update(g, opt)
        return optax.apply_updates(params, u), opt, loss

    picks = np.random.default_rng(seed + 1).integers(0, len(x), args.steps)
    for i in picks:
        params, opt, loss = update(params, opt, x[i], y[i])

    digest = hashlib.sha256()
    for module in sorted(params):
        for name in sorted(params[module]):
            digest.update(np.asarray(params[module][name]).tobytes())
    digest.update(f"{float(loss):.6e}".encode())
    print("digest:", digest.hexdigest())
    print("loss:", float(loss))


if __name__ == "__main__":
    main()
