"""What a run will do, decided once: every value that follows from settings, text and model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from jielong.config.model import ModelConfig
from jielong.config.settings import Config
from jielong.data.batches import Batches
from jielong.data.mixture import Mixture
from jielong.data.windows import Stream
from jielong.training.scaling import (
    BIGRAM_SHARE,
    MOST_EVAL_TOKENS,
    PLAIN_EPOCHS,
    PLAIN_SHARE,
    REPEATED,
    Regularisation,
    default_eval_tokens,
    default_learning_rate,
    default_micro_batch_size,
    default_regularisation,
    default_tokens_per_step,
    warmup_batch_sizes,
    whole_micro_batches,
)
from jielong.training.schedule import Schedule


@dataclass(frozen=True)
class RunPlan:
    """The settings of a run with nothing left open; printed in short and saved with checkpoints.

    Steps are updates; sizes of batches count windows over all processes.
    """

    model: ModelConfig
    learning_rate: float  # at its peak
    global_batch_size: int
    batch_warmup: bool  # the run starts with smaller batches
    micro_batch_size: int  # of a pass, before it is known what fits in memory
    weight_decay: float
    dropout: float
    input_noise: float
    bpe_dropout: float
    bigram_share: float  # of the objective, as the run begins
    noise_steps: int  # in which input noise and BPE-dropout act
    share_spelling: bool  # tokens that are spelled alike learn together
    total_steps: int
    warmup_steps: int
    decay_steps: int
    eval_interval: int
    eval_tokens: int  # held-out tokens of an intermediate validation
    save_interval: int

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def resolve(
    asked: Config,
    train: Stream,
    device: torch.device,
    world_size: int = 1,
    resumed: Mapping[str, Any] | None = None,
    mixture: Mixture | None = None,
) -> RunPlan:
    """Decides every value of a run that its settings leave open.

    Args:
        asked: the settings, with the architecture already filled in (`with_architecture`).
        train: the training split.
        device: where the run trains.
        world_size: number of processes.
        resumed: `RunPlan.to_json` of the checkpoint that the run goes on from.
        mixture: other texts that are mixed in.
    """
    t, window = asked.training, asked.data.max_seq_len

    global_batch_size, batch_warmup = _global_batch(asked, train, resumed, mixture)

    # Micro-batch: what a device does best, in equal parts of the global batch. Memory may ask for
    # a smaller one, which changes no update.
    if isinstance(t.micro_batch_size, int):
        micro_batch_size = min(t.micro_batch_size, global_batch_size)
    elif t.micro_batch_size == "auto":
        micro_batch_size = global_batch_size
    else:
        micro_batch_size = default_micro_batch_size(global_batch_size, window, device, world_size)

    # Steps: the budget in windows, over the windows of each step.
    training = dataclasses.replace(t, global_batch_size=global_batch_size)
    sizes = warmup_batch_sizes(asked, global_batch_size) if batch_warmup else ()
    batches = Batches(train, asked.data, training, sizes, mixture=mixture)
    total_steps = batches.total_steps(training)

    # Regularisation: none to speak of for a text read once, more the more often it is read.
    epochs = batches.windows_before(total_steps) / batches.windows
    regular = _regularisation(asked, epochs, len(train), total_steps, resumed)

    # Schedule: warm-up and decay as shares of the run, unless given in steps.
    schedule = Schedule.of(t, total_steps)

    # Validation ten times in a run, each with a checkpoint; where the text is read more than once,
    # at least every half epoch, to notice soon when the model begins to memorise it.
    eval_interval = asked.run.eval_interval or math.ceil(total_steps / 10)
    if asked.run.eval_interval is None and epochs >= REPEATED:
        eval_interval = min(eval_interval, math.ceil(batches.steps_per_epoch / 2))
    between = batches.windows_before(total_steps) * window * eval_interval / total_steps
    return RunPlan(
        model=asked.model,
        learning_rate=_learning_rate(asked, resumed),
        global_batch_size=global_batch_size,
        batch_warmup=batch_warmup,
        micro_batch_size=micro_batch_size,
        weight_decay=regular.weight_decay,
        dropout=regular.dropout,
        input_noise=regular.input_noise,
        bpe_dropout=regular.bpe_dropout,
        bigram_share=_bigram_share(asked, resumed),
        noise_steps=_noise_steps(epochs, total_steps, resumed),
        share_spelling=t.optimizer == "muon" if t.share_spelling is None else t.share_spelling,
        total_steps=total_steps,
        warmup_steps=schedule.warmup_steps,
        decay_steps=schedule.decay_steps,
        eval_interval=eval_interval,
        eval_tokens=_eval_tokens(asked, between, resumed),
        save_interval=asked.run.save_interval or eval_interval,
    )


def _bigram_share(asked: Config, resumed: Mapping[str, Any] | None) -> float:
    """What is asked for; where a model teaches or was trained before, counts have nothing to add.

    A run goes on as it began, by earlier versions without.
    """
    t = asked.training
    if t.bigram_share is not None:
        return t.bigram_share
    if resumed is not None:
        return float(resumed.get("bigram_share", 0.0))
    return 0.0 if t.teacher is not None or t.init_from is not None else BIGRAM_SHARE


def _learning_rate(asked: Config, resumed: Mapping[str, Any] | None) -> float:
    """The peak: scale / √hidden_size unless given, since wide layers need smaller steps.

    A run that goes on from a model keeps what it chose at its start (`rate_trial`).
    """
    given = asked.training.learning_rate
    if given is None and asked.training.init_from is not None and resumed is not None:
        given = resumed.get("learning_rate")
    return default_learning_rate(asked) if given is None else given


def _eval_tokens(asked: Config, between: float, resumed: Mapping[str, Any] | None) -> int:
    """What is asked for; a resumed run measures what its best checkpoint was chosen by."""
    given = asked.run.eval_tokens
    if given is None and resumed is not None:
        given = resumed.get("eval_tokens", MOST_EVAL_TOKENS)  # as the first versions did
    return default_eval_tokens(between) if given is None else given


def _regularisation(
    asked: Config, epochs: float, tokens: int, total_steps: int, resumed: Mapping[str, Any] | None
) -> Regularisation:
    """What is asked for, else what follows from the epochs; a run keeps it unless its budget does.

    So a run that an earlier version began goes on as it began.
    """
    parameters = asked.model.parameter_count
    values = dataclasses.asdict(default_regularisation(epochs, parameters, tokens))
    if resumed is not None and resumed.get("total_steps", total_steps) == total_steps:
        values = {name: resumed.get(name, 0.0) for name in values}
    given = {name: getattr(asked.training, name) for name in values}
    return Regularisation(**(values | {k: v for k, v in given.items() if v is not None}))


def _noise_steps(epochs: float, total_steps: int, resumed: Mapping[str, Any] | None) -> int:
    """Steps in which the text has noise: all of them in a run that an earlier version began."""
    if resumed is not None and resumed.get("total_steps") == total_steps:
        kept: int = resumed.get("noise_steps", total_steps)
        return kept
    plain = min(PLAIN_SHARE, PLAIN_EPOCHS / max(1.0, epochs))
    return round((1 - plain) * total_steps)


def _global_batch(
    asked: Config, train: Stream, resumed: Mapping[str, Any] | None, mixture: Mixture | None
) -> tuple[int, bool]:
    """Windows in an update, and whether the first updates have fewer.

    The batch is 2 · √(tokens of the run), and at least what an update of Muon costs
    (`default_tokens_per_step`). A run keeps the one it started with, also if its budget grows: the
    steps done would otherwise have been of other batches.
    """
    t, window = asked.training, asked.data.max_seq_len
    size, warmup = t.global_batch_size, t.batch_warmup
    if warmup is None:
        warmup = size is None
    if size is None and resumed is not None:
        return resumed["global_batch_size"], resumed["batch_warmup"]
    if size is None:
        wanted = max(1, round(_tokens_per_step(asked, train, mixture) / window))
        size = whole_micro_batches(wanted, window)
    return size, warmup


def _tokens_per_step(asked: Config, train: Stream, mixture: Mixture | None) -> float:
    """Tokens of a global batch, which follow from the budget in steps, tokens or epochs."""
    t, window, width = asked.training, asked.data.max_seq_len, asked.model.hidden_size
    if t.steps is not None:  # tokens = steps · batch, put into batch = 2 · √tokens
        return max(4.0 * t.steps, 12 * width)
    padded = asked.data.packing == "pad"
    epoch = len(train.documents) * window if padded else len(train)
    total = t.epochs * epoch
    if mixture is not None:  # epochs count the main text, the others are on top
        total *= mixture.passes / mixture.main_share
    return default_tokens_per_step(t.tokens if t.tokens is not None else total, width)


def saved_plan(state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The plan in a training state, as far as a resumed run keeps it.

    States of format 1 have the batch among their settings, under MiniMind's names.

    Raises:
        KeyError, TypeError: the state is not as this or an earlier version writes it.
    """
    old = state["config"]["training"]
    plan = {}
    if state.get("format", 1) < 3:  # weight_decay was a plain setting, and there was nothing else
        plan["weight_decay"] = old["weight_decay"]
    if "plan" in state:
        return plan | state["plan"]
    return plan | {
        "global_batch_size": old["batch_size"] * old["accumulation_steps"],
        "batch_warmup": old.get("batch_warmup", False),  # the first runs had none
    }
