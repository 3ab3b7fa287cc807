"""Texts written together, against each written alone by `TextGenerator`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools

import pytest
import torch

from jielong.config.sampling import Sampling
from jielong.generation.generate import MIN_TOKENS_TO_PACK, TextGenerator, encode_prompt
from jielong.model.transformer import Transformer
from jielong.serving.engine import Engine
from jielong.serving.errors import RequestError
from jielong.serving.limits import Limits
from jielong.serving.rows import Job, Piece, TextRequest
from jielong.tokenization.tokenizer import Tokenizer
from live_server import model_of
from tiny import TEXTS

GREEDY = Sampling(temperature=0.0)
LONG = MIN_TOKENS_TO_PACK
# tokens, sampling: short and long, drawn in all ways; beyond the context of 64 tokens
WISHES = [
    (30, GREEDY),
    (LONG + 40, GREEDY),
    (30, Sampling(seed=1)),
    (LONG, Sampling(seed=2)),
    (LONG + 30, Sampling(1.3, 20, 0.9, 0.01, 1.2, 7)),
    (5, Sampling(1.3, 20, 0.9, 0.01, 1.2, 7)),
    (50, Sampling(0.7, 0, 1.0, 0.05, 1.0, 3)),
    (LONG + 1, Sampling(seed=2)),
]
PROMPTS = ["", "Tale", TEXTS[3][:40], "word1 word", "T", TEXTS[5][:30], "Tale 3. word2", "e"]
KINDS = {
    "dense": {},
    "qk_norm": {"qk_norm": True},
    "experts": {"use_moe": True, "num_experts": 4, "num_experts_per_tok": 2, "qk_norm": True},
}


class Client:
    """Collects what an engine answers."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, slots: int = 4, queue: int = 64):
        self.model, self.tokenizer = model, tokenizer
        self.engine = Engine(model, tokenizer, Limits(slots=slots, queue=queue))
        self.pieces: dict[int, list[Piece]] = {}
        self.numbers = itertools.count()

    def ask(
        self, prompt: str, tokens: int, sampling: Sampling, stream: bool = True, **more: object
    ) -> tuple[int, Job]:
        ids = encode_prompt(self.model, self.tokenizer, prompt)
        text = TextRequest(ids, 1, tokens, sampling, **more)  # type: ignore[arg-type]
        number = next(self.numbers)
        self.pieces[number] = []
        job = Job([text], self.pieces[number].append, stream)
        self.engine.submit(job)
        return number, job

    def run(self) -> None:
        while self.engine.jobs:
            self.engine.step()

    def text(self, number: int) -> str:
        assert not any(piece.error for piece in self.pieces[number])
        assert [piece.finish for piece in self.pieces[number] if piece.finish]
        return "".join(piece.text for piece in self.pieces[number])


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_come_and_go_in_company_are_those_of_generate(
    tokenizer: Tokenizer, kind: str
) -> None:
    model = model_of(tokenizer, **KINDS[kind])
    alone = TextGenerator(model, tokenizer)
    wanted = [
        "".join(alone.stream(prompt, tokens, sampling))
        for prompt, (tokens, sampling) in zip(PROMPTS, WISHES, strict=True)
    ]
    client = Client(model, tokenizer)
    numbers = []
    for prompt, (tokens, sampling) in zip(PROMPTS, WISHES, strict=True):
        numbers.append(client.ask(prompt, tokens, sampling)[0])
        for _ in range(3):  # they come one after another, and wait where no slot is free
            client.engine.step()
            assert client.engine.busy_slots <= 4
    client.run()
    assert [client.text(number) for number in numbers] == wanted
    assert client.engine.busy_slots == client.engine.waiting_texts == 0
    assert client.engine.counters.rows_stepped > 1.5 * client.engine.counters.steps  # in company


@pytest.mark.parametrize("context", [1, 2, 3, 16])
def test_past_a_short_context_too(tokenizer: Tokenizer, context: int) -> None:
    model = model_of(tokenizer, max_position_embeddings=context)
    alone, client = TextGenerator(model, tokenizer), Client(model, tokenizer)
    wishes = [(25, GREEDY), (LONG, Sampling(seed=4)), (40, Sampling(seed=5))]
    asked = [client.ask("", tokens, sampling)[0] for tokens, sampling in wishes]
    client.run()
    for number, (tokens, sampling) in zip(asked, wishes, strict=True):
        assert client.text(number) == "".join(alone.stream("", tokens, sampling))


def test_logprobs_of_written_tokens_are_those_of_the_model(tokenizer: Tokenizer) -> None:
    model = model_of(tokenizer)
    client = Client(model, tokenizer)
    number, _ = client.ask("Tale", 40, Sampling(seed=1), top_logprobs=0)
    client.run()
    tokens = [token for piece in client.pieces[number] for token in piece.tokens]
    ids = encode_prompt(model, tokenizer, "Tale") + [token.id for token in tokens]
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    for place, token in enumerate(tokens, len(ids) - len(tokens)):
        assert token.logprob == pytest.approx(float(logprobs[place - 1, token.id]), abs=1e-4)


