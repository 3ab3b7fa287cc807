"""What transformers' AutoTokenizer makes of the folders that we write, by kind of tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers

from jielong.tokenization.agreement import HARD_TEXTS, disagreement
from jielong.tokenization.tokenizer import Tokenizer
from tokenizer_kinds import KINDS, TEXTS, write_kind

MODEL_TYPES = ("llama", "qwen3", "qwen3_moe")  # transformers chooses its class by these too


def theirs(folder: Path, text: str) -> list[int]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_transformers_gives_our_ids_of_any_saved_tokenizer(
    kind: str, model_type: str, tmp_path: Path
) -> None:
    source = write_kind(kind, tmp_path / "source")
    ours = Tokenizer.load(source)
    ours.save(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert disagreement(tmp_path / "saved", ours, [*TEXTS, *HARD_TEXTS]) is None
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "saved" / "tokenizer.json"))
    for text in [*TEXTS, *HARD_TEXTS]:  # and both are those of tokenizer.json
        ids = backend.encode(text, add_special_tokens=False).ids
        assert theirs(tmp_path / "saved", text) == ids == ours.encode(text)
    assert Tokenizer.load(tmp_path / "saved").fingerprint == ours.fingerprint


@pytest.mark.parametrize("kind", ["GPT-2", "BERT", "T5", "byte fallback"])
def test_as_published_transformers_gives_other_ids_and_that_is_noticed(
    kind: str, tmp_path: Path
) -> None:
    """These would hide a check that cannot fail."""
    source = write_kind(kind, tmp_path)
    (source / "config.json").write_text('{"model_type": "llama"}')
    found = disagreement(source, Tokenizer.load(source), [*TEXTS, *HARD_TEXTS])
    assert found is not None
    assert found.startswith("transformers 5")


def test_settings_that_change_no_ids_are_kept(tmp_path: Path) -> None:
    source = write_kind("Llama 2", tmp_path / "source")
    settings: dict[str, Any] = json.loads((source / "tokenizer_config.json").read_text())
    settings |= {"padding_side": "left", "chat_template": "{{ messages }}", "use_fast": False}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    Tokenizer.load(source).save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert saved == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "padding_side": "left",
        "chat_template": "{{ messages }}",
    }


def test_a_special_token_that_is_only_in_the_vocabulary_is_one_token_in_text(
    tmp_path: Path,
) -> None:
    tokenizer = Tokenizer.load(write_kind("characters", tmp_path))
    assert tokenizer.encode("<s>") == [1] == [tokenizer.bos_id]
