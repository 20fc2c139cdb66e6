// The drawing of <ulp-ruler>: three stretches of the line of numbers, each seen from farther away.
// Across, in shares of the width; down, in pixels.
import { bitsOf, dtypes, valueOf } from "./floats.mjs";
import { apart, count, decimalOf, exponentOf, isNan, nudge, rank, spacing } from "./ulps.mjs";

const line = (x1, y1, x2, y2) => `<line x1="${x1}%" y1="${y1}" x2="${x2}%" y2="${y2}"/>`;
const text = (x, y, words, anchor = "middle") =>
  `<text x="${x}%" y="${y}" text-anchor="${anchor}">${words}</text>`;
const power = (value) =>
  value ? `${value < 0 ? "−" : ""}2<tspan dy="-4">${Math.log2(Math.abs(value))}</tspan>` : "0";

/** The value of a number; infinity stands where the number after the largest would be. */
const place = (bits, dtype) => Math.min(Math.max(valueOf(bits, dtype), -(2 ** 128)), 2 ** 128);

/** A and B where they are numbers, the lesser first. */
const marksOf = ({ A, B, dtype }) =>
  Object.entries({ A, B })
    .filter(([, bits]) => !isNan(bits, dtype))
    .map(([name, bits]) => ({ name, bits, value: place(bits, dtype) }))
    .sort((one, other) => rank(one.bits, dtype) - rank(other.bits, dtype));

/** From where to where: around A and B, around all that the tolerance covers, around powers of two. */
function stretches(marks, bar, centre, dtype) {
  const [low, high] = [marks[0].value, marks.at(-1).value];
  const margin = Math.max(0.75 * (high - low), 6 * spacing(centre, dtype));
  const near = [low - margin, high + margin];
  const room = 0.15 * (bar[1] - bar[0]);
  const wide = [Math.min(near[0], bar[0] - room), Math.max(near[1], bar[1] + room)];
  const exponent = Math.min(Math.max(exponentOf(centre, dtype), 1), 253);
  const powers = [exponent > 1 ? 2 ** (exponent - 128) : 0, 2 ** (exponent - 125)];
  return [near, wide, place(centre, dtype) >= 0 ? powers : [-powers[1], -powers[0]]];
}

/** A tick for every so many numbers; powers of two by name where there is room. */
function ticks([from, to], at, base, dtype) {
  const counted = (value) => Math.sign(value) * bitsOf(dtypes[dtype].round(Math.abs(value)), dtype);
  const [first, last] = [counted(from), counted(to)];
  const every = 2 ** Math.max(0, Math.ceil(Math.log2((last - first) / 40)));
  const binade = 2 ** dtypes[dtype].mantissa; // so many numbers from a power of two to the next
  const drawn = [];
  let [lastTick, lastName] = [-1, -9]; // numbers crowd near zero: what would touch is left out
  for (let tick = Math.ceil(first / every) * every; tick <= last; tick += every) {
    const value = tick < 0 ? -place(-tick, dtype) : place(tick, dtype);
    const x = at(value);
    const room = 3.4 * power(value).replace(/<.*?>/g, "").length; // of its name, on a phone
    const toZero = Math.abs(x - at(0));
    const isFree = Math.min(x - lastName, toZero) > room;
    const named = tick === 0 || (isFree && tick % binade === 0 && 8 * every <= binade);
    if (!named && Math.min(x - lastTick, toZero) < 0.4) continue;
    lastTick = x;
    if (named) lastName = x;
    drawn.push(line(x, base - (named ? 13 : 8), x, base));
    if (named) drawn.push(text(x, base + 26, power(value), x < 2 ? "start" : x > 98 ? "end" : "middle"));
  }
  return { drawn, every };
}

/** The inside of an SVG of 320 pixels in height. */
export function draw(state) {
  const { A, B, dtype, below, above } = state;
  const marks = marksOf(state);
  if (!marks.length) return text(50, 150, "NaN has no place on the line of numbers");
  const centre = isNan(B, dtype) ? A : B;
  const bar = [-below, above].map((steps) => place(nudge(centre, steps, dtype), dtype));
  const captions = [
    `here 1 ULP = ${power(spacing(centre, dtype))}`,
    "the bar: equal to B for np.allclose",
    `it ${exponentOf(centre, dtype) > 1 ? "doubles" : "begins to double"} at powers of two`,
  ];

  return stretches(marks, bar, centre, dtype).map(([from, to], index, all) => {
    const top = 24 + 108 * index;
    const base = top + 26;
    const at = (value) => +((100 * (value - from)) / (to - from)).toFixed(2);
    const { drawn, every } = ticks([from, to], at, base, dtype);
    drawn.push(line(0, base, 100, base));
    const [start, stop] = bar.map((value) => Math.min(Math.max(at(value), -2), 102));
    if (stop > start) drawn.push(`<rect x="${start}%" y="${base + 3}" width="${stop - start}%" height="9"/>`);
    marks.forEach(({ name, bits, value }, order) => {
      const x = at(value);
      const words = `&ensp;${index ? name : `${name} ${decimalOf(bits, dtype)}`}&ensp;`;
      const label = text(x, top + 10, words, order ? "start" : "end");
      drawn.push(`<g class="mark">${line(x, top, x, base)}${label}</g>`);
    });
    if (index) {
      const [left, right] = all[index - 1].map(at); // where the stretch above lies in this one
      const cone = line(0, top - 30, left, top - 2) + line(100, top - 30, right, top - 2);
      drawn.push(`<g class="zoom">${cone}</g>`);
    } else if (marks.length === 2) {
      const [left, right] = marks.map(({ value }) => at(value));
      const words = `${count(apart(A, B, dtype))} ULP`;
      drawn.push(line(left, top, right, top), text((left + right) / 2, top - 6, words));
    }
    const said = from < 0 && to > 0 ? "the numbers crowd around 0" : captions[index];
    return drawn.join("") + text(0, base + 44, `1 tick = ${count(every)} ULP; ${said}`, "start");
  }).join("");
}
