"""A summary of a prepared dataset, to check before a long training run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jielong.data.prepare.files_read import describe_files
from jielong.data.prepare.left_out import BAD_LINES, accounts_of
from jielong.data.prepare.provenance import Sources
from jielong.data.prepare.text_marks import describe_texts
from jielong.data.shards import Dataset, TokenStream
from jielong.data.sources.losses import Losses
from jielong.tokenization.tokenizer import Tokenizer

CHUNK = 2**20  # documents processed at once
PERCENTILES = (5, 25, 50, 75, 95, 100)
SAMPLE_TOKENS = 60
MUCH_SHARED = 0.05  # of the held-out text
MANY_NEAR, OF_DOCUMENTS = 0.05, 50  # share of near copies that is worth a word, and of how many


@dataclass(frozen=True)
class PrepareReport:
    """Statistics of a prepared dataset.

    Attributes:
        documents, tokens, text_bytes: totals of both splits.
        bad_lines: lines, rows and files left out.
        left_out: the account of them, for `data` and, with `validation_path`, for `validation`.
        length_percentiles: tokens per document, bos and eos included, accurate to 0.1%.
        near_duplicate_share: share of the documents that repeat an earlier one, exactly or nearly,
            by a sample; None for a dataset of an earlier version.
        shared_documents: training documents that occur in the text of `validation_path` as well.
        shared_text_share: share of that text that occurs in the training text, by a sample.
        padding_share: share of positions that would be padding with one document per row of
            `max_seq_len`.
        truncated_share: share of tokens that would be cut off with such rows.
    """

    folder: Path
    reused: bool
    documents: int
    bad_lines: int
    left_out: dict[str, Losses]
    tokens: int
    text_bytes: int
    vocab_size: int
    dtype: str
    validation_documents: int
    validation_tokens: int
    length_percentiles: dict[int, int]
    duplicate_share: float
    duplicates_exact: bool
    near_duplicate_share: float | None
    shared_documents: int
    shared_text_share: float
    marked_documents: int
    held_out_pieces: int
    too_small_to_hold_out: bool
    max_seq_len: int
    padding_share: float
    truncated_share: float
    samples: tuple[str, ...]
    notes: tuple[str, ...]
    about_files: tuple[str, ...]
    about_texts: tuple[str, ...]

    @property
    def bytes_per_token(self) -> float:
        return self.text_bytes / self.tokens

    def lines(self) -> list[str]:
        """Format the report."""
        p = self.length_percentiles
        repeats = f"{'' if self.duplicates_exact else 'about '}{self.duplicate_share:.1%}"
        near = self.near_duplicate_share
        with_near = "" if near is None else f", about {near:.1%} with near ones"
        kind = "pieces of documents" if self.held_out_pieces else "documents"
        if 0 < self.held_out_pieces < self.validation_documents:
            kind = "documents and pieces of long ones"
        share = self.validation_tokens / self.tokens
        held = (
            f"{self.validation_documents:,} {kind}, {self.validation_tokens:,} tokens ({share:.1%})"
        )
        lines = [
            f"dataset {self.folder}" + (" (already prepared: reused)" if self.reused else ""),
            *self.about_files,
            f"  documents      {self.documents:,} ({repeats} duplicates{with_near})",
            *self._left_out_lines(),
            f"  tokens         {self.tokens:,} as {self.dtype}, vocabulary {self.vocab_size:,}",
            f"  text           {self.text_bytes / 1e6:,.2f} MB, "
            f"{self.bytes_per_token:.2f} bytes per token",
            f"  lengths        median {p[50]:,} tokens; 5% {p[5]:,}, 25% {p[25]:,}, 75% {p[75]:,}, "
            f"95% {p[95]:,}, longest {p[100]:,}",
            f"  held out       {held if self.validation_documents else 'none'}",
            f"  packing        avoids {self.padding_share:.1%} padding and "
            f"{self.truncated_share:.1%} truncation",
            f"                 (of one document per row of {self.max_seq_len:,} tokens)",
            *self.about_texts,
            *(f"  note           {note}" for note in self.notes),
        ]
        if self.shared_documents == 1:
            lines.append(
                "  note           1 training document also occurs in the held-out text: its loss "
                "will be too low"
            )
        elif self.shared_documents:
            lines.append(
                f"  note           {self.shared_documents:,} training documents also occur in the "
                "held-out text: its loss will be too low"
            )
        elif self.shared_text_share >= MUCH_SHARED:
            lines.append(
                f"  WARNING        about {self.shared_text_share:.0%} of the held-out text also "
                "stands in the training text: its loss will be too low"
            )
        if near is not None and near >= MANY_NEAR and self.documents >= OF_DOCUMENTS:
            lines.append(
                f"  note           about {near:.0%} of the documents nearly repeat another one: "
                "`jielong clean` keeps one of each, before any is held out"
            )
        if self.too_small_to_hold_out:
            lines.append(
                "  note           too little text to hold any out, or all of it repeated: nothing "
                "tells learning from memorising; add text, or give --validation-path"
            )
        if self.marked_documents:
            lines.append(
                f"  note           {self.marked_documents:,} documents already have bos or eos "
                "in their text: not added twice"
            )
        return lines + [f"  sample         {sample}" for sample in self.samples]

    def _left_out_lines(self) -> list[str]:
        """Say how much text was left out, if any was; warn if it was much."""
        lines = []
        for part, losses in self.left_out.items():
            of = " of the held-out text" if part == "validation" else ""
            if losses.count:
                listed = f"{of}; see {self.folder / BAD_LINES}"
                lines.append(f"  left out       {losses.summary()}{listed}")
            if warning := losses.warning():
                lines.append(f"  WARNING        text was left out; the first is {warning}")
            lines += [f"  note           {note}" for note in losses.notes()]
        return lines


def describe(
    dataset: Dataset,
    tokenizer: Tokenizer,
    max_seq_len: int,
    sources: Sources,
    reused: bool = False,
) -> PrepareReport:
    """Compute the report of a dataset on disk, in bounded memory."""
    streams = [dataset.train] + ([dataset.validation] if dataset.validation else [])
    lengths: Counter[int] = Counter()
    padded = truncated = 0
    for stream in streams:
        for chunk in _lengths(stream):
            lengths.update(_rounded(chunk))
            padded += int(np.maximum(max_seq_len - chunk, 0).sum())
            truncated += int(np.maximum(chunk - max_seq_len, 0).sum())
    documents, tokens = lengths.total(), sum(map(len, streams))
    counts = dataset.manifest["counts"]
    validation = dataset.validation
    return PrepareReport(
        folder=dataset.folder,
        reused=reused,
        documents=counts.get("documents", documents),
        bad_lines=counts["bad_lines"],
        left_out=accounts_of(dataset.manifest),
        tokens=tokens,
        text_bytes=sum(stream.text_bytes for stream in streams),
        vocab_size=dataset.manifest["vocab_size"],
        dtype=np.dtype(dataset.manifest["dtype"]).name,
        validation_documents=len(validation.documents) if validation else 0,
        validation_tokens=len(validation) if validation else 0,
        length_percentiles=_percentiles(lengths),
        duplicate_share=counts["duplicate_share"],
        duplicates_exact=counts["duplicates_exact"],
        near_duplicate_share=counts.get("near_duplicate_share"),
        shared_documents=counts["shared_documents"],
        shared_text_share=counts.get("shared_text_share", 0.0),
        marked_documents=counts["marked_documents"],
        held_out_pieces=counts.get("held_out_pieces", 0),
        too_small_to_hold_out=counts.get("too_small_to_hold_out", False),
        max_seq_len=max_seq_len,
        padding_share=padded / (documents * max_seq_len),
        truncated_share=truncated / tokens,
        samples=_samples(dataset.train, tokenizer),
        notes=(*_notes(tokenizer), *_same_text(sources)),
        about_files=tuple(describe_files(sources.data, sources.not_read)),
        about_texts=tuple(describe_texts(counts)),
    )


def _lengths(stream: TokenStream) -> Iterator[np.ndarray]:
    """Yield the token counts of the documents, in chunks."""
    starts, total = stream.documents, len(stream.documents)
    for begin in range(0, total, CHUNK):
        end = min(begin + CHUNK, total)
        after = starts[end] if end < total else len(stream)
        yield np.diff(starts[begin:end], append=after)


def _rounded(lengths: np.ndarray) -> dict[int, int]:
    """Count the lengths, each rounded down to 11 significant bits to bound their number."""
    shift = np.maximum(np.frexp(lengths.astype(np.float64))[1] - 11, 0)
    values, counts = np.unique(lengths >> shift << shift, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _percentiles(lengths: Counter[int]) -> dict[int, int]:
    values = np.array(sorted(lengths))
    seen = np.cumsum([lengths[value] for value in values.tolist()])
    ranks = {p: max(1, -(-p * int(seen[-1]) // 100)) for p in PERCENTILES}  # nearest rank
    return {p: int(values[np.searchsorted(seen, rank)]) for p, rank in ranks.items()}


def _samples(stream: TokenStream, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Decode the beginnings of two documents, special tokens included."""
    count = len(stream.documents)
    texts = []
    for i in sorted({0, count // 2}):
        start = int(stream.documents[i])
        stop = int(stream.documents[i + 1]) if i + 1 < count else len(stream)
        shown = tokenizer.decode(stream.read(start, min(stop, start + SAMPLE_TOKENS)).tolist())
        is_cut = stop - start > SAMPLE_TOKENS
        shown = shown.rstrip("\ufffd") if is_cut else shown
        texts.append(shown.replace("\n", "⏎") + (" …" if is_cut else ""))
    return tuple(texts)


def _same_text(sources: Sources) -> list[str]:
    """Warn of files that are trained on and held out."""
    if not sources.in_both:
        return []
    named = ", ".join(sources.in_both[:3]) + (" …" if len(sources.in_both) > 3 else "")
    return [
        f"WARNING: {named}: both trained on and held out (--validation-path), so the held-out loss "
        "says how much was memorised, not how good the model is; leave --validation-path away to "
        "hold out a part"
    ]


def _notes(tokenizer: Tokenizer) -> tuple[str, ...]:
    notes = []
    if tokenizer.eos_id is None:
        notes.append(
            "the tokenizer has no eos token: the model cannot learn where a text ends; "
            "name one with --eos-token"
        )
    if tokenizer.bos_id is None and tokenizer.eos_id is None:
        notes.append("the tokenizer has no bos token either: no token separates documents")
    return tuple(notes)
