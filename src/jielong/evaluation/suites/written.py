"""What the model writes where held-out texts go on, beside how they really go on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jielong.config.sampling import Sampling
from jielong.errors import DataError
from jielong.evaluation.suites.subject import Options, Subject, documents
from jielong.generation.generate import TextGenerator

PROMPT_TOKENS = 12
WRITTEN_TOKENS = 128
LEAST_TOKENS = 16  # a shorter text says little about repetition
TEXTS = 64


@dataclass(frozen=True)
class Written:
    """Continuations of the same held-out beginnings, by the model and real, equally long in pairs.

    Attributes:
        by_model, real: ids (n,) of each text, without special tokens.
        note: how they were made.
    """

    by_model: list[np.ndarray]
    real: list[np.ndarray]
    note: str


def written(subject: Subject, options: Options, suite: str) -> Written:
    """Return continuations; the same for each suite that asks with the same options.

    Raises:
        DataError: there is too little held-out text.
    """
    key = options.limit, options.seed
    if key not in subject.drawn:
        subject.drawn[key] = _write(subject, options, suite)
    found = subject.drawn[key]
    assert isinstance(found, Written)
    return found


def _write(subject: Subject, options: Options, suite: str) -> Written:
    stream, tokenizer = subject.need_held_out(suite), subject.tokenizer
    every = documents(stream, tokenizer, least=PROMPT_TOKENS + LEAST_TOKENS)
    chosen = [every[i] for i in Options(min(options.limit or TEXTS, TEXTS)).spread(len(every))]
    if len(chosen) < 2:
        raise DataError(
            f"{suite} needs more held-out text: {len(chosen)} documents of at least "
            f"{PROMPT_TOKENS + LEAST_TOKENS} tokens; hold out more with --validation-fraction"
        )
    length = min(WRITTEN_TOKENS, subject.context - PROMPT_TOKENS - 1)
    if length < LEAST_TOKENS:
        raise DataError(f"{suite} needs a longer context than the {subject.context} tokens here")
    sampling = Sampling(seed=options.seed)
    prompts = [_whole_characters(subject, d.ids[:PROMPT_TOKENS]) for d in chosen]
    texts = TextGenerator(subject.model, tokenizer).batch(prompts, length, sampling)
    special = list(tokenizer.special_tokens)
    by_model, real = [], []
    for document, text in zip(chosen, texts, strict=True):
        ours = np.array(tokenizer.encode(text, special=False), dtype=np.int64)
        theirs = document.ids[PROMPT_TOKENS:]
        theirs = theirs[~np.isin(theirs, special)]
        shared = min(len(ours), len(theirs), length)
        by_model.append(ours[:shared])
        real.append(theirs[:shared])
    return Written(
        by_model,
        real,
        f"{len(by_model)} held-out texts continued for at most {length} tokens, sampled at "
        f"temperature {sampling.temperature} and top-p {sampling.top_p}, beside how they really go "
        "on, cut to the same lengths",
    )


def _whole_characters(subject: Subject, ids: np.ndarray) -> str:
    """Return the text of a beginning, without the part of a character at its end."""
    return subject.tokenizer.decode(ids.tolist(), skip_special=True).rstrip("\ufffd")
