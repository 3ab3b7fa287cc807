"""The settings of a run's text, and of how it becomes batches."""

from __future__ import annotations

from dataclasses import dataclass

from jielong.config.fields import option


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it becomes batches."""

    data_path: tuple[str, ...] = option(
        (), "Text: files, folders, globs, remote addresses, '-', or sample:NAME."
    )
    mixture: tuple[str, ...] = option(
        (),
        "NAME=SHARE:PATH or NAME=epochs=N:PATH of each of several texts, instead of data_path: its "
        "share of the run's tokens, or how often it is read. An epoch reads that text once which "
        "is read most often.",
        repeated=True,
    )
    text_field: str = option(
        "text",
        "Field of a JSON row, or column of a CSV or Parquet file, that holds the text: a name, or "
        "a path such as body.text; a conversation (messages) becomes text by the chat template.",
    )
    text_template: str | None = option(
        None,
        'A text of several fields of a row, as "{title}\\n\\n{text}", instead of text_field.',
    )
    text_suffixes: tuple[str, ...] = option(
        (), "Suffixes of further files to read as plain text: py rst tex …; none: without one."
    )
    text_unit: str = option(
        "auto",
        "What one text is in .txt and .md: the file, a line or a paragraph; auto: the file, or "
        "what stands between separators.",
        choices=("auto", "file", "line", "paragraph"),
    )
    document_separator: str = option(
        "auto",
        "Where a text ends within a file: auto finds <|endoftext|>, </s> and many lines of --- in "
        ".txt and .md, none finds none; anything else is the separator itself, in rows too (\\n is "
        "a line break).",
    )
    html_text: str = option(
        "auto",
        "What of HTML is read: all that a browser shows, or main: without menus, headers and the "
        "like; auto: all of .html files, main of web archives (.warc).",
        choices=("auto", "all", "main"),
    )
    encoding: str | None = option(
        None,
        "Encoding of the text files that are not UTF-8 and have no byte order mark: gb18030, big5, "
        "utf-16, latin-1 and others; auto: what each seems to be in, which is said; default: none, "
        "they are refused.",
    )
    strict: bool = option(False, "Stop at the first bad line instead of listing it.", free=True)
    allow_loss: bool = option(
        False, "Go on although a fifth of the text or more has to be left out.", free=True
    )
    tokenizer: str | None = option(None, "Hugging Face tokenizer folder; default: train one.")
    bos_token: str | None = option(
        None, "Token that begins a document; default: the one that the tokenizer declares."
    )
    eos_token: str | None = option(
        None, "Token that ends a document; default: the one that the tokenizer declares."
    )
    tokenizer_sample_bytes: int = option(
        16 * 2**20, "Text a new tokenizer is trained on, in bytes.", low=1
    )
    validation_fraction: float | None = option(
        None,
        "Share of the text held out; default: as much as tells bits per byte to about 1 %, at most "
        "a tenth of a small text and 1 % of a large one.",
        low=0.0,
        high=0.5,
    )
    validation_path: tuple[str, ...] = option((), "Held-out text of its own instead of a share.")
    replay: str | None = option(
        None,
        "PATH=SHARE: older text mixed in, so that a model that goes on (init_from) keeps what it "
        "knew. SHARE, such as 0.2, is its share of the run's tokens: --tokens, --steps and "
        "--minutes count both texts, --epochs the new text, with the older on top.",
    )
    max_seq_len: int = option(512, "Tokens in a training window.", low=2)
    packing: str = option(
        "pack",
        "Windows cut from the stream, or one padded document a row.",
        choices=("pack", "pad"),
    )
    document_mask: bool = option(True, "A document never attends to its neighbours in a window.")
    shuffle: bool = option(True, "Shuffle the windows anew in each epoch.")
    shuffle_shards: int | None = option(
        None,
        "Shuffle within blocks of so many shards, taken in random order, so that no more than two "
        "blocks of a remote dataset have to be here at a time; default: over the whole text.",
        low=1,
    )
    num_workers: int = option(
        1, "Batches built ahead in threads; 0 builds in line.", low=0, free=True
    )
