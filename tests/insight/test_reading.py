"""What a model makes of a text: predictions, layers, attention, experts, embeddings."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from jielong.errors import ConfigError, DataError
from jielong.insight.attention import inspect_attention, weights_of
from jielong.insight.embeddings import inspect_embeddings
from jielong.insight.experts import inspect_experts
from jielong.insight.layers import inspect_layers
from jielong.insight.predictions import inspect_predictions, percent
from jielong.insight.tokenizer import inspect_tokenizer
from jielong.model.attention import Attention
from jielong.model.transformer import Transformer
from jielong.present.words import sayer
from jielong.tokenization.tokenizer import Tokenizer
from tiny import tiny_model

TEXT = "Tale 7. word3 word5 龙"
MOE = {"use_moe": True, "num_experts": 4, "num_experts_per_tok": 2}


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    return tiny_model(vocab_size=tokenizer.vocab_size)


def ids_of(tokenizer: Tokenizer, text: str = TEXT) -> torch.Tensor:
    assert tokenizer.bos_id is not None
    return torch.tensor([[tokenizer.bos_id, *tokenizer.encode(text)]])


def test_predictions_are_the_loss_and_the_order_of_the_logits(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    view = inspect_predictions(model, tokenizer, TEXT, guesses=3)
    ids = ids_of(tokenizer)
    loss = model(ids[:, :-1], targets=ids[:, 1:]).loss
    assert view.bits * math.log(2) == pytest.approx(loss.item(), rel=1e-5)
    assert view.bytes == len(TEXT.encode())
    logits = model(ids).logits[0]
    for p in view.predictions:
        row = logits[p.position - 1].softmax(-1)
        order = row.argsort(descending=True).tolist()
        assert p.token == ids[0, p.position] and order[p.rank - 1] == p.token
        assert [g.token for g in p.guesses] == order[:3]
        assert p.probability == pytest.approx(row[p.token].item(), rel=1e-4)
        assert p.bits == pytest.approx(-math.log2(p.probability))
    said = repr(view.page(sayer("en")))
    assert f"{view.bits / view.bytes:.3f}" in said and "‹E9›" in said  # a part of 龙


def test_a_text_longer_than_the_context_is_read_up_to_it(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    view = inspect_predictions(model, tokenizer, "Tale " * 100)
    assert len(view.reading.ids) == 64
    assert view.reading.left_out == ids_of(tokenizer, "Tale " * 100).shape[1] - 64
    assert "tokens are left out" in repr(view.page(sayer("en")))


def test_the_last_layer_of_the_lens_is_the_model(model: Transformer, tokenizer: Tokenizer) -> None:
    view = inspect_layers(model, tokenizer, TEXT)
    assert [layer.layer for layer in view.layers] == [0, 1, 2]
    ids = ids_of(tokenizer)
    logs = model(ids).logits[0, :-1].log_softmax(-1)
    last = view.layers[-1]
    assert [g.token for g in last.guesses] == logs.argmax(-1).tolist()
    assert last.agreement == 1.0
    loss = F.nll_loss(logs, ids[0, 1:])
    assert last.bits == pytest.approx(loss.item() / math.log(2), rel=1e-5)
    # the embedding alone, through norm and head
    first = model.logits(model.model.norm(model.model.embed_tokens(ids)))[0, :-1]
    assert [g.token for g in view.layers[0].guesses] == first.argmax(-1).tolist()


def test_attention_weights_give_what_the_layer_gives(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    ids = ids_of(tokenizer)
    seen: list[tuple[Attention, tuple[object, ...], torch.Tensor]] = []
    modules = [m for m in model.modules() if isinstance(m, Attention)]
    for module in modules:
        module.register_forward_hook(lambda m, inputs, out: seen.append((m, inputs, out)))
    weights = weights_of(model, ids)
    for module in modules:
        module._forward_hooks.clear()
    assert len(weights) == len(seen) == 2
    for matrix, (module, inputs, out) in zip(weights, seen, strict=True):
        _, _, v = module.project(*inputs[:2])  # type: ignore[arg-type]
        mixed = matrix @ v.repeat_interleave(module.heads // module.kv_heads, 1)
        ours = module.o_proj(mixed.transpose(1, 2).flatten(2))
        torch.testing.assert_close(ours, out, atol=1e-5, rtol=1e-4)


def test_a_head_is_described_by_its_weights(model: Transformer, tokenizer: Tokenizer) -> None:
    whole = inspect_attention(model, tokenizer, TEXT)
    assert [(h.layer, h.head) for h in whole.heads] == [
        (la, h) for la in (1, 2) for h in range(1, 5)
    ]
    one = inspect_attention(model, tokenizer, TEXT, layer=2, head=3).heads
    assert one == (whole.heads[6],)
    matrix = one[0].weights
    T = len(matrix)
    distance = sum(matrix[i][j] * (i - j) for i in range(T) for j in range(T)) / T
    assert one[0].distance == pytest.approx(distance, abs=1e-3)
    assert one[0].on_previous == pytest.approx(
        sum(matrix[i][i - 1] for i in range(1, T)) / (T - 1), abs=1e-3
    )
    assert all(matrix[i][j] == 0 for i in range(T) for j in range(i + 1, T))
    with pytest.raises(ConfigError, match="layer=3: this model has 2, counted from 1"):
        inspect_attention(model, tokenizer, TEXT, layer=3)


def test_experts_are_those_that_the_router_chose(tokenizer: Tokenizer) -> None:
    model = tiny_model(vocab_size=tokenizer.vocab_size, **MOE)
    view = inspect_experts(model, tokenizer, TEXT)
    ids = ids_of(tokenizer)
    load = model(ids, targets=ids.clone()).expert_load
    assert load is not None
    assert [list(layer.load) for layer in view.layers] == load.long().tolist()
    for layer in view.layers:
        assert all(len(set(chosen)) == 2 for chosen in layer.experts)
        assert all(a >= b and a + b == pytest.approx(1, abs=1e-3) for a, b in layer.weights)
    assert "expert 3" in repr(view.page(sayer("en")))


def test_a_dense_model_has_no_experts(model: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="this model has no experts: it is dense"):
        inspect_experts(model, tokenizer, TEXT)


def test_neighbours_are_the_nearest_by_cosine(model: Transformer, tokenizer: Tokenizer) -> None:
    view = inspect_embeddings(model, tokenizer, "Ta", nearest=4)
    matrix = model.model.embed_tokens.weight
    cosines = F.cosine_similarity(matrix[:, None], matrix[None], dim=-1).detach()
    V = len(matrix)
    off_diagonal = (float(cosines.sum()) - V) / (V * (V - 1))
    assert view.mean_cosine == pytest.approx(off_diagonal, abs=1e-4)
    for found in view.tokens:
        order = [i for i in cosines[found.token].argsort(descending=True) if i != found.token]
        assert [n.token for n in found.nearest] == [int(i) for i in order[:4]]
        assert found.nearest[0].cosine == pytest.approx(
            float(cosines[found.token, found.nearest[0].token]), abs=1e-5
        )
    many = inspect_embeddings(model, tokenizer, "x y z x y z")
    assert len(many.tokens) == 8 and many.left_out == len(tokenizer.encode("x y z x y z")) - 8


def test_a_text_in_tokens_beside_another_tokenizer(tokenizer: Tokenizer) -> None:
    view = inspect_tokenizer({"ours": tokenizer, "again": tokenizer}, TEXT)
    assert view.splits[0].ids == view.splits[1].ids == tuple(tokenizer.encode(TEXT))
    assert sum(view.splits[0].bytes) == view.text_bytes == len(TEXT.encode())
    assert view.characters == len(TEXT)
    rate = f"{view.text_bytes / len(view.splits[0].ids):.2f}"
    assert rate in repr(view.page(sayer("en")))
    special = inspect_tokenizer(tokenizer, "a<|im_end|>").splits[0]
    assert special.pieces == ("a", "<|im_end|>") and special.bytes == (1, 0)


@pytest.mark.parametrize("text", ["", "\udcff"])
def test_a_text_that_cannot_be_read_is_told(
    text: str, model: Transformer, tokenizer: Tokenizer
) -> None:
    with pytest.raises(DataError, match=r"no text|not valid Unicode"):
        inspect_predictions(model, tokenizer, text)


def test_a_text_for_which_there_are_no_tokens_is_told() -> None:
    backend = Backend(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<unk>"])
    words = Tokenizer(backend, {}, {"bos": None, "eos": None, "pad": None})
    assert inspect_tokenizer(words, "a b a").splits[0].ids == (1, 2, 1)
    with pytest.raises(DataError, match="no token for '龙' in the text and writes <unk> instead"):
        inspect_tokenizer(words, "a 龙")
    with pytest.raises(DataError, match="this text is 1 token, and it takes 2"):
        inspect_predictions(tiny_model(), words, "a")


def test_a_probability_is_written_so_that_it_can_be_told_from_nothing() -> None:
    assert [percent(p) for p in (0.5, 0.0123, 0.00064, 1e-9)] == [
        "50.0%",
        "1.2%",
        "0.064%",
        "1e-07%",
    ]
