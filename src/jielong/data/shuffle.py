"""Random numbers as functions of a position: the order of an epoch, and bits for noise."""

from __future__ import annotations

import numpy as np

ROUNDS = 8  # 4 suffice for a large n (Luby and Rackoff); a small n needs more (Patarin 2004)


def permute(places: np.ndarray, n: int, seed: int, epoch: int) -> np.ndarray:
    """Return the numbers at `places` of a random order of 0 … n − 1, given by `seed` and `epoch`.

    A Feistel network (Luby and Rackoff 1988) is a permutation of all numbers of a given bit length,
    whatever its round function. A result of n or more goes through it again until it is below n,
    which gives a permutation of 0 … n − 1 (cycle walking, Black and Rogaway 2002). That takes fewer
    than two passes on average, since n is more than half of those numbers.

    Args:
        places: any shape, int64, each in 0 … n − 1.
        n: up to 2^62.
        seed: the run's seed.
        epoch: each epoch has its own order.

    Returns:
        int64, of the shape of `places`.
    """
    # no Generator: its numbers may change between versions of numpy (NEP 19)
    keys = np.random.SeedSequence([seed, epoch]).generate_state(ROUNDS, np.uint64)
    bits = (n - 1).bit_length()
    found = _feistel(places.astype(np.uint64), bits, keys)
    while (outside := found >= n).any():
        found[outside] = _feistel(found[outside], bits, keys)
    return found.astype(np.int64)


def random_bits(places: np.ndarray, *keys: int) -> np.ndarray:
    """Return 64 random bits for each of `places`, uint64 of their shape, given by the `keys`."""
    # no Generator: its numbers may change between versions of numpy (NEP 19)
    state = np.random.SeedSequence(keys).generate_state(2, np.uint64)
    mixed = mix_bits(mix_bits(np.atleast_1d(places).astype(np.uint64) ^ state[0]) ^ state[1])
    return mixed.reshape(np.shape(places))  # arrays alone wrap around without a warning


def mix_bits(x: np.ndarray) -> np.ndarray:
    """Mix uint64 values so that each bit depends on all bits of x.

    Stafford's mix 13, the finalizer of SplitMix64 (Steele et al. 2014).
    """
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def _feistel(numbers: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """Permute numbers of `bits` bits; the halves differ by one bit if `bits` is odd."""
    width, other = bits // 2, bits - bits // 2  # of the left half and the right
    left, right = numbers >> np.uint64(other), numbers & _ones(other)
    for key in keys:
        left, right = right, left ^ (mix_bits(right ^ key) & _ones(width))
        width, other = other, width
    return left << np.uint64(other) | right


def _ones(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)
