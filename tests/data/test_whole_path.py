"""From files to batches and back: what is read is what was written, each token once an epoch."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jielong.config.load import load_config
from jielong.config.settings import IGNORE_INDEX
from jielong.data.batches import Batches
from jielong.data.prepare.prepare import prepare
from jielong.data.shards import open_dataset
from jielong.tokenization.tokenizer import train_tokenizer
from tiny import TEXTS

TOKENIZERS = [train_tokenizer(TEXTS, size, 2**20) for size in (260, 288)]
START, END = "<|im_start|>", "<|im_end|>"
# no control characters or surrogates, which are replaced or refused: tests of the sources
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)


def marked(text: str) -> str:
    """The text as a document: between its marks, which a text may bring itself."""
    return START * (not text.startswith(START)) + text + END * (not text.endswith(END))


@given(
    st.lists(texts.filter(str.strip), min_size=1, max_size=12),
    st.sampled_from(TOKENIZERS),
    st.integers(2, 24),
    st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_an_epoch_over_all_ranks_decodes_to_the_texts(
    documents: list[str], tokenizer, window: int, world_size: int
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "texts.jsonl"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
        config = load_config(
            data_path=(str(source),), validation_fraction=0.0, max_seq_len=window, batch_size=3
        )
        prepare(config, tokenizer, Path(scratch) / "data")
        stream = open_dataset(Path(scratch) / "data").train
        batches = Batches(stream, config.data, config.training)
        inputs = np.full(len(stream) + window, -1)
        targets = np.full(len(stream) + window, -1)
        for step in range(batches.steps_per_epoch):
            for rank in range(world_size):
                batch = batches.batch(step, rank, world_size)
                if not batch.target_count:
                    continue  # a rank without a window repeats one
                rows = zip(batch.windows, batch.tokens, batch.targets, strict=True)
                for place, row, following in rows:
                    start = int(place) * window
                    assert (inputs[start : start + window] == -1).all(), "read twice"
                    inputs[start : start + window] = row
                    counts = following.numpy() != IGNORE_INDEX
                    targets[start + 1 : start + 1 + window][counts] = following[counts]
    ids = np.where(targets >= 0, targets, inputs)[: len(stream)].tolist()
    begins = stream.documents.tolist()
    assert (targets >= 0).sum() == len(ids) - len(begins)  # all but the first of each document
    got = [ids[a:b] for a, b in zip(begins, [*begins[1:], len(ids)], strict=True)]
    assert sorted(map(tokenizer.decode, got)) == sorted(map(marked, documents))
