"""The order of an epoch, worked out place by place: no table of it is ever held."""

from __future__ import annotations

import numpy as np

ROUNDS = 8  # 4 do for a large n (Luby and Rackoff); a small one needs more (Patarin 2004)


def permute(places: np.ndarray, n: int, seed: int, epoch: int) -> np.ndarray:
    """What stands at `places` of a random order of 0 … n − 1, which `seed` and `epoch` choose.

    A Feistel network (Luby and Rackoff 1988) is a permutation of all numbers of some bits, whatever
    its round function. A result of n or more goes through it again until it falls below: that
    leaves a permutation of 0 … n − 1 (cycle walking, Black and Rogaway 2002), and takes less than
    two passes on average, n being more than half of those numbers.

    Args:
        places: any shape, int64, each in 0 … n − 1.
        n: up to 2^62.
        seed: of the run.
        epoch: each has an order of its own.

    Returns:
        int64, of the shape of `places`.
    """
    # the seeds themselves: what a Generator makes of them may change with numpy (NEP 19)
    keys = np.random.SeedSequence([seed, epoch]).generate_state(ROUNDS, np.uint64)
    bits = (n - 1).bit_length()
    found = _feistel(places.astype(np.uint64), bits, keys)
    while (outside := found >= n).any():
        found[outside] = _feistel(found[outside], bits, keys)
    return found.astype(np.int64)


def _feistel(numbers: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """Numbers of so many bits, permuted; the two halves differ by a bit where `bits` is odd."""
    width, other = bits // 2, bits - bits // 2  # of the left half and the right
    left, right = numbers >> np.uint64(other), numbers & _ones(other)
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & _ones(width))
        width, other = other, width
    return left << np.uint64(other) | right


def _mixed(x: np.ndarray) -> np.ndarray:
    """64 bits of which each depends on all of x (Stafford's mix 13, as in SplitMix64)."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def _ones(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)
