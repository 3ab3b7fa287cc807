"""The settings of the architecture, and the sizes that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jielong.config.fields import option, section_fields
from jielong.errors import ConfigError


@dataclass(frozen=True)
class ModelConfig:
    """Architecture: a Llama (qk_norm = false) or Qwen3 (qk_norm = true) decoder, dense or MoE."""

    vocab_size: int = option(6400, "Tokens in the vocabulary.", low=4)
    hidden_size: int = option(512, "Width of the residual stream.", low=1)
    num_hidden_layers: int = option(8, "Decoder layers.", low=1)
    num_attention_heads: int = option(8, "Query heads.", low=1)
    num_key_value_heads: int = option(2, "Key and value heads, shared by groups of queries.", low=1)
    head_dim: int | None = option(None, "Width of a head; default hidden_size / heads.", low=2)
    intermediate_size: int | None = option(
        None, "Width of the SwiGLU layer; default 8/3 of hidden_size, rounded up to 64.", low=1
    )
    max_position_embeddings: int | None = option(
        None, "Context length the checkpoint declares; default max_seq_len.", low=1, high=2**24
    )
    rope_theta: float = option(1e6, "Base of the rotary position embedding.", low=1.0)
    rms_norm_eps: float = option(1e-6, "Epsilon of RMSNorm.", low=0.0)
    qk_norm: bool = option(True, "Normalise queries and keys (Qwen3); false gives a Llama.")
    tie_word_embeddings: bool = option(True, "Share the input embedding with the output head.")
    use_moe: bool = option(False, "Replace each SwiGLU layer by a mixture of experts.")
    num_experts: int = option(4, "Routed experts of a layer.", low=1)
    num_experts_per_tok: int = option(1, "Experts that each token is sent to.", low=1)
    num_shared_experts: int = option(0, "Experts that every token passes besides.", low=0)
    moe_intermediate_size: int | None = option(
        None, "Width of an expert; default that of the SwiGLU layer.", low=1
    )
    norm_topk_prob: bool | None = option(
        None,
        "Let the chosen experts' weights sum to 1; default only with several experts a token, "
        "since a lone weight of 1 gives the router no gradient.",
    )
    router_aux_loss: str = option(
        "batch",
        "What balances the experts: a loss over the micro-batch (Switch) or within each row "
        "(DeepSeekMoE), or a bias on the choice without a loss (DeepSeek-V3).",
        choices=("batch", "sequence", "bias", "none"),
    )
    router_aux_loss_coef: float | None = option(
        None, "Weight of the balance loss; default 0.01.", low=0.0
    )
    router_z_loss_coef: float = option(0.0, "Weight of the router's z-loss; 0 is off.", low=0.0)
    router_bias_rate: float | None = option(
        None, "Step of the balancing bias in an update; default 0.001.", low=0.0
    )

    def validated(self) -> ModelConfig:
        """Return this architecture, or raise a ConfigError that names the field and the fix."""
        for name, spec in MODEL_FIELDS.items():
            spec.check(getattr(self, name))
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"model.hidden_size={self.hidden_size} is not divisible by "
                f"num_attention_heads={self.num_attention_heads}: change one, or set head_dim"
            )
        if self.head_size % 2:
            raise ConfigError(
                f"model.head_dim={self.head_size} is odd"
                + (" (hidden_size / num_attention_heads)" if self.head_dim is None else "")
                + ": rotary embeddings need an even head"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"model.num_attention_heads={self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        self._check_experts()
        return self

    def _check_experts(self) -> None:
        if not self.use_moe:
            for name in EXPERT_FIELDS:
                if getattr(self, name) != MODEL_FIELDS[name].default:
                    raise ConfigError(
                        f"model.{name}={getattr(self, name)} has no effect without use_moe=true"
                    )
        if self.num_experts_per_tok > self.num_experts:
            raise ConfigError(
                f"model.num_experts_per_tok={self.num_experts_per_tok} is more than "
                f"num_experts={self.num_experts}"
            )
        form = self.router_aux_loss
        if self.router_aux_loss_coef is not None and form not in ("batch", "sequence"):
            raise ConfigError(
                f"model.router_aux_loss_coef={self.router_aux_loss_coef} has no effect with "
                f"router_aux_loss={form}: use batch or sequence, or leave it out"
            )
        if self.router_bias_rate is not None and form != "bias":
            raise ConfigError(
                f"model.router_bias_rate={self.router_bias_rate} has no effect with "
                f"router_aux_loss={form}: use bias, or leave it out"
            )

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def mlp_size(self) -> int:
        return self.intermediate_size or 64 * math.ceil(self.hidden_size * 8 / 3 / 64)

    @property
    def expert_size(self) -> int:
        return self.moe_intermediate_size or self.mlp_size

    @property
    def embedding_count(self) -> int:
        """Parameters of embedding and head, which count once where they are tied."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    @property
    def parameter_count(self) -> int:
        """Parameters of the model, buffers not counted; tied embedding and head count once."""
        H, D = self.hidden_size, self.head_size
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        attention = 2 * H * D * (heads + kv_heads) + (2 * D if self.qk_norm else 0)
        feed_forward = 3 * H * self.mlp_size
        if self.use_moe:
            experts = self.num_experts + self.num_shared_experts
            feed_forward = 3 * H * self.expert_size * experts + H * self.num_experts
        layer = attention + feed_forward + 2 * H  # with its two norms
        return self.num_hidden_layers * layer + self.embedding_count + H

    @property
    def normalizes_topk(self) -> bool:
        return self.num_experts_per_tok > 1 if self.norm_topk_prob is None else self.norm_topk_prob

    @property
    def aux_coef(self) -> float:
        return 0.01 if self.router_aux_loss_coef is None else self.router_aux_loss_coef

    @property
    def bias_rate(self) -> float:
        return 0.001 if self.router_bias_rate is None else self.router_bias_rate


EXPERT_FIELDS = (
    "num_experts",
    "num_experts_per_tok",
    "num_shared_experts",
    "moe_intermediate_size",
    "norm_topk_prob",
    "router_aux_loss",
    "router_aux_loss_coef",
    "router_z_loss_coef",
    "router_bias_rate",
)
MODEL_FIELDS = section_fields("model", ModelConfig)
