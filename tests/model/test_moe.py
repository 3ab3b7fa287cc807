"""The mixture of experts against its definition, written out, and against transformers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jielong.config.model import ModelConfig
from jielong.config.settings import IGNORE_INDEX, Config
from jielong.errors import ConfigError
from jielong.model.attention import KVCache
from jielong.model.moe import MixtureOfExperts, Routing, load_balancing_loss, update_router_bias
from jielong.model.transformer import Transformer
from jielong.training.optimizer import orthogonalize
from tiny import new_optimizer

SMALL = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=32,
    use_moe=True,
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=48,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def config(**changes: object) -> ModelConfig:
    return dataclasses.replace(SMALL, **changes).validated()  # type: ignore[arg-type]


def with_random_weights(model: torch.nn.Module, seed: int = 0) -> None:
    """Draws all weights anew: some begin at zero, and would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.copy_(1 + 0.1 * noise if p.ndim == 1 else noise * p.shape[-1] ** -0.5)


def layer(**changes: object) -> MixtureOfExperts:
    moe = MixtureOfExperts(config(**changes))
    with_random_weights(moe)
    return moe


def by_definition(moe: MixtureOfExperts, x: Tensor) -> Tensor:
    """Every expert on every token, weighted by 0 where the router did not choose it."""
    routing = moe.gate(x)
    gates = torch.zeros_like(routing.scores).scatter(-1, routing.experts, routing.weights)
    out = torch.zeros_like(x)
    for e, down in enumerate(moe.experts.down_proj):
        gate, up = moe.experts.gate_proj[e], moe.experts.up_proj[e]
        out = out + gates[..., e, None] * ((F.silu(x @ gate.T) * (x @ up.T)) @ down.T)
    for shared in moe.shared_experts:
        out = out + shared(x)
    return out


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("shared", [0, 2])
@pytest.mark.parametrize("width", [48, 46])  # 46 suits no grouped kernel: the loop
def test_grouped_forward_and_gradients_equal_the_definition(
    k: int, shared: int, width: int
) -> None:
    moe = layer(num_experts_per_tok=k, num_shared_experts=shared, moe_intermediate_size=width)
    x = torch.randn(3, 7, 32, requires_grad=True)
    upstream = torch.randn(3, 7, 32)
    results = []
    for forward in (moe, lambda x: by_definition(moe, x)):
        out = forward(x)
        grads = torch.autograd.grad((out * upstream).sum(), [x, *moe.parameters()])
        results.append([out, *grads])
    for ours, definition in zip(*results, strict=True):
        torch.testing.assert_close(ours, definition, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [1, 2])
def test_gradients_are_exact_in_float64(k: int) -> None:
    moe = layer(num_experts_per_tok=k, moe_intermediate_size=6).double()
    x = torch.randn(1, 5, 32, dtype=torch.float64)
    routing = moe.gate(x)  # held fixed: its choice is no smooth function
    weights = routing.weights[0].double().detach().requires_grad_()
    rows = x[0].requires_grad_()
    stacks = list(moe.experts.parameters())
    assert torch.autograd.gradcheck(
        lambda rows, weights, *_: moe.experts(rows, routing.experts[0], weights),
        (rows, weights, *stacks),
        fast_mode=True,
    )


def test_experts_without_a_token_have_zero_gradients() -> None:
    moe = layer(num_experts_per_tok=1)
    x = torch.randn(1, 32).expand(1, 6, 32)  # all tokens alike: three experts stay idle
    moe(x).sum().backward()
    chosen = int(moe.gate(x).experts[0, 0])
    for stack in moe.experts.parameters():
        assert stack.grad is not None
        idle = [e for e in range(4) if e != chosen]
        assert not stack.grad[idle].any() and stack.grad[chosen].any()


