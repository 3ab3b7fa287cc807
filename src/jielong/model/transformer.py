"""The decoder: a Llama or Qwen3, with Hugging Face's parameter names."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jielong.config.model import ModelConfig
from jielong.config.settings import IGNORE_INDEX
from jielong.model.attention import Attention, KVCache, Rotary
from jielong.model.attention_backends import (
    CAUSAL,
    AttentionPlan,
    block_causal_mask,
    cu_seqlens_of,
    document_lengths,
    varlen_options,
    varlen_unavailable,
)
from jielong.model.dropout import Dropout, LayerDropout
from jielong.model.feedforward import FeedForward
from jielong.model.initial import initialise
from jielong.model.linear import Linear
from jielong.model.loss import distillation_loss
from jielong.model.moe import MixtureOfExperts, Routings, load_balancing_loss
from jielong.model.soft_targets import SoftTargets
from jielong.runtime.device import compute_dtype, fast_products, to_device
from jielong.runtime.parts import home, local

DEFAULT_CONTEXT = 512
MANY_TOKENS = 64  # from which on products are large enough for `fast_products`


def context_length(config: ModelConfig) -> int:
    """Return the most tokens that a model can attend to."""
    return config.max_position_embeddings or DEFAULT_CONTEXT


@dataclass
class ModelOutput:
    """The result of a forward pass.

    Attributes:
        logits: (B, T, V), without targets only.
        loss: what to minimise, summed over the targets, in nats; with targets only.
        nats: the targets' summed cross-entropy, without gradient: the loss, but for a teacher.
        balance_loss: the routers' losses of all layers times their coefficients, a mean over the
            targets; for a mixture of experts with targets only.
        expert_load: (layers, experts), how often each expert was chosen by tokens with a target;
            for a mixture of experts with targets only.
    """

    logits: Tensor | None = None
    loss: Tensor | None = None
    nats: Tensor | None = None
    balance_loss: Tensor | None = None
    expert_load: Tensor | None = None


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each on a normalised copy of the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = (
            MixtureOfExperts(config)
            if config.use_moe
            else FeedForward(config.hidden_size, config.mlp_size)
        )

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        plan: AttentionPlan = CAUSAL,
        cache: KVCache | None = None,
        routings: Routings | None = None,
        dropout: LayerDropout | None = None,
    ) -> Tensor:
        compute = compute_dtype(x)
        # cast once, not by each projection; the residual stream stays float32
        attended = self.self_attn(self.input_layernorm(x).to(compute), rotary, plan, cache)
        if dropout:
            attended = attended * dropout.keep_attention * dropout.scale
        x = x + attended
        hidden = self.post_attention_layernorm(x)
        if isinstance(self.mlp, MixtureOfExperts):
            hidden = self.mlp(hidden, routings)  # whose router reads float32
        else:
            hidden = self.mlp(hidden.to(compute))
        if dropout:
            hidden = hidden * dropout.keep_mlp * dropout.scale
        return x + hidden


def _recomputed(
    layer: nn.Module,
    x: Tensor,
    rotary: tuple[Tensor, Tensor],
    plan: AttentionPlan,
    routings: Routings | None,
    dropout: LayerDropout | None,
) -> Tensor:
    """Apply a layer; keep its input alone for the backward pass, which computes the rest again.

    Activation checkpointing (Chen et al. 2016, arXiv:1604.06174). A layer draws nothing at random,
    so it computes the same the second time.
    """
    from torch.utils.checkpoint import checkpoint

    def run(x: Tensor) -> tuple[Tensor, Routings]:
        own = Routings()  # the second time they are thrown away
        return layer(x, rotary, plan, None, own, dropout), own

    x, own = checkpoint(run, x, use_reentrant=False, preserve_rng_state=False)
    if routings is not None:
        routings += own
    return x


class Decoder(nn.Module):
    """Embedding, layers and final norm: `model.…` in a checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = Rotary(config.head_size, context_length(config), config.rope_theta)
        self.head_sizes = config.num_attention_heads, config.num_key_value_heads, config.head_size
        # use per_document_attention on a CPU; off when compiled: each new length would recompile
        self.per_document = True
        # every nth layer is computed again in the backward pass; 0: none
        self.recompute_every = 0
        # cached results of varlen_unavailable by device and dtype: the kernel is tried once
        self._varlen_unavailable: dict[tuple[torch.device, torch.dtype], str | None] = {}

    def forward(
        self,
        tokens: Tensor,
        document_ids: Tensor | None = None,
        cache: KVCache | None = None,
        routings: Routings | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        start = cache.length if cache is not None else 0
        rotary = self.rotary(start, tokens.shape[1])
        x = self.embed_tokens(tokens)  # (B, T, H)
        plan = CAUSAL if document_ids is None else self._plan(document_ids, x, cache)
        if dropout:
            x = x * dropout.keep(0, x) * dropout.scale
        for number, layer in enumerate(self.layers):
            # masks are made here, outside of what is compiled
            masks = dropout.for_layer(number, x) if dropout else None
            if self._recomputes(number, cache):
                x = _recomputed(layer, x, rotary, plan, routings, masks)
            else:
                x = layer(x, rotary, plan, cache, routings, masks)
        if cache is not None:
            cache.length += tokens.shape[1]
        return self.norm(x)

    def _recomputes(self, layer: int, cache: KVCache | None) -> bool:
        every = self.recompute_every
        return every > 0 and layer % every == 0 and cache is None and torch.is_grad_enabled()

    def _plan(self, document_ids: Tensor, x: Tensor, cache: KVCache | None) -> AttentionPlan:
        """Choose the fastest backend that keeps attention within documents, for x (B, T, H)."""
        if cache is None and x.device.type == "cpu" and self.per_document:
            lengths = document_lengths(document_ids)
            if lengths is not None:
                return AttentionPlan(document_lengths=lengths)
        if cache is None and self.varlen_unavailable(x.device, compute_dtype(x)) is None:
            cu_seqlens = to_device(cu_seqlens_of(document_ids), x.device)
            return AttentionPlan(cu_seqlens=cu_seqlens, kernel_options=varlen_options())
        return AttentionPlan(block_causal_mask=block_causal_mask(document_ids.to(x.device)))

    def varlen_unavailable(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Return why the varlen kernel cannot be used on this device; None if it can."""
        key = device, dtype
        if key not in self._varlen_unavailable:
            self._varlen_unavailable[key] = varlen_unavailable(*key, *self.head_sizes)
        return self._varlen_unavailable[key]

    def describe_attention(self, device: torch.device, dtype: torch.dtype) -> str:
        """Describe in one line which attention backend is used, and why not the fastest one."""
        if device.type == "cpu":
            return (
                "one call per document where documents are long, otherwise masked"
                if self.per_document
                else "masked"
            )
        reason = self.varlen_unavailable(device, dtype)
        if reason is None:
            if "enable_gqa" in varlen_options():
                return "varlen kernel (FlashAttention)"
            return "varlen kernel (FlashAttention), key heads repeated: torch 2.12 shares them"
        return f"masked, slower than the varlen kernel: {reason}"


class Transformer(nn.Module):
    """A causal language model.

    Args:
        config: the architecture. Weights are initialised from torch's global generator.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()
        initialise(self)

    def tie_weights(self) -> None:
        """Make embedding and head one parameter, if configured."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: KVCache | None = None,
        reference_load: Tensor | None = None,
        dropout: Dropout | None = None,
        soft_targets: SoftTargets | None = None,
    ) -> ModelOutput:
        """Predict the next token at each position.

        Args:
            tokens: (B, T) ids.
            targets: (B, T) next ids, `IGNORE_INDEX` where none counts. If given, only the loss is
                computed, not the logits.
            document_ids: (B, T), equal within a document; None means one document per row. Keep
                them on the CPU even for a GPU: finding document borders then needs no sync.
            cache: keys and values of the tokens before these; extended in place.
            reference_load: (layers, experts), see `load_balancing_loss`; mixtures of experts only.
            dropout: of the embedding and of what each layer adds; for training, with targets.
            soft_targets: a teacher's predictions of the same tokens; for training, with targets.

        Returns:
            `logits` (B, T, V), or `loss` if there are targets: their summed loss, in nats.
        """
        if targets is None:
            return ModelOutput(logits=self.logits(self.hidden_states(tokens, document_ids, cache)))
        routings = Routings()
        hidden = self.model(tokens, document_ids, cache, routings, dropout)
        loss, nats = distillation_loss(
            hidden.flatten(0, 1), self.lm_head.weight, targets.flatten(), soft_targets
        )
        if not routings:
            return ModelOutput(loss=loss, nats=nats)
        balance_loss, load = load_balancing_loss(
            routings, targets != IGNORE_INDEX, self.config, reference_load
        )
        return ModelOutput(loss=loss, nats=nats, balance_loss=balance_loss, expert_load=load)

    def hidden_states(
        self, tokens: Tensor, document_ids: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Return the hidden states (B, T, H) after the final norm, of tokens (B, T)."""
        many = tokens.numel() >= MANY_TOKENS and tokens.device.type == "cpu"
        with fast_products() if many else contextlib.nullcontext():
            return self.model(tokens, document_ids, cache)

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the output head: (…, H) → (…, V)."""
        return self.lm_head(hidden)

    @property
    def device(self) -> torch.device:
        return home(self.lm_head.weight)

    def num_parameters(self) -> int:
        """Count the parameters; tied embedding and head count once."""
        return sum(p.numel() for p in self.parameters())

    def checksum(self) -> int:
        """Return a sum of the weights' bits, equal for equal weights; they must be float32.

        Where ranks keep parts of the weights, it is that of this rank's.
        """
        parts = [local(p.detach()) for p in self.parameters()]
        return int(torch.stack([_sum_of_bits(part) for part in parts]).sum())

    def num_active_parameters(self) -> int:
        """Count the parameters used by one token: of the routed experts, those it is routed to."""
        c = self.config
        routed = sum(p.numel() for name, p in self.named_parameters() if ".experts." in name)
        inactive = routed * (c.num_experts - c.num_experts_per_tok) // c.num_experts
        return self.num_parameters() - inactive


def _sum_of_bits(weight: Tensor) -> Tensor:
    flat = weight.reshape(-1)
    if len(flat) % 2 or flat.storage_offset() % 2:
        return flat.view(torch.int32).sum(dtype=torch.int64)
    return flat.view(torch.int64).sum()  # at memory speed; the int32 sum takes 20 times as long
