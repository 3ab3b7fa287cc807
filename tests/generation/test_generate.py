"""Continuations against the definition: the whole text read anew for every token."""

import dataclasses
import itertools

import pytest
import torch
import transformers

from jielong.checkpoint.checkpoint import write_model_folder
from jielong.config.model import ModelConfig
from jielong.config.sampling import Sampling, make_sampling
from jielong.errors import CheckpointError, ConfigError, DataError
from jielong.generation.generate import TextGenerator
from jielong.generation.sampling import new_generator, sample_next
from jielong.model.transformer import Transformer
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer

TEXTS = ["春眠不觉晓,处处闻啼鸟。", "To be, or not to be, that is the question.", "🙂🙃 naïve café"]
CONFIG = ModelConfig(
    vocab_size=320,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0)


def generate(model, tokenizer, *arguments, **options):
    return TextGenerator(model, tokenizer).stream(*arguments, **options)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, 320, 2**20)


def random_model(tokenizer: Tokenizer, **changes: object) -> Transformer:
    """A model whose every weight matters; a fresh one's layers begin as the identity."""
    values = {"vocab_size": tokenizer.vocab_size} | changes
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(CONFIG, **values))
    for name, weight in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    return random_model(tokenizer)


def expected_ids(model, tokenizer, prompt, new_tokens, sampling=GREEDY, context=64):
    """By the definition, without a cache: ids of the continuation."""
    generator = new_generator(sampling.seed, torch.device("cpu"))
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    window, out = ids[-context:], []
    while len(out) < new_tokens:
        with torch.no_grad():
            logits = model(torch.tensor([window])).logits[:, -1]
        logits[:, [tokenizer.bos_id, tokenizer.pad_id]] = -torch.inf
        token = int(sample_next(logits, torch.tensor([window]), sampling, generator))
        if token == tokenizer.eos_id:
            break
        out.append(token)
        full = len(window) == context
        window = (window[-(context // 2) :] if full else window) + [token]
        window = window[-(context // 2) :] if full else window
    return out


@pytest.mark.parametrize("prompt", ["", "春眠", "To be, or not"])
@pytest.mark.parametrize(
    "sampling", [GREEDY, Sampling(seed=1), Sampling(1.3, 20, 0.9, 0.01, 1.2, 7)]
)
def test_cached_generation_equals_reading_the_whole_text_for_each_token(
    model, tokenizer, prompt, sampling
):
    got = "".join(generate(model, tokenizer, prompt, 30, sampling))
    assert got == tokenizer.decode(expected_ids(model, tokenizer, prompt, 30, sampling))


def test_past_the_context_the_last_half_is_read_again(tokenizer):
    model = random_model(tokenizer, max_position_embeddings=16)
    got = "".join(generate(model, tokenizer, "To be", 60, GREEDY))
    want = expected_ids(model, tokenizer, "To be", 60, context=16)
    assert len(want) == 60
    assert got == tokenizer.decode(want)


def test_of_a_prompt_longer_than_the_context_the_end_is_read(tokenizer):
    model = random_model(tokenizer, max_position_embeddings=16)
    prompt = " ".join(TEXTS)
    got = "".join(generate(model, tokenizer, prompt, 5, GREEDY))
    assert got == tokenizer.decode(expected_ids(model, tokenizer, prompt, 5, context=16))


def test_a_context_of_one_token_still_generates(tokenizer):
    model = random_model(tokenizer, max_position_embeddings=1)
    assert TextGenerator(model, tokenizer).batch(["To be"], 5, GREEDY)[0]


def test_a_batch_of_unequal_prompts_equals_each_alone(model, tokenizer):
    prompts = ["", "春眠不觉晓", "To", "To be, or not to be"]
    alone = ["".join(generate(model, tokenizer, prompt, 20, GREEDY)) for prompt in prompts]
    assert TextGenerator(model, tokenizer).batch(prompts, 20, GREEDY) == alone
    assert TextGenerator(model, tokenizer).batch([], 20, GREEDY) == []


def test_streamed_pieces_are_whole_characters(model, tokenizer):
    """A random model writes every byte: what comes out must still join to what decode says."""
    for seed in range(5):
        sampling = Sampling(temperature=1.5, top_p=1.0, seed=seed)
        pieces = list(generate(model, tokenizer, "春", 40, sampling, stop_at_eos=False))
        assert all(pieces)
        for piece in pieces:
            piece.encode()
    chars = "春🙂é"
    forced = force(random_model(tokenizer), tokenizer.encode(chars))
    assert list(generate(forced, tokenizer, "x", len(tokenizer.encode(chars)), GREEDY)) == list(
        chars
    )


def force(model: Transformer, ids: list[int]) -> Transformer:
    """The model, made to write `ids` one after another, each the first time it follows the last."""
    turn = itertools.count()

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(*hidden.shape[:-1], model.config.vocab_size)
        scores[..., ids[next(turn) % len(ids)]] = 50.0
        return scores

    model.logits = logits
    return model


def test_generation_stops_at_eos_and_does_not_show_it(tokenizer):
    ids = [*tokenizer.encode("To be"), tokenizer.eos_id, *tokenizer.encode("more")]
    text = "".join(generate(force(random_model(tokenizer), ids), tokenizer, "x", 50, GREEDY))
    assert text == "To be"


def test_without_stop_at_eos_the_text_goes_on_to_the_last_token(tokenizer):
    model = force(random_model(tokenizer), [tokenizer.eos_id])
    ids = tokenizer.encode("".join(generate(model, tokenizer, "x", 9, GREEDY, stop_at_eos=False)))
    assert tokenizer.eos_id not in ids
    assert ids


def test_bos_pad_and_ids_without_a_meaning_are_never_written(tokenizer):
    model = random_model(tokenizer, vocab_size=tokenizer.vocab_size + 64)
    hot = Sampling(temperature=100.0, top_p=1.0, repetition_penalty=1.0, seed=0)
    text = "".join(generate(model, tokenizer, "x", 400, hot, stop_at_eos=False))
    assert "<|" not in text
    for special in (tokenizer.bos_id, tokenizer.pad_id, tokenizer.vocab_size + 3):
        written = "".join(generate(force(model, [special]), tokenizer, "x", 3, GREEDY))
        assert "<|" not in written


@pytest.mark.parametrize("count", [0, 1, 7])
def test_at_most_max_new_tokens_are_written(tokenizer, count):
    model = force(random_model(tokenizer), tokenizer.encode("x"))
    assert "".join(generate(model, tokenizer, "x", count, GREEDY)) == "x" * count
    assert TextGenerator(model, tokenizer).batch(["x", "To be"], count, GREEDY) == ["x" * count] * 2


def test_same_seed_writes_the_same_text(model, tokenizer):
    def write(seed):
        return "".join(generate(model, tokenizer, "To be", 20, Sampling(seed=seed)))

    assert write(1) == write(1) != write(2)


def test_generation_leaves_random_state_mode_and_grad_as_they_were(tokenizer):
    model = random_model(tokenizer).train()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    stream = generate(model, tokenizer, "To be", 20, Sampling())
    next(stream)  # between two pieces the caller goes on with its own work
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert [module.training for module in model.modules()] == modes
    list(stream)
    TextGenerator(model, tokenizer).batch(["To be"], 5)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes


def test_a_model_can_train_after_it_generated(tokenizer):
    model = random_model(tokenizer).train()
    TextGenerator(model, tokenizer).batch(["To be"], 5)
    tokens = torch.tensor([tokenizer.encode("To be")])
    model(tokens, targets=tokens).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_an_empty_prompt_without_bos_is_refused(model, tokenizer):
    bare = Tokenizer(tokenizer._backend, {}, {"bos": None, "eos": 2, "pad": 0})
    with pytest.raises(DataError, match="no bos"):
        generate(model, bare, "")
    assert "".join(generate(model, bare, "To", 3, GREEDY))


def test_a_tokenizer_of_another_model_is_refused(tokenizer):
    model = random_model(tokenizer, vocab_size=100)
    with pytest.raises(DataError, match="vocabulary ends at 99"):
        generate(model, tokenizer, "To be, or not")


@pytest.mark.parametrize("count", [-1, 1.5, True, None])
def test_a_bad_token_budget_is_refused_at_once(model, tokenizer, count):
    with pytest.raises(ConfigError, match="max_new_tokens"):
        generate(model, tokenizer, "To", count)


def test_a_diverged_model_is_named_as_such(tokenizer):
    model = random_model(tokenizer)
    torch.nn.init.constant_(model.model.norm.weight, torch.nan)
    with pytest.raises(CheckpointError, match="not finite"):
        list(generate(model, tokenizer, "To", 3))


def test_temperature_0_writes_what_transformers_writes_without_sampling(tokenizer, tmp_path):
    """With nothing else set on either side, and for a text so long that sampling would round."""
    model = random_model(tokenizer, max_position_embeddings=256, tie_word_embeddings=False)
    with torch.no_grad():  # tokens in pairs that are alike in half precision
        head = model.lm_head.weight
        head[1::2] = 1.0001 * head[: len(head) - 1 : 2]
    write_model_folder(tmp_path, model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    for prompt in ("To be", "春眠"):
        ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
        written = theirs.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=120)
        expected = tokenizer.decode(written[0, len(ids) :].tolist(), skip_special=True)
        sampling = make_sampling(temperature=0.0)
        assert "".join(generate(model, tokenizer, prompt, 120, sampling)) == expected
        assert len(written[0]) > 100


def test_generation_stops_before_a_text(tokenizer):
    model = force(random_model(tokenizer), tokenizer.encode("To be, or not to be"))
    assert "".join(generate(model, tokenizer, "x", 50, GREEDY, stop=[" not", "nowhere"])) == (
        "To be, or"
    )
