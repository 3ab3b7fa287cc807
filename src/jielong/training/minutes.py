"""A run of `--minutes`: which model the text and the time allow, and how long it trains.

Decided by measuring this machine for some seconds, and kept in the run's `chosen.toml`: a resumed
run goes on with the same choice wherever it is. `pace` corrects the tokens as the run trains.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch

from jielong.config.load import load_toml
from jielong.config.settings import FIELDS, Config
from jielong.data.batches import Batch
from jielong.model.transformer import Transformer
from jielong.runtime.atomic import write_file
from jielong.runtime.run_folder import RunFolder
from jielong.training.optimizer import Optimizer
from jielong.training.scaling import (
    CPU_TOKENS,
    EVALUATION,
    MICRO_BATCH_TOKENS,
    MODEL_SIZES,
    MOST_EPOCHS,
    RATE_TRIAL_SHARE,
    REPEATED,
    ModelSize,
    default_eval_tokens,
    default_learning_rate,
    default_regularisation,
    default_tokens_per_step,
    tokens_for,
    vocabulary_for,
)
from jielong.training.step import TrainStep
from jielong.training.texts import RunTexts

CHOSEN = "chosen.toml"
BUDGET = ("minutes", "tokens", "teachers")  # of what is in it; the rest is the model's size
BYTES_PER_TOKEN = 3.0  # about, before there is a tokenizer
USED_SHARE = 0.92  # of the time; the rest is for the end of the run, and for other work's noise
TAUGHT = 1.4  # times as long takes training with a teacher, which predicts as well
MOST_TEACHERS = 3
PAUSE_S = 0.5  # for the checkpoint and the sample of each validation
LEAST_REPEATS, LEAST_S = 3, 1.0  # of what is timed


@dataclass(frozen=True)
class TextSize:
    """What is known of a text before it is read."""

    bytes: int
    vocabulary: int | None = None  # of its tokenizer, if it has one


@dataclass(frozen=True)
class Machine:
    """Where a run trains."""

    device: torch.device
    dtype: torch.dtype
    processes: int = 1


@dataclass(frozen=True)
class Speed:
    """What training costs on this machine, in seconds."""

    token: float  # forward and backward
    update: float  # of the optimizer

    def of_run(self, tokens: float, tokens_per_step: float) -> float:
        """Seconds that training on `tokens` takes."""
        return tokens * self.token + tokens / tokens_per_step * self.update


def choose_size(
    config: Config,
    text: Callable[[], TextSize],
    folder: RunFolder,
    machine: Machine,
    started: float,
    log: Callable[[str], None],
) -> Config:
    """Choose the model, its vocabulary and its window, unless that has been done or is not wished.

    The largest model is taken that sees enough tokens in the time (`tokens_for`).

    Args:
        text: measures the text; called only where nothing has been chosen.
        started: when the run began, as `time.monotonic` says.
        log: takes a line for the user.
    """
    if not config.training.auto_size:
        return config
    file = folder.path / CHOSEN
    if file.exists():
        kept = load_toml(file)
        return config.with_values(**{k: v for k, v in kept.items() if k not in BUDGET})
    measured = text()
    vocabulary = measured.vocabulary or vocabulary_for(measured.bytes)
    text_tokens = max(1, round(measured.bytes / BYTES_PER_TOKEN))
    seconds = _seconds_left(config, started)
    best: tuple[ModelSize, float] | None = None
    smaller = 0
    for size in MODEL_SIZES:
        values = size.values() | {"vocab_size": vocabulary}
        candidate = config.with_values(**values)
        parameters = candidate.model.parameter_count
        if best is not None and 2 * best[1] * smaller / parameters < tokens_for(parameters):
            break  # too slow, even if the arithmetic is done twice as fast: not worth measuring
        speed = measure_speed(candidate, machine, REPEATED)  # most texts will be read again
        tokens = min(tokens_in(candidate, speed, seconds, text_tokens), MOST_EPOCHS * text_tokens)
        if best is not None and tokens < tokens_for(parameters):
            break
        best, smaller = (size, tokens), parameters
    assert best is not None
    size, tokens = best
    log(
        f"chosen     {size.hidden_size} wide, {size.num_hidden_layers} layers, vocabulary "
        f"{vocabulary}: the largest that can see enough tokens in {config.training.minutes:g} "
        f"minutes here, {tokens / 1e6:.1f}M of a text of about {text_tokens / 1e6:.2g}M"
    )
    values = size.values() | {"vocab_size": vocabulary}
    _write(file, values)
    return config.with_values(**values)


def choose_tokens(
    config: Config,
    texts: RunTexts,
    folder: RunFolder,
    machine: Machine,
    started: float,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Turn the minutes that are left into tokens and teachers, unless that has been done.

    A text is read MOST_EPOCHS times at most. If there is time for more, it is for teachers, each of
    which reads it as often. A run that goes on with other minutes gets another budget; its model
    and its teachers stay those it has.

    Args:
        texts: those that are mixed into the main one come on top of an epoch.

    Returns:
        The settings `tokens` and `teachers`.
    """
    file, minutes = folder.path / CHOSEN, config.training.minutes
    values = load_toml(file) if file.exists() else {}
    if "tokens" not in values or values.get("minutes", minutes) != minutes:
        asked = values.get("teachers", config.training.teachers)
        epoch = texts.epoch_tokens
        splits = [text.dataset.validation for text in texts.every]
        held_out = sum(len(s) for s in splits if s is not None)
        tokens, teachers = _budget(config, epoch, held_out, machine, started, asked)
        values |= {"tokens": max(config.data.max_seq_len, round(tokens)), "minutes": minutes}
        values["teachers"] = teachers
        if tokens > 0.99 * MOST_EPOCHS * epoch:
            log(
                f"the text is read {MOST_EPOCHS} times: more would only memorise it. "
                + (
                    f"The time is also for {teachers} models to learn from"
                    if teachers
                    else "So the run ends sooner"
                )
            )
        _write(file, values)
    return {"tokens": values["tokens"], "teachers": values.get("teachers", 0)}


