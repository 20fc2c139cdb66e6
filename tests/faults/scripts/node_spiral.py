"""Neural ODE on a noisy spiral, Diffrax + Equinox + Optax."""
import argparse
import collections
import pathlib
import tempfile
import time

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax


class Field(eqx.Module):
    mlp: eqx.nn.MLP

    def __init__(self, *, key):
        self.mlp = eqx.nn.MLP(2, 2, 16, 1, activation=jax.nn.softplus, key=key)

    def __call__(self, t, y, args):
        return self.mlp(y)


class NeuralODE(eqx.Module):
    field: Field

    def __call__(self, ts, y0, dt0):
        sol = diffrax.diffeqsolve(
            diffrax.ODETerm(self.field), diffrax.Heun(), ts[0], ts[-1], dt0, y0,
            saveat=diffrax.SaveAt(ts=ts), max_steps=32,
            adjoint=diffrax.DirectAdjoint())
        return sol.ys


def write_trajectories(folder, n, seed):
    """One file for every recorded trajectory, as the lab's logger does it."""
    rng = np.random.default_rng(seed)
    ts = np.linspace(0.0, 3.0, 20)
    a = np.array([[-0.1, 2.0], [-2.0, -0.1]])
    w, v = np.linalg.eig(a)
    for i in range(n):
        y0 = rng.uniform(0.5, 1.5, 2)
        ys = np.real((v * np.exp(ts[:, None, None] * w)) @ np.linalg.inv(v) @ y0)
        ys = ys + rng.normal(0, 0.02, ys.shape)
        np.save(folder / f"traj_{i:03d}.npy", ys.astype(np.float32))
    return ts.astype(np.float32)


def read_trajectories(folder):
    names = sorted(p.name for p in folder.glob("traj_*.npy"))
    return np.stack([np.load(folder / name) for name in names])


@eqx.filter_value_and_grad
def loss_fn(model, ts, ys, dt0):
    pred = jax.vmap(model, in_axes=(None, 0, None))(ts, ys[:, 0], dt0)
    return jnp.mean((ys - pred) ** 2)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--workdir", default=None)
    p.add_argument("--steps", type=int, default=25)
    p.add_argument("--seed", type=int, default=5678)
    args = p.parse_args()
    folder = pathlib.Path(args.workdir or tempfile.mkdtemp(prefix="node_"))
    folder.mkdir(parents=True, exist_ok=True)
    ts = write_trajectories(folder, 16, args.seed)
    data = read_trajectories(folder)

    model_key, batch_key = jr.split(jr.PRNGKey(args.seed))
    model = NeuralODE(Field(key=model_key))
    optim = optax.adabelief(5e-3)
    opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def make_step(model, opt_state, ts, ys, dt0):
        loss, grads = loss_fn(model, ts, ys, dt0)
        updates, opt_state = optim.update(grads, opt_state)
        return loss, eqx.apply_updates(model, updates), opt_state

    dt0 = float(ts[1] - ts[0])
    recent = collections.deque(maxlen=10)
    for step in range(args.steps):
        batch_key, sub = jr.split(batch_key)
        index = np.asarray(jr.choice(sub, len(data), (8,), replace=False))
        begin = time.perf_counter()
        loss, model, opt_state = make_step(model, opt_state, ts, data[index], dt0)
        loss = float(loss)
        recent.append(time.perf_counter() - begin)
        if step % 5 == 0:
            print(f"step {step:3d} loss {loss:.6f} ({1e3 * sum(recent) / len(recent):.0f} ms)")
    weights = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    size = float(np.sqrt(sum(np.sum(np.square(np.asarray(w, np.float64))) for w in weights)))
    print("result:", repr(loss), repr(size))


if __name__ == "__main__":
    main()
