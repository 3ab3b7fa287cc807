"""Embeddings of tokens that are spelled alike: what they share, and across a save."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from jielong.checkpoint.checkpoint import find_model_folder, load_training_state
from jielong.config.load import load_config
from jielong.config.settings import TrainingConfig
from jielong.tokenization.spelling import Spelling, spelling_of
from jielong.training.optimizer import AdamW, Optimizer
from jielong.training.pretrain import pretrain
from tiny import TINY_RUN, random_batch, tiny_config, tiny_model

PIECES = [b"", b"come", b" Come", b"COME", b" go", b"go", b"going", b" coming"]


VOCAB_SIZE = 64  # of tiny models


def spelling() -> Spelling:
    return spelling_of([PIECES[i % len(PIECES)] for i in range(VOCAB_SIZE)])


def matrix(spelling: Spelling) -> Tensor:
    whole = torch.zeros(VOCAB_SIZE, spelling.feature_count)
    whole[spelling.tokens, spelling.features] = torch.from_numpy(spelling.values)
    return whole


def settings(weight_decay: float = 0.1) -> TrainingConfig:
    return tiny_config(weight_decay=weight_decay).training


def trained(optimizer: Optimizer, model: torch.nn.Module, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        optimizer.zero_grad()
        batch = random_batch(2, 16, seed=step)
        model(batch.tokens, batch.targets).loss.backward()
        optimizer.step(1 - step / 20)


def test_it_is_the_embedding_that_is_made_of_its_features() -> None:
    """E = W + A S with AdamW on W and S, step by step, whose sum alone `SharedUpdates` keeps."""
    model = tiny_model()
    table = model.model.embed_tokens.weight
    alike = spelling()
    optimizer = Optimizer(model, settings(), 0.01, alike)
    a = matrix(alike)
    w = torch.nn.Parameter(table.detach().clone())
    s = torch.nn.Parameter(torch.zeros(alike.feature_count, table.shape[1]))
    t = settings()
    adam = AdamW([{"params": [w, s], "weight_decay": 0.1}], 0.01, (t.beta1, t.beta2), t.adam_eps)
    for step in range(4):
        optimizer.zero_grad()
        batch = random_batch(2, 16, seed=step)
        model(batch.tokens, batch.targets).loss.backward()
        w.grad, s.grad = table.grad.clone(), a.T @ table.grad
        optimizer.step(1.0)
        adam.step()
        # Adam divides by roots of what may be next to nothing, so sums in another order show
        torch.testing.assert_close(table.detach(), (w + a @ s).detach(), rtol=1e-3, atol=2e-5)
    assert (a @ s).abs().max() > 0.01


def test_a_token_that_never_occurs_learns_from_those_that_are_spelled_as_it() -> None:
    alike = spelling()
    rows = {}
    for name, given in (("alone", None), ("together", alike)):
        model = tiny_model()
        table = model.model.embed_tokens.weight
        start = table.detach().clone()
        optimizer = Optimizer(model, settings(weight_decay=0.0), 0.01, given)
        optimizer.zero_grad()
        table.grad = torch.zeros_like(table)
        table.grad[1] = 1.0  # of `come` alone
        optimizer.step(1.0)
        rows[name] = (table.detach() - start).norm(dim=1)
    assert rows["alone"][2] == 0 and rows["together"][2] > 0.5 * rows["together"][1] > 0
    assert rows["together"][0] == 0  # a special token is spelled as nothing


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_shared_is_saved_and_goes_on_bit_for_bit(tied: bool) -> None:
    changes = {"tie_word_embeddings": tied}
    alike = spelling()
    model = tiny_model(**changes)
    optimizer = Optimizer(model, settings(), 0.01, alike)
    trained(optimizer, model, 3)
    state = {name: value.clone() for name, value in optimizer.state_tensors().items()}
    shared = [name for name in state if ".shared/" in name]
    assert len(shared) == (3 if tied else 6)
    other = tiny_model(**changes)
    other.load_state_dict(model.state_dict())
    again = Optimizer(other, settings(), 0.01, alike)
    again.load_state_tensors(state)
    trained(optimizer, model, 3, first=3)
    trained(again, other, 3, first=3)
    assert model.checksum() == other.checksum()


def test_a_run_that_began_without_it_goes_on_without_it() -> None:
    model, other = tiny_model(), tiny_model()
    optimizer = Optimizer(model, settings(), 0.01)
    trained(optimizer, model, 3)
    state = {name: value.clone() for name, value in optimizer.state_tensors().items()}
    other.load_state_dict(model.state_dict())
    again = Optimizer(other, settings(), 0.01, spelling())
    again.load_state_tensors(state)
    trained(optimizer, model, 2, first=3)
    trained(again, other, 2, first=3)
    assert model.checksum() == other.checksum()


def test_a_run_shares_by_default_with_muon_and_saves_it(
    trained_run: Path, corpus_file: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    assert any(".shared/" in name for name in state_of(trained_run))
    run = TINY_RUN | {"data_path": (str(corpus_file),), "tokenizer": str(tokenizer_dir), "steps": 2}
    saved = load_training_state(find_model_folder(trained_run)).values
    assert saved["plan"]["share_spelling"] is True
    for name, changes in {
        "adamw": {"optimizer": "adamw"},
        "off": {"share_spelling": False},
    }.items():
        config = load_config(**run, **changes, out_dir=str(tmp_path / name))
        assert not pretrain(config, quiet=True).plan["share_spelling"]
        assert not any(".shared/" in key for key in state_of(tmp_path / name))


def state_of(run: Path) -> set[str]:
    """The names of what a run's last checkpoint has of its optimizer."""
    last = max((run / "checkpoints").glob("step-*"))
    with safe_open(last / "optimizer.safetensors", framework="pt") as file:
        return set(file.keys())
