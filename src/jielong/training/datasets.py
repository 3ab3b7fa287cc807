"""The prepared datasets of a run: of its text, or of each of its texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jielong.checkpoint.checkpoint import checkpoints
from jielong.config.mixture import replay_share
from jielong.config.settings import Config, same_setting
from jielong.data.prepare.prepare import prepare
from jielong.data.prepare.provenance import SETTINGS, Sources, changes_since, provenance
from jielong.data.remote_dataset import open_prepared, verify_prepared
from jielong.data.shards import Dataset
from jielong.errors import DataError
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.texts import RunTexts, Text, prepared_folder, texts_of, with_shares


def ensure_datasets(
    texts: Sequence[Text],
    tokenizer: Tokenizer,
    run: RunFolder,
    sources: Mapping[str, Callable[[], Sources]],
    log: Callable[[str], None],
    verify: bool,
) -> None:
    """Prepare the run's datasets where they are missing, and check their files.

    Args:
        sources: finds those of each text, by its name.
        log: takes a line for the user.
        verify: compare every file with its SHA-256, however unchanged it seems.

    Raises:
        DataError: a text or a dataset is missing, damaged or unusable.
    """
    for text in texts:
        known = _trained_on(text, run)
        with text.naming():
            ensure_dataset(text.config, tokenizer, text.folder, known, sources[text.name], log)
            verify_prepared(text.dataset_folder, again=verify)


def ensure_dataset(
    config: Config,
    tokenizer: Tokenizer,
    folder: Path,
    known: bool,
    sources: Callable[[], Sources],
    log: Callable[[str], None],
) -> None:
    """Prepare the dataset where it is missing; one given as `data_path` is used as it is.

    Args:
        folder: the run's own dataset.
        known: the run has trained on it, and goes on with its tokens wherever the text is by now.
    """
    if known and (folder / "dataset.json").is_file():
        log(f"dataset {folder} (the run's own)")
        if changes := _changes_of_text(config, tokenizer, folder, sources):
            log(
                f"the text is not as it was: {'; '.join(changes[:3])}. This run goes on with the "
                "tokens it has; to train on the text as it is now, start another run from this "
                f"one's model: --init-from {config.run.out_dir} and a new --out-dir"
            )
    elif prepared_folder(config) is None:
        report = prepare(config, tokenizer, folder, log, sources())
        for line in report.lines()[: 1 if report.reused else None]:
            log(line)


def _changes_of_text(
    config: Config, tokenizer: Tokenizer, folder: Path, sources: Callable[[], Sources]
) -> list[str]:
    """List how the text of a run has changed; nothing if it is gone, or was standard input."""
    try:
        wanted = provenance(config, tokenizer, sources())
    except DataError:
        return []  # the run does not need it any more
    return changes_since(folder, wanted)


def _trained_on(text: Text, run: RunFolder) -> bool:
    """Whether the run has trained on the text that the settings name."""
    if not checkpoints(run.checkpoints) or not run.config_file.exists():
        return False
    before = {other.name: other for other in texts_of(run.stored_config(), run)}
    if text.name not in before:
        return False
    now, then = text.config.data, before[text.name].config.data
    names = (*SETTINGS, "tokenizer", "bos_token", "eos_token", "data_path", "validation_path")
    return all(same_setting(name, getattr(then, name), getattr(now, name)) for name in names)


def load_dataset(config: Config, tokenizer: Tokenizer, run: RunFolder) -> Dataset:
    """The prepared dataset of a run's main text, as `load_texts` opens it."""
    return load_texts(config, tokenizer, run).main.dataset


def load_texts(config: Config, tokenizer: Tokenizer, run: RunFolder) -> RunTexts:
    """The prepared datasets of a run, their files of the right sizes.

    Raises:
        DataError: one is damaged, or was made with another tokenizer.
    """
    texts, datasets = texts_of(config, run), list[Dataset]()
    for text in texts:
        with text.naming():
            datasets.append(_open(text.dataset_folder, tokenizer, text.config))
    return with_shares(texts, datasets, replay_share(config.data.replay))


def _open(folder: Path, tokenizer: Tokenizer, config: Config) -> Dataset:
    dataset = open_prepared(folder, config.run.cache_gb)
    named = config.data.bos_token or config.data.eos_token
    if named and dataset.manifest["special_ids"] != tokenizer.special_ids:
        raise DataError(
            f"{folder}: made with the special tokens {dataset.manifest['special_ids']}, not with "
            f"{tokenizer.special_ids}: leave --bos-token and --eos-token out, or prepare it again"
        )
    if dataset.manifest["tokenizer_fingerprint"] != tokenizer.fingerprint:
        raise DataError(
            f"{folder}: made with the tokenizer {dataset.manifest['tokenizer_fingerprint'][:12]}, "
            f"not with {tokenizer.fingerprint[:12]}: give its own --tokenizer, or prepare it again"
        )
    return dataset
