"""The fast step of one token against the model that it stands for."""

from __future__ import annotations

import gc

import pytest
import torch

from jielong.generation import one_token
from jielong.generation.generate import WORTH_PACKING, generate
from jielong.generation.one_token import OneTokenStep, one_token_step
from jielong.generation.sampling import Sampling
from jielong.model.attention import KVCache
from jielong.model.transformer import Transformer
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer
from tiny import tiny_model

MOE = {"use_moe": True, "num_experts": 5, "moe_intermediate_size": 40}
ARCHITECTURES = {
    "qwen3": {},
    "llama": {"qk_norm": False},
    "no shared heads, untied": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "one key head, wide heads": {"num_key_value_heads": 1, "head_dim": 32},
    "one expert": MOE,
    "two experts": MOE | {"num_experts_per_tok": 2},
    "shared, not normalised": MOE
    | {"num_experts_per_tok": 3, "num_shared_experts": 2, "norm_topk_prob": False},
    "bias on the choice": MOE | {"router_aux_loss": "bias", "num_experts_per_tok": 2},
}
GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0)

pytestmark = pytest.mark.skipif(
    not one_token._packs(), reason="torch packs no half-precision weights on this machine"
)


def random_model(half: bool = False, **changes: object) -> Transformer:
    """A tiny model with the tokenizer's vocabulary; `half`: weights have the values of 16 bits."""
    torch.manual_seed(0)
    model = tiny_model(vocab_size=320, **changes)
    with torch.no_grad():
        for weight in model.parameters() if half else ():
            weight.copy_(weight.half())
        for name, bias in model.named_buffers():
            if "bias" in name:
                bias.uniform_(-0.1, 0.1)
    return model


def both_logits(model: Transformer, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, V) by the step, after two tokens that the model itself has read; and by definition."""
    step = OneTokenStep(model)
    cache = KVCache(model.config, 1, len(tokens))
    with torch.inference_mode():
        first = model(tokens[None, :2], cache=cache).logits[0]
        rest = [step(int(token), cache) for token in tokens[2:]]
        assert cache.length == len(tokens)
        return torch.cat([first, *rest]), model(tokens[None]).logits[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_of_weights_that_are_half_precision_it_gives_the_models_logits(name: str) -> None:
    model = random_model(half=True, **ARCHITECTURES[name])
    got, want = both_logits(model, torch.randint(0, 320, (40,)))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert want.std() > 0.1


@pytest.mark.parametrize("name", ["qwen3", "two experts"])
def test_where_torch_records_nothing_the_logits_are_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(**ARCHITECTURES[name])
    tokens = torch.randint(0, 320, (10,))
    want, _ = both_logits(model, tokens)
    monkeypatch.delattr(torch.jit, "trace")
    torch.testing.assert_close(both_logits(model, tokens)[0], want)


def test_recording_gives_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    OneTokenStep(random_model(**ARCHITECTURES["shared, not normalised"]))
    assert not recwarn.list


def test_other_weights_are_rounded_to_half_precision() -> None:
    model = random_model()
    got, want = both_logits(model, torch.randint(0, 320, (40,)))
    assert 0 < (got - want)[2:].std() < 1e-3 * want.std()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["To be, or not to be, that is the question."] * 3, 320, 2**20)


def write(model: Transformer, tokenizer: Tokenizer, tokens: int = 100) -> str:
    return "".join(generate(model, tokenizer, "To be", tokens, GREEDY, stop_at_eos=False))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens that went through a packed step."""
    seen: list[int] = []
    called = OneTokenStep.__call__

    def call(self: OneTokenStep, token: int, cache: KVCache) -> torch.Tensor:
        seen.append(token)
        return called(self, token, cache)

    monkeypatch.setattr(OneTokenStep, "__call__", call)
    return seen


def test_a_long_text_is_written_with_packed_weights_past_the_context_too(
    tokenizer: Tokenizer, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(half=True)
    text = write(model, tokenizer)
    assert len(steps) >= 95  # all but the prompt and the half read again
    monkeypatch.setattr(one_token, "_packs", lambda: False)
    assert write(model, tokenizer) == text
    assert len(steps) < 100


def test_a_short_text_is_not_worth_the_packing(tokenizer: Tokenizer, steps: list[int]) -> None:
    write(random_model(), tokenizer, WORTH_PACKING - 1)
    assert not steps
    write(random_model(), tokenizer, WORTH_PACKING)
    assert steps


def test_it_is_packed_once_and_anew_when_a_weight_changes() -> None:
    model = random_model()
    step = one_token_step(model)
    assert step is not None and one_token_step(model) is step
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] += 0.5
    assert one_token_step(model) is not step
    cache = KVCache(model.config, 1, 4)
    with torch.inference_mode():
        got = one_token_step(model)(5, cache)
        torch.testing.assert_close(
            got[0], model(torch.tensor([[5]])).logits[0, 0], rtol=1e-2, atol=1e-2
        )
    held = len(one_token._steps)
    del model
    gc.collect()
    assert len(one_token._steps) == held - 1  # not kept alive by its packed copy


def test_the_models_own_weights_stay_float32_and_train_on(tokenizer: Tokenizer) -> None:
    model = random_model().train()
    before = model.checksum()
    write(model, tokenizer)
    assert model.checksum() == before and model.training
    tokens = torch.tensor([[3, 4, 5]])
    model(tokens, targets=tokens).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("value", [1e5, -1e5, float("nan"), float("inf")])
def test_weights_beyond_half_precision_are_read_as_they_are(value: float) -> None:
    model = random_model()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[3, 3] = value
    assert one_token_step(model) is None


def test_neither_are_tiny_ones_packed_but_zeros_are() -> None:
    model = random_model()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.zero_()
        assert one_token_step(model) is not None
        model.model.layers[0].mlp.down_proj.weight[3, 3] = 1e-5
    assert one_token_step(model) is None


def test_one_tiny_expert_among_others_is_not_packed_either() -> None:
    model = random_model(**MOE)
    with torch.no_grad():
        model.model.layers[0].mlp.experts.down_proj[2] *= 1e-4
    assert one_token_step(model) is None


def test_a_model_in_another_precision_is_read_as_it_is(
    tokenizer: Tokenizer, steps: list[int]
) -> None:
    model = random_model().to(torch.bfloat16)
    assert write(model, tokenizer) and not steps


def test_where_torch_cannot_pack_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Didn't find engine for operation quantized::linear_prepack_fp16")

    monkeypatch.setattr(one_token, "_Product", fail)
    one_token._packs.cache_clear()
    try:
        assert one_token_step(random_model()) is None
    finally:
        one_token._packs.cache_clear()
