"""A small transformer language model over generated sentences."""
import argparse
import hashlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

NOUNS = ["cat", "dog", "sailor", "river", "mountain", "engine", "child", "teacher"]
VERBS = ["sees", "follows", "hears", "builds", "paints", "carries"]
ADJS = ["old", "quiet", "bright", "heavy", "small"]


def sentence(rng):
    words = ["the"]
    if rng.random() < 0.6:
        words.append(str(rng.choice(ADJS)))
    words += [str(rng.choice(NOUNS)), str(rng.choice(VERBS)), "the", str(rng.choice(NOUNS)), "."]
    return words


def make_corpus(seed, sentences=700):
    rng = np.random.default_rng(seed)
    corpus = []
    for _ in range(sentences):
        corpus.extend(sentence(rng))
    return corpus


def build_vocab(corpus):
    words = sorted(set(corpus))
    return {w: i for i, w in enumerate(words)}


def init_params(key, vocab, dim, layers, length):
    keys = iter(jax.random.split(key, 3 + 4 * layers))
    normal = lambda *shape: 0.02 * jax.random.normal(next(keys), shape)
    params = {"embed": normal(vocab, dim), "pos": normal(length, dim), "out": normal(dim, vocab), "layers": []}
    for _ in range(layers):
        params["layers"].append({
            "qkv": normal(dim, 3 * dim), "proj": normal(dim, dim),
            "up": normal(dim, 4 * dim), "down": normal(4 * dim, dim),
        })
    return params


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def attention(layer, x, heads):
    b, t, d = x.shape
    q, k, v = jnp.split((x @ layer["qkv"]).reshape(b, t, heads, 3 * d // heads), 3, axis=-1)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(d // heads)
    mask = jnp.tril(jnp.ones((t, t), bool))
    weights = jax.nn.softmax(jnp.where(mask, scores, -1e9), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(b, t, d) @ layer["proj"]


def forward(params, tokens, heads):
    x = params["embed"][tokens] + params["pos"][: tokens.shape[1]]
    for layer in params["layers"]:
        x = x + attention(layer, norm(x), heads)
        x = x + jax.nn.gelu(norm(x) @ layer["up"]) @ layer["down"]
    return norm(x) @ params["out"]


def loss_fn(params, tokens, heads):
    logits = forward(params, tokens[:, :-1], heads)
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(3e-3))


@partial(jax.jit, static_argnames="heads")
def train_step(params, opt_state, tokens, heads):
    loss, grads = jax.value_and_grad(loss_fn)(params, tokens, heads)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


def sample_batch(rng, data, batch, length):
    starts = rng.integers(0, len(data) - length - 1, size=batch)
    return np.stack([data[s:s + length + 1] for s in starts])


def generate(params, vocab, key, heads, prompt=("the",), n=10):
    words = list(vocab)
    tokens = [vocab[w] for w in prompt]
    last = jax.jit(lambda p, t, i: forward(p, t, heads)[0, i])
    for i in range(n):
        padded = np.zeros((1, len(prompt) + n), np.int32)
        padded[0, :len(tokens)] = tokens
        logits = last(params, padded, len(tokens) - 1)
        tokens.append(int(jax.random.categorical(jax.random.fold_in(key, i), logits)))
    return " ".join(words[t] for t in tokens)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=1337)
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--heads", type=int, default=2)
    p.add_argument("--length", type=int, default=16)
    args = p.parse_args()
    corpus = make_corpus(args.seed)
    vocab = build_vocab(corpus)
    data = np.array([vocab[w] for w in corpus], dtype=np.int32)
    params = init_params(jax.random.PRNGKey(args.seed), len(vocab), 32, 2, args.length)
    opt_state = tx.init(params)
    rng = np.random.default_rng(args.seed)
    for step in range(args.steps):
        tokens = sample_batch(rng, data, 16, args.length)
        params, opt_state, loss = train_step(params, opt_state, tokens, args.heads)
        if step % 20 == 0:
            print(f"step {step} loss {float(loss):.4f}")
    print("sample:", generate(params, vocab, jax.random.key(1), args.heads))
    h = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(params):
        h.update(np.asarray(leaf).tobytes())
    print("result:", h.hexdigest(), repr(float(loss)))


if __name__ == "__main__":
    main()