@pytest.mark.parametrize("grad", [True, False])
def test_result_is_the_same_with_and_without_gradients(grad: bool) -> None:
    moe = layer()
    x = torch.randn(2, 5, 32)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(moe(x), by_definition(moe, x), rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast_stays_near_float32() -> None:
    moe = layer()
    x = torch.randn(2, 8, 32)
    exact = moe(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = moe(x)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("normalized", [None, True])
def test_lone_normalized_weight_gives_the_router_no_gradient(normalized: bool | None) -> None:
    c = config(num_experts_per_tok=1, norm_topk_prob=normalized, router_aux_loss="none")
    model = Transformer(c)
    with_random_weights(model)
    tokens = torch.randint(64, (2, 9))
    model(tokens[:, :-1], tokens[:, 1:]).loss.backward()
    size = model.model.layers[0].mlp.gate.weight.grad.norm()
    assert (size < 1e-5) if normalized else (size > 1e-2)


def test_weights_are_normalized_by_default_only_with_several_experts_a_token() -> None:
    x = torch.randn(1, 4, 32)
    assert layer(num_experts_per_tok=1).gate(x).weights.max() < 1
    torch.testing.assert_close(layer().gate(x).weights.sum(-1), torch.ones(1, 4))


def random_routing(
    k: int, rows: int = 3, length: int = 10, experts: int = 4
) -> tuple[Routing, Tensor]:
    logits = torch.randn(rows, length, experts, generator=torch.Generator().manual_seed(k))
    scores = logits.softmax(-1)
    chosen = scores.topk(k)
    counted = torch.ones(rows, length, dtype=torch.bool)
    counted[1, 6:] = False
    counted[2] = False
    return Routing(logits, scores, chosen.indices, chosen.values), counted


def aux(routing: Routing, counted: Tensor, **changes: object) -> float:
    k = routing.experts.shape[-1]
    return float(
        load_balancing_loss([routing], counted, config(num_experts_per_tok=k, **changes))[0]
    )


@pytest.mark.parametrize("k", [1, 2])
def test_batch_balance_loss_equals_its_formula(k: int) -> None:
    routing, counted = random_routing(k)
    scores = routing.scores.double()[counted]  # (n, E)
    chosen = F.one_hot(routing.experts[counted], 4).double().sum(1)
    expected = 0.02 * 4 * float((chosen.mean(0) * scores.mean(0)).sum())
    ours = aux(routing, counted, router_aux_loss="batch", router_aux_loss_coef=0.02)
    assert ours == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("k", [1, 2])
def test_sequence_balance_loss_equals_its_formula(k: int) -> None:
    routing, counted = random_routing(k)
    expected = 0.0
    for row in range(3):
        keep = counted[row]
        if n := int(keep.sum()):
            chosen = F.one_hot(routing.experts[row][keep], 4).double().sum((0, 1))
            shares = chosen / (n * k / 4)
            mean_scores = routing.scores[row][keep].double().mean(0)
            expected += 0.1 * float((shares * mean_scores).sum()) * n / int(counted.sum())
    ours = aux(routing, counted, router_aux_loss="sequence", router_aux_loss_coef=0.1)
    assert ours == pytest.approx(expected, rel=1e-5)


def test_z_loss_equals_its_formula() -> None:
    routing, counted = random_routing(2)
    expected = 0.001 * float(routing.logits.double().logsumexp(-1).square()[counted].mean())
    ours = aux(routing, counted, router_aux_loss="none", router_z_loss_coef=0.001)
    assert ours == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("form", "least"), [("batch", 2.0), ("sequence", 1.0)])
def test_balance_loss_is_least_when_balanced(form: str, least: float) -> None:
    experts = torch.tensor([[0, 1], [2, 3]]).repeat(4, 1).expand(2, 8, 2)
    counted = torch.ones(2, 8, dtype=torch.bool)
    even = torch.full((2, 8, 4), 0.25)
    balanced = Routing(even, even, experts, even[..., :2])
    kwargs = {"router_aux_loss": form, "router_aux_loss_coef": 1.0}
    assert aux(balanced, counted, **kwargs) == pytest.approx(least)
    skewed = torch.tensor([0.4, 0.4, 0.1, 0.1]).expand(2, 8, 4)
    experts = torch.tensor([0, 1]).expand(2, 8, 2)
    assert aux(Routing(skewed, skewed, experts, skewed), counted, **kwargs) > least


@pytest.mark.parametrize("form", ["batch", "sequence"])
def test_ranks_losses_weighted_by_tokens_add_up_to_one_process(form: str) -> None:
    routing, counted = random_routing(2)
    c = config(router_aux_loss=form, router_z_loss_coef=0.01)
    load = load_balancing_loss([routing], counted, c)[1].flip(1)  # of another batch
    whole, _ = load_balancing_loss([routing], counted, c, load)
    total = 0.0
    for rows in (slice(0, 1), slice(1, 3)):
        parts = {f.name: getattr(routing, f.name)[rows] for f in dataclasses.fields(routing)}
        share = float(counted[rows].sum() / counted.sum())
        part, _ = load_balancing_loss([Routing(**parts)], counted[rows], c, load)
        total += float(part) * share
    assert total == pytest.approx(float(whole), rel=1e-5)


def test_uncounted_tokens_have_no_part_in_loss_and_load() -> None:
    model = Transformer(config())
    with_random_weights(model)
    tokens = torch.randint(64, (2, 8))
    targets = tokens.roll(-1, 1)
    targets[:, 5:] = IGNORE_INDEX
    padded, short = model(tokens, targets), model(tokens[:, :5], targets[:, :5])
    torch.testing.assert_close(padded.balance_loss, short.balance_loss)
    assert padded.expert_load.tolist() == short.expert_load.tolist()
    assert padded.expert_load.sum(1).tolist() == [2 * 2 * 5] * 2  # two layers, k = 2, none dropped


def test_dense_model_has_no_balance_loss() -> None:
    dense = dataclasses.replace(
        SMALL, use_moe=False, num_experts_per_tok=1, moe_intermediate_size=None
    )
    output = Transformer(dense.validated())(torch.zeros(1, 4).long(), torch.zeros(1, 4).long())
    assert output.balance_loss is None and output.expert_load is None


def test_bias_brings_the_load_to_balance() -> None:
    c = config(router_aux_loss="bias", router_bias_rate=0.002, num_experts=8)
    moe = MixtureOfExperts(c)
    with_random_weights(moe)
    x = torch.randn(8, 64, 32) + torch.randn(32)  # one direction in common: a skewed load
    counted = torch.ones(8, 64, dtype=torch.bool)
    worst = []
    for _ in range(300):
        loss, load = load_balancing_loss([moe.gate(x)], counted, c)
        assert float(loss) == 0  # no gradient works against the language model's
        worst.append(float(load.max() / load.mean()))
        update_router_bias(moe, load)
    assert worst[0] > 2 and sum(worst[-20:]) / 20 < 1.35


def test_bias_chooses_but_never_weighs() -> None:
    moe = layer(router_aux_loss="bias", num_experts_per_tok=1)
    moe.gate.e_score_correction_bias.copy_(torch.tensor([0.0, 0.0, 9.0, 0.0]))
    routing = moe.gate(torch.randn(1, 5, 32))
    assert (routing.experts == 2).all()
    torch.testing.assert_close(routing.weights[..., 0], routing.scores[..., 2])


@pytest.mark.parametrize("shared", [0, 1])
def test_cached_logits_equal_uncached(shared: int) -> None:
    model = Transformer(config(num_shared_experts=shared)).eval()
    with_random_weights(model)
    tokens = torch.randint(64, (2, 12))
    cache = KVCache(model.config, 2, 12)
    with torch.no_grad():
        whole = model(tokens).logits
        steps = [model(part, cache=cache).logits for part in tokens.split([5, 1, 1, 5], dim=1)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_state_dict_names_one_matrix_an_expert_and_loads_back() -> None:
    source, target = Transformer(config()), Transformer(config())
    with_random_weights(source)
    state = source.state_dict()
    assert state["model.layers.0.mlp.experts.3.up_proj.weight"].shape == (48, 32)
    assert state["model.layers.1.mlp.experts.0.down_proj.weight"].shape == (32, 48)
    assert not any(name.endswith("_proj") for name in state)
    target.load_state_dict({name: value.clone() for name, value in state.items()})
    for ours, theirs in zip(source.parameters(), target.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_copying_into_the_state_dict_fills_the_stacks() -> None:
    model = Transformer(config())
    model.state_dict()["model.layers.0.mlp.experts.2.up_proj.weight"].fill_(7.0)
    stack = model.model.layers[0].mlp.experts.up_proj
    assert (stack[2] == 7).all() and not (stack[1] == 7).any()


def test_layers_begin_as_the_identity() -> None:
    model = Transformer(config(num_shared_experts=1))
    x = torch.randn(1, 4, 32)
    rotary = model.model.rotary(0, 4)
    assert torch.equal(model.model.layers[0](x, rotary), x)


def test_muon_orthogonalizes_each_expert_by_itself() -> None:
    c = Config(model=config()).with_values(max_seq_len=32, weight_decay=0.0, learning_rate=0.01)
    model = Transformer(c.model)
    with_random_weights(model)
    stack = model.model.layers[0].mlp.experts.up_proj
    before = stack.detach().clone()
    optimizer = new_optimizer(model, c)
    stack.grad = torch.randn_like(stack)
    optimizer.step(1.0)
    nesterov = stack.grad * (1 - 0.95**2)
    for e in range(4):
        update = orthogonalize(nesterov[e, None])[0] * 0.2 * 48**0.5 * -0.01
        torch.testing.assert_close(stack[e] - before[e], update)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_experts_per_tok": 5}, "num_experts_per_tok"),
        ({"use_moe": False}, "use_moe"),
        ({"router_aux_loss": "bias", "router_aux_loss_coef": 0.1}, "router_aux_loss_coef"),
        ({"router_aux_loss": "batch", "router_bias_rate": 0.1}, "router_bias_rate"),
        ({"router_aux_loss": "sometimes"}, "router_aux_loss"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(
    changes: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        config(**changes)
