"""What the page of `jielong ui` asks of its server."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from jielong.api import load
from jielong.checkpoint.checkpoint import write_model_folder
from jielong.config.sampling import Sampling
from jielong.generation.generate import TextGenerator, encode_prompt, suppressed_tokens
from jielong.generation.sampling import next_distribution
from jielong.serving.guard import Access
from jielong.serving.limits import Limits
from jielong.tokenization.tokenizer import Tokenizer
from jielong.ui.app import STATIC, create_app
from jielong.ui.players import IN_MEMORY, Players, subjects_of
from live_page import GrowingRun
from tiny import tiny_model

LOCAL = "http://127.0.0.1"


@pytest.fixture(scope="module")
def players(folders: list[Path]) -> Iterator[Players]:
    players = Players(subjects_of(folders), "cpu", Limits(slots=4, queue=16, max_tokens=1000))
    yield players
    players.close()


@pytest.fixture(scope="module")
def client(players: Players) -> TestClient:
    return TestClient(create_app(players, Access()), base_url=LOCAL)


def events(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line]


def ids_of(client: TestClient, text: str) -> list[int]:
    tokens = client.post("/api/read", json={"text": text}).json()["tokens"]
    return [token["id"] for token in tokens]


def test_it_goes_on_as_generate_does_with_the_same_seed(
    client: TestClient, folders: list[Path]
) -> None:
    model, tokenizer = load(folders[0])
    knobs = {"temperature": 1.2, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1, "seed": 7}
    found = events(
        client.post("/api/go", json={"ids": ids_of(client, "Tale"), "count": 12, "knobs": knobs})
    )
    assert found[-1]["finish"] in ("stop", "length")
    written = b"".join(bytes.fromhex(token["bytes"]) for token in found[:-1])
    expected = TextGenerator(model, tokenizer).stream("Tale", 12, Sampling(**knobs))
    assert written.decode("utf-8", "replace") == "".join(expected)


def test_bars_are_the_distribution_that_the_knobs_leave(
    client: TestClient, folders: list[Path]
) -> None:
    model, tokenizer = load(folders[0])
    ids = encode_prompt(model, tokenizer, "Tale 3")
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[:, -1].float()
    for knobs in ({}, {"temperature": 0.3, "top_k": 5}, {"repetition_penalty": 1.9}):
        body = {"ids": ids, "knobs": knobs, "count": 5}
        found = client.post("/api/bars", json=body).json()
        allowed = logits.masked_fill(suppressed_tokens(model, tokenizer, True), -torch.inf)
        expected = next_distribution(allowed, torch.tensor([ids]), Sampling(**knobs))[0]
        for bar in found["bars"]:
            assert bar["p"] == pytest.approx(float(logits.softmax(-1)[0, bar["id"]]), abs=1e-4)
            assert bar["q"] == pytest.approx(float(expected[bar["id"]]), abs=1e-4)
        assert sum(bar["q"] for bar in found["bars"]) + found["rest"]["q"] == pytest.approx(1)


def test_surprise_is_the_models_own(client: TestClient, folders: list[Path]) -> None:
    model, _ = load(folders[0])
    tokens = client.post("/api/read", json={"text": "Tale 3. word1"}).json()["tokens"]
    ids = torch.tensor([[token["id"] for token in tokens]])
    with torch.inference_mode():
        logs = model(ids).logits[0].float().log_softmax(-1)
    for place, token in enumerate(tokens[1:], 1):
        bits = -float(logs[place - 1, token["id"]]) / math.log(2)
        assert token["bits"] == pytest.approx(bits, abs=1e-3)
        assert len(token["others"]) == 8
    assert tokens[0]["bits"] is None


def test_stepping_back_and_forth_gives_the_same_bars(client: TestClient) -> None:
    ids = ids_of(client, "Tale 3. word1 word2")
    at = {n: client.post("/api/bars", json={"ids": ids[:n]}).json() for n in (3, len(ids), 4, 3)}
    for n in (4, len(ids)):
        again = client.post("/api/bars", json={"ids": ids[:n]}).json()
        assert [b["id"] for b in again["bars"]] == [b["id"] for b in at[n]["bars"]]
        assert again["bars"][0]["p"] == pytest.approx(at[n]["bars"][0]["p"], abs=1e-5)


def test_a_text_beyond_the_context_goes_on(client: TestClient) -> None:
    tokens = client.post("/api/read", json={"text": "word1 " * 200}).json()["tokens"]
    ids = [token["id"] for token in tokens]
    assert tokens[-1]["bits"] is None  # past what the model sees
    assert client.post("/api/bars", json={"ids": ids}).status_code == 200
    found = events(client.post("/api/go", json={"ids": ids, "count": 3}))
    assert "finish" in found[-1]


def test_the_same_seed_gives_the_same_text_with_a_copy_of_the_run(client: TestClient) -> None:
    body = {"ids": ids_of(client, "Tale"), "count": 10, "knobs": {"seed": 3}}
    texts = [client.post("/api/go", json=body | {"run": run}).text for run in (0, 1)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("bars", {"ids": []}, 400, "ids is not a list"),
        ("bars", {"ids": [10**9]}, 400, "no such tokens"),
        ("bars", {"ids": [1], "knobs": {"top_p": 0}}, 400, "top_p=0"),
        ("bars", {"ids": [1], "knobs": {"top_b": 0}}, 400, "top_b"),
        ("bars", {"ids": [1], "count": 999}, 400, "count"),
        ("read", {"text": "x" * 30_000}, 400, "20,000"),
        ("read", {"text": "\ud800"}, 400, ""),
        ("read", {"text": "x", "run": 7}, 404, "no such run"),
        ("read", {"text": "x", "run": "../../etc"}, 404, "no such run"),
        ("read", {"text": "x", "checkpoint": "../../etc/passwd"}, 400, "best, last or a step"),
        ("read", {"text": "x", "checkpoint": "999"}, 404, "no checkpoint of step 999"),
        ("read", {"text": "x", "path": "/etc"}, 400, "unknown field 'path'"),
        ("go", {"ids": [1], "count": 0}, 400, "count"),
        ("inside", {"view": "passwords"}, 400, "no such view"),
        ("inside", {"view": "data", "step": 999}, 400, "not a step"),
    ],
)
def test_mistakes_are_told(
    client: TestClient, folders: list[Path], path: str, body: Any, status: int, told: str
) -> None:
    answer = client.post(f"/api/{path}", content=json.dumps(body))
    assert answer.status_code == status
    message = answer.json()["error"]["message"]
    assert told in message and str(folders[0].parent) not in message


def test_checkpoints_deleted_or_replaced_meanwhile_are_no_crash(
    folders: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(folders[0], tmp_path / "run")
    players = Players(subjects_of([tmp_path / "run"]), "cpu", Limits(slots=2))
    try:
        client = TestClient(create_app(players, Access()), base_url=LOCAL)
        before = client.post("/api/read", json={"text": "Tale 3"}).json()
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        assert client.post("/api/read", json={"text": "Tale 3"}).json() == before
        assert client.get("/api/runs").json()["runs"][0]["steps"] == []
        answer = client.post("/api/read", json={"text": "Tale 3", "checkpoint": "last"})
        assert answer.status_code == 404
        shutil.copytree(folders[0] / "checkpoints", tmp_path / "run" / "checkpoints")
        assert client.post("/api/read", json={"text": "Tale 3"}).json() == before
    finally:
        players.close()


def test_few_models_are_in_memory_at_once(folders: list[Path], tmp_path: Path) -> None:
    places = [Path(shutil.copytree(folders[0], tmp_path / str(n))) for n in range(IN_MEMORY + 2)]
    players = Players(subjects_of(places), "cpu", Limits(slots=1))
    try:
        loaded = [players.get(n) for n in range(len(places))]
        assert len(players._players) == IN_MEMORY
        assert not loaded[0].engine._thread.is_alive() and loaded[-1].engine._thread.is_alive()
    finally:
        players.close()


def test_a_run_in_training_is_watched(tmp_path: Path) -> None:
    run = GrowingRun(tmp_path / "growing")
    players = Players(subjects_of([tmp_path / "growing"]), "cpu", Limits())
    client = TestClient(create_app(players, Access()), base_url=LOCAL)
    first = client.get("/api/watch?run=0").json()
    assert first["curves"].get("loss") is None and first["samples"] == []
    run.go_on(5)
    assert client.get(f"/api/watch?run=0&tag={first['tag']}").status_code == 200
    second = client.get("/api/watch?run=0").json()
    assert [x for x, _ in second["curves"]["loss"]] == [10, 20, 30, 40, 50]
    assert second["curves"]["held_out_bits_per_byte"] == [[50, pytest.approx(1.7)]]
    assert second["samples"][0]["text"] == " <b>of</b> 50 nights" and second["total_steps"] == 400
    assert client.get(f"/api/watch?run=0&tag={second['tag']}").status_code == 204
    (tmp_path / "growing" / "metrics.jsonl").write_text('{"kind": "tra')  # as it is rewritten
    assert client.get("/api/watch?run=0").status_code == 200
    shutil.rmtree(tmp_path / "growing")
    assert client.get("/api/watch?run=0").status_code == 404
    assert client.post("/api/read", json={"text": "x"}).status_code == 404


@pytest.mark.parametrize(
    "view",
    ["predict", "layers", "attention", "embeddings", "tokenizer", "model", "data", "schedule"],
)
def test_views_are_those_of_inspect(client: TestClient, view: str) -> None:
    body = {"view": view, "text": "Tale <i>3</i>", "layer": 1, "scheme": "dark", "language": "zh"}
    answer = client.post("/api/inside", json=body).json()
    page = client.get(f"/{answer['page']}")
    assert page.status_code == 200 and 'lang="zh"' in page.text
    policy = page.headers["Content-Security-Policy"]
    assert "script-src" not in policy and "default-src 'none'" in policy
    assert "<i>" not in page.text and "<script" not in page.text
    assert "@media all" in page.text


def test_a_model_alone_plays_and_shows_its_experts(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "moe").mkdir()
    model = tiny_model(vocab_size=tokenizer.vocab_size, use_moe=True)
    write_model_folder(tmp_path / "moe", model, tokenizer)
    players = Players(subjects_of([tmp_path / "moe"]), "cpu", Limits())
    try:
        client = TestClient(create_app(players, Access()), base_url=LOCAL)
        assert client.post("/api/model", json={}).json()["experts"] == 4
        assert events(client.post("/api/go", json={"ids": [1], "count": 2}))
        answer = client.post("/api/inside", json={"view": "experts", "text": "Tale 3"})
        assert client.get(f"/{answer.json()['page']}").status_code == 200
        answer = client.post("/api/inside", json={"view": "data"})
        assert "a model alone" in answer.json()["error"]["message"]
        assert client.get("/api/watch?run=0").status_code == 404
    finally:
        players.close()


def test_experts_of_a_dense_model_are_one_clear_line(client: TestClient) -> None:
    answer = client.post("/api/inside", json={"view": "experts", "text": "Tale"})
    assert answer.status_code == 400 and "\n" not in answer.json()["error"]["message"]


def test_the_page_allows_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'") and "unsafe" not in policy
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "innerHTML" not in text
        assert client.get(f"/static/{file.name}").status_code == 200
    assert client.get("/static/..%2fapp.py").status_code == 404
    assert client.get("/static/nothing.js").status_code == 404


def test_foreign_hosts_and_sites_are_refused(client: TestClient) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
    headers = {"Origin": "http://evil.example"}
    assert client.post("/api/read", json={"text": "x"}, headers=headers).status_code == 403


def test_a_token_opens_the_page_and_then_a_cookie_does(players: Players) -> None:
    app = create_app(players, Access(token="open-sesame"))
    client = TestClient(app, base_url=LOCAL)
    assert client.get("/").status_code == client.get("/api/runs").status_code == 401
    assert "open the address with the token" in client.get("/").json()["error"]["message"]
    assert client.get("/login?token=wrong").status_code == 401
    assert client.get("/login?token=open-sesame").status_code == 200  # and leads to the page
    assert client.get("/api/runs").status_code == 200
    cookie = client.get("/login?token=open-sesame", follow_redirects=False).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
