"""What suites are run on: a model with its tokenizer and, where it has them, its run's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from jielong.data.shards import TokenStream
from jielong.errors import DataError
from jielong.evaluation.suites.ngrams import Bigram, Unigram
from jielong.evaluation.suites.scoring import ModelScorer, Scorer
from jielong.model.transformer import Transformer, context_length
from jielong.tokenization.tokenizer import Tokenizer

MOST_DOCUMENTS = 4000


@dataclass(frozen=True)
class Options:
    """How much a suite measures.

    Attributes:
        limit: most items of each set, spread evenly over it; 0 takes all.
        path: where the suite's texts are, if they are not the run's own.
        seed: of everything that is drawn.
    """

    limit: int = 500
    path: str | None = None
    seed: int = 1337

    def spread(self, count: int) -> np.ndarray:
        """Return the indices of at most `limit` of `count` items, evenly spread."""
        kept = min(count, self.limit or count)
        return np.arange(kept) * count // max(kept, 1)


@dataclass
class Subject:
    """A model to be measured.

    Attributes:
        name: the model's folder, for messages.
        model: in eval mode, on any device.
        train, held_out: the tokens of its run; None where they are not there.
        missing: why they are not there, in words.
        batch_tokens: most tokens in a forward pass, padding included.
        compared: whether n-gram models of the training text answer too.
        drawn: what suites have generated with the model, so that they can share it.
        searched: stretches of `train`, from token to token, in which verbatim text is looked for;
            all of it, if not given.
    """

    name: str
    model: Transformer
    tokenizer: Tokenizer
    train: TokenStream | None = None
    held_out: TokenStream | None = None
    missing: str = "it is a model without a run"
    batch_tokens: int = 8192
    compared: bool = True
    drawn: dict[Any, Any] = field(default_factory=dict)
    searched: Sequence[tuple[int, int]] | None = None

    @cached_property
    def scorer(self) -> ModelScorer:
        return ModelScorer(self.model, self.batch_tokens)

    @cached_property
    def ngrams(self) -> dict[str, Scorer]:
        """Models of the training text that know very little, if they are to be compared."""
        if self.train is None or not self.compared:
            return {}
        vocab_size = max(self.model.config.vocab_size, self.tokenizer.vocab_size)
        unigram = Unigram(self.train, vocab_size)
        return {"unigram": unigram, "bigram": Bigram(self.train, unigram)}

    @property
    def scorers(self) -> dict[str, Scorer]:
        """The model and what it is compared with, by name."""
        return {"model": self.scorer, **self.ngrams}

    @property
    def context(self) -> int:
        """The most tokens that the model can attend to."""
        return context_length(self.model.config)

    @property
    def text_tokens(self) -> np.ndarray:
        """The ids (n,) that encode text, so no special tokens."""
        return np.flatnonzero(self.tokenizer.token_bytes())

    def document(self, text: str, ends: bool = True) -> np.ndarray:
        """Return the ids (n,) int64 of a text as a document: bos, tokens, eos if it `ends`."""
        start = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        end = [] if self.tokenizer.eos_id is None or not ends else [self.tokenizer.eos_id]
        return np.array([*start, *self.tokenizer.encode(text), *end], dtype=np.int64)

    def need_held_out(self, suite: str) -> TokenStream:
        """Return the held-out tokens.

        Raises:
            DataError: there are none.
        """
        if self.held_out is None:
            why = self.missing if self.train is None else "its run held no text out"
            raise DataError(f"{suite} needs held-out text of {self.name}: {why}")
        return self.held_out

    def need_train(self, suite: str) -> TokenStream:
        """Return the training tokens.

        Raises:
            DataError: they are not there.
        """
        if self.train is None:
            raise DataError(f"{suite} needs the training text of {self.name}: {self.missing}")
        return self.train


@dataclass(frozen=True)
class Document:
    """A document of a stream: its tokens without bos and eos."""

    number: int
    ids: np.ndarray  # (n,) int64


def documents(stream: TokenStream, tokenizer: Tokenizer, least: int) -> list[Document]:
    """Return the documents with at least `least` tokens besides bos and eos.

    Of more than `MOST_DOCUMENTS`, some that are evenly spread: bounds memory and time.
    """
    starts = np.append(np.asarray(stream.documents), len(stream))
    long_enough = np.flatnonzero(np.diff(starts) >= least)
    found = []
    for number in long_enough[Options(MOST_DOCUMENTS).spread(len(long_enough))]:
        ids = stream.read(int(starts[number]), int(starts[number + 1])).astype(np.int64)
        begin = int(ids[0] == tokenizer.bos_id)
        ids = ids[begin : len(ids) - int(ids[-1] == tokenizer.eos_id)]
        if len(ids) >= least:
            found.append(Document(int(number), ids))
    return found
