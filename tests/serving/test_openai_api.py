"""OpenAI's API with OpenAI's own client, and the requests that other tools make."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from jielong.checkpoint.checkpoint import load_model, write_model_folder
from jielong.config.sampling import Sampling
from jielong.generation.generate import TextGenerator
from jielong.model.transformer import Transformer
from jielong.tokenization.tokenizer import Tokenizer
from live_server import NAME, Live, live, model_of
from tiny import TEXTS

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
KNOBS = {"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.2}


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    return model_of(tokenizer)


@pytest.fixture(scope="module")
def server(model: Transformer, tokenizer: Tokenizer) -> Iterator[Live]:
    with live(model, tokenizer) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def alone(model: Transformer, tokenizer: Tokenizer) -> TextGenerator:
    return TextGenerator(model, tokenizer)


def with_template(tokenizer: Tokenizer, folder: Path, template: str) -> Tokenizer:
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(template)
    return Tokenizer.load(folder)


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


def test_texts_are_those_of_generate(client: openai.OpenAI, alone: TextGenerator) -> None:
    answer = client.completions.create(model=NAME, prompt="Tale", temperature=0, max_tokens=30)
    assert answer.choices[0].text == "".join(alone.stream("Tale", 30, Sampling(temperature=0.0)))
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage and answer.usage.completion_tokens == 30
    answer = client.completions.create(
        model=NAME, prompt="Tale", seed=7, max_tokens=40, top_p=0.9, temperature=1.3, n=3,
        extra_body=KNOBS,
    )  # fmt: skip
    for sample, choice in enumerate(answer.choices):
        sampling = Sampling(1.3, top_p=0.9, seed=7 + sample, **KNOBS)
        assert choice.text == "".join(alone.stream("Tale", 40, sampling))


def test_a_stream_is_the_same_text_piece_by_piece(
    client: openai.OpenAI, alone: TextGenerator
) -> None:
    chunks = list(
        client.completions.create(
            model=NAME, prompt=["Tale", "word1"], seed=3, max_tokens=50, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    texts = ["", ""]
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == ["".join(alone.stream(p, 50, Sampling(seed=3))) for p in ("Tale", "word1")]
    assert len(chunks) > 4  # of each text the first token is sent at once, others together
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 100


def test_stop_echo_and_probabilities(client: openai.OpenAI, alone: TextGenerator) -> None:
    text = "".join(alone.stream("Tale", 40, Sampling(seed=1)))
    stop = text[10:13]
    answer = client.completions.create(
        model=NAME, prompt="Tale", seed=1, max_tokens=40, stop=stop, echo=True, logprobs=2
    )
    choice = answer.choices[0]
    assert choice.text == "Tale" + text[: text.index(stop)] and choice.finish_reason == "stop"
    assert choice.logprobs and choice.logprobs.token_logprobs and choice.logprobs.text_offset
    assert all(logprob < 0 for logprob in choice.logprobs.token_logprobs)
    assert choice.logprobs.text_offset[0] == 0
    assert all(2 <= len(top) <= 3 for top in choice.logprobs.top_logprobs or [])


def test_the_requests_of_lm_evaluation_harness(
    server: Live, model: Transformer, tokenizer: Tokenizer
) -> None:
    """`local-completions` sends token ids; it sums from the context to the last token but one."""
    contexts = [[tokenizer.bos_id, *tokenizer.encode(text[:20])] for text in TEXTS[3:6]]
    ends = [tokenizer.encode(text[20:40]) for text in TEXTS[3:6]]
    asked = {
        "model": NAME, "prompt": [c + e for c, e in zip(contexts, ends, strict=True)],
        "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True,
    }  # fmt: skip
    answer = post(server, asked)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    for choice, context, end in zip(answer["choices"], contexts, ends, strict=True):
        own = choice["logprobs"]["token_logprobs"][len(context) : -1]
        top = choice["logprobs"]["top_logprobs"][len(context) : -1]
        with torch.no_grad():
            logits = model(torch.tensor([context + end])).logits[0, len(context) - 1 : -1]
        wanted = logits.log_softmax(-1)
        assert own == pytest.approx([float(wanted[i, t]) for i, t in enumerate(end)], abs=1e-4)
        greedy = [p == max(tops.values()) for p, tops in zip(own, top, strict=True)]
        assert greedy == [int(row.argmax()) == t for row, t in zip(wanted, end, strict=True)]
        assert choice["logprobs"]["token_logprobs"][0] is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("best_of", 2),
        ("frequency_penalty", 0.5),
        ("suffix", "end"),
        ("temperature", -1),
        ("temperature", "NaN"),
        ("top_p", 0),
        ("top_k", 1.5),
        ("seed", -1),
        ("max_tokens", 10**9),
        ("max_tokens", True),
        ("n", 0),
        ("n", 1000),
        ("stop", ""),
        ("stop", [1]),
        ("logprobs", 21),
        ("echo", "yes"),
        ("stream_options", {"x": 1}),
        ("temperatur", 1),
        ("prompt", 3),
        ("prompt", []),
        ("prompt", [0, "a"]),
        ("prompt", [10**9]),
        ("prompt", [-1]),
        ("prompt", "word " * 200),
        ("prompt", ["a"] * 129),
    ],
)
def test_what_cannot_be_done_is_named(client: openai.OpenAI, field: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=NAME, prompt="Tale", extra_body={field: value})
    assert refused.value.param == field
    assert field in refused.value.message


def test_harmless_values_of_what_we_lack_are_taken(client: openai.OpenAI) -> None:
    client.completions.create(
        model=NAME, prompt="T", max_tokens=1, frequency_penalty=0, presence_penalty=0,
        logit_bias={}, best_of=None, user="someone",
    )  # fmt: skip
    with pytest.raises(openai.NotFoundError, match=NAME):
        client.completions.create(model="../../etc/passwd", prompt="T")


def test_chat_without_a_template_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "Hi"}])


def test_chat_with_a_template(model: Transformer, tokenizer: Tokenizer, tmp_path: Path) -> None:
    ours = with_template(tokenizer, tmp_path, TEMPLATE)
    wanted = "".join(
        TextGenerator(model, ours).stream("user: Hi\nassistant:", 20, Sampling(seed=1))
    )
    messages: list[Any] = [{"role": "user", "content": "Hi"}]
    with live(model, ours) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        answer = client.chat.completions.create(
            model=NAME, messages=messages, seed=1, max_tokens=20, logprobs=True, top_logprobs=2
        )
        assert answer.choices[0].message.content == wanted
        logprobs = answer.choices[0].logprobs
        assert logprobs and logprobs.content
        spelt = b"".join(bytes(token.bytes or []) for token in logprobs.content)
        assert spelt.decode(errors="replace") == wanted
        chunks = client.chat.completions.create(
            model=NAME, messages=messages, seed=1, max_completion_tokens=20, stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
        assert "".join(pieces) == wanted and len(pieces) > 1
        for bad in ([], [{"content": "Hi"}], [{"role": "user", "content": 3}]):
            with pytest.raises(openai.BadRequestError, match="messages"):
                client.chat.completions.create(model=NAME, messages=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ ('A' * 999999999999) | length }}",
        "{{ 'A' * 9999999 }}",
        "{{ raise_exception('roles must alternate') }}",
        "{% if %}",
    ],
)
def test_a_hostile_template_costs_its_request_alone(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path, template: str
) -> None:
    ours = with_template(tokenizer, tmp_path, template)
    with live(model, ours) as server:
        body = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
        answer = server.post(body, path=b"/v1/chat/completions")
        assert answer.startswith(b"HTTP/1.1 400") and b"the chat template failed" in answer
        assert post(server, {"prompt": "Tale", "max_tokens": 1})["choices"]


def test_a_checkpoint_may_be_replaced_and_deleted_meanwhile(
    model: Transformer, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    write_model_folder(folder, model, tokenizer)
    asked = {"prompt": "Tale", "max_tokens": 20, "temperature": 0}
    with live(*load_model(folder)) as server:
        first = post(server, asked)["choices"]
        with (folder / "model.safetensors").open("r+b") as file:
            file.truncate(100)
        assert post(server, asked)["choices"] == first
        shutil.rmtree(folder)
        assert post(server, asked)["choices"] == first


def test_metrics_and_health(model: Transformer, tokenizer: Tokenizer) -> None:
    with live(model, tokenizer, slots=3) as server:
        post(server, {"prompt": "Tale", "max_tokens": 5, "ignore_eos": True})
        deadline = time.monotonic() + 60  # the slot is freed soon after the answer
        while metrics(server)["jielong_slots_busy"] and time.monotonic() < deadline:
            time.sleep(0.01)
        numbers = metrics(server)
        assert numbers["jielong_slots"] == 3 and numbers["jielong_slots_busy"] == 0
        assert numbers["jielong_generated_tokens_total"] == 5
        assert numbers["jielong_prompt_tokens_total"] == len(tokenizer.encode("Tale"))
        assert numbers['jielong_requests_total{endpoint="completions",status="200"}'] == 1
        with urllib.request.urlopen(f"{server.url}/health") as answer:
            assert json.load(answer) == {"status": "ok"}


def metrics(server: Live) -> dict[str, float]:
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def post(server: Live, body: dict[str, Any]) -> dict[str, Any]:
    asked = urllib.request.Request(f"{server.url}/v1/completions", json.dumps(body).encode())
    with urllib.request.urlopen(asked) as answer:
        result: dict[str, Any] = json.load(answer)
    return result
