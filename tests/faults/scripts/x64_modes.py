"""Vibration modes of a random truss: QR, eigh and SVD in double precision."""
import argparse
import hashlib
import tempfile

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
import scipy.linalg

SUPPORTS = ["west", "east", "north", "pier-1", "pier-2", "pier-3", "crown"]


def stiffness(rng, n):
    """Chain plus a few random braces."""
    k = np.zeros((n, n))
    pairs = [(i, i + 1) for i in range(n - 1)]
    braces = rng.integers(0, n, (n // 2, 2))
    pairs += [(int(a), int(b)) for a, b in braces if a != b]
    for a, b in pairs:
        s = rng.uniform(1.0, 4.0)
        k[a, a] += s
        k[b, b] += s
        k[a, b] -= s
        k[b, a] -= s
    return k


def support_loads(names, n):
    load = np.zeros((n, len(names)))
    for column, name in enumerate(names):
        load[(7 * column + len(name)) % n, column] = 1.0
    return load


@jax.jit
def modes(k, m):
    c = jnp.linalg.cholesky(m)
    a = jax.scipy.linalg.solve_triangular(c, k, lower=True)
    a = jax.scipy.linalg.solve_triangular(c, a.T, lower=True)
    w, v = jnp.linalg.eigh((a + a.T) / 2)
    return jnp.sqrt(jnp.maximum(w, 0.0)), v


@jax.jit
def compress(snapshots, load):
    q, r = jnp.linalg.qr(snapshots)
    u, s, vt = jnp.linalg.svd(r @ r.T @ r, full_matrices=False)
    return s, jnp.abs(q.T @ load), jnp.log(jnp.abs(jnp.diag(r)))


@jax.jit
def refine(m_diag, k, target):
    def miss(m_diag):
        w, _ = modes(k, jnp.diag(m_diag))
        return jnp.sum((w[1:6] - target) ** 2)

    value, grad = jax.value_and_grad(miss)(m_diag)
    return value, jnp.clip(m_diag - 0.05 * grad, 0.5, 4.0)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=tempfile.gettempdir())
    p.add_argument("--seed", type=int, default=1907)
    p.add_argument("--size", type=int, default=24)
    args = p.parse_args()
    rng = np.random.default_rng(args.seed)
    k = stiffness(rng, args.size) + 1e-3 * np.eye(args.size)
    m_diag = jnp.asarray(rng.uniform(0.8, 1.5, args.size))
    load = support_loads(SUPPORTS, args.size)
    w, v = modes(k, jnp.diag(m_diag))
    check = scipy.linalg.eigh(k, np.diag(np.asarray(m_diag)), eigvals_only=True)
    print("largest gap to scipy", float(np.abs(np.asarray(w) ** 2 - check).max()) < 1e-8)

    target = np.asarray(w[1:6]) * 1.08
    for it in range(8):
        value, m_diag = refine(m_diag, k, target)
        print(f"refine {it} miss {float(value):.10f}")

    snapshots = np.stack([np.asarray(w) * np.cos(0.1 * t * np.asarray(w)) for t in range(10)], 1)
    snapshots = snapshots + 1e-3 * rng.standard_normal(snapshots.shape)
    s, parts, logs = compress(snapshots, load)
    print("rank", int((np.asarray(s) > 1e-6).sum()), "dtype", s.dtype)
    digest = hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in (m_diag, s, parts, logs)))
    print("result:", digest.hexdigest()[:32], repr(float(value)))


if __name__ == "__main__":
    main()
