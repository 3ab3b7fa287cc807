"""Settings of what a run writes, prints and keeps."""

from __future__ import annotations

from dataclasses import dataclass

from jielong.config.fields import option


@dataclass(frozen=True)
class RunConfig:
    """What a run writes, prints and keeps."""

    out_dir: str = option("runs/default", "Folder of the run.", free=True)
    log_interval: int = option(10, "Steps between two records of progress.", low=1, free=True)
    eval_interval: int | None = option(
        None,
        "Steps between two validations; default a tenth of the run, at most half an epoch.",
        low=1,
        free=True,
    )
    eval_tokens: int | None = option(
        None,
        "Held-out tokens of an intermediate validation; the last takes all. Default: so many that "
        "validating takes about a twentieth of the time, from 8192 to 65536.",
        low=1,
        free=True,
    )
    eval_suite: tuple[str, ...] = option(
        (),
        "Suites measured at each validation, as NAME or NAME=PATH, with at most 100 items of each "
        "set: cloze, copying, writing, memorising, text, grammar=PATH, tasks (see `jielong "
        "evaluate --suite`).",
        free=True,
    )
    patience: int = option(
        3,
        "Stop after so many validations in a row that are clearly worse than the best one; 0 never "
        "stops.",
        low=0,
        free=True,
    )
    save_interval: int | None = option(
        None, "Steps between two checkpoints; default with each validation.", low=1, free=True
    )
    save_minutes: float = option(
        10.0, "A checkpoint is at most this old, in minutes.", low=0.0, free=True
    )
    background_saves: bool = option(
        True,
        "Write checkpoints while training goes on, from a copy in the host's memory, if that has "
        "room for one.",
        free=True,
    )
    checkpoint_format: str = option(
        "auto",
        "What a checkpoint is: whole, a Hugging Face folder that one process gathers; sharded, "
        "each process writes the part that it has, and `jielong export` makes a Hugging Face "
        "folder of it; auto: sharded where a divided model does not fit whole in a host's memory.",
        choices=("auto", "whole", "sharded"),
        free=True,
    )
    on_save_error: str = option(
        "stop",
        "When a checkpoint cannot be written: stop, or go on and try again at the next.",
        choices=("stop", "continue"),
        free=True,
    )
    on_loss_spike: str = option(
        "continue",
        "When the loss jumps: name the texts and go on, or go back to the last checkpoint and "
        "leave that batch and the one before it out.",
        choices=("continue", "rewind"),
        free=True,
    )
    keep_checkpoints: int = option(
        2, "Newest checkpoints kept; the best is kept too.", low=1, free=True
    )
    keep_interval: int | None = option(
        None,
        "Steps between two checkpoints that are kept for good, beside the newest and the best.",
        low=1,
        free=True,
    )
    sample_prompts: tuple[str, ...] = option(
        (),
        "Prompts continued with each validation; default: openings of held-out texts.",
        free=True,
    )
    rank_timeout: float = option(
        120.0,
        "Seconds without progress, or without a word, after which one of several processes ends "
        "the run; five times as long for the first step and the first validation.",
        low=1.0,
        free=True,
    )
    cache_gb: float | None = option(
        None,
        "Disk for the shards of remote datasets, in GB (1e9 bytes), of all runs on a machine "
        "together; default: four fifths of what is free.",
        low=0.0,
        free=True,
    )
    tracker: tuple[str, ...] = option(
        (),
        "Records and samples also go to these: Weights & Biases, TensorBoard, SwanLab, Trackio, "
        "MLflow.",
        choices=("none", "wandb", "tensorboard", "swanlab", "trackio", "mlflow"),
        free=True,
    )
    tracker_project: str = option("jielong", "The trackers' project.", free=True)
    report: bool = option(
        True, "Write report.html, curves and samples of the run, with each validation.", free=True
    )
    profile: int = option(
        0,
        "Steps to profile, from the fourth on: profile/ in the run's folder gets a trace and a "
        "table of the slowest operations; 0 profiles none.",
        low=0,
        free=True,
    )
    sample_tokens: int = option(48, "Tokens of each sample; 0 draws none.", low=0, free=True)
