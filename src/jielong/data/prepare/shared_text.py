"""What share of a held-out text also stands in the training text, cut otherwise or not.

Known by runs of tokens, as the data of GPT-3 was cleaned of test questions (Brown et al. 2020 took
runs of 13 words). A bounded sample of the held-out runs is looked for in all of the training text.
"""

from __future__ import annotations

import numpy as np

from jielong.data.prepare.split import EncodedDocuments
from jielong.data.prepare.token_runs import TokenRuns

RUN = 24  # tokens: more than a usual turn of phrase
EACH = 8  # the runs count that begin with one of an eighth of the tokens
SAMPLE = 2**16  # held-out runs that are looked for, at most


class SharedText:
    """Estimates the share of a held-out text that is trained on as well."""

    def __init__(self, vocab_size: int) -> None:
        self._runs = TokenRuns(vocab_size, RUN, EACH)
        self._wanted = np.empty(0, np.uint64)  # distinct, in order
        self._bound = 2**64
        self._found = np.empty(0, bool)  # of `wanted`

    def hold_out(self, documents: EncodedDocuments) -> None:
        """Take more of the held-out text; all of it comes before the training text."""
        runs, _ = self._runs.of(documents)
        self._wanted = np.union1d(self._wanted, runs)
        while len(self._wanted) > SAMPLE:  # an even sample: those whose hashes are least
            self._bound //= 2
            self._wanted = self._wanted[self._wanted < np.uint64(self._bound)]
        self._found = np.zeros(len(self._wanted), bool)

    def train_on(self, documents: EncodedDocuments) -> None:
        """Look at more of the training text."""
        if len(self._wanted):
            runs, _ = self._runs.of(documents)
            at = np.minimum(np.searchsorted(self._wanted, runs), len(self._wanted) - 1)
            self._found[at[self._wanted[at] == runs]] = True

    @property
    def share(self) -> float:
        """Share of the held-out text that was seen in the training text."""
        return float(self._found.mean()) if len(self._found) else 0.0
