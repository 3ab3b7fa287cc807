"""Words when a run looks wrong, each with what to try.

Every check is a pure function of the records so far, and wants much evidence: a false alarm is
worse than silence, since whoever has seen one reads no more of them. Checks look at levels that the
text, the noise of small batches and the ends of schedules do not reach by themselves.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Record = Mapping[str, Any]
RECENT = 20  # records that tell what is so now
LEAST_FLAT = 100  # records from which a flat loss can be told from noise
FLAT = 0.005  # share of the loss: half a run gains at least that, unless it learns no more
ABOVE_UNIFORM = 0.5  # nats above ln(vocabulary): no start is that bad, a rate too high is
LEAST_STEPS = 100  # after warm-up, before a loss near ln(vocabulary) means anything
NEAR_UNIFORM = 0.1  # nats below ln(vocabulary)
GROWN = 5.0  # times the gradient norm that the run had
WORSE = 0.005  # of the best held-out loss
SLOWER = 2 / 3  # of the median speed
SLOW_S = 60.0  # seconds for which a run must be slow
SHARED = 0.25  # of the processors, used by other programs
SHARED_S = 20.0  # seconds for which they must be
WORN = (4, 16, 40)  # times that a text has been read, at each of which that is said
STRAGGLER_RECORDS = 10  # in which the same rank was late, each time
STRAGGLER_SCORE = 0.75  # the others' time over that of the slowest: below it is a straggler
UNUSED_RECORDS = 20  # in which an expert got no token


@dataclass(frozen=True)
class Finding:
    """What looks wrong: its name, said once in a run, and a sentence with what to try."""

    name: str
    text: str


@dataclass
class Health:
    """The records of a run so far, and what has been said of them.

    Attributes:
        vocab_size: of the model.
        warmup_steps: of the learning rate; before they end nothing is judged.
        epoch_tokens: tokens of a run in which its text is read once; 0 if that is not known.
        held_out: whether the run measures its loss on text that it does not train on.
        said: names of findings that were told before.
    """

    vocab_size: int
    warmup_steps: int
    epoch_tokens: float = 0.0
    held_out: bool = True
    train: list[Record] = field(default_factory=list)
    validations: list[Record] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    first_here: int = 0  # the first record since this start: the speed before may be another's

    def anew(self) -> Health:
        """Return the health of the same run with nothing seen and nothing said."""
        return Health(self.vocab_size, self.warmup_steps, self.epoch_tokens, self.held_out)

    def see(self, kind: str, record: Record) -> list[Finding]:
        """Take in a record of `train` or `validation`; return what has not been said yet."""
        if kind == "train":
            self.train.append(record)
            if len(self.train) % max(5, len(self.train) // 20):
                return []  # so that all checks together cost little, however long the run
        else:
            self.validations.append(record)
        found = [f for f in self.findings() if f.name not in self.said]
        if "above_uniform" in self.said:  # of a run that diverges all has been said
            found = []
        self.said |= {f.name for f in found}
        return found

    def findings(self) -> list[Finding]:
        """Everything that looks wrong now."""
        train = [r for r in self.train if r["step"] > self.warmup_steps]
        checks: list[Callable[[], Finding | None]] = [
            lambda: above_uniform(train, self.vocab_size, self.warmup_steps),
            lambda: flat_loss(train, self.vocab_size),
            lambda: growing_gradient(train),
            lambda: memorising(train, self.validations),
            lambda: slower(self.train[self.first_here :]),
            lambda: shared(self.train[self.first_here :]),
            lambda: unused_expert(train),
            lambda: straggler(self.train[self.first_here :]),
            lambda: read_again(train, self.epoch_tokens, self.held_out),
        ]
        return [finding for check in checks if (finding := check())]


def above_uniform(train: Sequence[Record], vocab_size: int, warmup: int) -> Finding | None:
    """The loss is far above ln(V), what a random guess has, or has hardly come below it."""
    losses = _numbers(train[-RECENT:], "loss")
    if len(losses) < min(RECENT, 10) or len(losses) < len(train[-RECENT:]):
        return None
    uniform, now = math.log(vocab_size), statistics.median(losses)
    if now > uniform + ABOVE_UNIFORM and losses[-1] > uniform + ABOVE_UNIFORM:
        return Finding(
            "above_uniform",
            f"the loss, {now:.2f}, is far above ln({vocab_size}) = {uniform:.2f}, that of a random "
            "guess: the run diverges. Try a lower --learning-rate or a longer --warmup-steps",
        )
    steps = train[-1]["step"] - warmup
    if now > uniform - NEAR_UNIFORM and steps >= LEAST_STEPS and len(train) >= RECENT:
        return Finding(
            "near_uniform",
            f"after {train[-1]['step']} steps the loss, {now:.2f}, is still that of a random "
            f"guess, ln({vocab_size}) = {uniform:.2f}. Try another --learning-rate, and look "
            "whether the text is what you meant it to be",
        )
    return None


def flat_loss(train: Sequence[Record], vocab_size: int) -> Finding | None:
    """The loss has gained next to nothing in the last half of the steps, beyond its noise."""
    if len(train) < LEAST_FLAT or not _is_high_rate(train):
        return None
    half = train[-1]["step"] / 2
    later = [r for r in train if r["step"] > half]
    losses = _numbers(later, "loss")
    if len(later) < LEAST_FLAT // 2 or len(losses) < len(later):
        return None
    middle = len(losses) // 2
    first, second = losses[:middle], losses[middle:]
    before, now = statistics.fmean(first), statistics.fmean(second)
    error = math.sqrt(statistics.variance(first) / len(first))
    error = math.hypot(error, math.sqrt(statistics.variance(second) / len(second)))
    # twice the standard error: it must be clear that so little was gained, also where losses vary
    if before - now + 2 * error >= FLAT * now or now < 0.1 * math.log(vocab_size):
        return None
    return Finding(
        "flat_loss",
        f"the loss has been flat since step {later[0]['step']} ({before:.3f}, now {now:.3f}). If "
        "it is not good enough, try another --learning-rate, a larger model or more text; more "
        "steps alone gain little",
    )


def growing_gradient(train: Sequence[Record]) -> Finding | None:
    """The gradient norm is several times what it was, and the loss does not fall any more."""
    if len(train) < 4 * RECENT:
        return None
    norms, losses = _numbers(train, "grad_norm"), _numbers(train, "loss")
    if len(norms) < len(train) or len(losses) < len(train):
        return None
    before, now = statistics.median(norms[:-RECENT]), statistics.median(norms[-RECENT:])
    recent = statistics.median(losses[-RECENT:])
    falls = recent < statistics.median(losses[-2 * RECENT : -RECENT])
    if falls or now < GROWN * before or statistics.median(norms[-RECENT // 2 :]) < GROWN * before:
        return None
    return Finding(
        "growing_gradient",
        f"the gradient norm has grown to {now:.3g}, {now / before:.0f} times what it was, and the "
        "loss does not fall: the run may diverge. Try a lower --learning-rate or --grad-clip",
    )


def memorising(train: Sequence[Record], validations: Sequence[Record]) -> Finding | None:
    """The held-out loss rises, twice in a row, while the training loss falls."""
    held = [r for r in validations if _is_number(r.get("loss"))]
    if len(held) < 3:
        return None
    best = min(held, key=lambda r: r["loss"])
    limit = best["loss"] * (1 + WORSE)
    earlier, last = held[-2], held[-1]
    if best["step"] >= earlier["step"] or not limit < earlier["loss"] <= last["loss"]:
        return None
    span = last["step"] - best["step"]
    after = _numbers([r for r in train if r["step"] > best["step"]], "loss")
    around = [r for r in train if best["step"] - span < r["step"] <= best["step"]]
    before = _numbers(around, "loss")
    if len(after) < 4 or len(before) < 4 or statistics.fmean(after) >= statistics.fmean(before):
        return None
    return Finding(
        "memorising",
        f"the held-out loss rises ({best['loss']:.3f} at step {best['step']}, now "
        f"{last['loss']:.3f}) while the training loss falls: the model memorises the text. More "
        "text helps most; else fewer --epochs, or more --weight-decay or --dropout. The best "
        "checkpoint is kept",
    )


def slower(train: Sequence[Record]) -> Finding | None:
    """For a minute the speed has been a third below the run's own median."""
    speeds = _numbers(train, "tokens_per_second")
    if len(speeds) < 2 * RECENT or len(speeds) < len(train):
        return None
    recent, seconds, tokens = 0, 0.0, 0.0
    for _, count, spent in _latest_first(train):
        if recent >= RECENT // 2 and seconds >= SLOW_S:
            break
        seconds, tokens, recent = seconds + spent, tokens + count, recent + 1
    earlier = speeds[: len(speeds) - recent]
    if seconds < SLOW_S or len(earlier) < RECENT:
        return None
    median, now = statistics.median(earlier), tokens / seconds
    if now >= SLOWER * median or max(speeds[-3:]) >= SLOWER * median:
        return None
    return Finding(
        "slower",
        f"training has slowed down to {now:,.0f} tokens/s, from {median:,.0f}: another program may "
        "use this machine, or it may be too hot. `top`, or nvidia-smi, shows which",
    )


