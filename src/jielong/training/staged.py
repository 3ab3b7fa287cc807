"""A mixture's tokenizer and datasets, made before a run: `jielong tokenizer` and `prepare`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from jielong.config.engine import LOCAL, Engine
from jielong.config.mixture import MixtureSource
from jielong.config.settings import Config
from jielong.data.prepare.prepare import prepare
from jielong.data.prepare.provenance import Sources
from jielong.data.prepare.report import PrepareReport
from jielong.errors import ConfigError
from jielong.runtime.run_folder import RunFolder
from jielong.runtime.tasks import tasks_of
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.run_tokenizer import train_on_mixture
from jielong.training.texts import Text, finders, texts_of


def tokenizer_of_mixture(
    config: Config, log: Callable[[str], None], engine: Engine = LOCAL
) -> Tokenizer:
    """Train a tokenizer on a sample in which each source of a mixture has its share.

    Args:
        log: takes a line for the user on what was read and what was left out.
        engine: where the text is read.

    Raises:
        ConfigError: a source is a prepared dataset, or the engine cannot be used.
        DataError: a source cannot be read, or has no text.
    """
    texts, sources = _found(config, Path(), log)
    with tasks_of(engine):
        return train_on_mixture(config, texts, sources, log, engine)


def prepare_mixture(
    config: Config,
    tokenizer: Tokenizer,
    out_dir: Path,
    log: Callable[[str], None],
    engine: Engine = LOCAL,
) -> dict[str, PrepareReport]:
    """Prepare a dataset of each source of a mixture, in a folder of its name in `out_dir`.

    Args:
        engine: where the text is read and encoded.

    Returns:
        The reports, by name.

    Raises:
        ConfigError: a source is a prepared dataset, or the engine cannot be used.
        DataError: a source cannot be read or has no text, or its folder holds something else.
    """
    texts, sources = _found(config, out_dir, log)
    reports = {}
    with tasks_of(engine):
        for text in texts:
            where, found = text.folder, sources[text.name]
            with text.naming():
                reports[text.name] = prepare(text.config, tokenizer, where, log, found, engine)
    return reports


def prepared_settings(config: Config, out_dir: Path) -> list[str]:
    """Return the mixture as a run takes it that trains on the datasets in `out_dir`."""
    sources = map(MixtureSource.parse, config.data.mixture)
    return [source.elsewhere(out_dir / source.name) for source in sources]


def _found(
    config: Config, out_dir: Path, log: Callable[[str], None]
) -> tuple[list[Text], dict[str, Sources]]:
    """Find all sources before any is read: a mistake in the last one costs no work."""
    run = RunFolder(out_dir)
    texts = [dataclasses.replace(t, folder=out_dir / t.name) for t in texts_of(config, run)]
    if ready := [text for text in texts if text.prepared]:
        raise ConfigError(f"{ready[0].setting} is a prepared dataset already: name its text")
    return texts, {name: find() for name, find in finders(config, run, log).items()}
