// A tree of JAX keys as data: how each key is made, whether it is used more than once, and the whole
// as a program. <key-tree> draws it; tests/browser/test_key_tree.py holds it against JAX.
import { foldIn, split } from "./threefry.mjs";

// What reproducibility.stream_key folds in: the tag of streams, then 64 bits of the name's SHA-256.
const STREAM_TAG = 0xb56dc26e;
export const STREAMS = {
  params: [0xa20b52fa, 0xe57cc7a9],
  dropout: [0x1b4c0a29, 0x3bc93fb9],
  shuffle: [0x8f30a852, 0xb76d3f05],
  augment: [0x5d69825f, 0xe9a39338],
};

/** reproducibility.stream_key(key, name), for the names in STREAMS. */
export const streamKey = (parent, name) =>
  [STREAM_TAG, ...STREAMS[name]].reduce((words, number) => foldIn(words, number), parent);

// How a key is made of its parent: its words, and the call that makes it.
const WORDS = { split: (parent, index) => split(parent)[index], fold_in: foldIn, stream_key: streamKey };
export const CALL = {
  split: (parent, index) => `split(${parent})[${index}]`,
  fold_in: (parent, number) => `fold_in(${parent}, ${number})`,
  stream_key: (parent, name) => `stream_key(${parent}, "${name}")`,
};

export const node = (by, value, draws = 0, children = []) => ({ by, value, draws, children });

/** Three streams: drawn from once; drawn from twice; with a key for each step. */
export const example = () =>
  node("seed", 0, 0, [
    node("stream_key", "params", 1),
    node("stream_key", "dropout", 2),
    node("stream_key", "shuffle", 0, [node("fold_in", 0, 1), node("fold_in", 1, 1)]),
  ]);

/** The tree from a node down, with the name, the call and the words of each key. */
export function resolve(source, name, call, words) {
  const children = source.children.map((child) => {
    const { by, value } = child;
    const own = by === "stream_key" && name === "root" ? value : `${name}_${value}`;
    return resolve(child, own, CALL[by](name, value), WORDS[by](words, value));
  });
  return { ...source, source, name, call, words, children };
}

export const flatten = (tree) => [tree, ...tree.children.flatMap(flatten)];

/** How many draws use the words of a key, whichever keys they are drawn from. */
export const drawsOf = (words, keys) =>
  keys.reduce((sum, other) => sum + (String(other.words) === String(words) ? other.draws : 0), 0);

/** Why a key has more than one use, or "": it may be drawn from once, or split, or folded into. */
export function reuse({ draws, children }) {
  const isSplit = children.some(({ by }) => by === "split");
  const isFolded = children.some(({ by }) => by !== "split");
  const drawn = draws > 1 ? `drawn ${draws} times` : draws && "drawn";
  const uses = [drawn, isSplit && "split", isFolded && "folded into"].filter(Boolean);
  const isCaught = draws > 1 || (draws && isSplit);
  if (draws < 2 && uses.length < 2) return "";
  return `reused: ${uses.join(", ")}; JAX's checker ${isCaught ? "raises" : "is silent"}`;
}

/** The lines of Python that make a key, draw from it, and make its children. */
function python({ by, value, draws, name, call, children }) {
  const make = `${name} = ${by === "stream_key" ? "" : "jax.random."}${call}`;
  const both = `${name}, ${name.replace(/0$/, "1")} = jax.random.${call.slice(0, -3)}`;
  const made = by !== "split" ? [make] : value === 0 ? [both] : []; // a split is one call for two keys
  return [...made, ...Array(draws).fill(`draw("${name}", ${name})`), ...children.flatMap(python)];
}

/** The tree as a program that prints its draws. */
export const program = (tree) => `import jax
${flatten(tree).some(({ by }) => by === "stream_key") ? "\nfrom reproducibility import stream_key\n" : ""}

def draw(name, key):
    bits = int(jax.random.bits(key))
    number = jax.random.uniform(jax.random.clone(key))  # the same draw, as a float
    print(name, f"{bits:08x}", number)


${python(tree).join("\n")}
`;

/** The number of fewest digits that reads back as the same float32. */
export function shortest(number) {
  const digits = [1, 2, 3, 4, 5, 6, 7, 8].find((n) => Math.fround(number.toPrecision(n)) === number);
  return Number(number.toPrecision(digits ?? 9));
}

/** The eight hexadecimal digits of a word. */
export const hex = (word) => word.toString(16).padStart(8, "0");

/** The number from 0 to 2**32 - 1 that a text writes, or null. */
export const whole = (text) => (/^\s*\d+\s*$/.test(text) && Number(text) < 2 ** 32 ? Number(text) : null);
