"""Every setting of a run: frozen dataclasses, read from TOML and flags, checked by name.

The architecture's settings are in `config/model.py`, those of the text in `config/data.py`, those
of what a run writes and keeps in `config/run.py`; `config/load.py` merges the layers of values.
A field carries its own help text and bounds, so `--help`, validation and the docs cannot disagree.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field, fields
from typing import Any

import tomli_w

from jielong.config.aliases import with_global_batch_size
from jielong.config.data import DataConfig as DataConfig
from jielong.config.encodings import AUTO, codec_name
from jielong.config.fields import FieldSpec, collect_fields, option
from jielong.config.hints import hint
from jielong.config.mixture import check_mixture, check_replay
from jielong.config.model import ModelConfig
from jielong.config.run import RunConfig
from jielong.config.suites import suite_requests
from jielong.config.templates import check_text_template
from jielong.errors import ConfigError

IGNORE_INDEX = -100  # a target that does not count (torch's value), such as padding


@dataclass(frozen=True)
class TrainingConfig:
    """Budget, optimizer, schedule and precision."""

    epochs: float = option(1.0, "Budget in passes over the data.", low=0.0)
    steps: int | None = option(None, "Budget in optimizer steps.", low=1)
    minutes: float | None = option(
        None,
        "Budget in minutes from the start: the tokens that fit follow from this machine's speed, "
        "and are kept with the run.",
        low=0.1,
    )
    auto_size: bool = option(
        False,
        "Choose model, vocabulary and window by the text and --minutes; the default with --minutes "
        "where no preset and no size is given.",
    )
    tokens: int | None = option(None, "Budget in training tokens.", low=1)
    global_batch_size: int | None = option(
        None,
        "Windows in an update, over all processes; default follows from the budget.",
        low=1,
    )
    batch_warmup: bool | None = option(
        None,
        "Start with small batches that grow to the full one; default: if global_batch_size is "
        "not set.",
    )
    micro_batch_size: int | str | None = option(
        None,
        "Windows in a forward and backward pass, over all processes, or auto: the most that fit "
        "in memory; default follows from the device. It decides memory and speed: the update is "
        "the same, but for rounding.",
        low=1,
        words=("auto",),
        free=True,
    )
    optimizer: str = option(
        "muon",
        "Muon for the hidden matrices, AdamW for the rest; or AdamW.",
        choices=("muon", "adamw"),
    )
    learning_rate: float | None = option(
        None,
        "Peak learning rate; default follows from the optimizer and model size, and with init_from "
        "from a short trial.",
        low=0.0,
    )
    beta1: float = option(0.8, "AdamW's first decay rate.", low=0.0, high=1.0)
    beta2: float = option(0.99, "AdamW's second decay rate.", low=0.0, high=1.0)
    adam_eps: float = option(1e-8, "AdamW's epsilon.", low=0.0)
    weight_decay: float | None = option(
        None,
        "Decoupled decay, on matrices only; default 0.1, more where the text is read often.",
        low=0.0,
    )
    dropout: float | None = option(
        None,
        "Share of the embedding and of each layer's output dropped in training; default 0, more "
        "where the text is read often.",
        low=0.0,
        high=0.9,
    )
    input_noise: float | None = option(
        None,
        "Share of the input tokens replaced by random ones in training; default 0, more where the "
        "text is read often.",
        low=0.0,
        high=0.9,
    )
    bpe_dropout: float | None = option(
        None,
        "Share of the tokens split into the two that they were merged from, in training; default "
        "0, more where the text is read often.",
        low=0.0,
        high=0.9,
    )
    bigram_share: float | None = option(
        None,
        "Share of the objective that is, as a run begins, what follows each token in the whole "
        "text; it falls to 0 by half of the run. Default 0.5, and 0 with a teacher or --init-from.",
        low=0.0,
        high=1.0,
    )
    share_spelling: bool | None = option(
        None,
        "Let tokens that are spelled alike learn together: the, The, there. Default: with Muon.",
    )
    muon_momentum: float = option(0.8, "Muon's Nesterov momentum.", low=0.0, high=1.0)
    average_weights: bool = option(
        True, "Measure, sample and keep a running average of the weights, not the latest."
    )
    grad_clip: float = option(1.0, "Largest gradient norm; 0 leaves it alone.", low=0.0)
    schedule: str = option(
        "wsd",
        "Learning rate over the run.",
        choices=("wsd", "cosine", "linear", "constant"),
    )
    warmup_steps: int | None = option(None, "Warm-up in steps; default warmup_ratio.", low=0)
    warmup_ratio: float = option(0.02, "Warm-up as a share of the run.", low=0.0, high=1.0)
    decay_ratio: float = option(0.5, "Share of the run in which wsd decays.", low=0.0, high=1.0)
    min_lr_ratio: float = option(
        0.0, "Final learning rate as a share of the peak.", low=0.0, high=1.0
    )
    teacher: str | None = option(
        None,
        "A trained model, or its run, of the same tokenizer: half of what is learnt is what it "
        "predicts.",
    )
    teachers: int | None = option(
        None,
        "Models to train first, each a teacher of the next, the last one's of this run; each with "
        "the same budget, or with its share of --minutes. Default 0; with --minutes, what the time "
        "allows once a text has been read often enough.",
        low=0,
    )
    init_from: str | None = option(
        None, "Model folder whose architecture and weights a new run starts from."
    )
    seed: int = option(1337, "Seed of the weights and of the data's order.", low=0)
    device: str = option(
        "auto", "Where to train.", choices=("auto", "cpu", "cuda", "mps"), free=True
    )
    dtype: str = option(
        "auto",
        "Precision of the forward pass; the weights stay float32.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    compile: str = option(
        "auto", "torch.compile: auto weighs its warm-up.", choices=("auto", "on", "off"), free=True
    )
    activation_checkpointing: str = option(
        "none",
        "Compute layers again in the backward pass instead of keeping what they computed: saves "
        "memory and costs time; selective: every second layer.",
        choices=("none", "selective", "full"),
        free=True,
    )
    parallel: str = option(
        "auto",
        "With several processes: ddp, each holds the whole model; fsdp, each holds a part of "
        "weights, gradients and optimizer state; auto: ddp where that fits in memory.",
        choices=("auto", "ddp", "fsdp"),
        free=True,
    )
    shard_degree: int | None = option(
        None,
        "With fsdp: processes that share one copy of the model; the next as many have another "
        "(HSDP). Default: all share one.",
        low=2,
        free=True,
    )
    cpu_offload: bool = option(
        False,
        "With fsdp on GPUs: weights, gradients and optimizer state stay in the host's memory.",
        free=True,
    )


@dataclass(frozen=True)
class Config:
    """A whole run. Sections become TOML tables; field names are unique over all of them."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def with_values(self, **values: Any) -> Config:
        """Return a validated copy with fields replaced by bare name, e.g. `hidden_size=256`.

        Raises:
            ConfigError: a name is unknown, a value is invalid, or two fields conflict.
        """
        changes: dict[str, dict[str, Any]] = {}
        for name, value in with_global_batch_size(values).items():
            spec = FIELDS.get(name) or _unknown(name)
            changes.setdefault(spec.section, {})[name] = spec.parse(value)
        sections = {
            section: dataclasses.replace(getattr(self, section), **change)
            for section, change in changes.items()
        }
        return dataclasses.replace(self, **sections).validated()

    def validated(self) -> Config:
        """Return this config, or raise a ConfigError that names the field and the fix."""
        for name, spec in FIELDS.items():
            spec.check(getattr(getattr(self, spec.section), name))
        m, t = self.model, self.training
        m.validated()
        if self.data.text_template is not None:
            default = FIELDS["text_field"].default
            check_text_template(self.data.text_template, self.data.text_field, default)
        if self.data.encoding not in (None, AUTO):
            codec_name(self.data.encoding)
        if t.epochs == 0:
            raise ConfigError("training.epochs=0 trains nothing: give a part of one, such as 0.1")
        if t.steps is not None and t.tokens is not None:
            raise ConfigError("training.steps and training.tokens both set a budget: give one")
        if t.minutes is not None and t.steps is not None:
            raise ConfigError("training.minutes and training.steps both set a budget: give one")
        suite_requests(self.run.eval_suite, label="run.eval_suite")
        if self.data.mixture:
            check_mixture(self.data)
        if self.data.replay is not None:
            check_replay(self.data.replay, self.data.data_path)
        if self.data.shuffle_shards is not None and not self.data.shuffle:
            raise ConfigError("data.shuffle_shards shuffles: leave it out with data.shuffle=false")
        for name in ("shard_degree", "cpu_offload"):
            if getattr(t, name) and t.parallel != "fsdp":
                raise ConfigError(f"training.{name} is for --parallel fsdp alone")
        if t.auto_size and t.minutes is None:
            raise ConfigError("training.auto_size needs a time: give --minutes")
        if self.run.on_loss_spike == "rewind" and self.run.keep_checkpoints < 2:
            raise ConfigError(
                "run.on_loss_spike=rewind needs run.keep_checkpoints=2 or more: the newest "
                "checkpoint may already have what made the loss jump"
            )
        if m.max_position_embeddings and m.max_position_embeddings < self.data.max_seq_len:
            raise ConfigError(
                f"data.max_seq_len={self.data.max_seq_len} is longer than "
                f"model.max_position_embeddings={m.max_position_embeddings}"
            )
        return self

    def flat(self) -> dict[str, Any]:
        """Return all values by bare field name."""
        return {name: getattr(getattr(self, spec.section), name) for name, spec in FIELDS.items()}

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Return TOML tables, without fields that are None (derived later): TOML has no null."""
        return {
            section.name: {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in dataclasses.asdict(getattr(self, section.name)).items()
                if value is not None
            }
            for section in fields(self)
        }

    def to_toml(self) -> str:
        return tomli_w.dumps(self.to_tables())


FIELDS: dict[str, FieldSpec] = collect_fields(Config)
# defaults that earlier versions stored with a run, of settings that now follow from the text
FORMER_DEFAULTS = {"weight_decay": (0.1,), "validation_fraction": (0.01, 0.03)}


def same_setting(name: str, stored: Any, now: Any) -> bool:
    """Whether a stored value means what the value now says: a former default is no choice."""
    return stored == now or (now is None and stored in FORMER_DEFAULTS.get(name, ()))


def _unknown(name: str) -> typing.NoReturn:
    raise ConfigError(f"unknown setting {name!r}{hint(name, FIELDS)}")
