"""A teacher: a trained model whose predictions another one learns beside the text."""

from __future__ import annotations

import torch
from torch import Tensor

from jielong.checkpoint.checkpoint import find_model_folder, load_model
from jielong.config.settings import IGNORE_INDEX
from jielong.data.batches import Batch
from jielong.errors import ConfigError
from jielong.model.soft_targets import TeacherTargets
from jielong.model.transformer import Transformer
from jielong.runtime.device import compute_dtype, to_device
from jielong.tokenization.tokenizer import Tokenizer

SHARE = 0.5  # of the objective that is the teacher's (docs/experiments.md)


class Teacher:
    """A model that says of each token how likely it finds all others in its place.

    That is more than the text says, and the less of it a student has seen, the more it helps
    (knowledge distillation, Hinton et al. 2015; of a model of the same size, Furlanello et al.
    2018).
    """

    def __init__(self, model: Transformer) -> None:
        self.model = model.eval().requires_grad_(False)

    @classmethod
    def load(
        cls, path: str, tokenizer: Tokenizer, vocab_size: int, device: torch.device
    ) -> Teacher:
        """Load the best model of a run, or a model folder.

        Raises:
            CheckpointError: there is no sound model.
            ConfigError: it has another tokenizer, or a vocabulary of another size.
        """
        folder = find_model_folder(path)
        model, theirs = load_model(folder)
        if theirs.fingerprint != tokenizer.fingerprint:
            raise ConfigError(
                f"training.teacher={path} has another tokenizer than this run, so it predicts "
                f"other tokens: give --tokenizer {folder}"
            )
        if model.config.vocab_size != vocab_size:
            raise ConfigError(
                f"training.teacher={path} has a vocabulary of {model.config.vocab_size}, the model "
                f"to be trained one of {vocab_size}: they must be the same"
            )
        return cls(model.to(device))

    @torch.no_grad()
    def __call__(self, batch: Batch, device: torch.device) -> TeacherTargets:
        """Return the predictions for a batch of (B, T) tokens."""
        tokens, ids = to_device(without_noise(batch), device), batch.document_ids
        hidden = self.model.hidden_states(tokens, ids).flatten(0, 1)
        compute = compute_dtype(hidden)  # once, not for each chunk of the loss
        return TeacherTargets(hidden.to(compute), self.model.lm_head.weight.to(compute), SHARE)


def without_noise(batch: Batch) -> Tensor:
    """The inputs without noise, as far as the targets tell: a teacher should not guess."""
    tokens, before = batch.tokens.clone(), batch.targets[:, :-1]
    tokens[:, 1:] = torch.where(before == IGNORE_INDEX, tokens[:, 1:], before)
    return tokens
