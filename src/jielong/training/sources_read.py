"""How much of each text a run reads."""

from __future__ import annotations

from dataclasses import dataclass

from jielong.data.mixture import MixedWindows
from jielong.training.state import TrainState


@dataclass(frozen=True)
class Read:
    """What a run reads of a text.

    Attributes:
        share: of the run's windows.
        tokens: those of its windows.
        epochs: how often the text is read.
        text_tokens: of its training split.
    """

    share: float
    tokens: int
    epochs: float
    text_tokens: int


def read_shares(state: TrainState, windows: int) -> dict[str, Read]:
    """Return what the first `windows` of a run read of each of its texts, by name."""
    source, texts = state.batches.source, state.texts
    if not isinstance(source, MixedWindows):
        return {}
    window = state.config.data.max_seq_len
    found = {texts.main.name: (source.main.count, windows / source.count)}
    for part, text in enumerate(texts.others):
        found[text.name] = source.counts[part], source.epochs(part, windows)
    read = {}
    for text in texts.every:
        count, epochs = found[text.name]
        share = count / source.count
        tokens = round(windows * share * window)
        read[text.name] = Read(share, tokens, epochs, len(text.dataset.train))
    return read
