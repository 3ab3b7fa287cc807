"""What a model predicts at each place of a text, beside what stands there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from jielong.insight.reading import Reading, notes_of, read
from jielong.model.transformer import Transformer
from jielong.present.blocks import Block, Facts, Mark, Note, Page, Strip, Table
from jielong.present.result import Result
from jielong.present.visible import spelled
from jielong.present.words import Say
from jielong.tokenization.tokenizer import Tokenizer

DEEPEST_BITS = 12.0  # of surprise: tinted most deeply


@dataclass(frozen=True)
class Guess:
    """A token and the probability that the model gives it."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What the model expects at one place: after all tokens before it.

    Attributes:
        rank: 1 if the true token is the likeliest.
        bits: of surprise, −log₂ of the true token's probability.
        guesses: the likeliest tokens, the likeliest first.
    """

    position: int
    token: int
    text: str
    probability: float
    rank: int
    bits: float
    guesses: tuple[Guess, ...]


@dataclass(frozen=True)
class PredictionsView(Result):
    """A text, predicted token by token; `bytes` are those of the predicted tokens."""

    reading: Reading
    predictions: tuple[Prediction, ...]
    bytes: int
    vocabulary: int

    @property
    def bits(self) -> float:
        """Bits of surprise of all tokens together."""
        return sum(p.bits for p in self.predictions)

    def page(self, say: Say) -> Page:
        """Return the text tinted by surprise, the guesses below, and a table."""
        count = len(self.predictions)
        first = sum(p.rank == 1 for p in self.predictions)
        rate = f"{self.bits / self.bytes:.3f}" if self.bytes else "–"
        facts = [
            (say("bits per byte"), rate),
            (
                say("surprise"),
                say(
                    "{bits:.1f} bits over {n} tokens, {each:.2f} a token (by chance {chance:.2f})",
                    bits=self.bits,
                    n=count,
                    each=self.bits / count,
                    chance=math.log2(self.vocabulary),
                ),
            ),
            (say("likeliest is true"), f"{first} / {count} ({first / count:.0%})"),
        ]
        blocks: list[Block] = [Facts(facts), *notes_of(self.reading, say)]
        blocks.append(
            Note(
                say(
                    "The deeper the tint of a token, the more it surprises the model. Below each: "
                    "what the model holds for likeliest there, tinted by its probability."
                ),
                "dim",
            )
        )
        blocks += [self._surprise(say), self._guesses(say), self._table(say)]
        return Page(say("What the model predicts"), blocks)

    def _surprise(self, say: Say) -> Strip:
        columns = [
            (
                Mark(p.text, heat=min(1.0, p.bits / DEEPEST_BITS)),
                Mark(f"{p.bits:.1f}", muted=True),
            )
            for p in self.predictions
        ]
        return Strip((say("text"), say("bits")), columns, say("Surprise"))

    def _guesses(self, say: Say) -> Strip:
        most = max(len(p.guesses) for p in self.predictions)
        columns = [
            (
                Mark(p.text, group=None),
                *(Mark(g.text, heat=g.probability, muted=True) for g in p.guesses),
            )
            for p in self.predictions
        ]
        labels = (say("text"), *(str(rank) for rank in range(1, most + 1)))
        return Strip(labels, columns, say("The likeliest tokens at each place"), scale="cool")

    def _table(self, say: Say) -> Table:
        columns = (
            *(say("token"), say("the likeliest"), say("position")),
            *(say("probability"), say("rank"), say("bits")),
        )
        rows = [
            (
                p.text,
                "  ".join(f"{g.text} {g.probability:.0%}" for g in p.guesses[:3]),
                str(p.position),
                percent(p.probability),
                f"{p.rank:,}",
                f"{p.bits:.2f}",
            )
            for p in self.predictions
        ]
        return Table(columns, rows, say("Token by token"), left=2)


def percent(share: float) -> str:
    """Format a probability so that small ones stay visible."""
    return f"{share:.1%}" if share >= 0.01 else f"{share * 100:.2g}%"


@torch.inference_mode()
def inspect_predictions(
    model: Transformer, tokenizer: Tokenizer, text: str, guesses: int = 5
) -> PredictionsView:
    """Predict each token of a text from those before it: `jielong inspect predict`.

    Args:
        model, tokenizer: as `load` gives them.
        text: read as a document, up to the model's context. Its end is not predicted.
        guesses: how many of the likeliest tokens to keep for each place.

    Returns:
        For each of the T tokens but the first its probability, rank and surprise (bits), and the
        likeliest tokens.

    Raises:
        DataError: there is no text, or the tokenizer cannot read it.
    """
    reading = read(model, tokenizer, text, least=2)
    tokens = reading.tokens(model.device)
    hidden = model.hidden_states(tokens)[0, :-1]  # (T − 1, H)
    logits = model.logits(hidden).float()  # (T − 1, V)
    found = predictions_of(logits, reading, tokenizer, guesses)
    return PredictionsView(reading, tuple(found), sum(reading.sizes[1:]), logits.shape[-1])


def predictions_of(
    logits: torch.Tensor, reading: Reading, tokenizer: Tokenizer, guesses: int
) -> Sequence[Prediction]:
    """Compare the logits (T − 1, V) with the tokens that follow, (T − 1) of T."""
    logs = logits.log_softmax(-1)
    true = torch.tensor(reading.ids[1:], device=logits.device)[:, None]
    own = logs.gather(1, true)
    ranks = 1 + (logs > own).sum(-1)
    top = logs.topk(min(guesses, logs.shape[-1]), dim=-1)
    nats = own[:, 0].tolist()
    found = []
    for i, (values, ids) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True)):
        best = tuple(
            Guess(token, spelled(tokenizer.piece(token)), math.exp(value))
            for value, token in zip(values, ids, strict=True)
        )
        found.append(
            Prediction(
                position=i + 1,
                token=reading.ids[i + 1],
                text=reading.texts[i + 1],
                probability=math.exp(nats[i]),
                rank=int(ranks[i]),
                bits=-nats[i] / math.log(2),
                guesses=best,
            )
        )
    return found
