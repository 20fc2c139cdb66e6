"""Character model on a toy grammar. Flax NNX, Grain for the data, a numbered folder per checkpoint.

Layout:  WORKDIR/00000012/model/...      (orbax StandardCheckpointer)
         WORKDIR/00000012/info.json      (step, iterator, losses)
"""
import argparse
import hashlib
import json
import pathlib

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx

VOCAB, LENGTH, WIDTH = 24, 12, 16


class Sentences:
    """Random-access source: sentence i is always the same."""

    def __repr__(self):
        return "Sentences(96)"  # Grain compares it when an iterator is restored

    def __len__(self):
        return 96

    def __getitem__(self, i):
        rng = np.random.default_rng([5, int(i)])
        start, stride = rng.integers(0, VOCAB), rng.integers(1, 5)
        line = (start + stride * np.arange(LENGTH + 1)) % VOCAB
        noise = rng.random(LENGTH + 1) < 0.1
        return np.where(noise, rng.integers(0, VOCAB, LENGTH + 1), line).astype(np.int32)


def make_loader(batch_size):
    sampler = grain.IndexSampler(num_records=96, shuffle=True, seed=11, num_epochs=None,
                                 shard_options=grain.NoSharding())
    return grain.DataLoader(data_source=Sentences(), sampler=sampler, worker_count=0,
                            operations=[grain.Batch(batch_size, drop_remainder=True)])


class CharModel(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(VOCAB, WIDTH, rngs=rngs)
        self.mix = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.9, rngs=rngs)
        self.drop = nnx.Dropout(0.25, rngs=rngs)
        self.head = nnx.Linear(WIDTH, VOCAB, rngs=rngs)

    def __call__(self, tokens):
        h = self.embed(tokens)
        past = jnp.cumsum(h, axis=1) / jnp.arange(1, h.shape[1] + 1)[:, None]
        h = self.norm(nnx.gelu(self.mix(past)) + h)
        return self.head(self.drop(h))


@nnx.jit
def train_step(model, optimizer, tokens):
    def loss_fn(model):
        logits = model(tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


class Trainer:
    def __init__(self, args):
        self.args = args
        self.root = pathlib.Path(args.workdir).resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.model = CharModel(nnx.Rngs(params=1, dropout=2))
        self.optimizer = nnx.Optimizer(self.model, optax.adam(args.lr), wrt=nnx.Param)
        self.batches = iter(make_loader(args.batch))
        self.step = 0
        self.losses = []
        self.ckpt = ocp.StandardCheckpointer()

    def everything(self):
        return {"model": nnx.state(self.model).to_pure_dict(),
                "optimizer": nnx.state(self.optimizer).to_pure_dict()}

    def save(self):
        folder = self.root / f"{self.step:08d}"
        self.ckpt.save(folder / "model", self.everything())
        self.ckpt.wait_until_finished()
        info = {"step": self.step, "iterator": self.batches.get_state().decode(), "losses": self.losses}
        (folder / "info.json").write_text(json.dumps(info))

    def load(self):
        done = sorted(self.root.glob("*/info.json"))
        if not done:
            return
        folder = done[-1].parent
        tree = self.ckpt.restore(folder / "model", self.everything())
        for module, name in ((self.model, "model"), (self.optimizer, "optimizer")):
            state = nnx.state(module)
            state.replace_by_pure_dict(tree[name])
            nnx.update(module, state)
        info = json.loads(done[-1].read_text())
        self.step = info["step"]
        self.losses = info["losses"]
        self.batches.set_state(info["iterator"].encode())
        print("resumed at", self.step, flush=True)

    def fit(self):
        last = self.args.stop_after or self.args.steps
        while self.step < last:
            tokens = jnp.asarray(next(self.batches))
            loss = train_step(self.model, self.optimizer, tokens)
            self.step += 1
            self.losses.append(float(loss))
            if self.step % self.args.every == 0:
                self.save()

    def digest(self):
        h = hashlib.sha256()
        for leaf in jax.tree.leaves(nnx.state(self.model, (nnx.Param, nnx.BatchStat)).to_pure_dict()):
            h.update(np.asarray(leaf).tobytes())
        return h.hexdigest()


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--stop-after", type=int, default=0)
    p.add_argument("--workdir", required=True)
    p.add_argument("--resume", action="store_true")
    p.add_argument("--every", type=int, default=6)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--lr", type=float, default=1e-2)
    trainer = Trainer(p.parse_args())
    if trainer.args.resume:
        trainer.load()
    trainer.fit()
    print("digest", trainer.digest())
    print("last loss", trainer.losses[-1])