def shared(train: Sequence[Record]) -> Finding | None:
    """Other programs have used much of the processors for some time."""
    seconds, used = 0.0, 0.0
    for record, _, spent in _latest_first(train):
        share = record.get("others_share")
        if share is None or not record.get("tokens_per_second"):
            return None
        seconds, used = seconds + spent, used + share * spent
        if seconds >= SHARED_S:
            break
    if seconds < SHARED_S or used < SHARED * seconds:
        return None
    return Finding(
        "shared",
        f"other programs use {used / seconds:.0%} of this machine's processors: training is slower "
        "by that or more, since its threads wait for each other. `top` shows which they are",
    )


def straggler(train: Sequence[Record]) -> Finding | None:
    """One of several processes takes much longer for its part than the others, record by record."""
    recent = [r.get("rank_seconds") or [] for r in train[-STRAGGLER_RECORDS:]]
    if len(recent) < STRAGGLER_RECORDS or not all(recent) or len(set(map(len, recent))) > 1:
        return None
    slowest = {max(range(len(seconds)), key=seconds.__getitem__) for seconds in recent}
    if len(slowest) > 1:
        return None
    rank = slowest.pop()
    own = [seconds[rank] for seconds in recent]
    others = [statistics.median(seconds[:rank] + seconds[rank + 1 :]) for seconds in recent]
    if any(b >= STRAGGLER_SCORE * a for a, b in zip(own, others, strict=True)):
        return None
    return Finding(
        f"straggler_{rank}",
        f"rank {rank} takes {own[-1]:.3g} s for its part of a step, the others {others[-1]:.3g}, "
        "and all wait for it: another program may use its machine, or it may be too hot. "
        "ranks.jsonl says which machine it is",
    )


