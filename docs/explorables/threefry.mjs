// JAX's default keys and draws: Threefry-2x32 with 20 rounds, `jax_threefry_partitionable` on.
// A key is two 32-bit words. Equal to jax.random bit for bit: tests/browser holds it against JAX.
// Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (2011).

const ROTATIONS = [[13, 15, 26, 6], [17, 29, 16, 24]];

/** Encrypt the two words of `count` with the two words of `key`. */
export function threefry([k0, k1], [x0, x1]) {
  const keys = [k0, k1, k0 ^ k1 ^ 0x1bd11bda];
  x0 = (x0 + k0) >>> 0;
  x1 = (x1 + k1) >>> 0;
  for (let round = 0; round < 5; round++) {
    for (const bits of ROTATIONS[round % 2]) {
      x0 = (x0 + x1) >>> 0;
      x1 = ((x1 << bits) | (x1 >>> (32 - bits))) ^ x0;
    }
    x0 = (x0 + keys[(round + 1) % 3]) >>> 0;
    x1 = (x1 + keys[(round + 2) % 3] + round + 1) >>> 0;
  }
  return [x0, x1];
}

/** jax.random.key(seed), for a seed from 0 to 2**32 - 1. */
export const key = (seed) => [0, seed >>> 0];

/** jax.random.fold_in(key, number), for a number from 0 to 2**32 - 1. */
export const foldIn = (parent, number) => threefry(parent, [0, number >>> 0]);

/** jax.random.split(key, count), as an array of keys. */
export const split = (parent, count = 2) =>
  Array.from({ length: count }, (_, index) => threefry(parent, [0, index]));

/** jax.random.bits(key, (count,)). */
export const bits = (parent, count = 1) => split(parent, count).map(([a, b]) => (a ^ b) >>> 0);

/** jax.random.uniform(key, (count,)), float32 in [0, 1): 23 random bits as the mantissa of 1.x. */
export const uniform = (parent, count = 1) => bits(parent, count).map((word) => (word >>> 9) / 2 ** 23);
