"""How large the text of a run is, and whether it can be read, before time is spent on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from jielong.config.settings import Config
from jielong.data.prepare.provenance import Sources
from jielong.data.shards import read_manifest
from jielong.data.sources.documents import DocumentTexts
from jielong.data.sources.row_text import RowText
from jielong.data.sources.text_units import Splitting
from jielong.errors import DataError
from jielong.runtime.run_folder import RunFolder
from jielong.tokenization.chat import Chat
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.minutes import TextSize
from jielong.training.texts import Text, new_texts

UNKNOWN_BYTES = 2**24  # assumed of a source whose size is not known
LOOK_S = 1.0  # for which each text is read beforehand


def text_size(
    config: Config, run: RunFolder, sources: Mapping[str, Callable[[], Sources]]
) -> TextSize:
    """How large the text is, and the vocabulary of its tokenizer where that is not to be made.

    Raises:
        DataError: the text, as far as it is read in a moment, cannot be used.
    """
    given = config.data.tokenizer or beside_dataset(config, run)
    vocabulary = Tokenizer.load(given).vocab_size if given else None
    size = 0
    for text in new_texts(config, run):
        if text.prepared is not None:
            size += read_manifest(text.prepared)["splits"]["train"]["text_bytes"]
        else:
            look_into(text, sources[text.name]())
            size += bytes_of(sources[text.name]())
    return TextSize(size, vocabulary)


def look_into(text: Text, sources: Sources) -> None:
    """Read the beginning of a text: what would stop the run later is told at once.

    Raises:
        DataError: it is empty, or short or bad from its beginning and too much of it would be left
            out.
    """
    texts, until = document_texts(text.config, sources), time.monotonic() + LOOK_S
    with text.naming(), texts.checked(text.config.data.allow_loss):
        empty = True
        for _ in texts:
            empty = False
            if time.monotonic() > until:
                texts.losses.allow_loss = True  # of what was read: the rest is not known yet
                break
        if empty:
            texts.losses.check()  # which has more to say
            raise DataError(f"no text in {text.setting}: check the path and --text-field")


def bytes_of(sources: Sources) -> int:
    """The size of the text in its sources, roughly where one does not say."""
    return sum(UNKNOWN_BYTES if s.size is None else s.size for s in sources.data)


def beside_dataset(config: Config, run: RunFolder) -> Path | None:
    """The tokenizer of the first text that is prepared; an older one's does not count."""
    for text in new_texts(config, run):
        folder = text.prepared
        if folder is not None:
            beside = folder / "tokenizer"
            if (beside / "tokenizer.json").is_file():
                return beside
    return None


def document_texts(config: Config, sources: Sources) -> DocumentTexts:
    """The documents of sources as texts, read as the settings say."""
    data = config.data
    rows = RowText.of_settings(data, Chat(None))
    return DocumentTexts(sources.data, rows, data.encoding, Splitting.of(data))
