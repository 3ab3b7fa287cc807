"""The tokenizer of a run: one that is given, the starting model's, or one trained on its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jielong.config.engine import LOCAL, Engine
from jielong.config.settings import Config
from jielong.data.prepare.files_read import describe_files
from jielong.data.prepare.provenance import Sources
from jielong.data.sample_on_ray import sample_on_ray
from jielong.data.sources.documents import DocumentTexts
from jielong.errors import ConfigError
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.text_pieces import sample
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer
from jielong.training.starting_point import StartingPoint
from jielong.training.text_size import beside_dataset, bytes_of, document_texts
from jielong.training.texts import Text, find_sources, new_texts


def ensure_tokenizer(
    config: Config,
    folder: RunFolder,
    sources: Mapping[str, Callable[[], Sources]],
    log: Callable[[str], None],
) -> None:
    """Train the run's own tokenizer on the corpus, unless it has one.

    Raises:
        DataError: there is no text, or not as the settings say.
    """
    if (folder.tokenizer / "tokenizer.json").exists():
        return
    texts = new_texts(config, folder)
    found = {text.name: sources[text.name]() for text in texts}
    if prepared := [text for text in texts if text.prepared]:
        raise ConfigError(
            f"{prepared[0].setting} is a prepared dataset, beside text that is not: give the "
            "--tokenizer that it was made with"
        )
    log(f"training a tokenizer of {config.model.vocab_size} tokens …")
    if config.data.mixture:
        tokenizer = train_on_mixture(config, texts, found)
    else:
        tokenizer = train_on_corpus(config, found[""])
    tokenizer.save(folder.tokenizer)
    log(about_tokenizer(tokenizer, config.model.vocab_size, folder.tokenizer))


def load_tokenizer(config: Config, folder: RunFolder, start: StartingPoint) -> Tokenizer:
    """The tokenizer given, the starting model's, or the run's own.

    Raises:
        DataError: it is missing or damaged.
    """
    data = config.data
    return Tokenizer.load(tokenizer_folder(config, folder, start), data.bos_token, data.eos_token)


def tokenizer_folder(config: Config, folder: RunFolder, start: StartingPoint) -> str | Path:
    """Where the tokenizer of a run is: one that was given, or the run's own."""
    given = config.data.tokenizer or beside_dataset(config, folder)
    if given is None and config.training.init_from is not None:
        given = start.model_folder
    return given or folder.tokenizer


def train_on_corpus(
    config: Config,
    sources: Sources | None = None,
    log: Callable[[str], None] = lambda line: None,
    engine: Engine = LOCAL,
) -> Tokenizer:
    """A byte-level BPE tokenizer of the corpus at `data_path`.

    Args:
        sources: those of `config.data`, where they have been found already.
        log: takes a line for the user on what was read and what was left out.
        engine: where the text is read.

    Raises:
        ConfigError: the engine cannot be used.
        DataError: there is no text, or too much of it would be left out; it says what was first.
    """
    found = sources or find_sources(config, log)
    data, size = config.data, config.model.vocab_size
    texts = document_texts(config, found)
    with texts.checked(data.allow_loss):
        pieces = _sampled(texts, data.tokenizer_sample_bytes, engine)
        tokenizer = _train_on_pieces(pieces, size)
    for line in _lines_about(found, texts):
        log(line)
    return tokenizer


def train_on_mixture(
    config: Config,
    texts: Sequence[Text],
    sources: Mapping[str, Sources],
    log: Callable[[str], None] = lambda line: None,
    engine: Engine = LOCAL,
) -> Tokenizer:
    """A tokenizer of all sources of a mixture, each with its share of the sample.

    Args:
        log: takes a line for the user on what was read and what was left out.
        engine: where the text is read.
    """
    found = [sources[text.name] for text in texts]
    sizes = [max(1, bytes_of(its)) for its in found]
    weights = [text.weight_of(size) for text, size in zip(texts, sizes, strict=True)]
    pieces: list[str] = []
    for text, its, weight in zip(texts, found, weights, strict=True):
        with text.naming():
            documents = document_texts(text.config, its)
            with documents.checked(config.data.allow_loss):
                size = round(config.data.tokenizer_sample_bytes * weight / sum(weights))
                pieces += _sampled(documents, max(1, size), engine)
        for line in _lines_about(its, documents):
            log(f"{text.name}: {line}")
    return _train_on_pieces(pieces, config.model.vocab_size)


def _sampled(texts: DocumentTexts, sample_bytes: int, engine: Engine) -> list[str]:
    if engine.is_ray:
        return sample_on_ray(engine, texts, sample_bytes)
    return sample(iter(texts), sample_bytes)


def _train_on_pieces(pieces: Sequence[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of a sample that has been drawn."""
    most_bytes = 4 * sum(map(len, pieces))  # so that of this sample nothing is left out
    return train_tokenizer(iter(pieces), vocab_size, most_bytes)


def _lines_about(sources: Sources, texts: DocumentTexts) -> list[str]:
    files = describe_files(sources.data, sources.not_read)
    return [*(line.removeprefix("  ") for line in files), *texts.losses.lines()]


def about_tokenizer(tokenizer: Tokenizer, asked: int, folder: Path) -> str:
    """A new tokenizer in a line, and why it is smaller than asked for if it is."""
    fewer = f", not {asked}: the text repeats no more" if tokenizer.vocab_size < asked else ""
    return f"tokenizer of {tokenizer.vocab_size} tokens{fewer}: {folder}"
