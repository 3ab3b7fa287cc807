"""The decoder: a Llama or Qwen3, with Hugging Face's parameter names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jielong.config.model import ModelConfig
from jielong.config.settings import IGNORED
from jielong.model.attention import Attention, KVCache, Rotary
from jielong.model.documents import (
    Mask,
    attention_mask,
    document_lengths,
    document_starts,
    varlen_unavailable,
)
from jielong.model.feedforward import FeedForward
from jielong.model.linear import Linear
from jielong.model.loss import linear_cross_entropy
from jielong.model.moe import MixtureOfExperts, Routing, balance
from jielong.runtime.device import compute_dtype

DEFAULT_CONTEXT = 512


def context_length(config: ModelConfig) -> int:
    """Tokens that a model can look at, at most."""
    return config.max_position_embeddings or DEFAULT_CONTEXT


@dataclass
class ModelOutput:
    """What a forward pass gives: logits (B, T, V), or with targets the summed loss in nats.

    A mixture of experts adds, with targets, `balance_loss`: the routers' losses of all layers times
    their coefficients, a mean over the targets; and `expert_load` (layers, experts): choices of
    each expert among the tokens that have a target.
    """

    logits: Tensor | None = None
    loss: Tensor | None = None
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
        mask: Mask | None = None,
        cache: KVCache | None = None,
        routings: list[Routing] | None = None,
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, mask, cache)
        hidden = self.post_attention_layernorm(x)
        if isinstance(self.mlp, MixtureOfExperts):
            return x + self.mlp(hidden, routings)
        return x + self.mlp(hidden)


class Decoder(nn.Module):
    """Embedding, layers and last norm: `model.…` in a checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = Rotary(config.head_size, context_length(config), config.rope_theta)
        self.head_sizes = config.num_attention_heads, config.num_key_value_heads, config.head_size
        self.by_document = True  # attend to long documents one by one; compiled, each length anew
        # why the varlen kernel cannot be used, if it cannot, by device and precision: tried once
        self._varlen_unavailable: dict[tuple[torch.device, torch.dtype], str | None] = {}

    def forward(
        self,
        tokens: Tensor,
        document_ids: Tensor | None = None,
        cache: KVCache | None = None,
        routings: list[Routing] | None = None,
    ) -> Tensor:
        start = cache.length if cache is not None else 0
        rotary = self.rotary(start, tokens.shape[1])
        x = self.embed_tokens(tokens)  # (B, T, H)
        mask = None if document_ids is None else self._mask(document_ids, x, cache)
        for layer in self.layers:
            x = layer(x, rotary, mask, cache, routings)
        if cache is not None:
            cache.length += tokens.shape[1]
        return self.norm(x)

    def _mask(self, document_ids: Tensor, x: Tensor, cache: KVCache | None) -> Mask:
        """What keeps attention within documents, in the form that is fastest for x (B, T, H)."""
        if cache is None and x.device.type == "cpu" and self.by_document:
            lengths = document_lengths(document_ids)
            if lengths is not None:
                return lengths
        if cache is None and self.varlen_unavailable(x.device, compute_dtype(x)) is None:
            return document_starts(document_ids).to(x.device, non_blocking=True)
        return attention_mask(document_ids.to(x.device))

    def varlen_unavailable(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why documents are not attended to by the varlen kernel there; None if they are."""
        key = device, dtype
        if key not in self._varlen_unavailable:
            self._varlen_unavailable[key] = varlen_unavailable(*key, *self.head_sizes)
        return self._varlen_unavailable[key]

    def attention_in_words(self, device: torch.device, dtype: torch.dtype) -> str:
        """One line: how attention stays within documents, and why not by the fastest way."""
        if device.type == "cpu":
            return (
                "attention one document at a time where they are long"
                if self.by_document
                else "attention with a mask"
            )
        reason = self.varlen_unavailable(device, dtype)
        if reason is None:
            return "attention by the varlen kernel (FlashAttention), within each document"
        return f"attention with a mask, slower than the varlen kernel: {reason}"


class Transformer(nn.Module):
    """A causal language model.

    Args:
        config: the architecture. Weights are drawn from torch's global generator.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()
        self.apply(_draw_weights)
        # embedding and head are often one matrix: a larger start would be sure of the last token
        nn.init.normal_(self.model.embed_tokens.weight, std=min(0.02, 4 / config.hidden_size))
        for name, p in self.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                nn.init.zeros_(p)  # each layer begins as the identity of the residual stream

    def tie_weights(self) -> None:
        """Makes embedding and head one parameter, if the config wants it."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: KVCache | None = None,
        reference_load: Tensor | None = None,
    ) -> ModelOutput:
        """Predicts each next token.

        Args:
            tokens: (B, T) ids.
            targets: (B, T) the next ids, −100 where none counts; then only the loss is computed.
            document_ids: (B, T), equal within a document; none means one document a row. On a GPU
                better left on the CPU: where documents begin is then found without waiting.
            cache: keys and values of the tokens before these; extended in place.
            reference_load: (layers, experts), as of `balance`, for a mixture of experts.

        Returns:
            `logits` (B, T, V), or with targets `loss`: the sum over targets, in nats.
        """
        if targets is None:
            return ModelOutput(logits=self.logits(self.hidden_states(tokens, document_ids, cache)))
        routings: list[Routing] = []
        hidden = self.model(tokens, document_ids, cache, routings)
        loss = linear_cross_entropy(hidden.flatten(0, 1), self.lm_head.weight, targets.flatten())
        if not routings:
            return ModelOutput(loss=loss)
        balance_loss, load = balance(routings, targets != IGNORED, self.config, reference_load)
        return ModelOutput(loss=loss, balance_loss=balance_loss, expert_load=load)

    def hidden_states(
        self, tokens: Tensor, document_ids: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Last normalised hidden states (B, T, H) of tokens (B, T)."""
        return self.model(tokens, document_ids, cache)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, H) → (…, V)."""
        return self.lm_head(hidden)

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device

    def num_parameters(self) -> int:
        """Parameters, each counted once where embedding and head are tied."""
        return sum(p.numel() for p in self.parameters())

    def checksum(self) -> int:
        """Equal where all weights are bit for bit; of float32, which weights in training are."""
        return int(torch.stack([_sum_of_bits(p.detach()) for p in self.parameters()]).sum())

    def num_active_parameters(self) -> int:
        """Parameters that one token passes: of the routed experts only those it is sent to."""
        c = self.config
        routed = sum(p.numel() for name, p in self.named_parameters() if ".experts." in name)
        idle = routed * (c.num_experts - c.num_experts_per_tok) // c.num_experts
        return self.num_parameters() - idle


def _sum_of_bits(weight: Tensor) -> Tensor:
    flat = weight.reshape(-1)
    if len(flat) % 2 or flat.storage_offset() % 2:
        return flat.view(torch.int32).sum(dtype=torch.int64)
    return flat.view(torch.int64).sum()  # as fast as memory is read, where the other takes 20 times


def _draw_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
