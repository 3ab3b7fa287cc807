"""What follows each token in the training text, and how a run learns it first."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from jielong.checkpoint import checkpoint as ckpt
from jielong.config.load import load_config
from jielong.config.settings import IGNORE_INDEX
from jielong.model.loss import CHUNK_TOKENS, distillation_loss
from jielong.model.soft_targets import BigramTable
from jielong.training import bigrams as module
from jielong.training.bigrams import DISCOUNT, bigram_targets, count_bigrams, share_at, stretches
from jielong.training.plan import resolve
from jielong.training.pretrain import pretrain
from tiny import TINY_RUN, ListStream, random_batch, random_documents

CPU = torch.device("cpu")
VOCAB_SIZE = 64  # of tiny models


def text(seed: int = 0, tokens: int = 900) -> np.ndarray:
    """Some tokens are frequent, others never occur."""
    return (np.random.default_rng(seed).random(tokens) ** 2 * 50).astype(np.uint16)


def dense(table: BigramTable) -> torch.Tensor:
    """(V, V) the distribution after each token."""
    after = table.after(torch.arange(VOCAB_SIZE))
    return (after.rest * after.common).scatter_add(1, after.tokens, after.probabilities)


def test_the_distributions_are_those_of_kneser_and_ney() -> None:
    pieces = [text(1), text(2, 300), np.array([3], np.uint16)]
    got = dense(count_bigrams(pieces, VOCAB_SIZE, CPU)).double()
    counts = Counter(pair for p in pieces for pair in pairwise(p.tolist()))
    ends = torch.full((VOCAB_SIZE,), 1e-3, dtype=torch.float64)
    for _, second in counts:
        ends[second] += 1
    expected = torch.zeros(VOCAB_SIZE, VOCAB_SIZE, dtype=torch.float64)
    for first in range(VOCAB_SIZE):
        after = {second: n for (one, second), n in counts.items() if one == first}
        total, rest = sum(after.values()), 1.0
        for second, n in after.items():
            expected[first, second] = (n - DISCOUNT) / total
            rest -= (n - DISCOUNT) / total
        expected[first] += rest * ends / ends.sum()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)


def test_only_the_most_frequent_successors_are_kept_and_each_row_sums_to_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = dense(count_bigrams([text()], VOCAB_SIZE, CPU))
    monkeypatch.setattr(module, "SUCCESSORS", 3)
    cut = count_bigrams([text()], VOCAB_SIZE, CPU)
    assert cut.successors.shape == (VOCAB_SIZE, 3)
    for table in (whole, dense(cut)):
        torch.testing.assert_close(table.sum(1), torch.ones(VOCAB_SIZE))
        assert (table > 0).all()
    first = int(text()[0])
    kept = cut.after(torch.tensor([first])).tokens[0]
    assert set(kept.tolist()) <= set(whole[first].topk(6).indices.tolist())
    never = 60  # what is not in the text is followed by anything
    torch.testing.assert_close(dense(cut)[never], cut.common)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_objective_is_the_mixture_of_both_cross_entropies(share: float) -> None:
    bigrams = count_bigrams([text()], VOCAB_SIZE, CPU)
    batch = random_batch(1, CHUNK_TOKENS + 90)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(batch.tokens.numel(), 24, generator=generator)
    weight = torch.randn(VOCAB_SIZE, 24, generator=generator)
    targets = batch.targets.flatten().clone()
    targets[::7] = IGNORE_INDEX
    ours = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    objective, nats = distillation_loss(*ours, targets, bigram_targets(batch, bigrams, share))
    (objective * 0.37).backward()
    exact = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    kept = targets != IGNORE_INDEX
    logits = (exact[0] @ exact[1].T)[kept]
    soft = dense(bigrams).double()[batch.tokens.flatten()[kept]]
    hard = F.cross_entropy(logits, targets[kept], reduction="sum")
    expected = (1 - share) * hard + share * F.cross_entropy(logits, soft, reduction="sum")
    (expected * 0.37).backward()
    torch.testing.assert_close(objective.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(nats.double(), hard, rtol=1e-5, atol=1e-4)
    for got, wanted in zip(ours, exact, strict=True):
        assert got.grad is not None and wanted.grad is not None
        torch.testing.assert_close(got.grad.double(), wanted.grad, rtol=1e-4, atol=1e-4)


def test_the_context_is_the_text_not_what_noise_put_in_its_place() -> None:
    bigrams, batch = count_bigrams([text()], VOCAB_SIZE, CPU), random_batch(2, 16)
    tokens = batch.tokens.clone()
    tokens[:, 3] = (tokens[:, 3] + 1) % VOCAB_SIZE  # as input noise does; the targets stay
    noisy = dataclasses.replace(batch, tokens=tokens)
    targets = [bigram_targets(of, bigrams, 0.5) for of in (noisy, batch)]
    assert torch.equal(targets[0].before, targets[1].before)


def test_of_a_large_text_stretches_from_all_over_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams = [ListStream(random_documents(40, 9, seed)) for seed in range(2)]
    pieces = list(stretches(streams))
    assert [p.tolist() for p in pieces] == [s.tokens.tolist() for s in streams]
    monkeypatch.setattr(module, "COUNTED_TOKENS", 64)
    monkeypatch.setattr(module, "STRETCH_TOKENS", 8)
    pieces = list(stretches(streams))
    assert 48 <= sum(map(len, pieces)) <= 72
    assert pieces[0].tolist() == streams[0].tokens[:8].tolist()
    assert pieces[-1].tolist() == streams[1].tokens[-8:].tolist()


def test_the_share_falls_to_nothing_by_half_of_the_run() -> None:
    assert [share_at(step, 20, 0.5) for step in (0, 5, 10, 19)] == [0.5, 0.25, 0.0, 0.0]


@pytest.fixture
def run(corpus_file: Path, tokenizer_dir: Path) -> dict[str, Any]:
    paths = {"data_path": (str(corpus_file),), "tokenizer": str(tokenizer_dir)}
    return TINY_RUN | paths | {"steps": 4}


def test_a_run_learns_them_by_default_but_not_after_another_model(
    run: dict[str, Any], tmp_path: Path
) -> None:
    def weights(name: str, **changes: Any) -> bytes:
        pretrain(load_config(**run | changes, out_dir=str(tmp_path / name)), quiet=True)
        folder = ckpt.find_model_folder(tmp_path / name, "last")
        return (folder / "model.safetensors").read_bytes()

    default = weights("default")
    assert weights("half", bigram_share=0.5) == default
    assert weights("none", bigram_share=0.0) != default
    stream = ListStream(random_documents(40, 9))
    for changes, share in {
        (): 0.5,
        ("teacher",): 0.0,
        ("init_from",): 0.0,
    }.items():
        config = load_config(**run, **dict.fromkeys(changes, "a model"))
        assert resolve(config, stream, CPU).bigram_share == share
    config = load_config(**run)  # of a run that earlier versions began
    assert resolve(config, stream, CPU, resumed={}).bigram_share == 0.0