def replace_tokens(folder: RunFolder, tokens: int) -> None:
    """Keep another number of tokens as the budget of a run of `--minutes`."""
    file = folder.path / CHOSEN
    _write(file, load_toml(file) | {"tokens": tokens})


def _budget(
    config: Config,
    epoch: float,
    held_out: int,
    machine: Machine,
    started: float,
    asked: int | None,
) -> tuple[float, int]:
    """Tokens of a run and the number of its teachers, as asked for or as many as there is time for.

    Each teacher trains on as many tokens. A model that has a teacher takes TAUGHT as long.

    Args:
        epoch: tokens for which the text is read once.
        held_out: tokens of the held-out text.
    """
    teachers, epochs = asked or 0, 1.0
    for _ in range(2):  # the second time as the first one's epochs ask for
        speed = measure_speed(config, machine, epochs)
        seconds = _seconds_left(config, started) / (1 + TAUGHT * teachers)
        if config.training.init_from is not None and config.training.learning_rate is None:
            seconds *= 1 - RATE_TRIAL_SHARE
        tokens = tokens_in(config, speed, seconds, epoch, held_out)
        epochs = tokens / epoch
        if epochs < REPEATED:
            break
    most = MOST_EPOCHS * epoch
    if asked is None:
        teachers = max(0, min(MOST_TEACHERS, int((tokens / most - 1) / TAUGHT)))
    return min(tokens, most), teachers


def tokens_in(
    config: Config, speed: Speed, seconds: float, text_tokens: float, held_out: int = 0
) -> float:
    """Tokens that can be trained on in `seconds`, validations included, by bisection.

    At least half of the time is for training, however long validations seem to take.
    """
    low, high = 0.0, max(1.0, seconds / speed.token)
    for _ in range(40):
        tokens = (low + high) / 2
        step = default_tokens_per_step(tokens, config.model.hidden_size)
        validations = max(10.0, 2 * tokens / text_tokens)
        measured = config.run.eval_tokens or default_eval_tokens(tokens / validations)
        measuring = validations * (min(held_out, measured) * speed.token * EVALUATION + PAUSE_S)
        training = max(seconds * USED_SHARE - measuring, seconds / 2)
        if speed.of_run(tokens, max(step, 1.0)) <= training:
            low = tokens
        else:
            high = tokens
    return low


def measure_speed(config: Config, machine: Machine, epochs: float = 1.0) -> Speed:
    """Time passes and updates of a model on random tokens; takes some seconds.

    Args:
        epochs: where a text is read more than once, passes have dropout.
    """
    device = machine.device
    state = torch.get_rng_state()
    model = Transformer(config.model).to(device)
    torch.set_rng_state(state)
    window = config.data.max_seq_len
    at_once = CPU_TOKENS if device.type == "cpu" else MICRO_BATCH_TOKENS
    rows = max(1, at_once // window)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.model.vocab_size, (rows, window + 1), generator=generator)
    seeds = torch.arange(rows)
    documents = None
    if config.data.document_mask and config.data.packing == "pack":
        # a border in each window: attention within documents costs more than without
        documents = (torch.arange(window) >= window // 2).int().expand(rows, window)
    batch = Batch(ids[:, :-1], ids[:, 1:], documents, seeds.numpy(), seeds)
    training = config.with_values(weight_decay=0.1).training
    optimizer = Optimizer(model, training, default_learning_rate(config))
    parameters = config.model.parameter_count
    dropout = default_regularisation(epochs, parameters, parameters).dropout
    step = TrainStep(model, optimizer, grad_clip=1.0, dtype=machine.dtype, dropout=dropout)
    whole = _seconds(lambda: step([batch], 0.0), device)
    update = _seconds(lambda: optimizer.step(0.0), device)
    token = max(1e-9, whole - update) / (rows * window * machine.processes)
    return Speed(token, update)


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    """The median time of some repetitions, after a first one.

    Not the shortest: what slows some of them down will slow the run down as well.
    """
    times: list[float] = []
    while len(times) <= LEAST_REPEATS or sum(times[1:]) < LEAST_S:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _seconds_left(config: Config, started: float) -> float:
    assert config.training.minutes is not None
    return max(1.0, config.training.minutes * 60 - (time.monotonic() - started))


def _write(file: Path, values: dict[str, Any]) -> None:
    tables: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        tables.setdefault(FIELDS[name].section, {})[name] = value
    write_file(file, tomli_w.dumps(tables).encode())
