// Orders of a sum as trees of additions, 1,000 random orders of another sum, and pictures of both.
// tests/browser compares the sums with NumPy's and the random orders with JAX's, bit for bit.
import { add, decimal, dtypes, roundedSum, ulps } from "./floats.mjs";
import { bits, foldIn, key, split } from "./threefry.mjs";

// A node knows its children, the place of its last leaf, and how far its farthest leaf is away.
const leaves = (count) => Array.from({ length: count }, (_, last) => ({ last, height: 0 }));
const join = (left, right) =>
  ({ left, right, last: right.last, height: 1 + Math.max(left.height, right.height) });
const chain = (nodes) => nodes.reduce((sum, node) => join(sum, node));

function pairwise(nodes) {
  if (nodes.length === 1) return nodes[0];
  const pairs = [];
  for (let i = 0; i < nodes.length; i += 2) {
    pairs.push(i + 1 < nodes.length ? join(nodes[i], nodes[i + 1]) : nodes[i]);
  }
  return pairwise(pairs);
}

/** Cut a list as evenly as can be, the longer blocks first, like numpy.array_split. */
function blocks(nodes, count) {
  const [size, longer] = [Math.floor(nodes.length / count), nodes.length % count];
  const start = (block) => block * size + Math.min(block, longer);
  return Array.from({ length: count }, (_, block) => nodes.slice(start(block), start(block + 1)));
}

/** The four orders: from the number of terms, and of devices, to the tree. */
export const trees = {
  forward: (terms) => chain(leaves(terms)),
  backward: (terms) => leaves(terms).reduceRight((sum, node) => join(node, sum)),
  pairwise: (terms) => pairwise(leaves(terms)),
  devices: (terms, devices) =>
    pairwise(blocks(leaves(terms), devices).map((block) => ({ ...chain(block), sent: true }))),
};

/** Add up along a tree, rounding to the dtype after each addition. */
export const total = ({ left, right, last }, values, dtype) =>
  left ? add(total(left, values, dtype), total(right, values, dtype), dtype) : values[last];

/** jax.random.permutation(fold_in(key(0), number), count), for counts that JAX shuffles once. */
export function shuffle(number, count) {
  const words = bits(split(foldIn(key(0), number))[1], count);
  return words.map((_, index) => index).sort((a, b) => words[a] - words[b]);
}

/** The list of the histogram; no order leads farther from its exact sum than REACH, in ULP. */
const LONG = Array.from({ length: 64 }, (_, index) => 1 / (index + 1));
export const REACH = 6;
let shuffles; // drawn when first needed, and only once

/** How many of 1,000 shuffles of LONG end at each distance from the exact sum, -REACH to REACH. */
export function histogram(order, devices, dtype) {
  shuffles ??= Array.from({ length: 1000 }, (_, number) => shuffle(number, LONG.length));
  const tree = trees[order](LONG.length, devices);
  const values = LONG.map(dtypes[dtype].round);
  const exact = roundedSum(values, dtype);
  const counts = new Array(2 * REACH + 1).fill(0);
  for (const places of shuffles) {
    const sum = total(tree, places.map((place) => values[place]), dtype);
    counts[REACH + ulps(exact, sum, dtype)]++;
  }
  return counts;
}

/** A distance in ULP with its sign, +1,024; a NaN has none. */
export const signed = (steps) =>
  (steps > 0 ? "+" : "") + (Number.isNaN(steps) ? "?" : steps.toLocaleString("en").replace("-", "−"));

const ROW = 44; // pixels from one number to the next; the style sheet has it too
const EXACT = ' class="exact"';
// Horizontally in per cent: a picture is as wide as there is room, and its text keeps its size.
const percent = (share) => `${+(100 * share).toFixed(2)}%`;
const svg = (height, words, content) =>
  `<svg height="${height}" role="img" aria-label="${words}">${content}</svg>`;

/** Whether a + b needed no rounding to be `sum`. */
const isExact = (a, b, sum) =>
  !Number.isFinite(a) || !Number.isFinite(b) || (sum - a === b && sum - b === a);

/** The additions of a tree: each sum stands between its two terms, farther right than both. */
export function drawTree(root, values, dtype) {
  const words = [];
  const x = (node) => percent(node.height / root.height);
  const y = (node) => ROW * (node.left ? node.left.last + 1 : node.last + 0.5);
  const line = (from, to, end, kind = "") =>
    `<line x1="${x(from)}" y1="${y(from)}" x2="${x(to)}" y2="${y(end)}"${kind}/>`;

  // A sum is written on the wire that it leaves by, on the side to which the wire does not turn.
  function draw(node, textBelow) {
    if (!node.left) return { sum: values[node.last], picture: "" };
    const [left, right] = [draw(node.left, -6), draw(node.right, 15)];
    const sum = add(left.sum, right.sum, dtype);
    const exact = isExact(left.sum, right.sum, sum);
    const [a, b, c] = [left.sum, right.sum, sum].map((value) => decimal(value, dtype));
    words.push(`${a} + ${b} ${exact ? "is" : "rounds to"} ${c}`);
    const wires = [node.left, node.right].map(
      (child) => line(child, node, child, child.sent ? ' class="sent"' : "") + line(node, node, child));
    const picture = left.picture + right.picture + wires.join("") +
      `<circle cx="${x(node)}" cy="${y(node)}" r="4"${exact ? EXACT : ""}/>` +
      `<text x="${x(node)}" y="${y(node)}" dx="7" dy="${textBelow}">${c}</text>`;
    return { sum, picture };
  }
  const { picture } = draw(root, 4);
  return svg(ROW * values.length, words.join("; "), picture);
}

/** How many shuffles ended at each distance: up to 3 ULP, or as far as any. */
export function drawHistogram(counts) {
  const words = [];
  const far = Math.max(3, ...counts.map((count, bin) => count && Math.abs(bin - REACH)));
  const shown = counts.slice(REACH - far, REACH + far + 1);
  const bars = shown.map((count, bin) => {
    const [x, middle, width] = [bin + 0.1, bin + 0.5, 0.8].map((part) => percent(part / shown.length));
    const [steps, height] = [signed(bin - far), Math.round((100 * count) / Math.max(...shown))];
    if (count) words.push(`${count} at ${steps} ULP`);
    const kind = steps === "0" ? EXACT : "";
    return `<rect x="${x}" y="${116 - height}" width="${width}" height="${height}"${kind}/>` +
      `<text x="${middle}" y="${110 - height}">${count || ""}</text>` +
      `<text x="${middle}" y="132">${steps}</text>`;
  });
  return svg(138, words.join(", "), bars.join(""));
}
