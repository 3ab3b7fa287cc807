"""Likelihoods against a float64 log-softmax, document by document."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from jielong.config.model import ModelConfig
from jielong.config.settings import IGNORE_INDEX, DataConfig, TrainingConfig
from jielong.data.batches import Batches
from jielong.errors import DataError
from jielong.evaluation.likelihood import (
    EvaluationWindows,
    Share,
    evaluate_documents,
    evaluate_stream,
)
from jielong.model.transformer import Transformer
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer

TEXTS = [
    "春眠不觉晓,处处闻啼鸟。夜来风雨声,花落知多少。",
    "To be, or not to be, that is the question.",
    "x",
    "🙂🙃 naïve café",
    "Whether 'tis nobler in the mind to suffer the slings and arrows of outrageous fortune",
]
BYTES = sum(len(text.encode()) for text in TEXTS)
CONTEXT = 256
CONFIG = ModelConfig(
    vocab_size=320,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=CONTEXT,
)


@dataclass
class MemoryStream:
    """A split held in memory."""

    tokens: np.ndarray
    documents: np.ndarray
    text_bytes: int

    def __len__(self) -> int:
        return len(self.tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.tokens[start:stop]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, 320, 2**20)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(CONFIG, vocab_size=tokenizer.vocab_size))
    for name, weight in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def without(tokenizer: Tokenizer, *roles: str) -> Tokenizer:
    ids = {role: None if role in roles else i for role, i in tokenizer.special_ids.items()}
    return Tokenizer(tokenizer._backend, {}, ids)


def document_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
    return [i for i in ids if i is not None]


def stream_of(tokenizer: Tokenizer, texts: list[str]) -> MemoryStream:
    documents = [document_ids(tokenizer, text) for text in texts]
    lengths = [len(ids) for ids in documents]
    return MemoryStream(
        np.concatenate(documents).astype(np.uint16),
        np.cumsum([0, *lengths[:-1]]),
        sum(len(text.encode()) for text in texts),
    )


def nats_by_definition(model: Transformer, ids: list[int], max_len: int) -> list[float]:
    """−log p of ids[1:], one number a token, in windows of max_len inputs without overlap."""
    out = []
    for start in range(0, len(ids) - 1, max_len):
        inputs, targets = ids[start : start + max_len], ids[start + 1 : start + 1 + max_len]
        with torch.no_grad():
            logits = model(torch.tensor([inputs])).logits[0].double()
        log_p = logits.log_softmax(-1)
        out += [-float(log_p[i, target]) for i, target in enumerate(targets)]
    return out


@pytest.mark.parametrize("max_len", [1, 7, CONTEXT])
@pytest.mark.parametrize("batch_tokens", [1, 50, 4096])
def test_documents_equal_the_definition_for_any_window_and_batch(
    model, tokenizer, max_len, batch_tokens
):
    got = evaluate_documents(model, tokenizer, TEXTS, max_len, batch_tokens)
    each = [
        nat
        for text in TEXTS
        for nat in nats_by_definition(model, document_ids(tokenizer, text), max_len)
    ]
    assert got.tokens == len(each) == sum(len(tokenizer.encode(text)) + 1 for text in TEXTS)
    assert got.bytes == BYTES
    assert got.loss == pytest.approx(np.mean(each), rel=1e-5)
    assert got.perplexity == pytest.approx(math.exp(got.loss))
    assert got.bits_per_byte == pytest.approx(sum(each) / math.log(2) / BYTES, rel=1e-5)


@pytest.mark.parametrize("missing", [("bos",), ("eos",), ("bos", "eos")])
def test_without_bos_the_first_token_and_its_bytes_do_not_count(model, tokenizer, missing):
    bare = without(tokenizer, *missing)
    got = evaluate_documents(model, bare, TEXTS, CONTEXT)
    documents = [document_ids(bare, text) for text in TEXTS]
    each = [nat for ids in documents for nat in nats_by_definition(model, ids, CONTEXT)]
    unpredicted = sum(bare.token_bytes()[ids[0]] for ids in documents)
    assert (unpredicted > 0) == ("bos" in missing)
    assert got.tokens == len(each)
    assert got.bytes == BYTES - unpredicted
    assert got.loss == pytest.approx(np.mean(each), rel=1e-5)


def test_a_uniform_model_needs_log_vocabulary_bits_for_each_token(tokenizer):
    model = Transformer(dataclasses.replace(CONFIG, vocab_size=tokenizer.vocab_size))
    torch.nn.init.zeros_(model.lm_head.weight)
    V, got = tokenizer.vocab_size, evaluate_documents(model, tokenizer, TEXTS, 16)
    assert got.loss == pytest.approx(math.log(V), rel=1e-6)
    assert got.perplexity == pytest.approx(V, rel=1e-5)
    assert got.bits_per_byte == pytest.approx(math.log2(V) * got.tokens / got.bytes, rel=1e-6)


def test_many_short_texts_are_read_as_a_stream(model, tokenizer):
    """More than the tokenizer takes at once, from an iterator; empty ones count nothing."""
    many = (text for _ in range(300) for text in ["", *TEXTS])
    got = evaluate_documents(model, tokenizer, many, CONTEXT)
    once = evaluate_documents(model, tokenizer, TEXTS, CONTEXT)
    assert (got.tokens, got.bytes) == (300 * once.tokens, 300 * once.bytes)
    assert got.loss == pytest.approx(once.loss, rel=1e-5)


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text_is_refused(model, tokenizer, texts):
    with pytest.raises(DataError, match="no text"):
        evaluate_documents(model, tokenizer, texts, 16)


def test_a_lone_surrogate_is_refused_with_its_place(model, tokenizer):
    with pytest.raises(DataError, match=r"text 2 .*surrogate"):
        evaluate_documents(model, tokenizer, ["fine", "\ud800"], 16)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("seq_len", [5, 16, CONTEXT])
def test_the_whole_stream_counts_each_token_once(model, tokenizer, seq_len, batch_size):
    stream, token_bytes = stream_of(tokenizer, TEXTS), tokenizer.token_bytes()
    got = evaluate_stream(model, stream, token_bytes, EvaluationWindows(seq_len, batch_size))
    each = []
    for start, stop in zip(stream.documents, [*stream.documents[1:], len(stream)], strict=True):
        for position in range(start + 1, stop):  # from the window's or the document's beginning
            first = max(start, (position - 1) // seq_len * seq_len)
            ids = stream.tokens[first : position + 1].tolist()
            each.append(nats_by_definition(model, ids, CONTEXT)[-1])
    assert (got.tokens, got.bytes) == (len(each), BYTES)
    assert got.loss == pytest.approx(np.mean(each), rel=1e-5)


def test_a_stream_in_one_window_equals_its_documents(model, tokenizer):
    stream = stream_of(tokenizer, TEXTS)
    got = evaluate_stream(model, stream, tokenizer.token_bytes(), EvaluationWindows(CONTEXT, 4))
    want = evaluate_documents(model, tokenizer, TEXTS, CONTEXT)
    for name in ("loss", "perplexity", "bits_per_byte", "tokens", "bytes"):
        assert getattr(got, name) == pytest.approx(getattr(want, name), rel=1e-5)


def test_a_stream_without_bos_equals_its_documents(model, tokenizer):
    bare = without(tokenizer, "bos")
    got = evaluate_stream(
        model, stream_of(bare, TEXTS), bare.token_bytes(), EvaluationWindows(CONTEXT, 4)
    )
    want = evaluate_documents(model, bare, TEXTS, CONTEXT)
    assert (got.tokens, got.bytes) == (want.tokens, want.bytes)
    assert got.bits_per_byte == pytest.approx(want.bits_per_byte, rel=1e-5)


def test_bytes_of_the_whole_stream_are_those_of_its_text(model, tokenizer):
    """A special token spelt out in a text has bytes, though the token by itself has none."""
    texts = ["before <|endoftext|> after"]
    got = evaluate_stream(
        model, stream_of(tokenizer, texts), tokenizer.token_bytes(), EvaluationWindows(16, 4)
    )
    assert got.bytes == len(texts[0])


def test_a_part_of_the_stream_is_spread_over_it_and_counts_its_own_bytes(model, tokenizer):
    stream, token_bytes = stream_of(tokenizer, TEXTS * 4), tokenizer.token_bytes()
    seen = []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    got = evaluate_stream(model, stream, token_bytes, EvaluationWindows(8, 100, max_tokens=30))
    model._forward_pre_hooks.clear()
    windows = -(-(len(stream) - 1) // 8)
    starts = [i * windows // 4 * 8 for i in range(4)]
    assert torch.cat(seen).tolist() == [stream.read(s, s + 8).tolist() for s in starts]
    begins = set(stream.documents.tolist())
    targets = [p for s in starts for p in range(s + 1, s + 9) if p not in begins]
    assert got.tokens == len(targets)
    assert got.bytes == token_bytes[stream.tokens[targets]].sum()


@pytest.mark.parametrize("world_size", [2, 3, 64])
def test_ranks_together_equal_one_process(model, tokenizer, world_size):
    """Every rank runs as many forward passes as the others, or their collectives would hang."""
    stream, token_bytes = stream_of(tokenizer, TEXTS), tokenizer.token_bytes()
    want = evaluate_stream(model, stream, token_bytes, EvaluationWindows(8, 2))
    sums: list[list[float]] = [[] for _ in range(world_size)]
    shapes: list[list[torch.Size]] = [[] for _ in range(world_size)]
    for rank in range(world_size):

        def keep(value: float, rank: int = rank) -> float:
            sums[rank].append(value)
            return value + 1  # a rank without a token of its own must not end here

        hook = model.register_forward_pre_hook(
            lambda _, args, rank=rank: shapes[rank].append(args[0].shape)
        )
        share = Share(rank, world_size, keep)
        evaluate_stream(model, stream, token_bytes, EvaluationWindows(8, 2), share)
        hook.remove()
    assert all(each == shapes[0] for each in shapes)
    nats, tokens, text_bytes, *_ = np.sum(sums, axis=0)
    assert (tokens, text_bytes) == (want.tokens, want.bytes)
    assert nats / tokens == pytest.approx(want.loss, rel=1e-6)


def test_evaluation_leaves_random_state_mode_and_grad_as_they_were(model, tokenizer):
    model.train()
    state = torch.get_rng_state()
    stream, token_bytes = stream_of(tokenizer, TEXTS), tokenizer.token_bytes()
    evaluate_documents(model, tokenizer, TEXTS, 16)
    evaluate_stream(model, stream, token_bytes, EvaluationWindows(16, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and torch.is_grad_enabled()
    tokens = torch.tensor([document_ids(tokenizer, TEXTS[0])])
    model(tokens, targets=tokens).loss.backward()  # a training step is still possible
    model.zero_grad()
    model.eval()
    evaluate_documents(model, tokenizer, TEXTS, 16)
    assert not model.training


def test_a_stream_of_one_token_is_refused(model, tokenizer):
    stream = MemoryStream(np.array([1], np.uint16), np.array([0]), 0)
    with pytest.raises(DataError, match="no token to predict"):
        evaluate_stream(model, stream, tokenizer.token_bytes(), EvaluationWindows(16, 4))


def test_the_standard_error_is_that_of_a_ratio_over_batches(model, tokenizer):
    stream, token_bytes = stream_of(tokenizer, TEXTS * 4), tokenizer.token_bytes()
    one_by_one = evaluate_stream(model, stream, token_bytes, EvaluationWindows(8, 1))
    data = DataConfig(max_seq_len=8)
    batches = Batches(stream, data, TrainingConfig(global_batch_size=1))
    nats, sizes = [], []
    for window in range(batches.windows):
        batch = batches.load(np.array([window]))
        with torch.no_grad():
            loss = model(batch.tokens, targets=batch.targets, document_ids=batch.document_ids).loss
        predicted = batch.targets[batch.targets != IGNORE_INDEX].numpy()
        if len(predicted):
            nats.append(float(loss))
            sizes.append(float(token_bytes[predicted].sum()))
    bits, sizes = np.array(nats) / np.log(2), np.array(sizes)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(bits), (4000, len(bits)))
    bootstrap = (bits[drawn].sum(1) / sizes[drawn].sum(1)).std()
    assert one_by_one.bits_per_byte_error == pytest.approx(bootstrap, rel=0.1)
    whole = evaluate_documents(model, tokenizer, TEXTS[:1], 64, batch_tokens=10**6)
    assert whole.bits_per_byte_error is None  # one batch cannot be compared
