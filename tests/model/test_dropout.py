"""Dropout whose mask belongs to the window: the same in any batch, other ones elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jielong.config.load import load_config
from jielong.model.dropout import Dropout
from tiny import new_optimizer, one_step, random_batch, split_batch, tiny_model

SEEDS = torch.tensor([5, 2**61 + 3, 7, 11])


def test_its_share_is_dropped_and_each_place_and_row_has_its_own_mask() -> None:
    like = torch.zeros(4, 64, 30)
    dropout = Dropout(0.25, SEEDS)
    masks = [dropout.keep(site, like) for site in range(3)]
    for mask in masks:
        assert mask.shape == like.shape and mask.dtype == torch.bool
        assert abs(float(mask.float().mean()) - 0.75) < 0.02
    rows = torch.cat(masks).flatten(1).float()
    correlation = torch.corrcoef(rows)
    assert (correlation - torch.eye(len(rows))).abs().max() < 0.1
    columns = torch.corrcoef(masks[0].flatten(0, 1).float().T)
    assert (columns - torch.eye(30)).abs().max() < 0.3


def test_a_row_has_the_same_mask_in_any_batch_and_the_mean_is_kept() -> None:
    like = torch.zeros(4, 16, 10)
    whole = Dropout(0.1, SEEDS).keep(3, like)
    part = Dropout(0.1, SEEDS[2:]).keep(3, like[2:])
    assert part.equal(whole[2:])
    dropout = Dropout(0.1, torch.arange(50))
    kept = dropout.keep(0, torch.zeros(50, 64, 32)).float() * dropout.scale
    assert float(kept.mean()) == pytest.approx(1, abs=0.01)


def test_an_update_with_dropout_does_not_depend_on_the_cut() -> None:
    config = load_config(learning_rate=0.01, optimizer="adamw", adam_eps=1e-3)
    batch = replace(random_batch(4, 16), row_seeds=SEEDS)
    weights = []
    for cut, rate in ((1, 0.2), (4, 0.2), (1, 0.0)):
        model = tiny_model().train()
        micro = split_batch(batch, cut)
        one_step(model, new_optimizer(model, config), micro, dropout=rate)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)
    assert (weights[0] - weights[2]).abs().max() > 1e-4


def test_nothing_is_dropped_where_a_model_is_measured() -> None:
    model, batch = tiny_model(), random_batch(4, 16)
    plain = model(batch.tokens, batch.targets).loss
    dropped = model(batch.tokens, batch.targets, dropout=Dropout(0.5, SEEDS)).loss
    assert plain.equal(model(batch.tokens, batch.targets).loss) and not plain.equal(dropped)