def unused_expert(train: Sequence[Record]) -> Finding | None:
    """An expert has got no token at all, time after time; layers count from 1, as in `inspect`."""
    loads = [r.get("expert_load") for r in train[-UNUSED_RECORDS:]]
    if len(loads) < UNUSED_RECORDS or not all(loads):
        return None
    unused = [
        (layer, expert)
        for layer, experts in enumerate(loads[-1] or [])
        for expert in range(len(experts))
        if all(load and load[layer][expert] == 0 for load in loads)
    ]
    if not unused:
        return None
    layer, expert = unused[0]
    others = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
    return Finding(
        "unused_expert",
        f"no token is sent to expert {expert} of layer {layer + 1}{others}, in {UNUSED_RECORDS} "
        "records: its weights are of no use. Try a larger --router-aux-loss-coef, "
        "or --router-aux-loss bias",
    )


def read_again(train: Sequence[Record], epoch_tokens: float, held_out: bool) -> Finding | None:
    """The text has been read so often that reading it again teaches less.

    Up to 4 times it teaches nearly as much as new text, at 16 little, at 40 next to nothing
    (Muennighoff et al. 2023, arXiv:2305.16264).
    """
    tokens = _numbers(train[-1:], "tokens")
    if not (read := [n for n in WORN if tokens and tokens[0] >= n * epoch_tokens > 0]):
        return None
    name = f"read_{read[-1]}_times"
    if held_out:
        return Finding(
            name,
            f"from here on the text is read for more than the {read[-1]}th time: the more often, "
            "the less it teaches. Watch the held-out loss; more text helps most",
        )
    return Finding(
        name,
        f"from here on the text is read for more than the {read[-1]}th time: the more often, the "
        "less it teaches, and no text is held out that would show when it is only memorised "
        "(--validation-fraction, --validation-path). More text helps most",
    )


def _latest_first(train: Sequence[Record]) -> Iterator[tuple[Record, float, float]]:
    """Yield records from the last one back, with the tokens and seconds since the one before."""
    for record, before in zip(train[:0:-1], train[-2::-1], strict=True):
        tokens = record["tokens"] - before["tokens"]
        yield record, tokens, tokens / max(1e-9, record.get("tokens_per_second") or 0.0)


def _is_high_rate(train: Sequence[Record]) -> bool:
    """Whether the learning rate is still above a tenth of its peak: at the end all runs go flat."""
    rates = _numbers(train, "learning_rate")
    return bool(rates) and rates[-1] > 0.1 * max(rates)


def _numbers(records: Sequence[Record], name: str) -> list[float]:
    return [float(r[name]) for r in records if _is_number(r.get(name))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
