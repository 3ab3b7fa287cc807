"""The first lines of a run: its plan, settings that are ignored, the initial loss."""

from __future__ import annotations

import math

from jielong.config.model import MODEL_FIELDS
from jielong.config.settings import Config
from jielong.data.mixture import MixedWindows
from jielong.interop.export import refusals
from jielong.training.bigrams import ENDS
from jielong.training.divergence import explain_divergence
from jielong.training.parallel import describe_parallel
from jielong.training.scaling import REPEATED
from jielong.training.sources_read import read_shares
from jielong.training.state import TrainState

FIRST_LOSS_TOLERANCE = 0.5  # nats


def explain_first_loss(loss: float, vocab_size: int) -> str:
    """The loss before any update beside that of a model that knows nothing: ln(vocabulary)."""
    expected = math.log(vocab_size)
    beside = f"initial loss {loss:.2f}, expected ln({vocab_size}) = {expected:.2f}"
    if not math.isfinite(loss):
        return f"{beside}: it is not a number, so this update is skipped"
    if abs(loss - expected) <= FIRST_LOSS_TOLERANCE:
        return beside
    if loss > expected:
        return f"{beside}: higher, so the initial weights are confident and wrong"
    return f"{beside}: lower, so the text is very uniform, or the targets leak into the input"


def run_summary(state: TrainState) -> list[str]:
    """The plan of a run as a table of labels and values."""
    plan, batches, config = state.plan, state.batches, state.config
    m, t, window = plan.model, config.training, config.data.max_seq_len
    parameters, train_tokens = state.model.num_parameters(), len(state.dataset.train)
    tokens = batches.windows_before(plan.total_steps) * window
    epochs = tokens * batches.main_windows / batches.windows / max(1, train_tokens)
    windows = f"{plan.global_batch_size} × {window}"
    if batches.warmup_spans:
        windows = f"{batches.warmup_spans[0].count} to {windows}"
    kind = "Qwen3" if m.qk_norm else "Llama"
    scale = f"{epochs:.2g} epochs, {tokens / parameters:.2g} per parameter"
    if m.use_moe:
        kind += f" with {m.num_experts} experts, {m.num_experts_per_tok} per token"
    return [
        f"model      {parameters / 1e6:.2f}M parameters ({kind}: {m.num_hidden_layers} layers × "
        f"{m.hidden_size}, {m.num_attention_heads} heads, {m.num_key_value_heads} kv heads, "
        f"vocabulary {m.vocab_size})",
        f"attention  {_attention(state)}",
        *describe_parallel(state.world, state.train_step.sharding),
        *_in_parts(state),
        f"budget     {plan.total_steps} steps of {windows} tokens = "
        f"{f'{tokens / 1e6:,.1f}M' if tokens >= 1e6 else f'{tokens:,}'} tokens ({scale})",
        f"optimizer  {t.optimizer}, peak learning rate {plan.learning_rate:.2g}, {t.schedule}, "
        f"{plan.warmup_steps} warm-up steps"
        + ("; evaluating and saving averaged weights" if t.average_weights else ""),
        *_mixed_in(state),
        *_repetition(state, epochs),
        *_soft_targets(state),
        *_exports(state),
    ]


def _in_parts(state: TrainState) -> list[str]:
    """What is not as with a model that one process holds."""
    lines = []
    if state.in_shards:
        lines.append(
            "saving     each process writes its part of a checkpoint (sharded); `jielong export` "
            "makes a Hugging Face folder of it"
        )
    if not state.whole_fits and (state.config.run.sample_tokens or state.config.run.eval_suite):
        lines.append(
            "samples    none, and no suites: process 0 has too little memory for the whole model"
        )
    return lines


def _soft_targets(state: TrainState) -> list[str]:
    """What is learnt beside the text itself: a teacher's predictions, or its bigrams."""
    path = state.config.training.teacher
    if path:
        return [f"teacher    {path}: half of what is learnt is what it predicts"]
    if state.train_step.bigrams is None:
        return []
    return [
        f"bigrams    {state.plan.bigram_share:.0%} of the objective, falling to none by step "
        f"{math.ceil(ENDS * state.plan.total_steps)}, is what follows each token in the whole text"
    ]


