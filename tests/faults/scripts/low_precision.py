"""Weight-only int4, float8 activations and bfloat16 accumulation side by side."""
import argparse
import hashlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

FORMATS = {"e4m3": jnp.float8_e4m3fn, "e5m2": jnp.float8_e5m2, "bf16": jnp.bfloat16}


def amax_scale(x, top):
    return jnp.maximum(jnp.max(jnp.abs(x)), 1e-6) / top


def quantize_int4(w):
    scale = jnp.max(jnp.abs(w), axis=0, keepdims=True) / 7.0
    return jnp.clip(jnp.round(w / scale), -8, 7).astype(jnp.int4), scale.astype(jnp.bfloat16)


def cast_act(x, fmt):
    if fmt == "bf16":
        return x.astype(jnp.bfloat16), jnp.bfloat16(1.0)
    dtype = FORMATS[fmt]
    scale = amax_scale(x, float(jnp.finfo(dtype).max))
    return (x / scale).astype(dtype), scale.astype(jnp.bfloat16)


@jax.jit
def quantize_all(weights):
    return [quantize_int4(w) for w in weights]


def forward(qweights, x, fmt):
    for i, (q, s) in enumerate(qweights):
        a, sa = cast_act(x, fmt)
        y = a.astype(jnp.bfloat16) @ q.astype(jnp.bfloat16)
        x = y * s * sa
        if i + 1 < len(qweights):
            x = jax.nn.silu(x)
    return x.astype(jnp.float32)


forward_jit = jax.jit(forward, static_argnames="fmt")


def stochastic_round(x, key):
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint32) >> 16
    rounded = (bits + noise) & jnp.uint32(0xFFFF0000)
    return jax.lax.bitcast_convert_type(rounded, jnp.float32).astype(jnp.bfloat16)


@jax.jit
def master_update(w, g, key):
    return stochastic_round(w.astype(jnp.float32) - 0.05 * g, key)


def calibration_batches(rng, n):
    for _ in range(n):
        x = rng.normal(size=(32, 24))
        x[:, :3] *= 6.0  # outlier channels
        yield x.astype(np.float32)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=tempfile.gettempdir())
    p.add_argument("--seed", type=int, default=64)
    args = p.parse_args()
    rng = np.random.default_rng(args.seed)
    shapes = [(24, 32), (32, 32), (32, 8)]
    weights = [rng.normal(0, 1 / np.sqrt(a), (a, b)).astype(np.float32) for a, b in shapes]
    qweights = quantize_all(weights)
    batches = list(calibration_batches(rng, 4))
    digest = hashlib.sha256()
    for name in FORMATS:
        outs = [forward_jit(qweights, x, name) for x in batches]
        total = sum(float(jnp.sum(o)) for o in outs)
        digest.update(np.asarray(outs[-1]).tobytes())
        print(name, "sum", f"{total:.4f}", qweights[0][0].dtype)

    key = jax.random.key(args.seed)
    w = jnp.asarray(weights[0], jnp.bfloat16)
    for i, x in enumerate(batches * 5):
        key, sub = jax.random.split(key)
        g = jnp.asarray(x.T @ np.tanh(x @ np.asarray(w, np.float32))) / len(x)
        w = master_update(w, g, sub)
        if i % 5 == 0:
            print("update", i, "norm", f"{float(jnp.linalg.norm(w.astype(jnp.float32))):.5f}")
    small = w.astype(jnp.float8_e4m3fn)
    digest.update(np.asarray(w).view(np.uint16).tobytes())
    digest.update(np.asarray(small).view(np.uint8).tobytes())
    print("result:", digest.hexdigest()[:40])


if __name__ == "__main__":
    main()
