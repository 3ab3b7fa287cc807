"""Settings that follow from model size and budget, so that nobody needs to know them.

The constants were measured on small models (docs/experiments.md); all can be set by hand.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch

from jielong.config.settings import Config

REPEATED = 1.5  # epochs from which on a text counts as read more than once
UPDATE_TOKENS = 2  # for each unit of width: training on so many takes as long as a Muon update
MOST_EPOCHS = 30  # of a run of --minutes: beyond them it would only memorise the text
LEAST_STEPS = 50  # fewer updates than that learn little, however good each gradient is
# A run ends on its text without noise, since the text that it will be used on has none: for so many
# epochs, as more of them would be memorised, and at most this share of the run.
PLAIN_EPOCHS, PLAIN_SHARE = 2.5, 0.35
BIGRAM_SHARE = 0.5  # of the objective as a run begins (docs/experiments.md)
EVALUATION = 1 / 3  # the work of evaluating a token, as a share of that of training on it
EVAL_SHARE = 0.05  # of the time, for validations
FEWEST_EVAL_TOKENS, MOST_EVAL_TOKENS = 2**13, 2**16
RATE_TRIAL_SHARE = 0.05  # of a run's work, for the trial of learning rates after --init-from
FIRST_BATCHES = 5.0  # times the root of the tokens so far: the tokens of an early batch
MICRO_BATCH_TOKENS = 2**15  # in one pass; more needs memory and gains no speed
CPU_TOKENS = 2**11  # in one pass on a CPU: what fits its caches best


@dataclass(frozen=True)
class ModelSize:
    """A decoder's shape: one of a ladder, from which `--minutes` chooses."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_seq_len: int = 256

    def values(self) -> dict[str, int]:
        """Return the settings, by name."""
        return dataclasses.asdict(self)


MODEL_SIZES = (
    ModelSize(64, 3, 2, 1),
    ModelSize(128, 4, 4, 2),
    ModelSize(192, 4, 6, 2),
    ModelSize(256, 6, 8, 4),
    ModelSize(384, 8, 6, 2),
    ModelSize(512, 8, 8, 4),
    ModelSize(768, 12, 12, 4),
    ModelSize(1024, 16, 16, 4, 512),
)


def tokens_for(parameters: int) -> float:
    """Return the tokens from which on a model of that size is better than a smaller one.

    Below, the smaller one sees so many more tokens in the same time that it ends lower
    (docs/experiments.md).
    """
    return 0.6 * parameters


def default_eval_tokens(tokens_between: float) -> int:
    """Return the held-out tokens of a validation, by the tokens trained on between two of them.

    Validations of a run measure the same tokens, so fewer tell as well which one is better; how
    good a model is in the end is measured on all of them.
    """
    affordable = EVAL_SHARE / EVALUATION * tokens_between
    return round(min(MOST_EVAL_TOKENS, max(FEWEST_EVAL_TOKENS, affordable)))


def vocabulary_for(text_bytes: int) -> int:
    """Return the tokens of a vocabulary: each must occur often enough to be learnt."""
    return max(512, min(6400, 64 * round(0.85 * text_bytes ** (2 / 3) / 64)))


@dataclass(frozen=True)
class Regularisation:
    """What keeps a model from memorising its text."""

    weight_decay: float  # decoupled, on matrices
    dropout: float  # share of each layer's output
    input_noise: float  # share of the input tokens
    bpe_dropout: float  # share of the tokens that are split


def default_regularisation(epochs: float, parameters: int, tokens: int) -> Regularisation:
    """Return the regularisation for a text of `tokens` that is read `epochs` times.

    Read once, a text cannot be memorised, and regularisation only slows learning. Beyond that, what
    is needed grows slowly with how easily the model can memorise the text: with the epochs and with
    the parameters that it has for each token. The constants are those of texts of 0.06 and 0.6 MB
    (docs/experiments.md).
    """
    if epochs < REPEATED:
        return Regularisation(weight_decay=0.1, dropout=0.0, input_noise=0.0, bpe_dropout=0.0)
    ease = epochs * parameters / max(1, tokens)
    strength = min(2.0, (ease / 50) ** 0.3)
    return Regularisation(
        weight_decay=float(f"{max(0.1, strength):.2g}"),
        dropout=float(f"{0.1 * strength:.2g}"),
        input_noise=float(f"{0.05 * strength:.2g}"),
        bpe_dropout=float(f"{0.05 * strength:.2g}"),
    )


def default_learning_rate(config: Config) -> float:
    """Peak learning rate from width: wide layers need smaller steps."""
    scale = 0.07 if config.training.optimizer == "muon" else 0.03
    return float(f"{scale * config.model.hidden_size**-0.5:.2g}")


def default_tokens_per_step(total_tokens: float, hidden_size: int) -> float:
    """Tokens of a global batch, growing as the root of the budget.

    Early on gradients agree and small batches learn more a token; the longer a run, the more noise
    there is to average out (McCandlish et al. 2018). An update of Muon costs as much as training on
    about 2 tokens for each unit of width, which sets a least size.
    """
    tokens = max(2 * math.sqrt(total_tokens), 12 * hidden_size)
    return min(tokens, total_tokens / LEAST_STEPS)


def warmup_batch_sizes(config: Config, global_batch_size: int) -> list[int]:
    """Windows in each of the first steps of a run, growing until the global batch is reached.

    By the reasoning of `default_tokens_per_step`, applied to each moment of a run instead of its
    end: what is learnt first needs little averaging, and more updates learn it sooner.
    """
    window = config.data.max_seq_len
    sizes: list[int] = []
    seen = 0
    while True:
        tokens = max(FIRST_BATCHES * math.sqrt(seen), 4 * config.model.hidden_size)
        size = max(1, round(tokens / window))
        if size >= global_batch_size:
            return sizes
        sizes.append(size)
        seen += size * window


def whole_micro_batches(windows: int, window: int) -> int:
    """`windows` rounded up, so that micro-batches of at most MICRO_BATCH_TOKENS are equal."""
    count = math.ceil(windows * window / MICRO_BATCH_TOKENS)
    return math.ceil(windows / count) * count


def default_micro_batch_size(
    global_batch_size: int, window: int, device: torch.device, world_size: int = 1
) -> int:
    """Windows in a pass, over all processes, where nothing else is asked for.

    A CPU is fastest with about CPU_TOKENS at once in each process, a GPU with up to
    MICRO_BATCH_TOKENS; more only needs memory.
    """
    if device.type == "cpu":
        share = math.ceil(global_batch_size / world_size)
        count = min(share, max(1, round(share * window / CPU_TOKENS)))
    else:
        count = math.ceil(global_batch_size * window / MICRO_BATCH_TOKENS)
    return math.ceil(global_batch_size / count)
