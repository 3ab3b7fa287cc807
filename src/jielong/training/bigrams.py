"""The bigrams of the training text: what a model can learn first from counts.

Early in a run a model learns which tokens are frequent and what follows what. One text shows it
one successor at a time; counted, the text says at once how likely all of them are. So for the
first part of a run a part of the objective is the cross-entropy with a bigram model of the training
text, as with a teacher's predictions (Hinton et al. 2015). It is counted in a second, needs no
training, and nothing of it stays in the model. Measured in docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from jielong.data.batches import Batch
from jielong.data.remote_dataset import RemoteStream
from jielong.data.windows import Stream
from jielong.model.soft_targets import BigramTable, BigramTargets
from jielong.runtime.device import to_device
from jielong.training.teacher import without_noise

COUNTED_TOKENS = 2**22  # of all texts; more would hardly change what is frequent
STRETCH_TOKENS = 2**16  # what is counted of a larger text lies in stretches all over it
SUCCESSORS = 128  # of each token; what else follows it is smoothed
ENTRIES = 2**23  # of the table, which a large vocabulary would make larger: 100 MB
ENDS = 0.5  # of a run: from there on the text alone is learnt
DISCOUNT = 0.75  # of each count (Ney et al. 1994)


def count_bigrams(
    pieces: Sequence[np.ndarray], vocab_size: int, device: torch.device
) -> BigramTable:
    """Make a bigram model: absolute discounting with the lower order of Kneser & Ney (1995).

    Args:
        pieces: token ids below `vocab_size`, each a stretch of text.
        vocab_size: V.
        device: where the table will be used.

    Returns:
        Of each token its most frequent successors with their discounted frequencies. What is left
        is spread by how many different tokens each token follows.
    """
    pairs = [p[:-1].astype(np.int64) * vocab_size + p[1:] for p in pieces if len(p) > 1]
    bigrams, counts = np.unique(np.concatenate([_NONE, *pairs]), return_counts=True)
    first, second = np.divmod(bigrams, vocab_size)
    total = np.bincount(first, counts, vocab_size)
    follows = np.bincount(second, minlength=vocab_size) + 1e-3  # none is impossible
    # a token's successors from the most frequent on, equal ones in the order of their ids
    order = np.lexsort((second, -counts, first))
    first, second, counts = first[order], second[order], counts[order]
    place = np.arange(len(first)) - np.searchsorted(first, first)
    most = min(SUCCESSORS, vocab_size, max(1, ENTRIES // vocab_size))
    kept = place < most
    first, second, place = first[kept], second[kept], place[kept]
    successors = np.zeros((vocab_size, most), np.int64)
    successors[first, place] = second
    probabilities = np.zeros((vocab_size, most))
    probabilities[first, place] = (counts[kept] - DISCOUNT) / total[first]

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    return BigramTable(
        successors=torch.from_numpy(successors).to(device),
        probabilities=tensor(probabilities),
        rest=tensor(1 - probabilities.sum(1, keepdims=True)),
        common=tensor(follows / follows.sum()),
    )


def bigram_targets(batch: Batch, table: BigramTable, share: float) -> BigramTargets:
    """Return what follows the tokens (B, T) of a batch, as it follows them in the text.

    Args:
        share: of the objective.
    """
    before = to_device(without_noise(batch), table.rest.device)
    return BigramTargets(before.flatten(), table, share)


_NONE = np.empty(0, np.int64)


def share_at(step: int, total_steps: int, first: float) -> float:
    """Return the share of the objective at a step, counted from 0: it falls linearly to none."""
    return first * max(0.0, 1 - step / (ENDS * total_steps))


def stretches(streams: Sequence[Stream]) -> Iterator[np.ndarray]:
    """Read the texts, or as much of them as is counted: of each its share, evenly from all over.

    Of a remote text that is its beginning, since each shard that is read has to be fetched.
    """
    share = min(1.0, COUNTED_TOKENS / max(1, sum(len(stream) for stream in streams)))
    for stream in streams:
        tokens, length = len(stream), round(share * len(stream))
        if share == 1 or isinstance(stream, RemoteStream):
            yield stream.read(0, length)
            continue
        number = max(1, length // STRETCH_TOKENS)
        for start in np.linspace(0, max(0, tokens - STRETCH_TOKENS), number, dtype=np.int64):
            yield stream.read(int(start), min(tokens, int(start) + STRETCH_TOKENS))
