"""The stages before training: a tokenizer and a prepared dataset, made where they are missing."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from jielong.config.load import load_toml
from jielong.config.settings import Config
from jielong.data.remote_dataset import RemoteDataset
from jielong.data.shards import MANIFEST
from jielong.errors import ConfigError, DataError
from jielong.runtime.atomic import write_file
from jielong.runtime.run_folder import RunFolder
from jielong.training.datasets import ensure_datasets, load_texts
from jielong.training.minutes import choose_size, choose_tokens
from jielong.training.parallel import check_parallel
from jielong.training.precision import settle_dtype
from jielong.training.run_tokenizer import (
    ensure_tokenizer,
    load_tokenizer,
    tokenizer_folder,
)
from jielong.training.speed import Machine
from jielong.training.starting_point import (
    StartingPoint,
    check_init_from,
    compare_with_transformers,
    find_starting_point,
    with_architecture,
)
from jielong.training.suites import check_suites
from jielong.training.text_size import text_size
from jielong.training.texts import RunTexts, finders, texts_of

PEEK_BYTES = 4096  # of standard input, to tell JSONL from plain text


def spool_stdin(config: Config, run: RunFolder) -> Config:
    """Standard input can be read once, the stages read twice: keep a copy in the run's folder."""
    if "-" not in config.data.data_path:
        return config
    copies = [run.path / "stdin.jsonl", run.path / "stdin.txt"]
    if not (run.started and any(copy.exists() for copy in copies)):  # a resumed run has its copy
        for stale in copies:
            stale.unlink(missing_ok=True)
        temporary = run.path / "stdin.partial"
        with temporary.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        with temporary.open("rb") as file:
            is_json = file.read(PEEK_BYTES).lstrip()[:1] == b"{"
        temporary.replace(copies[0] if is_json else copies[1])
    copy = next(str(copy) for copy in copies if copy.exists())
    paths = tuple(copy if path == "-" else path for path in config.data.data_path)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, data_path=paths))


def prepare_inputs(
    config: Config,
    folder: RunFolder,
    machine: Machine,
    start: StartingPoint,
    log: Callable[[str], None],
    verify: bool = False,
) -> Config:
    """Make tokenizer and dataset where a run from `start` has none; rank 0 alone does so.

    Args:
        log: takes a line for the user.
        verify: compare every file of the dataset with its SHA-256, however unchanged it seems.

    Returns:
        The config, with what `--minutes` leaves to be chosen.

    Raises:
        JielongError: text, tokenizer, dataset or model is missing, damaged or does not fit.
    """
    started = time.monotonic()
    check_suites(config)
    check_parallel(config, machine)
    if start.init_from is not None:
        check_init_from(config, load_tokenizer(config, folder, start), start, log)
    found = spool_stdin(config, folder)
    sources = finders(found, folder, log)  # each called once, and only if needed
    for text in texts_of(found, folder):
        if text.name and not (text.folder / "dataset.json").is_file():
            sources[text.name]()  # a mistake in its path is told before anything is made
    size = functools.partial(text_size, found, folder, sources)
    found = choose_size(found, size, folder, machine, started, log)
    if tokenizer_folder(found, folder, start) == folder.tokenizer:
        ensure_tokenizer(found, folder, sources, log)
    tokenizer = load_tokenizer(found, folder, start)
    ensure_datasets(texts_of(found, folder), tokenizer, folder, sources, log, verify)
    texts = load_texts(found, tokenizer, folder)
    if isinstance(texts.main.dataset, RemoteDataset):  # reports tell of its text later
        write_file(folder.remote_dataset, (texts.main.dataset.folder / MANIFEST).read_bytes())
    found = _with_window_of_text(found, texts, log)
    sized = with_architecture(found, tokenizer, start)
    if start.checkpoint is None:
        compare_with_transformers(sized, tokenizer, texts.main.dataset, log)
    begun = start.checkpoint is not None
    width = sized.model.hidden_size
    found = settle_dtype(found, width, folder, machine.device, begun, log)
    if found.training.minutes is not None:
        budget = choose_tokens(sized, texts, folder, machine, started, log)
        found = found.with_values(**budget)
    data = dataclasses.replace(found.data, data_path=config.data.data_path)
    return dataclasses.replace(found, data=data)


def inputs_of_run(folder: RunFolder) -> tuple[Config, StartingPoint]:
    """Return the settings that a run trains with and its newest checkpoint; nothing is written.

    Raises:
        ConfigError: there is no run, or its settings are damaged.
        DataError: its text is not prepared, or damaged.
    """
    if not folder.config_file.is_file():
        raise ConfigError(
            f"{folder.path}: no run is here (there is no {folder.config_file.name}): give a run's "
            "folder, or settings such as --data-path"
        )
    config = folder.stored_config()
    if folder.chosen_file.exists():
        config = config.with_values(**load_toml(folder.chosen_file))
    start = find_starting_point(config, folder)
    if not (tokenizer_file := Path(tokenizer_folder(config, folder, start))).exists():
        raise DataError(f"{folder.path}: this run has no tokenizer yet ({tokenizer_file})")
    places = [text.dataset_folder / "dataset.json" for text in texts_of(config, folder)]
    if not all(place.is_file() for place in places):
        raise DataError(f"{folder.path}: the text of this run is not prepared yet")
    tokenizer = load_tokenizer(config, folder, start)
    texts = load_texts(config, tokenizer, folder)
    return _with_window_of_text(config, texts, log=lambda line: None), start


def _with_window_of_text(config: Config, texts: RunTexts, log: Callable[[str], None]) -> Config:
    """Cut a training window that is longer than the longest text, which would only be padding."""
    tokens = max(len(text.dataset.train) for text in texts.every)
    window = max(2, tokens - 1)  # and one more, the last one's target
    if config.data.max_seq_len <= window:
        return config
    log(
        f"window     {window:,} tokens, not {config.data.max_seq_len:,} as data.max_seq_len says: "
        f"there are only {tokens:,} tokens of text to train on"
        + (", in the longest of the texts" if texts.others else "")
    )
    return config.with_values(max_seq_len=window)
