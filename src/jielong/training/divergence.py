"""Whether a run has diverged: its held-out loss beside that of models that know very little."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence

import numpy as np

from jielong.checkpoint import checkpoint as ckpt
from jielong.data.shards import TokenStream
from jielong.training.state import TrainState

SAMPLES, SAMPLE_TOKENS = 32, 2**15  # pieces of a stream that are counted, evenly spread
RECENT = 8  # steps whose training losses say what is known now
LEAST_STEPS = 10  # a shorter run has had no time to learn
MARGIN = 0.05  # nats
DIVERGED, LEARNT_NOTHING = "diverged", "learnt nothing"


def unigram_loss(train: TokenStream, held_out: TokenStream, vocab_size: int) -> float:
    """Return the loss, in nats, of the model that knows only how frequent each token is.

    Frequencies are those of a sample of `train`, plus one of each token (Laplace 1814), and the
    loss is that of a sample of `held_out`.
    """
    counts = 1.0 + np.bincount(_sample(train), minlength=vocab_size)
    loss = np.log(counts.sum()) - np.log(counts)  # (V,)
    return float(loss[_sample(held_out)].mean())


def _sample(stream: TokenStream) -> np.ndarray:
    """Return (n,) tokens of pieces that are spread evenly over what is here; if little is, all."""
    stretches = stream.at_hand() or [(0, len(stream))]
    begins = np.cumsum([0, *(stop - start for start, stop in stretches)])
    pieces = []
    for i in range(0, begins[-1], max(SAMPLE_TOKENS, -(-int(begins[-1]) // SAMPLES))):
        at = int(np.searchsorted(begins, i, side="right")) - 1
        start, stop = stretches[at]
        begin = start + i - int(begins[at])
        pieces.append(stream.read(begin, min(begin + SAMPLE_TOKENS, stop)))
    return np.concatenate(pieces).astype(np.int64)


def explain_divergence(state: TrainState, ended: bool = False) -> str | None:
    """Return what to tell the user of a run whose latest validation is that of no useful model.

    Args:
        ended: the run goes no further, though its budget may not be spent.
    """
    fault, found = _fault(state), state.progress.validation
    if fault is None or found is None:
        return None
    loss = math.nan if found["loss"] is None else found["loss"]
    beside = f"held-out loss {loss:.4f}, where {_yardsticks(state)}"
    if fault == LEARNT_NOTHING:  # the rate may be too low, or far too high
        if not ended:
            return f"{fault} so far: {beside}; another --learning-rate would help"
        return f"the run has {fault}: {beside}; try another --learning-rate, or more steps"
    if not ended:
        return f"{fault} so far: {beside}; a lower --learning-rate would help"
    return (
        f"the run has {fault}: {beside}; {last_useful_checkpoint(state)}; try a lower "
        "--learning-rate or a longer --warmup-steps"
    )


def _fault(state: TrainState) -> str | None:
    """Return what is wrong with the model that the latest validation measured, if anything."""
    found, progress = state.progress.validation, state.progress
    if found is None or progress.step < LEAST_STEPS or found["step"] != progress.step:
        return None
    loss = math.inf if found["loss"] is None else found["loss"]
    best = math.inf if progress.best_loss is None else progress.best_loss
    uniform = math.log(state.config.model.vocab_size)
    if loss > uniform + MARGIN or best < loss:
        # unless the loss has risen, no sample of the text need be counted
        unigram = _unigram(state)
        if _memorises(progress.losses, unigram):
            return None  # it knows the text that it trains on; that the other has risen is said
        if loss > uniform + MARGIN or best < unigram < loss:
            return DIVERGED
    if loss < uniform - MARGIN:
        return None
    # a model whose weights have died gives the loss of a random guess, after much larger ones
    return DIVERGED if max(progress.losses, default=0.0) > uniform + 1 else LEARNT_NOTHING


def _memorises(losses: Sequence[float], unigram: float) -> bool:
    """Whether the text trained on is known far better than by the frequencies of its tokens."""
    latest = losses[-RECENT:]
    return len(latest) > 0 and statistics.median(latest) < unigram - 1


def _yardsticks(state: TrainState) -> str:
    uniform = math.log(state.config.model.vocab_size)
    return (
        f"a random guess has {uniform:.2f} and knowing only how frequent each token is "
        f"{_unigram(state):.2f}"
    )


def last_useful_checkpoint(state: TrainState) -> str:
    """Name the last checkpoint that is better than knowing how frequent each token is."""
    state.saving.rest()  # what is being written counts
    there = {ckpt.step_of(path): path for path in ckpt.checkpoints(state.folder.checkpoints)}
    if not there:
        return "there is no checkpoint"
    if state.dataset.validation is None:
        return "whether its checkpoints are of use was not measured, as no text is held out"
    unigram, losses = _unigram(state), _validation_losses(state)
    useful = [step for step in sorted(there) if losses.get(step, math.inf) < unigram]
    if not useful:
        return (
            "no checkpoint is better than knowing how frequent each token is: begin again, in "
            "another --out-dir"
        )
    last = there[useful[-1]]
    return f"the last checkpoint of use is {last} (held-out loss {losses[useful[-1]]:.4f})"


def _unigram(state: TrainState) -> float:
    dataset = state.dataset
    if dataset.validation is None:
        return math.inf
    return unigram_loss(dataset.train, dataset.validation, state.config.model.vocab_size)


def _validation_losses(state: TrainState) -> dict[int, float]:
    """Return the held-out loss by step, as recorded in metrics.jsonl."""
    losses: dict[int, float] = {}
    path = state.metrics.path
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
            if record["kind"] == "validation" and record["loss"] is not None:
                losses[int(record["step"])] = float(record["loss"])
        except (ValueError, KeyError, TypeError):
            continue  # a line cut short by a crash
    return losses
