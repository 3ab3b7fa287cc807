"""Scoring in batches is scoring one by one, which is the definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jielong.evaluation.suites import scoring
from jielong.evaluation.suites.scoring import ModelScorer, Row, Scored
from jielong.model.transformer import Transformer
from tiny import tiny_model


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model(max_position_embeddings=32)


def rows() -> list[Row]:
    """Of many lengths; some in sequence have the same beginning."""
    rng = np.random.default_rng(0)
    found = []
    for n in (2, 9, 33, 17, 5, 33, 12):
        found.append(Row(rng.integers(0, 64, n), int(rng.integers(1, n))))
    for length, first in ((30, 24), (14, 13), (20, 4)):
        beginning = rng.integers(0, 64, first)
        for n in range(first + 1, length + 1, 2):
            found.append(Row(np.append(beginning, rng.integers(0, 64, n - first)), first))
    return found


def by_definition(model: Transformer, row: Row) -> Scored:
    with torch.no_grad():
        logits = model(torch.from_numpy(row.ids[None, :-1])).logits[0].double()
    log_p = logits.log_softmax(-1)
    targets = torch.from_numpy(row.ids[1:])
    nats = -log_p.gather(1, targets[:, None])[:, 0].numpy()
    right = (log_p.argmax(-1) == targets).numpy()
    return Scored(nats[row.first - 1 :], right[row.first - 1 :])


@pytest.mark.parametrize("shared_tokens", [1, 40, 10**9])
@pytest.mark.parametrize("batch_tokens", [1, 70, 10**6])
def test_batches_equal_one_by_one(
    model: Transformer,
    batch_tokens: int,
    shared_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scoring, "SHARED_TOKENS", shared_tokens)
    found = ModelScorer(model, batch_tokens).score(rows())
    for row, scored in zip(rows(), found, strict=True):
        want = by_definition(model, row)
        np.testing.assert_allclose(scored.nats, want.nats, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(scored.right, want.right)


def test_a_row_longer_than_the_context_loses_its_beginning(model: Transformer) -> None:
    ids = np.random.default_rng(1).integers(0, 64, 50)
    [scored] = ModelScorer(model).score([Row(ids, 40)])
    want = by_definition(model, Row(ids[-33:], 23))
    np.testing.assert_allclose(scored.nats, want.nats, rtol=1e-4, atol=1e-5)


def test_a_prediction_longer_than_the_context_is_cut_into_windows(model: Transformer) -> None:
    ids = np.random.default_rng(2).integers(0, 64, 80)
    [scored] = ModelScorer(model).score([Row(ids, 3)])
    windows = [ids[2:35], ids[34:67], ids[66:]]
    want = np.concatenate([by_definition(model, Row(w, 1)).nats for w in windows])
    np.testing.assert_allclose(scored.nats, want, rtol=1e-4, atol=1e-5)


def test_a_row_with_nothing_to_predict_has_no_nats(model: Transformer) -> None:
    found = ModelScorer(model).score([Row(np.array([5]), 1), Row(np.array([5, 6]), 1)])
    assert [len(scored.nats) for scored in found] == [0, 1]
