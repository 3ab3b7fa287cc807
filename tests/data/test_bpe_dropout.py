"""BPE-dropout: the same text in other tokens."""

from __future__ import annotations

import numpy as np
import pytest
import tokenizers
from tokenizers import models

from jielong.config.settings import IGNORE_INDEX, DataConfig, TrainingConfig
from jielong.data.batches import Batch, Batches
from jielong.data.noise import BpeDropout, InputNoise
from jielong.tokenization.merges import merged_from
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer
from tiny import TEXTS, ListStream

WINDOW = 32


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return train_tokenizer(TEXTS, 400, 2**20)


@pytest.fixture(scope="module")
def stream(words: Tokenizer) -> ListStream:
    ends = words.bos_id, words.eos_id
    assert None not in ends
    return ListStream([[ends[0], *words.encode(text), ends[1]] for text in TEXTS])  # type: ignore[list-item]


def batches(stream: ListStream, words: Tokenizer, rate: float, **data: object) -> Batches:
    return Batches(
        stream,
        DataConfig(max_seq_len=WINDOW, **data),  # type: ignore[arg-type]
        TrainingConfig(global_batch_size=4, seed=3),
        bpe_dropout=BpeDropout(rate, words.merged_from()) if rate else None,
    )


def row_texts(batch: Batch, words: Tokenizer) -> list[bytes]:
    """The bytes that each row's inputs stand for, special tokens by name."""
    pieces = words._pieces
    return [b"".join(pieces[int(i)] for i in row) for row in batch.tokens]


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_a_window_has_the_same_text_as_far_as_it_reaches(
    stream: ListStream, words: Tokenizer, epoch: int
) -> None:
    plain, split = (batches(stream, words, rate) for rate in (0.0, 0.3))
    every = np.arange(plain.windows - 1)  # the last may be filled up
    before, after = plain.load(every, epoch), split.load(every, epoch)
    assert not before.tokens.equal(after.tokens)
    for whole, part in zip(row_texts(before, words), row_texts(after, words), strict=True):
        assert whole.startswith(part) and len(part) > len(whole) / 4


def test_targets_are_the_next_tokens_and_none_crosses_a_document(
    stream: ListStream, words: Tokenizer
) -> None:
    batch = batches(stream, words, 0.3).load(np.arange(40), 1)
    assert batch.document_ids is not None
    counted = batch.targets[:, :-1] != IGNORE_INDEX
    assert batch.targets[:, :-1][counted].equal(batch.tokens[:, 1:][counted])
    begins = batch.tokens == words.bos_id
    assert (batch.targets != words.bos_id).all() and begins[:, 1:].any()
    numbers = begins.int().cumsum(1)
    assert batch.document_ids.equal((numbers - numbers[:, :1]).to(batch.document_ids.dtype))
    # a target is left out where a document begins, and nowhere else
    assert (~counted).equal(begins[:, 1:])


def test_its_share_of_the_tokens_is_split_and_special_ones_never_are(words: Tokenizer) -> None:
    parts = words.merged_from()
    assert (parts[sorted(words.special_tokens)] == -1).all()
    merged = np.flatnonzero(parts[:, 0] >= 0)
    rng = np.random.default_rng(0)
    once = merged[(parts[parts[merged]] < 0).all((1, 2))]  # of two bytes: split once at most
    tokens = rng.choice(once, 20_000)

    def bits(number: int, count: int) -> np.ndarray:
        return rng.integers(2**64, size=count, dtype=np.uint64)

    split, origin = BpeDropout(0.1, parts).split(tokens, bits)
    assert len(split) == len(origin)
    share = len(split) / len(tokens) - 1
    assert 0.09 < share < 0.11
    assert (np.bincount(origin) <= 2).all()


def test_epochs_differ_and_the_same_seed_gives_the_same(
    stream: ListStream, words: Tokenizer
) -> None:
    one, two = (batches(stream, words, 0.2) for _ in range(2))
    every = np.arange(12)
    assert one.load(every, 3).tokens.equal(two.load(every, 3).tokens)
    assert one.load(every[5:7], 3).tokens.equal(two.load(every, 3).tokens[5:7])
    unshuffled = batches(stream, words, 0.2, shuffle=False)  # each epoch has the same windows
    assert not unshuffled.load(every, 0).tokens.equal(unshuffled.load(every, 1).tokens)


def test_a_padded_row_keeps_its_end_of_text(stream: ListStream, words: Tokenizer) -> None:
    batch = batches(stream, words, 0.5, packing="pad").load(np.arange(len(TEXTS)), 0)
    for targets in batch.targets:
        assert int(targets[targets != IGNORE_INDEX][-1]) == words.eos_id


def test_only_byte_pair_encoding_has_merges() -> None:
    pieces = dict.fromkeys(range(5), b"x")
    word_level = tokenizers.Tokenizer(models.WordLevel({"a": 0, "ab": 1, "b": 2}, unk_token="a"))
    assert (merged_from(word_level.to_str(), pieces, 3) == -1).all()
    vocabulary = {"a": 0, "b": 1, "ab": 2, "c": 3, "abc": 4}
    bpe = tokenizers.Tokenizer(models.BPE(vocabulary, [("a", "b"), ("ab", "c")]))
    expected = [[-1, -1], [-1, -1], [0, 1], [-1, -1], [2, 3]]
    assert merged_from(bpe.to_str(), pieces, 5).tolist() == expected


def test_no_character_is_split() -> None:
    words = train_tokenizer(["春江潮水连海平，海上明月共潮生。" * 20], 320, 2**20)
    parts = words.merged_from()
    whole = words.encode("潮水连海平")
    assert len(whole) < 5 and (parts[whole, 0] >= 0).any()
    for token in np.flatnonzero(parts[:, 0] >= 0):
        for part in parts[token]:
            assert "\ufffd" not in words.decode([int(part)])
    one = words.encode("海")
    assert len(one) == 1 and parts[one[0], 0] == -1


def test_after_its_last_step_of_noise_a_run_has_the_text_as_it_is(
    stream: ListStream, words: Tokenizer
) -> None:
    data, training = DataConfig(max_seq_len=WINDOW), TrainingConfig(global_batch_size=4, seed=3)
    split = BpeDropout(0.3, words.merged_from())
    noise = InputNoise(0.3, np.arange(10, words.vocab_size))
    noisy = Batches(stream, data, training, (), noise, split)
    plain = Batches(stream, data, training)
    some = Batches(stream, data, training, (), noise, split, noise_steps=7)
    for step in range(12):
        expected = (noisy if step < 7 else plain).batch(step)
        assert some.batch(step).tokens.equal(expected.tokens)
        assert not plain.batch(step).tokens.equal(noisy.batch(step).tokens)