def test_stop_and_end_of_document(tokenizer: Tokenizer) -> None:
    model = model_of(tokenizer)
    client, alone = Client(model, tokenizer), TextGenerator(model, tokenizer)
    text = "".join(alone.stream("Tale", 60, Sampling(seed=1)))
    stop = text[20:23]
    first, _ = client.ask("Tale", 60, Sampling(seed=1), stop=(stop,))
    second, _ = client.ask("Tale", 60, Sampling(seed=1), stop=(stop,), echo=True, stream=False)
    client.run()
    assert client.text(first) == text[: text.index(stop)]
    assert client.text(second) == "Tale" + text[: text.index(stop)]
    assert client.pieces[first][-1].finish == client.pieces[second][-1].finish == "stop"
    assert len(client.pieces[second]) == 1


def test_logprobs_of_a_prompt_are_those_of_the_model(tokenizer: Tokenizer) -> None:
    model = model_of(tokenizer)
    client = Client(model, tokenizer)
    number, _ = client.ask(TEXTS[2], 0, GREEDY, echo=True, top_logprobs=3)
    client.run()
    (piece,) = client.pieces[number]
    assert piece.text == TEXTS[2] and piece.finish == "length"
    ids = encode_prompt(model, tokenizer, TEXTS[2])
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert [token.id for token in piece.tokens] == ids[1:]
    for place, token in enumerate(piece.tokens):
        assert token.logprob == pytest.approx(float(logprobs[place, ids[place + 1]]), abs=1e-4)
        values, likeliest = logprobs[place].topk(3)
        assert [i for i, _ in token.top] == likeliest.tolist()
        assert [p for _, p in token.top] == pytest.approx(values.tolist(), abs=1e-4)
        assert TEXTS[2].startswith(tokenizer.decode([token.id]), token.start)


def test_a_client_that_leaves_frees_its_slot_before_the_next_step(tokenizer: Tokenizer) -> None:
    client = Client(model_of(tokenizer), tokenizer, slots=2)
    jobs = [client.ask("Tale", 500, Sampling(seed=n), stop_at_eos=False)[1] for n in range(3)]
    client.engine.step()
    assert (client.engine.busy_slots, client.engine.waiting_texts) == (2, 1)
    client.engine.cancel(jobs[0])
    client.engine.step()
    assert (client.engine.busy_slots, client.engine.waiting_texts) == (2, 0)
    for job in jobs[1:]:
        client.engine.cancel(job)
    client.engine.step()
    assert client.engine.busy_slots == client.engine.jobs == 0


def test_too_many_requests_are_told_when_to_come_again(tokenizer: Tokenizer) -> None:
    client = Client(model_of(tokenizer), tokenizer, slots=1, queue=2)
    for _ in range(3):
        client.ask("Tale", 5, GREEDY)
    with pytest.raises(RequestError) as refused:
        client.ask("Tale", 5, GREEDY)
    assert refused.value.status == 429 and int(refused.value.headers["Retry-After"]) >= 1
    client.run()
    client.ask("Tale", 5, GREEDY)


def test_a_text_that_is_not_finite_ends_alone(tokenizer: Tokenizer) -> None:
    """Nor does it poison the slot: the next text there is as ever."""
    model = model_of(tokenizer, tie_word_embeddings=False)
    alone = TextGenerator(model, tokenizer)
    wanted = "".join(alone.stream("Tale", 30, GREEDY))
    (poison,) = tokenizer.encode(sign := next(c for c in "~@#%^&*" if c not in wanted))
    with torch.no_grad():
        model.model.embed_tokens.weight[poison] = torch.nan
    client = Client(model, tokenizer, slots=2)
    good, _ = client.ask("Tale", 30, GREEDY)
    bad, _ = client.ask(sign, 30, GREEDY)
    after, _ = client.ask("Tale", 30, GREEDY)
    client.run()
    assert client.text(good) == client.text(after) == wanted
    (error,) = [piece.error for piece in client.pieces[bad] if piece.error]
    assert "not finite" in str(error)


def test_closing_tells_those_who_wait(tokenizer: Tokenizer) -> None:
    client = Client(model_of(tokenizer), tokenizer, slots=1)
    numbers = [client.ask("Tale", 4000, GREEDY, stop_at_eos=False)[0] for _ in range(2)]
    client.engine.start()
    client.engine.close()
    for number in numbers:
        assert isinstance(client.pieces[number][-1].error, RequestError)
        assert client.pieces[number][-1].error.status == 503
    with contextlib.suppress(RequestError):
        client.ask("Tale", 5, GREEDY)
        raise AssertionError("a closed engine took a request")


def test_limits_are_checked() -> None:
    from jielong.errors import ConfigError

    with pytest.raises(ConfigError, match="slots=0"):
        Limits(slots=0)
    assert dataclasses.replace(Limits(), queue=0).queue == 0
