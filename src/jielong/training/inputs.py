"""The stages before training: a tokenizer and a prepared dataset, made where they are missing."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jielong.checkpoint.checkpoint import checkpoints, find_model_folder, latest_valid_checkpoint
from jielong.checkpoint.folder import read_model_config
from jielong.config.settings import Config, same_setting
from jielong.data.prepare.prepare import prepare
from jielong.data.prepare.provenance import SETTINGS, Sources, changes_since, provenance
from jielong.data.shards import Dataset, open_dataset, verify_dataset
from jielong.data.sources.documents import DocumentTexts
from jielong.data.sources.text_units import Splitting
from jielong.errors import ConfigError, DataError
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer
from jielong.training.minutes import Machine, TextSize, choose_size, choose_tokens

UNKNOWN_BYTES = 2**24  # assumed of a source whose size is not known
PEEK_BYTES = 4096  # of standard input, to tell JSONL from plain text


@dataclass(frozen=True)
class StartingPoint:
    """What a run goes on from: found and verified once, by rank 0, for all ranks."""

    checkpoint: Path | None = None  # the run's own newest sound one
    init_from: Path | None = None  # the model folder of `training.init_from`, for a new run
    problems: tuple[str, ...] = ()  # newer checkpoints passed over, and why

    @property
    def model_folder(self) -> Path | None:
        """Where architecture, tokenizer and weights come from, if not from the settings."""
        return self.checkpoint or self.init_from


def find_starting_point(config: Config, run: RunFolder) -> StartingPoint:
    """The newest sound checkpoint of the run, or the model folder that the settings name.

    Raises:
        CheckpointError: there is no model in `training.init_from`, or it is damaged.
    """
    newest, problems = latest_valid_checkpoint(run.checkpoints)
    init_from = None
    if config.training.init_from is not None and newest is None:
        init_from = find_model_folder(config.training.init_from)
    return StartingPoint(newest, init_from, tuple(problems))


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
    log: Callable[[str], None],
    verify: bool = False,
) -> tuple[Config, StartingPoint]:
    """Make the tokenizer and the dataset of a run where they are missing; rank 0 alone does so.

    Args:
        log: takes a line for the user.
        verify: compare every file of the dataset with its SHA-256, however unchanged it seems.

    Returns:
        The config, with what `--minutes` leaves to be chosen, and what the run goes on from.

    Raises:
        JielongError: text, tokenizer, dataset or model is missing, damaged or does not fit.
    """
    started = time.monotonic()
    start = find_starting_point(config, folder)
    found = spool_stdin(config, folder)
    sources = functools.cache(lambda: _find_sources(found))  # once, and only if they are needed
    text = functools.partial(_text_size, found, sources)
    found = choose_size(found, text, folder, machine, started, log)
    if _tokenizer_folder(found, folder, start) == folder.tokenizer:
        ensure_tokenizer(found, folder, sources, log)
    ensure_dataset(found, load_tokenizer(found, folder, start), folder, sources, log)
    verify_dataset(dataset_folder(found, folder), again=verify)
    found = _with_window_of_text(found, dataset_folder(found, folder), log)
    if found.training.minutes is not None:
        tokenizer = load_tokenizer(found, folder, start)
        dataset = load_dataset(found, tokenizer, folder)
        sized = with_architecture(found, tokenizer, start)
        tokens = choose_tokens(sized, dataset, folder, machine, started, log)
        found = found.with_values(tokens=tokens)
    data = dataclasses.replace(found.data, data_path=config.data.data_path)
    return dataclasses.replace(found, data=data), start


def _with_window_of_text(config: Config, folder: Path, log: Callable[[str], None]) -> Config:
    """Cut a training window that is longer than all the text, which would only be padding."""
    tokens = len(open_dataset(folder, verify=False).train)
    window = max(2, tokens - 1)  # and one more, the last one's target
    if config.data.max_seq_len <= window:
        return config
    log(
        f"window     {window:,} tokens, not {config.data.max_seq_len:,} as data.max_seq_len says: "
        f"there are only {tokens:,} tokens of text to train on"
    )
    return config.with_values(max_seq_len=window)


def ensure_tokenizer(
    config: Config,
    folder: RunFolder,
    sources: Callable[[], Sources],
    log: Callable[[str], None],
) -> None:
    """Train the run's own tokenizer on the corpus, unless it has one.

    Raises:
        DataError: there is no text, or not as the settings say.
    """
    if (folder.tokenizer / "tokenizer.json").exists():
        return
    found = sources()
    log(f"training a tokenizer of {config.model.vocab_size} tokens …")
    tokenizer = train_on_corpus(config, found)
    tokenizer.save(folder.tokenizer)
    log(about_tokenizer(tokenizer, config.model.vocab_size, folder.tokenizer))


def load_tokenizer(config: Config, folder: RunFolder, start: StartingPoint) -> Tokenizer:
    """The tokenizer given, the starting model's, or the run's own.

    Raises:
        DataError: it is missing or damaged.
    """
    return Tokenizer.load(_tokenizer_folder(config, folder, start))


def _tokenizer_folder(config: Config, folder: RunFolder, start: StartingPoint) -> str | Path:
    given = config.data.tokenizer or _beside_dataset(config)
    if given is None and config.training.init_from is not None:
        given = start.model_folder
    return given or folder.tokenizer


def train_on_corpus(config: Config, sources: Sources | None = None) -> Tokenizer:
    """A byte-level BPE tokenizer of the corpus at `data_path`.

    Args:
        sources: those of `config.data`, where they have been found already.

    Raises:
        DataError: there is no text; it says what the first bad line is instead.
    """
    found = sources or _find_sources(config)
    splitting = Splitting.of(config.data)
    texts = DocumentTexts(found.data, config.data.text_field, splitting=splitting)
    size = config.model.vocab_size
    with texts.naming_first_bad_line():
        return train_tokenizer(iter(texts), size, config.data.tokenizer_sample_bytes)


def about_tokenizer(tokenizer: Tokenizer, asked: int, folder: Path) -> str:
    """A new tokenizer in a line, and why it is smaller than asked for if it is."""
    fewer = f", not {asked}: the text repeats no more" if tokenizer.vocab_size < asked else ""
    return f"tokenizer of {tokenizer.vocab_size} tokens{fewer}: {folder}"


def ensure_dataset(
    config: Config,
    tokenizer: Tokenizer,
    run: RunFolder,
    sources: Callable[[], Sources],
    log: Callable[[str], None],
) -> None:
    """Prepare the dataset where it is missing; one given as `data_path` is used as it is.

    A run that has trained goes on with the tokens it has, wherever its text is by now.
    """
    if _trained_on(config, run) and (run.data / "dataset.json").is_file():
        log(f"dataset {run.data} (the run's own)")
        if changes := _changes_of_text(config, tokenizer, run, sources):
            log(
                f"the text has changed since: {'; '.join(changes[:3])}. This run goes on with the "
                "tokens it has; to train on the text as it is now, start another run from this "
                f"one's model: --init-from {run.path} and a new --out-dir"
            )
    elif prepared_folder(config) is None:
        report = prepare(config, tokenizer, run.data, log, sources())
        for line in report.lines()[: 1 if report.reused else None]:
            log(line)


def _changes_of_text(
    config: Config, tokenizer: Tokenizer, run: RunFolder, sources: Callable[[], Sources]
) -> list[str]:
    """List how the text of a run has changed; nothing if it is gone, or was standard input."""
    try:
        wanted = provenance(config, tokenizer, sources())
    except DataError:
        return []  # the run does not need it any more
    return changes_since(run.data, wanted)


def _trained_on(config: Config, run: RunFolder) -> bool:
    """Whether the run has trained on the text that the config names."""
    if not checkpoints(run.checkpoints) or not run.config_file.exists():
        return False
    now, then = config.data, run.stored_config().data
    names = (*SETTINGS, "data_path", "tokenizer", "validation_path")
    return all(same_setting(name, getattr(then, name), getattr(now, name)) for name in names)


def load_dataset(config: Config, tokenizer: Tokenizer, run: RunFolder) -> Dataset:
    """The prepared dataset of a run, its files of the right sizes.

    Raises:
        DataError: it is damaged, or was made with another tokenizer.
    """
    folder = dataset_folder(config, run)
    dataset = open_dataset(folder, verify=False)
    if dataset.manifest["tokenizer_fingerprint"] != tokenizer.fingerprint:
        raise DataError(
            f"{folder}: made with the tokenizer {dataset.manifest['tokenizer_fingerprint'][:12]}, "
            f"not with {tokenizer.fingerprint[:12]}: give its own --tokenizer, or prepare it again"
        )
    return dataset


def with_architecture(config: Config, tokenizer: Tokenizer, start: StartingPoint) -> Config:
    """The config with what follows from the tokenizer, the window and `init_from` filled in.

    Raises:
        ConfigError: the model in `init_from` has no place for the tokenizer or the window.
    """
    context = config.model.max_position_embeddings or config.data.max_seq_len
    model = dataclasses.replace(
        config.model, vocab_size=tokenizer.vocab_size, max_position_embeddings=context
    )
    if config.training.init_from is not None and start.model_folder is not None:
        model = read_model_config(start.model_folder)
        if model.vocab_size < tokenizer.vocab_size:
            raise ConfigError(
                f"training.init_from={config.training.init_from} has a vocabulary of "
                f"{model.vocab_size}, the tokenizer {tokenizer.vocab_size}: use its own tokenizer"
            )
    return dataclasses.replace(config, model=model).validated()


def dataset_folder(config: Config, run: RunFolder) -> Path:
    """Where the tokens of a run are: a prepared dataset that was given, or the run's own."""
    return prepared_folder(config) or run.data


