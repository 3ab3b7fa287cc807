"""What a run will take, before it runs: parameters, tokens, memory, time and cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from jielong.insight.model import kind_names
from jielong.insight.plan_memory import MemoryByKind
from jielong.insight.plan_text import warnings_of
from jielong.present.blocks import Bars, Block, Facts, Note, Page
from jielong.present.result import Result
from jielong.present.words import Say


@dataclass(frozen=True)
class TimeByKind:
    """Seconds of a run.

    Attributes:
        preparing: tokenizer and dataset, as they took just now.
        validating: with checkpoints and samples.
    """

    preparing: float
    training: float
    validating: float

    @property
    def total(self) -> float:
        return self.preparing + self.training + self.validating


@dataclass(frozen=True)
class PlanView(Result):
    """A run that has not begun.

    Attributes:
        flops: of training on one token.
        text_tokens, text_bytes, documents: of the training split.
        document_tokens_50, document_tokens_95: percentiles of the documents' lengths.
        epochs: how often the text is read.
        device: what the time is for; `measured` there, or from its peak and `mfu`.
        available: bytes of memory; none if that is not known.
        cost: of the time at `price_per_hour`, in its currency.
    """

    parameters: int
    active_parameters: int
    parameters_by_part: dict[str, int]
    embedding_share: float
    width: int
    vocabulary: int
    flops: float
    text_tokens: int
    text_bytes: int
    documents: int
    document_tokens_50: int
    document_tokens_95: int
    held_out_tokens: int
    tokens: int
    steps: int
    epochs: float
    window: int
    global_batch: int
    micro_batch: int
    micro_batch_that_fits: int
    memory: MemoryByKind
    available: int | None
    device: str
    gpu: str | None
    measured: bool
    mfu: float | None
    tokens_per_second: float
    time: TimeByKind
    price_per_hour: float | None
    cost: float | None

    def page(self, say: Say) -> Page:
        """Return tables of what the run takes, and warnings."""
        size = f"{self.parameters / 1e6:.2f}M"
        title = say(
            "Plan: {size} parameters, {tokens:.3g}M tokens", size=size, tokens=self.millions
        )
        blocks: list[Block] = [Facts(self._facts(say))]
        blocks += [Note("⚠ " + text, "warning") for text in warnings_of(self, say)]
        names = kind_names(say)
        shares = [
            (names[kind], float(n), f"{n:,} ({n / self.parameters:.0%})")
            for kind, n in self.parameters_by_part.items()
        ]
        memory = [
            (name, float(n), gigabytes(n))
            for name, n in zip(self._memory_names(say), asdict(self.memory).values(), strict=True)
        ]
        seconds = [
            (name, s, lasting(s))
            for name, s in (
                (say("tokenizer and dataset"), self.time.preparing),
                (say("training"), self.time.training),
                (say("validation and checkpoints"), self.time.validating),
            )
        ]
        blocks += [
            Bars(shares, say("Parameters by part")),
            Bars(memory, say("Memory by kind, at the peak of an update")),
            Bars(seconds, say("Time")),
        ]
        return Page(title, blocks)

    @property
    def millions(self) -> float:
        return self.tokens / 1e6

    def _memory_names(self, say: Say) -> list[str]:
        return [
            *(say("Python and torch"), say("weights"), say("gradients"), say("optimizer")),
            *(say("average of the weights"), say("activations"), say("logits"), say("data")),
        ]

    def _facts(self, say: Say) -> list[tuple[str, str]]:
        facts = [
            (
                say("text"),
                say(
                    "{tokens:,} tokens, {documents:,} documents (half of them up to {median:,} "
                    "tokens), {held:,} tokens held out",
                    tokens=self.text_tokens,
                    documents=self.documents,
                    median=self.document_tokens_50,
                    held=self.held_out_tokens,
                ),
            ),
            (
                say("budget"),
                say(
                    "{steps:,} steps, {tokens:,} tokens: {ratio:.2g} a parameter, the text "
                    "{epochs:.3g} times",
                    steps=self.steps,
                    tokens=self.tokens,
                    ratio=self.tokens / self.active_parameters,
                    epochs=self.epochs,
                ),
            ),
            (
                say("arithmetic"),
                say(
                    "{each:.3g} FLOPs a token, {all:.3g} in all",
                    each=self.flops,
                    all=self.flops * self.tokens,
                ),
            ),
            (say("memory"), self._memory(say)),
            (say("time"), self._time(say)),
        ]
        if self.cost is not None and self.price_per_hour is not None:
            cost = say("{cost:.2f} at {price:g} an hour", cost=self.cost, price=self.price_per_hour)
            facts.append((say("cost"), cost))
        return facts

    def _memory(self, say: Say) -> str:
        text = gigabytes(self.memory.total)
        if self.available is not None:
            text += " " + say("of {available} free", available=gigabytes(self.available))
        micro = self.micro_batch_that_fits or 1
        batch = say(
            "batches of {batch} × {window}, {micro} at once",
            batch=self.global_batch,
            window=self.window,
            micro=micro,
        )
        return f"{text}; {batch}"

    def _time(self, say: Say) -> str:
        if self.measured:
            basis = say("measured here: {device}", device=self.device)
        else:
            basis = say(
                "{device}, at an assumed {mfu:.0%} of its peak (--mfu)",
                device=self.device,
                mfu=self.mfu,
            )
        speed = say("{speed:,.0f} tokens/s", speed=self.tokens_per_second)
        return f"{lasting(self.time.total)} ({speed}; {basis})"


def gigabytes(size: float) -> str:
    """Format bytes."""
    return f"{size / 2**30:.2f} GiB" if size >= 0.1 * 2**30 else f"{size / 2**20:.1f} MiB"


def lasting(seconds: float) -> str:
    """Format a duration in the two largest units that it has."""
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60) if seconds >= 3600 else int(seconds // 60)
    if seconds < 3600:
        return f"{minutes}m {seconds % 60:02.0f}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours < 48 else f"{hours // 24}d {hours % 24}h"