def _mixed_in(state: TrainState) -> list[str]:
    """What texts there are, the share of each, and how often it is read."""
    if not isinstance(state.batches.source, MixedWindows):
        return []
    shares = read_shares(state, state.batches.windows_before(state.plan.total_steps))
    older = state.texts.replayed
    if older is not None:
        read = shares[older.name]
        return [
            f"replay     {read.share:.1%} of the windows are of the older text in "
            f"{older.dataset.folder} ({len(older.dataset.train):,} tokens), which is read "
            f"{read.epochs:.2g} times"
        ]
    return [
        f"mixture    {name}: {read.share:.1%} of the windows, {read.tokens:,} of "
        f"{read.text_tokens:,} tokens ({read.epochs:.2g} epochs)"
        for name, read in shares.items()
    ]


def _exports(state: TrainState) -> list[str]:
    """Say, before a new run spends its time, which formats its model cannot be exported to."""
    if state.progress.step:
        return []
    refused = refusals(state.config.model, state.tokenizer)
    return [f"exports    not to {name}: {reason}" for name, reason in refused.items()]


def _repetition(state: TrainState, epochs: float) -> list[str]:
    """How often the text is read, where that is more than once, and what is done about it."""
    plan, run = state.plan, state.config.run
    if epochs < REPEATED:
        return []
    measures = [f"weight decay {plan.weight_decay:g}"]
    if plan.dropout:
        measures.append(f"dropout {plan.dropout:g}")
    if plan.input_noise:
        measures.append(f"{plan.input_noise:.0%} of the input tokens replaced")
    if plan.bpe_dropout:
        measures.append(f"{plan.bpe_dropout:.0%} of the tokens split")
    if (plan.input_noise or plan.bpe_dropout) and plan.noise_steps < plan.total_steps:
        measures.append(f"the text as it is from step {plan.noise_steps} on")
    if run.patience and state.dataset.validation is not None:
        measures.append("a stop once the held-out loss has turned")
    return [
        f"epochs     the text is read {epochs:.3g} times; against memorising it: "
        + ", ".join(measures)
    ]


def _attention(state: TrainState) -> str:
    """How attention is computed, and why not in the fastest way."""
    data, model = state.config.data, state.model
    if data.packing == "pad" or not data.document_mask:
        return "causal over the whole window"
    return model.model.describe_attention(model.device, state.train_step.dtype)


def explain_best(state: TrainState) -> str | None:
    """Return what to tell the user of a run that diverged, or that is worse at its end."""
    if diverged := explain_divergence(state, ended=True):
        return diverged
    progress, batches = state.progress, state.batches
    best, last = progress.best_validation, progress.validation
    if best is None or last is None or not progress.worse:
        return None

    def epoch(step: int) -> str:
        return f"{batches.windows_before(step) / batches.windows:.1f}"

    total = state.plan.total_steps
    text = (
        f"the held-out loss turned: {best['bits_per_byte']:.4f} bits/byte at step {best['step']} "
        f"(epoch {epoch(best['step'])}) and {last['bits_per_byte']:.4f} at step {last['step']} "
        f"(epoch {epoch(last['step'])}), as the model memorises the training text. The model is "
        f"that of step {best['step']}. "
    )
    if progress.step < total:
        text += (
            f"The run ends here, not at step {total} (epoch {epoch(total)}); --patience 0 would "
            "train on. "
        )
    return text + "More text helps most; otherwise fewer epochs, or more --weight-decay."


def settings_not_used(asked: Config, used: Config) -> list[str]:
    """A line on what was asked of the model where its tokenizer or its start decides otherwise."""
    if asked.training.auto_size:  # then nobody asked for it, and the tokenizer's line says it
        return []
    unused = [
        f"{name}={value}"
        for name, spec in MODEL_FIELDS.items()
        if (value := getattr(asked.model, name)) not in (spec.default, getattr(used.model, name))
    ]
    if not unused:
        return []
    start = asked.training.init_from
    owner = f"{start} decides" if start else f"the tokenizer has {used.model.vocab_size} tokens"
    return [f"ignored: {', '.join(unused)}; {owner}"]
