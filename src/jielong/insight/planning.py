"""Makes a plan: what a run will take, before it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from jielong.config.settings import Config
from jielong.errors import ConfigError
from jielong.insight.arithmetic import Part, parts_of, training_flops
from jielong.insight.plan import PlanView, TimeByKind
from jielong.insight.plan_memory import Training, largest_micro_batch
from jielong.insight.subject import Log, config_of, opened, silent
from jielong.model.attention_backends import MIN_MEAN_LENGTH
from jielong.runtime.cards import Card, card_named
from jielong.runtime.device import available_memory, choose_device, choose_dtype, describe
from jielong.training.memory import RECOMPUTE_EVERY
from jielong.training.minutes import PAUSE_S
from jielong.training.run_data import RunData
from jielong.training.scaling import EVALUATION, TAUGHT, default_micro_batch_size
from jielong.training.speed import Machine, Speed, measure_speed

MFU = 0.3  # assumed share of a named GPU's peak: small models reach 0.2 to 0.45
STARTING_S = 3.0  # of Python, torch and the first step


def plan(
    settings: Config | Mapping[str, Any],
    gpu: str | None = None,
    mfu: float = MFU,
    price_per_hour: float | None = None,
    log: Log = silent,
) -> PlanView:
    """Return what a run with these settings would take: `jielong plan`.

    The text is prepared in a temporary folder, unless it is a prepared dataset.

    Args:
        settings: as `pretrain` takes them.
        gpu: plan for a GPU by name (rtx3090, rtx4090, a100, h100, h200) instead of this machine.
        mfu: share of that GPU's peak that training is assumed to reach.
        price_per_hour: of the machine, in any currency.
        log: takes the lines of what is prepared.

    Returns:
        Parameters, tokens, memory (bytes), time (seconds), tokens a second and cost.

    Raises:
        ConfigError: a setting is wrong, or a time is given for a GPU that is not here.
        DataError: the text cannot be read.
    """
    if not 0 < mfu <= 1:
        raise ConfigError(f"mfu={mfu:g}: give a share of the peak above 0 and up to 1")
    if price_per_hour is not None and price_per_hour < 0:
        raise ConfigError(f"price_per_hour={price_per_hour:g} is below 0")
    named = card_named(gpu) if gpu else None
    config = config_of(settings, budgeted=named is None)
    if named and config.training.minutes is not None:
        raise ConfigError(
            "--minutes measures this machine, which says nothing of another GPU: give a size "
            "(--preset, --hidden-size) and --epochs, --tokens or --steps"
        )
    if named and config.training.dtype == "auto":
        config = config.with_values(dtype="bfloat16")  # what these cards have, whatever is here
    started = time.monotonic()
    with opened(config, log) as data:
        return _plan(data, time.monotonic() - started, named, mfu, price_per_hour)


def _plan(
    data: RunData, preparing: float, gpu: Card | None, mfu: float, price: float | None
) -> PlanView:
    config, run, train = data.config, data.plan, data.dataset.train
    window, model = config.data.max_seq_len, run.model
    lengths = np.diff(train.documents, append=len(train))
    masked = config.data.document_mask and config.data.packing == "pack"
    parts = parts_of(model, window, float(lengths.mean()) if masked else None)
    windows = data.batches.windows_before(run.total_steps)
    epochs = windows / data.batches.windows
    device = torch.device("cuda") if gpu else choose_device(config.training.device)
    training = Training(
        micro_batch=_micro_batch(data, device),
        window=window,
        masked=_masked_keys(float(lengths.mean()), window)
        if masked and device.type == "cpu"
        else 0,
        muon=config.training.optimizer == "muon",
        average=config.training.average_weights,
        on_gpu=device.type != "cpu",
        recompute_every=RECOMPUTE_EVERY[config.training.activation_checkpointing],
    )
    available = gpu.memory if gpu else _available(device)
    fits, memory = largest_micro_batch(model, parts, training, available or 2**62)
    parameters = dict.fromkeys(dict.fromkeys(part.kind for part in parts), 0)
    for part in parts:
        parameters[part.kind] += part.parameters
    total = sum(parameters.values())
    speed, device_name = _speed(data, parts, gpu, mfu, epochs)
    seconds = _time(data, speed, preparing, windows * window)
    return PlanView(
        parameters=total,
        active_parameters=total - _inactive(parts, data),
        parameters_by_part=parameters,
        embedding_share=(parameters["embedding"] + parameters["head"]) / total,
        width=model.hidden_size,
        vocabulary=model.vocab_size,
        flops=training_flops(parts),
        text_tokens=len(train),
        text_bytes=train.text_bytes,
        documents=len(train.documents),
        document_tokens_50=int(np.percentile(lengths, 50)),
        document_tokens_95=int(np.percentile(lengths, 95)),
        held_out_tokens=len(data.dataset.validation or ()),
        tokens=windows * window,
        steps=run.total_steps,
        epochs=epochs,
        window=window,
        global_batch=run.global_batch_size,
        micro_batch=training.micro_batch,
        micro_batch_that_fits=fits,
        memory=memory,
        available=available,
        device=device_name,
        gpu=gpu.name if gpu else None,
        measured=gpu is None,
        mfu=mfu if gpu else None,
        tokens_per_second=windows * window / seconds.training,
        time=seconds,
        price_per_hour=price,
        cost=None if price is None else price * seconds.total / 3600,
    )


def _micro_batch(data: RunData, device: torch.device) -> int:
    """Windows of a pass: as asked for, or what training would take on that device."""
    asked, window = data.config.training.micro_batch_size, data.config.data.max_seq_len
    if asked is not None:
        return data.plan.micro_batch_size
    return default_micro_batch_size(data.plan.global_batch_size, window, device)


def _masked_keys(mean_length: float, window: int) -> int:
    return window if mean_length < MIN_MEAN_LENGTH else min(round(mean_length), window)


def _available(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()


def _inactive(parts: list[Part], data: RunData) -> int:
    """Parameters of the experts that a token does not pass."""
    model = data.plan.model
    routed = sum(p.parameters for p in parts if ".experts." in p.name)
    return routed * (model.num_experts - model.num_experts_per_tok) // model.num_experts


def _speed(
    data: RunData, parts: list[Part], gpu: Card | None, mfu: float, epochs: float
) -> tuple[Speed, str]:
    """Seconds of a token and of an update, and the device they are for."""
    if gpu is not None:
        return Speed(training_flops(parts) / (gpu.bf16_flops * mfu), 0.0), gpu.name
    device = choose_device(data.config.training.device)
    config = data.config.with_values(vocab_size=data.plan.model.vocab_size)
    dtype = choose_dtype(config.training.dtype, device, config.model.hidden_size)
    return measure_speed(config, Machine(device), epochs), describe(device, dtype)


def _time(data: RunData, speed: Speed, preparing: float, tokens: int) -> TimeByKind:
    training, eval_tokens = data.config.training, data.plan.eval_tokens
    seconds = tokens * speed.token + data.plan.total_steps * speed.update
    if training.teachers:
        seconds *= 1 + TAUGHT * training.teachers
    elif training.teacher is not None:
        seconds *= TAUGHT
    held_out = len(data.dataset.validation or ())
    count = math.ceil(data.plan.total_steps / data.plan.eval_interval)
    measured = count * min(held_out, eval_tokens)
    if held_out > eval_tokens:
        measured += held_out  # all of it, once, at the end
    validating = measured * speed.token * EVALUATION + count * PAUSE_S
    return TimeByKind(preparing + STARTING_S, seconds, validating)
