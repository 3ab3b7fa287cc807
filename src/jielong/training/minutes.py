"""A run of `--minutes`: which model the text and the time allow, and how long it trains.

Decided by measuring this machine for some seconds, and kept in the run's `chosen.toml`: a resumed
run goes on with the same choice wherever it is. `pace` corrects the tokens as the run trains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from jielong.config.load import load_toml
from jielong.config.settings import FIELDS, Config
from jielong.runtime.atomic import write_file
from jielong.runtime.run_folder import RunFolder
from jielong.training.scaling import (
    EVALUATION,
    MODEL_SIZES,
    MOST_EPOCHS,
    RATE_TRIAL_SHARE,
    REPEATED,
    TAUGHT,
    ModelSize,
    default_eval_tokens,
    default_tokens_per_step,
    epochs_each,
    teachers_for,
    tokens_for,
    vocabulary_for,
)
from jielong.training.speed import Machine, Speed, measure_speed
from jielong.training.texts import RunTexts

LATER = ("dtype", "minutes", "tokens", "teachers")  # what is chosen after the size
SIZE = "hidden_size"  # is there once a size has been chosen
BYTES_PER_TOKEN = 3.0  # about, before there is a tokenizer
USED_SHARE = 0.92  # of the time; the rest is for the end of the run, and for other programs' noise
PAUSE_S = 0.5  # for the checkpoint and the sample of each validation


@dataclass(frozen=True)
class TextSize:
    """What is known of a text before it is read."""

    bytes: int
    vocabulary: int | None = None  # of its tokenizer, if it has one


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
    file = folder.chosen_file
    # what a start chose that found no text to begin with was perhaps for another text or time
    kept = load_toml(file) if file.exists() and folder.started else {}
    if SIZE in kept:
        return config.with_values(**{k: v for k, v in kept.items() if k not in LATER})
    measured = text()
    vocabulary = measured.vocabulary or vocabulary_for(measured.bytes)
    text_tokens = max(1, round(measured.bytes / BYTES_PER_TOKEN))
    size, tokens = largest_size(
        config.with_values(vocab_size=vocabulary),
        text_tokens,
        _seconds_left(config, started),
        lambda candidate: measure_speed(candidate, machine, REPEATED),  # most will be read again
    )
    log(
        f"chosen     {size.hidden_size} wide, {size.num_hidden_layers} layers, vocabulary "
        f"{vocabulary}: the largest that can see enough tokens in {config.training.minutes:g} "
        f"min here, {_counted(tokens)} tokens of a text of about {_counted(text_tokens)}"
    )
    values = size.values() | {"vocab_size": vocabulary}
    write_chosen(file, kept | values)
    return config.with_values(**values)


def largest_size(
    config: Config, text_tokens: int, seconds: float, speed_of: Callable[[Config], Speed]
) -> tuple[ModelSize, float]:
    """Return the largest model that sees enough tokens in the time, and how many it sees.

    Args:
        config: everything but the model's size.
        speed_of: measures a candidate; asked from the smallest one on.
    """
    best: tuple[ModelSize, float] | None = None
    smaller = 0
    for size in MODEL_SIZES:
        candidate = config.with_values(**size.values())
        parameters = candidate.model.parameter_count
        if best is not None and 2 * best[1] * smaller / parameters < tokens_for(parameters):
            break  # too slow, even if the arithmetic is done twice as fast: not worth measuring
        speed = speed_of(candidate)
        tokens = min(tokens_in(candidate, speed, seconds, text_tokens), MOST_EPOCHS * text_tokens)
        if best is not None and tokens < tokens_for(parameters):
            break
        best, smaller = (size, tokens), parameters
    assert best is not None
    return best


def choose_tokens(
    config: Config,
    texts: RunTexts,
    folder: RunFolder,
    machine: Machine,
    started: float,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Turn the minutes that are left into tokens and teachers, unless that has been done.

    Where a model could read the text very often, it shares the time with teachers, each of which
    reads it as often as it does, and MOST_EPOCHS times at most. A run that goes on with other
    minutes gets another budget; its model and its teachers stay those it has.

    Args:
        texts: those that are mixed into the main one come on top of an epoch.

    Returns:
        The settings `tokens` and `teachers`.
    """
    file, minutes = folder.chosen_file, config.training.minutes
    values = load_toml(file) if file.exists() else {}
    if "tokens" not in values or values.get("minutes", minutes) != minutes:
        asked = values.get("teachers", config.training.teachers)
        epoch = texts.epoch_tokens
        splits = [text.dataset.validation for text in texts.every]
        held_out = sum(len(s) for s in splits if s is not None)
        tokens, teachers = _budget(config, epoch, held_out, machine, started, asked)
        values |= {"tokens": max(config.data.max_seq_len, round(tokens)), "minutes": minutes}
        values["teachers"] = teachers
        if teachers and asked is None:
            log(
                f"teachers   {teachers}, with which the model shares the time: each reads the text "
                f"{tokens / epoch:.3g} times"
            )
        if tokens > 0.99 * MOST_EPOCHS * epoch:
            log(
                f"the text is read {MOST_EPOCHS} times: more would only memorise it. So the run "
                "ends sooner"
            )
        write_chosen(file, values)
    return {"tokens": values["tokens"], "teachers": values.get("teachers", 0)}


def replace_tokens(folder: RunFolder, tokens: int) -> None:
    """Keep another number of tokens as the budget of a run of `--minutes`."""
    file = folder.chosen_file
    write_chosen(file, load_toml(file) | {"tokens": tokens})


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
    if asked is None:
        teachers = teachers_for(epochs)
        tokens = epoch * epochs_each(epochs, teachers)
    return min(tokens, MOST_EPOCHS * epoch), teachers


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


def _counted(tokens: float) -> str:
    return f"{tokens / 1e6:.1f}M" if tokens >= 1e6 else f"{float(f'{tokens:.2g}'):,.0f}"


def _seconds_left(config: Config, started: float) -> float:
    assert config.training.minutes is not None
    return max(1.0, config.training.minutes * 60 - (time.monotonic() - started))


def write_chosen(file: Path, values: dict[str, Any]) -> None:
    """Write what a run has chosen, settings by name, as tables of `chosen.toml`."""
    tables: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        tables.setdefault(FIELDS[name].section, {})[name] = value
    write_file(file, tomli_w.dumps(tables).encode())
