"""jielong from Python: these names, and nothing else is public."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jielong.checkpoint.checkpoint import find_model_folder, load_model
from jielong.cleaning.clean import clean as clean_text
from jielong.cleaning.report import CleanReport
from jielong.config.cleaning import FIELDS as CLEANING_FIELDS
from jielong.config.cleaning import make_cleaning
from jielong.config.engine import Engine
from jielong.config.load import load_config, with_default_budget
from jielong.config.sampling import make_sampling
from jielong.config.settings import Config
from jielong.data.prepare.prepare import prepare as prepare_dataset
from jielong.data.prepare.report import PrepareReport
from jielong.errors import ConfigError
from jielong.evaluation.likelihood import evaluate_documents
from jielong.evaluation.sums import Likelihood
from jielong.generation.generate import TextGenerator
from jielong.insight.attention import inspect_attention
from jielong.insight.data import inspect_data
from jielong.insight.embeddings import inspect_embeddings
from jielong.insight.experts import inspect_experts
from jielong.insight.layers import inspect_layers
from jielong.insight.model import inspect_model
from jielong.insight.planning import plan
from jielong.insight.predictions import inspect_predictions
from jielong.insight.schedule import inspect_schedule
from jielong.insight.tokenizer import inspect_tokenizer
from jielong.interop.export import export
from jielong.interop.minimind import import_minimind
from jielong.model.transformer import Transformer, context_length
from jielong.reports.results import list_runs as runs
from jielong.reports.results import read_report as report
from jielong.runtime.device import choose_device
from jielong.runtime.files import as_paths, check_writable
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.inputs import train_on_corpus
from jielong.training.on_ray import pretrain_on_ray
from jielong.training.pretrain import pretrain as train
from jielong.training.result import RunResult
from jielong.training.staged import prepare_mixture as prepare_datasets
from jielong.training.staged import tokenizer_of_mixture
from jielong.training.suites import evaluate_suites

__all__ = [
    "TextGenerator",
    "clean",
    "evaluate",
    "evaluate_suites",
    "export",
    "generate",
    "import_minimind",
    "inspect_attention",
    "inspect_data",
    "inspect_embeddings",
    "inspect_experts",
    "inspect_layers",
    "inspect_model",
    "inspect_predictions",
    "inspect_schedule",
    "inspect_tokenizer",
    "load",
    "plan",
    "prepare",
    "prepare_mixture",
    "pretrain",
    "report",
    "runs",
    "train_tokenizer",
]


def load(
    run_or_checkpoint: str | Path, device: str = "auto", checkpoint: str = "best"
) -> tuple[Transformer, Tokenizer]:
    """A trained model, in eval mode, and its tokenizer.

    Args:
        run_or_checkpoint: a run's folder, a checkpoint, or any Hugging Face folder of a Llama or
            Qwen3 model.
        device: auto, cpu, cuda or mps.
        checkpoint: of a run: best (by held-out loss), last or a step.

    Returns:
        `model, tokenizer`: `model(tokens).logits` is (B, T, vocabulary) for tokens (B, T), and
        `tokenizer.encode(text)` gives ids, without bos.

    Raises:
        CheckpointError: there is no model, or it is damaged.
        ConfigError: the device is not there.
    """
    model, tokenizer = load_model(find_model_folder(run_or_checkpoint, checkpoint))
    return model.to(choose_device(device)), tokenizer


def generate(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int = 256,
    stop: Sequence[str] = (),
    **sampling: Any,
) -> Iterator[str]:
    """The continuation of `prompt`, piece by piece as it comes; ends where the text ends.

    Args:
        model, tokenizer: as `load` gives them.
        prompt: the text to continue; may be empty.
        max_new_tokens: most tokens to write.
        stop: texts before the first of which to stop.
        **sampling: temperature, top_k, top_p, min_p, repetition_penalty, seed.

    A `TextGenerator` does the same for many texts, and packs the weights once for all of them.

    Yields:
        Text without the prompt; a character that takes several tokens comes whole.

    Raises:
        ConfigError: a sampling value is unknown or out of bounds.
    """
    generator = TextGenerator(model, tokenizer)
    return generator.stream(prompt, max_new_tokens, make_sampling(**sampling), stop=stop)


def pretrain(
    config: Config | Mapping[str, Any] | str | Path,
    override: bool = False,
    quiet: bool = False,
    verify: bool = False,
    language: str = "auto",
    engine: str = "local",
    ray_address: str | None = None,
    ray_workers: int = 1,
) -> RunResult:
    """Pretrain a model, or go on where the run stopped: what `jielong pretrain` does.

    Args:
        config: a mapping of settings by name, with `preset` if you like (e.g. `{"preset": "tiny",
            "data_path": "mine.jsonl", "out_dir": "runs/mine"}`), a TOML file, or a Config.
        override: resume although settings changed that alter the result.
        quiet: print nothing.
        verify: read the whole dataset and compare its SHA-256, also if it seems unchanged.
        language: of what is printed: en, zh, or auto, the locale's.
        engine: local, or ray.
        ray_address, ray_workers: a cluster, else Ray is started here; the processes on it.

    Returns:
        Folder, best checkpoint, steps, and held-out likelihood of the run.

    Raises:
        JielongError: in plain words, what is wrong with settings, data or checkpoints.
    """
    if isinstance(config, Mapping):
        given = {k: v for k, v in config.items() if k not in ("preset", "file")}
        preset, file = config.get("preset"), config.get("file")
        config = load_config(preset, file, **with_default_budget(given, preset, file))
    elif not isinstance(config, Config):
        config = load_config(file=config)
    if (where := Engine.of(engine, ray_address)).is_ray:
        return pretrain_on_ray(config, where, ray_workers, override, quiet, verify, language)
    return train(config, override, quiet, verify, language)


def evaluate(
    model: Transformer, tokenizer: Tokenizer, texts: Iterable[str], batch_tokens: int = 8192
) -> Likelihood:
    """How well the model predicts texts: loss (nats a token), perplexity and bits per byte.

    Each text is a document of its own; one longer than the context is cut into windows without
    overlap. Every byte of the texts counts.

    Args:
        model, tokenizer: as `load` gives them.
        texts: each is read once.
        batch_tokens: about as many tokens are in a forward pass, as rows of (B, T).

    Returns:
        Loss, perplexity, bits per byte with a standard error, tokens, bytes and seconds.

    Raises:
        DataError: there is no text.
    """
    return evaluate_documents(model, tokenizer, texts, context_length(model.config), batch_tokens)


def train_tokenizer(
    data_path: str | Path | Sequence[str | Path] | None,
    out_dir: str | Path,
    log: Callable[[str], None] = lambda line: None,
    engine: str = "local",
    ray_address: str | None = None,
    **settings: Any,
) -> Tokenizer:
    """Train a byte-level BPE tokenizer and save it in a new folder: `jielong tokenizer`.

    Args:
        data_path: text as `jielong pretrain --data-path` takes it; None with `mixture`.
        out_dir: the folder; there must be no tokenizer in it.
        log: called with which files are read, and what was left out of the text.
        engine, ray_address: as of `pretrain`; the tokenizer is the same.
        **settings: vocab_size, mixture, text_field, text_template, text_suffixes, text_unit,
            document_separator, html_text, encoding, allow_loss, tokenizer_sample_bytes.

    Returns:
        The tokenizer; it may have fewer tokens than asked for, if the text has no more pairs.

    Raises:
        ConfigError: a setting is unknown, or `out_dir` already has a tokenizer, or cannot be made.
        DataError: the text cannot be read, or there is none.
    """
    if (Path(out_dir) / "tokenizer.json").exists():
        raise ConfigError(f"{out_dir} already holds a tokenizer: choose another --out-dir")
    check_writable(Path(out_dir))
    config = load_config(data_path=as_paths(data_path), **settings)
    made_by = tokenizer_of_mixture if config.data.mixture else train_on_corpus
    tokenizer = made_by(config, log=log, engine=Engine.of(engine, ray_address))
    tokenizer.save(Path(out_dir))
    return tokenizer


def clean(
    data_path: str | Path | Sequence[str | Path],
    out_dir: str | Path,
    log: Callable[[str], None] = lambda line: None,
    engine: str = "local",
    ray_address: str | None = None,
    **settings: Any,
) -> CleanReport:
    """Drop what is not worth learning from a text, into a new folder of JSONL: `jielong clean`.

    By default only exact and near duplicates are dropped. What is dropped is listed in the folder.

    Args:
        data_path: text as `jielong pretrain --data-path` takes it.
        out_dir: a new folder; it appears once it is complete, and is text for the other functions.
        log, engine, ray_address: as of `prepare`.
        **settings: filters, without, near_similarity, line_documents, languages, against, overlap,
            personal, min_chars, max_chars, min_tokens, max_tokens; tokenizer, strict, and how text
            is read, as of `prepare`.

    Returns:
        How many texts each filter dropped or changed, with examples, and what is left.

    Raises:
        ConfigError: a setting is unknown, or a filter lacks its library or a tokenizer.
        DataError: the text cannot be read, none of it is left, or `out_dir` holds something else.
    """
    cleaning = {name: settings.pop(name) for name in list(settings) if name in CLEANING_FIELDS}
    config = load_config(data_path=as_paths(data_path), **settings)
    given = config.data, make_cleaning(**cleaning), Path(out_dir), log
    return clean_text(*given, Engine.of(engine, ray_address))


def prepare(
    data_path: str | Path | Sequence[str | Path],
    tokenizer: str | Path,
    out_dir: str | Path,
    log: Callable[[str], None] = lambda line: None,
    engine: str = "local",
    ray_address: str | None = None,
    **settings: Any,
) -> PrepareReport:
    """Turn text into a dataset of tokens, or reuse the one in `out_dir`: `jielong prepare`.

    Args:
        data_path: text as `jielong pretrain --data-path` takes it.
        tokenizer: a tokenizer folder.
        out_dir: a new folder; it appears once it is complete.
        log: called with progress lines.
        engine, ray_address: as of `pretrain`; what is made is the same.
        **settings: text_field, text_template, text_suffixes, text_unit, document_separator,
            html_text, encoding, strict, allow_loss, validation_fraction, validation_path,
            max_seq_len, bos_token, eos_token.

    Returns:
        What is in it and what was left out; `report.lines()` is what the command prints.

    Raises:
        ConfigError: a setting is unknown.
        DataError: the text cannot be read or is empty, or `out_dir` holds something else.
    """
    config = load_config(data_path=as_paths(data_path), tokenizer=str(tokenizer), **settings)
    loaded = Tokenizer.load(tokenizer, config.data.bos_token, config.data.eos_token)
    where = Engine.of(engine, ray_address)
    return prepare_dataset(config, loaded, Path(out_dir), log, engine=where)


def prepare_mixture(
    mixture: Sequence[str],
    tokenizer: str | Path,
    out_dir: str | Path,
    log: Callable[[str], None] = lambda line: None,
    engine: str = "local",
    ray_address: str | None = None,
    **settings: Any,
) -> dict[str, PrepareReport]:
    """Turn each text of a mixture into a dataset of its own: `jielong prepare --data …`.

    Args:
        mixture: NAME=SHARE:PATH of each text, as `jielong pretrain --data` takes it.
        tokenizer: a tokenizer folder.
        out_dir: where the datasets come to be, each in a folder of its name.
        log, engine, ray_address: as of `prepare`.
        **settings: as `prepare` takes them, but no validation_path.

    Returns:
        A report of each dataset, by name.

    Raises:
        ConfigError: a setting is unknown, or a text is a prepared dataset.
        DataError: a text cannot be read or is empty, or a folder holds something else.
    """
    config = load_config(mixture=tuple(mixture), tokenizer=str(tokenizer), **settings)
    loaded = Tokenizer.load(tokenizer, config.data.bos_token, config.data.eos_token)
    return prepare_datasets(config, loaded, Path(out_dir), log, Engine.of(engine, ray_address))
