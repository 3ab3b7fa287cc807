"""From text to tokens: the functions of `jielong` that come before a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jielong.cleaning.clean import clean as clean_text
from jielong.cleaning.report import CleanReport
from jielong.config.cleaning import FIELDS as CLEANING_FIELDS
from jielong.config.cleaning import make_cleaning
from jielong.config.engine import Engine
from jielong.config.load import load_config
from jielong.data.prepare.prepare import prepare as prepare_dataset
from jielong.data.prepare.report import PrepareReport
from jielong.errors import ConfigError
from jielong.runtime.files import as_paths, check_writable
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.run_tokenizer import train_on_corpus
from jielong.training.staged import prepare_mixture as prepare_datasets
from jielong.training.staged import tokenizer_of_mixture


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
