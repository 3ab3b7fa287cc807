"""Batches as the model sees them: what goes in, what is to be predicted, and what counts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jielong.config.settings import IGNORE_INDEX
from jielong.data.batches import Batch
from jielong.errors import ConfigError
from jielong.insight.subject import Log, Subject, opened, silent
from jielong.present.blocks import Block, Facts, Mark, Note, Page, Strip
from jielong.present.result import Result
from jielong.present.visible import spelled
from jielong.present.words import Say
from jielong.tokenization.tokenizer import Tokenizer
from jielong.training.run_data import RunData


@dataclass(frozen=True)
class Position:
    """One place of a window.

    Attributes:
        document: within the window, from 0.
        token: the input X, and `text`, its piece; none is padding.
        target: the output Y, and `target_text`, its piece; none does not count.
        replaced: the input is not the text's own token: noise put it there.
    """

    position: int
    document: int
    token: int | None
    text: str
    target: int | None
    target_text: str
    replaced: bool


@dataclass(frozen=True)
class WindowView:
    """A row of a batch; `window` is its number in the split."""

    window: int
    documents: int
    positions: tuple[Position, ...]


@dataclass(frozen=True)
class DataView(Result):
    """The batch of a step, of which some rows are shown.

    Attributes:
        windows: rows of the batch; `window` is the positions of each.
        counted: targets in it that count in the loss, of `windows` · `window`.
        padding: positions without a token.
        steps_per_epoch: steps in which the text is read once, at the full size of a batch.
    """

    step: int
    total_steps: int
    epoch: int
    packing: str
    document_mask: bool  # attention stays within documents
    windows: int
    window: int
    counted: int
    padding: int
    documents: int
    input_noise: float
    bpe_dropout: float
    rows: tuple[WindowView, ...]
    positions_shown: int

    def page(self, say: Say) -> Page:
        """Return X above Y for each row."""
        total = self.windows * self.window
        kind = say("packed: documents one after another, cut into windows")
        if self.packing == "pad":
            kind = say("padded: one document a row")
        facts = [
            (say("batch"), f"{self.windows} × {self.window} = {total:,} " + say("positions")),
            (say("windows"), kind),
            (
                say("documents"),
                say("{n:,}, {each:.1f} a window", n=self.documents, each=self._a_window()),
            ),
            (say("padding"), f"{self.padding:,} ({self.padding / total:.1%})"),
            (
                say("in the loss"),
                say("{n:,} targets ({share:.1%})", n=self.counted, share=self.counted / total),
            ),
        ]
        noise = []
        if self.input_noise:
            noise.append(say("{share:.0%} of the input tokens replaced", share=self.input_noise))
        if self.bpe_dropout:
            noise.append(say("{share:.0%} of the tokens split", share=self.bpe_dropout))
        if noise:
            facts.append((say("noise"), ", ".join(noise)))
        title = say(
            "Batch of step {step} of {total}, epoch {epoch}",
            step=self.step,
            total=self.total_steps,
            epoch=self.epoch,
        )
        return Page(title, [Facts(facts), Note(self._legend(say), "dim"), *self._strips(say)])

    def _a_window(self) -> float:
        return self.documents / self.windows

    def _legend(self, say: Say) -> str:
        text = say(
            "X goes in, Y is to be predicted: the next token of X. Where Y is –, nothing counts "
            "in the loss."
        )
        if self.packing == "pack":
            text += say(" A line is where a document begins.")
            text += (
                say(" Attention does not cross it.")
                if self.document_mask
                else say(" Attention crosses it (--document-mask false).")
            )
        if self.input_noise:
            text += say(" Tinted inputs were replaced by noise.")
        return text

    def _strips(self, say: Say) -> Iterator[Block]:
        labels = (say("position"), "X", "Y")
        for number, row in enumerate(self.rows):
            shown = row.positions[: self.positions_shown]
            begins = {
                p.position
                for before, p in itertools.pairwise(shown)
                if p.document != before.document
            }
            title = say(
                "Row {row}: window {window:,}, documents: {documents}",
                row=number,
                window=row.window,
                documents=row.documents,
            )
            yield Strip(labels, [_column(p) for p in shown], title, frozenset(begins))
            if len(row.positions) > len(shown):
                yield Note(
                    say("… {n} more positions", n=len(row.positions) - len(shown)), tone="dim"
                )


def _column(p: Position) -> Sequence[Mark]:
    return (
        Mark(str(p.position), muted=True),
        Mark(p.text, heat=0.4 if p.replaced else None, muted=p.token is None),
        Mark(p.target_text if p.target is not None else "–", muted=p.target is None),
    )


def inspect_data(
    what: Subject,
    step: int = 0,
    rows: int = 2,
    positions: int = 64,
    clean: bool = False,
    log: Log = silent,
    **changes: object,
) -> DataView:
    """Return a batch of a run, or of one that settings would start: `jielong inspect data`.

    Args:
        what: a run's folder, or settings as `pretrain` takes them.
        step: whose batch, from 0.
        rows: of the batch that are kept.
        positions: of each row that `page` shows.
        clean: without the noise that training puts into a text which is read often.
        log: takes the lines of what has to be prepared for settings.
        **changes: settings that differ from the run's, such as `packing="pad"`.

    Returns:
        The first `rows` of the B rows of the batch, with X and Y of each of the T positions of a
        window; and how many targets count.

    Raises:
        ConfigError: there is no such run, or the run has no such step.
        DataError: the text cannot be read, or is not prepared.
    """
    if clean:
        changes |= {"input_noise": 0.0, "bpe_dropout": 0.0}
    with opened(what, log, **changes) as data:
        if not 0 <= step < data.plan.total_steps:
            raise ConfigError(
                f"step={step} is not a step of this run: it has {data.plan.total_steps}, from 0"
            )
        return view(data, step, rows, positions)


def view(data: RunData, step: int, rows: int, positions: int) -> DataView:
    """Describe the batch of a step, as one process would train on it."""
    batches, epoch = data.batches, data.batches.span(step).epoch
    batches.expect(step)
    batch, masked = batches.batch(step), data.config.data.document_mask
    padded = _padding(batch)
    noisy = batches.is_noisy(step)
    ids = [batches.row(int(window), epoch, noisy)[2].tolist() for window in batch.windows]
    total = [_row(batch, padded, row, ids[row], data.tokenizer) for row in range(len(ids))]
    return DataView(
        step=step,
        total_steps=data.plan.total_steps,
        epoch=epoch,
        packing=data.config.data.packing,
        document_mask=masked,
        windows=len(batch.tokens),
        window=batch.tokens.shape[1],
        counted=batch.target_count,
        padding=int(padded.sum()),
        documents=sum(row.documents for row in total),
        input_noise=data.plan.input_noise if noisy else 0.0,
        bpe_dropout=data.plan.bpe_dropout if noisy else 0.0,
        rows=tuple(total[:rows]),
        positions_shown=positions,
    )


def _padding(batch: Batch) -> np.ndarray:
    """Return where a row has no token any more, (B, T) bool: ids of 0 after its last target."""
    counted = batch.targets.numpy() != IGNORE_INDEX
    after = np.cumsum(counted[:, ::-1], axis=1)[:, ::-1] == 0
    padded: np.ndarray = after & (batch.tokens.numpy() == 0)
    return padded


def _row(
    batch: Batch, padded: np.ndarray, row: int, ids: list[int], tokenizer: Tokenizer
) -> WindowView:
    tokens, targets = batch.tokens[row].tolist(), batch.targets[row].tolist()
    positions = []
    for i, (token, target) in enumerate(zip(tokens, targets, strict=True)):
        missing = bool(padded[row, i])
        counts = target != IGNORE_INDEX
        before = targets[i - 1] if i else IGNORE_INDEX
        positions.append(
            Position(
                position=i,
                document=ids[i],
                token=None if missing else token,
                text="∅" if missing else spelled(tokenizer.piece(token)),
                target=target if counts else None,
                target_text=spelled(tokenizer.piece(target)) if counts else "",
                replaced=before not in (IGNORE_INDEX, token),
            )
        )
    return WindowView(int(batch.windows[row]), len(set(ids)), tuple(positions))