def prepared_folder(config: Config) -> Path | None:
    """The folder of a dataset that `jielong prepare` made, if that is what `data_path` names."""
    paths = config.data.data_path
    if len(paths) == 1 and (Path(paths[0]) / "dataset.json").is_file():
        return Path(paths[0])
    return None


def _beside_dataset(config: Config) -> Path | None:
    folder = prepared_folder(config)
    if folder is not None and (folder / "tokenizer" / "tokenizer.json").is_file():
        return folder / "tokenizer"
    return None


def _text_size(config: Config, sources: Callable[[], Sources]) -> TextSize:
    """How large the text is, and the vocabulary of its tokenizer where that is not to be made."""
    given = config.data.tokenizer or _beside_dataset(config)
    vocabulary = Tokenizer.load(given).vocab_size if given else None
    prepared = prepared_folder(config)
    if prepared is not None:
        return TextSize(open_dataset(prepared, verify=False).train.text_bytes, vocabulary)
    sizes = [UNKNOWN_BYTES if s.size is None else s.size for s in sources().data]
    return TextSize(sum(sizes), vocabulary)


def _find_sources(config: Config) -> Sources:
    """Find the sources that the settings name.

    Raises:
        ConfigError: there are none.
        DataError: a path does not exist, matches nothing, or is of an unknown kind.
    """
    if not config.data.data_path:
        raise ConfigError(
            "data.data_path is missing: give --data-path FILE (JSONL, Parquet, text, a folder), "
            "or sample:shakespeare to try"
        )
    return Sources.of(config.data)
