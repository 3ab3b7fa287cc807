"""The packed decoder of one token a step against the model that it stands for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from jielong.config.sampling import Sampling
from jielong.generation import fp16_decoder as packing
from jielong.generation.fp16_decoder import Fp16Decoder, fp16_decoder
from jielong.generation.generate import MIN_TOKENS_TO_PACK, TextGenerator
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
GREEDY = Sampling(top_k=1)  # the likeliest token, but by sampling: temperature 0 packs nothing

pytestmark = pytest.mark.skipif(
    not packing.fp16_products_available(),
    reason="this machine has no products with half-precision weights",
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
    """(T, V) by the decoder, after two tokens that the model itself has read; and by definition."""
    step = Fp16Decoder(model)
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


def test_other_weights_are_rounded_to_half_precision() -> None:
    model = random_model()
    got, want = both_logits(model, torch.randint(0, 320, (40,)))
    assert 0 < (got - want)[2:].std() < 1e-3 * want.std()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["To be, or not to be, that is the question."] * 3, 320, 2**20)


def write(model: Transformer, tokenizer: Tokenizer, tokens: int = 100) -> str:
    generator = TextGenerator(model, tokenizer)
    return "".join(generator.stream("To be", tokens, GREEDY, stop_at_eos=False))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens that went through a packed step."""
    seen: list[int] = []
    called = Fp16Decoder.__call__

    def call(self: Fp16Decoder, token: int, cache: KVCache) -> torch.Tensor:
        seen.append(token)
        return called(self, token, cache)

    monkeypatch.setattr(Fp16Decoder, "__call__", call)
    return seen


def test_a_long_text_is_written_with_packed_weights_past_the_context_too(
    tokenizer: Tokenizer, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(half=True)
    text = write(model, tokenizer)
    tried = packing.CHECK_TOKENS  # tokens of the self-check
    assert len(steps) >= 95 + tried  # all but the prompt and the half read again
    monkeypatch.setattr(packing, "fp16_products_available", lambda: False)
    assert write(model, tokenizer) == text
    assert len(steps) < 100 + tried


def test_a_short_text_is_not_worth_the_packing(tokenizer: Tokenizer, steps: list[int]) -> None:
    write(random_model(), tokenizer, MIN_TOKENS_TO_PACK - 1)
    assert not steps
    write(random_model(), tokenizer, MIN_TOKENS_TO_PACK)
    assert steps


def test_a_generator_packs_once_and_anew_when_a_weight_changes(tokenizer: Tokenizer) -> None:
    model = random_model()
    generator = TextGenerator(model, tokenizer)
    decoder = generator.fp16_decoder()
    assert decoder is not None and generator.fp16_decoder() is decoder
    assert TextGenerator(model, tokenizer).fp16_decoder() is not decoder  # nothing is shared
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] += 0.5
    again = generator.fp16_decoder()
    assert again is not None and again is not decoder
    cache = KVCache(model.config, 1, 4)
    with torch.inference_mode():
        got = again(5, cache)
        torch.testing.assert_close(
            got[0], model(torch.tensor([[5]])).logits[0, 0], rtol=1e-2, atol=1e-2
        )


def test_what_cannot_be_packed_is_asked_once(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Transformer] = []
    monkeypatch.setattr(packing, "_in_range", lambda model: bool(asked.append(model)))
    generator = TextGenerator(random_model(), tokenizer)
    assert generator.fp16_decoder() is generator.fp16_decoder() is None and len(asked) == 1


def test_two_texts_at_once_are_what_each_is_alone(tokenizer: Tokenizer) -> None:
    generator = TextGenerator(random_model(), tokenizer)
    prompts = ["To be", "the question"]

    def stream(prompt: str) -> Iterator[str]:
        return generator.stream(prompt, 100, GREEDY, stop_at_eos=False)

    alone = ["".join(stream(prompt)) for prompt in prompts]
    together = ["", ""]
    for pieces in itertools.zip_longest(*map(stream, prompts), fillvalue=""):
        together = [text + piece for text, piece in zip(together, pieces, strict=True)]
    assert together == alone and alone[0] != alone[1]


@pytest.mark.parametrize("name", ["qwen3", "two experts"])
@pytest.mark.parametrize("fault", ["transposed", "zeros", "not a number"])
def test_a_torch_whose_packed_product_is_wrong_is_not_trusted(
    name: str, fault: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(half=True, **ARCHITECTURES[name])
    want = write(model, tokenizer)
    pack = packing._pack

    def wrong(*matrices: torch.Tensor) -> object:
        broken = {
            "transposed": [m.flip(0) for m in matrices],
            "zeros": [m * 0 for m in matrices],
            "not a number": [m * torch.nan for m in matrices],
        }
        return pack(*broken[fault])

    monkeypatch.setattr(packing, "_pack", wrong)
    assert fp16_decoder(model) is None
    assert write(model, tokenizer) == want  # by the model itself


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
    assert fp16_decoder(model) is None


def test_neither_are_tiny_ones_packed_but_zeros_are() -> None:
    model = random_model()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.zero_()
        assert fp16_decoder(model) is not None
        model.model.layers[0].mlp.down_proj.weight[3, 3] = 1e-5
    assert fp16_decoder(model) is None


def test_one_tiny_expert_among_others_is_not_packed_either() -> None:
    model = random_model(**MOE)
    with torch.no_grad():
        model.model.layers[0].mlp.experts.down_proj[2] *= 1e-4
    assert fp16_decoder(model) is None


def test_a_model_in_another_precision_is_read_as_it_is(
    tokenizer: Tokenizer, steps: list[int]
) -> None:
    model = random_model().to(torch.bfloat16)
    assert write(model, tokenizer) and not steps


def test_where_torch_cannot_pack_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Didn't find engine for operation quantized::linear_prepack_fp16")

    monkeypatch.setattr(packing, "_pack", fail)
    monkeypatch.setattr(
        packing, "fp16_products_available", packing.fp16_products_available.__wrapped__
    )  # not cached
    assert fp16_decoder(random_model()) is None


def test_an_embedding_of_zeros_without_epsilon_gives_nan_as_in_the_model() -> None:
    model = random_model(half=True, rms_norm_eps=0.0)
    with torch.no_grad():
        model.model.embed_tokens.weight[5] = 0.0
        got = Fp16Decoder(model)(5, KVCache(model.config, 1, 4))
        assert model(torch.tensor([[5]])).logits.isnan().all() and got.isnan().all()
