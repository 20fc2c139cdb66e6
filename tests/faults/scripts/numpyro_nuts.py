"""Hierarchical logistic regression with NumPyro NUTS."""
import argparse
import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, Predictive, init_to_value

SITES = ("north", "south", "east", "west", "harbour", "airport")


def simulate(seed, n=150):
    rng = np.random.default_rng(seed)
    rows = []
    offsets = {site: rng.normal(scale=0.7) for site in SITES}
    for i in range(n):
        site = SITES[rng.integers(len(SITES))]
        age, dose = rng.normal(size=2)
        p = 1 / (1 + np.exp(-(0.8 * dose - 0.5 * age + offsets[site])))
        rows.append({"site": site, "age": age, "dose": dose, "outcome": int(rng.random() < p)})
    return rows


def encode_sites(rows):
    seen = []
    for row in rows:
        if row["site"] not in seen:
            seen.append(row["site"])
    return {site: i for i, site in enumerate(seen)}


def to_arrays(rows):
    codes = encode_sites(rows)
    site = np.array([codes[r["site"]] for r in rows])
    x = np.array([[r["age"], r["dose"]] for r in rows], dtype=np.float32)
    x = (x - x.mean(0)) / x.std(0)
    y = np.array([r["outcome"] for r in rows])
    return site, x, y


def model(site, x, y=None, n_sites=len(SITES)):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("sites", n_sites):
        alpha = numpyro.sample("alpha_raw", dist.Normal(0.0, 1.0))
    logits = mu + tau * alpha[site] + x @ beta
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def fit(args, site, x, y):
    kernel = NUTS(model, target_accept_prob=args.target, init_strategy=init_to_value(values={"tau": 0.5}), max_tree_depth=6)
    mcmc = MCMC(kernel, num_warmup=args.warmup, num_samples=args.samples, num_chains=1, progress_bar=False)
    mcmc.run(jax.random.PRNGKey(args.seed), site, x, y)
    return mcmc


def check(args, samples, site, x, y):
    predictive = Predictive(model, samples, return_sites=["y"])
    draws = predictive(jax.random.PRNGKey(args.seed + 1), site, x)["y"]
    return float(jnp.mean(draws == y))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--target", type=float, default=0.8)
    args = parser.parse_args()
    site, x, y = to_arrays(simulate(args.seed))
    print(f"{len(y)} patients, {y.mean():.3f} positive")
    mcmc = fit(args, site, x, y)
    samples = mcmc.get_samples()
    for name in ("mu", "tau"):
        print(f"{name}: {float(samples[name].mean()):.3f} +- {float(samples[name].std()):.3f}")
    acc = check(args, samples, site, x, y)
    print(f"posterior predictive accuracy {acc:.3f}")
    total = sum(np.asarray(v, np.float64).sum() for _, v in sorted(samples.items()))
    print(f"result: {float(total)!r} {acc!r}")


if __name__ == "__main__":
    main()
