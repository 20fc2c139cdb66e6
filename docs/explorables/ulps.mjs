// Distances between numbers of a dtype, and the numbers that a tolerance lets through.
// A number is held as its bits: there are many NaNs.
import { bitsOf, decimal, dtypes, valueOf } from "./floats.mjs";

export const isNan = (bits, dtype) => Number.isNaN(valueOf(bits, dtype));
const half = (dtype) => 2 ** (dtypes[dtype].width - 1); // the bits of -0

/** The bits of the exponent, as a number: 127 stands for 2**0, 255 for inf and NaN. */
export const exponentOf = (bits, dtype) => (bits % half(dtype)) >>> dtypes[dtype].mantissa;

/** Where a number stands in the order of its dtype, -0 right below +0; and the bits at a place. */
export const rank = (bits, dtype) => (bits < half(dtype) ? bits : half(dtype) - 1 - bits);
const bitsAt = (place, dtype) => (place < 0 ? half(dtype) - 1 - place : place);

/** The distance in ULP, as reproducibility.distance counts it; NaN where one is no number. */
export function apart(a, b, dtype) {
  if (a === b) return 0;
  return isNan(a, dtype) || isNan(b, dtype) ? NaN : Math.abs(rank(a, dtype) - rank(b, dtype));
}

/** The number so many ULP up. Nothing lies beyond infinity; NaN has no neighbours. */
export function nudge(bits, steps, dtype) {
  if (isNan(bits, dtype)) return bits;
  const end = bitsOf(Infinity, dtype);
  return bitsAt(Math.min(Math.max(rank(bits, dtype) + steps, -1 - end), end), dtype);
}

/** np.allclose(a, b, rtol, atol), which computes in float32, or in float64 for bfloat16. */
export function allclose(a, b, { rtol, atol, dtype }) {
  const round = dtype === "float32" ? Math.fround : Number;
  const [x, y] = [valueOf(a, dtype), valueOf(b, dtype)];
  const allowed = round(round(atol) + round(round(rtol) * Math.abs(y)));
  return x === y || (Number.isFinite(y) && Math.abs(round(x - y)) <= allowed);
}

/** How many numbers in a row, up (1) or down (-1) from b, np.allclose calls equal to b. */
export function reach(b, direction, state) {
  let [close, far] = [0, 2 * half(state.dtype)];
  while (far - close > 1) {
    const middle = Math.floor((close + far) / 2);
    const bits = nudge(b, direction * middle, state.dtype);
    if (apart(bits, b, state.dtype) === middle && allclose(bits, b, state)) close = middle;
    else far = middle;
  }
  return close;
}

/** The bits that a text stands for: a decimal, inf, nan, or the bits in hexadecimal; or null. */
export function read(text, dtype) {
  const { width, round } = dtypes[dtype];
  text = text.trim().toLowerCase();
  if (/^0x[0-9a-f]+$/.test(text)) return text.length === 2 + width / 4 ? Number(text) : null;
  if (!/^[+-]?(inf|nan|(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)$/.test(text)) return null;
  return bitsOf(round(Number(text.replace("inf", "Infinity"))), dtype);
}

/** From a number to the next one away from zero; for infinity, from the largest number to it. */
export const spacing = (bits, dtype) =>
  2 ** (Math.min(Math.max(exponentOf(bits, dtype), 1), 254) - 127 - dtypes[dtype].mantissa);

/** A decimal, below 1e-3 with an exponent; other texts stay. */
export const short = (text) =>
  Number(text) && Math.abs(text) < 1e-3 ? Number(text).toExponential() : String(text);

export const decimalOf = (bits, dtype) => short(decimal(valueOf(bits, dtype), dtype));
export const step = (bits, dtype) => decimalOf(bitsOf(spacing(bits, dtype), dtype), dtype);
export const count = (number) => number.toLocaleString("en");
export const numbers = (many) => `${count(many)} number${many === 1 ? "" : "s"}`;
