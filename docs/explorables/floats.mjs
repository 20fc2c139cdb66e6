// float32 and bfloat16 as NumPy computes them. Math.fround rounds a double to the nearest float32, and
// a double is precise enough that a sum of two float32, rounded once more, is the float32 sum.

const word = new Uint32Array(1);
const single = new Float32Array(word.buffer);

/** The 32 bits of a float32, and back. */
export const toBits = (value) => ((single[0] = value), word[0]);
export const fromBits = (bits) => ((word[0] = bits), single[0]);

/** The nearest bfloat16, ties to even: the upper 16 bits of a float32, carried up. */
function bfloat16(value) {
  const bits = toBits(value);
  return fromBits(Number.isNaN(value) ? 0x7fc00000 : ((bits + 0x7fff + ((bits >>> 16) & 1)) & ~0xffff) >>> 0);
}

/** The dtypes by name: bits of each, and how a number is rounded to it. */
export const dtypes = {
  float32: { width: 32, mantissa: 23, round: Math.fround },
  bfloat16: { width: 16, mantissa: 7, round: (value) => bfloat16(Math.fround(value)) },
};

/** The bits of a number of the dtype, as an unsigned integer of its width. */
export const bitsOf = (value, dtype) => toBits(value) >>> (32 - dtypes[dtype].width);
export const valueOf = (bits, dtype) => fromBits((bits << (32 - dtypes[dtype].width)) >>> 0);

/** The bits as hexadecimal digits, `0x3f800000`. */
export const hex = (value, dtype) =>
  "0x" + bitsOf(value, dtype).toString(16).padStart(dtypes[dtype].width / 4, "0");

/** The shortest decimal that reads back as this number of the dtype. */
export function decimal(value, dtype) {
  let digits = 1;
  const short = () => Number(value.toPrecision(digits));
  while (digits < 9 && !Object.is(dtypes[dtype].round(short()), value)) digits++;
  return Object.is(value, -0) ? "-0" : String(short()).replace("Infinity", "inf").replace("NaN", "nan");
}

/** The number that a text stands for; undefined if it is none, or too large for the dtype. */
export function parse(text, dtype) {
  const plain = text.trim().toLowerCase().replace("−", "-");
  if (/^(-?inf|nan)$/.test(plain)) return Number(plain.replace("inf", "Infinity"));
  const number = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/.test(plain) ? Number(plain) : NaN;
  return Number.isFinite(dtypes[dtype].round(number)) ? number : undefined;
}

/** Steps up from a to b along the numbers of the dtype, from -0 to +0 being one; NaN if one of them is. */
export function ulps(a, b, dtype) {
  const half = 2 ** (dtypes[dtype].width - 1);
  const place = (value) => {
    const bits = bitsOf(value, dtype);
    return bits < half ? bits : half - 1 - bits;
  };
  return Number.isNaN(a) || Number.isNaN(b) ? NaN : place(b) - place(a);
}

/** a + b, rounded to the dtype. */
export const add = (a, b, dtype) => dtypes[dtype].round(a + b);

/** The sum of finite float32 numbers without any rounding: an integer times 2**-149. */
export function exactSum(values) {
  return values.reduce((sum, value) => {
    const bits = toBits(value);
    const exponent = (bits >>> 23) & 255;
    const mantissa = BigInt((bits & 0x7fffff) + (exponent ? 0x800000 : 0));
    const term = mantissa << BigInt(Math.max(exponent, 1) - 1);
    return bits >>> 31 ? sum - term : sum + term;
  }, 0n);
}

/** The sum of numbers of the dtype, rounded to it once, at the end. */
export function roundedSum(values, dtype) {
  if (!values.every(Number.isFinite) || !values.some(Boolean)) return values.reduce((a, b) => a + b);
  const { mantissa, round } = dtypes[dtype];
  const sum = exactSum(values);
  const size = sum < 0n ? -sum : sum;
  // Two bits more than the dtype holds; the last becomes 1 if anything but zeros is cut off.
  const cut = BigInt(Math.max(0, size.toString(2).length - mantissa - 3));
  const kept = (size >> cut) | BigInt((size >> cut) << cut !== size);
  return round((sum < 0n ? -1 : 1) * Number(kept) * 2 ** (Number(cut) - 149));
}
