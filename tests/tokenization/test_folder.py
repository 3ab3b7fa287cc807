"""What is taken for a tokenizer folder, and what the other forms are told."""

from __future__ import annotations

import base64
import inspect
import json
from pathlib import Path

import pytest
import transformers
import transformers.convert_slow_tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

from jielong.errors import ConfigError, DataError
from jielong.tokenization.tokenizer import Tokenizer
from tiny import flags, in_this_process
from tokenizer_kinds import byte_bpe, write_kind


def test_the_folder_its_file_and_a_run_that_has_one_give_the_same_tokenizer(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    tokenizer.save(tmp_path / "run" / "tokenizer")
    for path in ("run", "run/tokenizer", "run/tokenizer/tokenizer.json"):
        loaded = Tokenizer.load(tmp_path / path)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.special_ids == tokenizer.special_ids


def test_vocabulary_and_merges_become_a_folder_by_the_line_that_is_named(tmp_path: Path) -> None:
    backend = byte_bpe(None, [])
    (tmp_path / "old").mkdir()
    backend.model.save(str(tmp_path / "old"))
    with pytest.raises(DataError, match="GPT2TokenizerFast") as error:
        Tokenizer.load(tmp_path / "old")
    line = str(error.value).split('python -c "')[1].split('"')[0]
    target = tmp_path / "old-converted"
    exec(line.replace("'old-converted'", repr(str(target))), {})  # what the user would run
    text = "To be, or not to be"
    assert Tokenizer.load(target).encode(text) == backend.encode(text).ids


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("tokenizer.model", "AutoTokenizer"),
        ("spiece.model", "AutoTokenizer"),
        ("vocab.txt", "BertTokenizerFast"),
        ("tekken.json", "AutoTokenizer"),
        ("o200k.tiktoken", "TikTokenConverter"),
        ("README.md", "jielong tokenizer"),
    ],
)
def test_a_tokenizer_in_another_form_is_named_with_its_conversion(
    file: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text("x")
    with pytest.raises(DataError, match=told) as error:
        Tokenizer.load(tmp_path)
    assert str(tmp_path) in str(error.value)
    with pytest.raises(DataError, match=r"give a Hugging Face tokenizer folder"):
        Tokenizer.load(tmp_path / file)
    modules = (transformers, transformers.convert_slow_tokenizer)
    assert told == "jielong tokenizer" or any(hasattr(module, told) for module in modules)


def converted(folder: Path) -> Tokenizer:
    """The tokenizer that the line named in the refusal makes of a folder."""
    with pytest.raises(DataError, match="python -c") as error:
        Tokenizer.load(folder)
    line = str(error.value).split('python -c "')[1].split('"')[0]
    name, target = f"{folder.name}-converted", folder.parent / f"{folder.name}-converted"
    target.mkdir()
    exec(line.replace(f"'{name}", f"'{target}"), {})  # what the user would run
    eos = "<|endoftext|>" if "--eos-token" in str(error.value) else None
    return Tokenizer.load(target, eos_token=eos)


def test_a_tiktoken_vocabulary_becomes_a_folder_by_the_line_that_is_named(tmp_path: Path) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    pieces = [*(bytes([i]) for i in range(256)), b"th", b" th", b"the", b" the", "床".encode()[:2]]
    ranks = {piece: rank for rank, piece in enumerate(pieces)}
    (tmp_path / "old").mkdir()
    lines = (base64.b64encode(piece) + b" %d\n" % rank for piece, rank in ranks.items())
    (tmp_path / "old" / "own.tiktoken").write_bytes(b"".join(lines))
    tokenizer = converted(tmp_path / "old")
    assert tokenizer.eos_id == len(ranks)
    pattern = inspect.signature(TikTokenConverter).parameters["pattern"].default
    theirs = tiktoken.Encoding("own", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    for text in ("the path of the theme", "床前明月光 12345", "  x\n\n y", "it's"):
        assert tokenizer.encode(text) == theirs.encode(text)


def test_a_cased_vocabulary_stays_cased_when_it_is_converted(tmp_path: Path) -> None:
    for name, words in (("cased", ["The", "the", "mill", "##er"]), ("plain", ["the", "miller"])):
        (tmp_path / name).mkdir()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        (tmp_path / name / "vocab.txt").write_text("\n".join([*special, *words]))
    assert converted(tmp_path / "cased").encode("The miller") == [5, 7, 8]
    assert converted(tmp_path / "plain").encode("The miller") == [5, 6]


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen3-0.6B"])
def test_a_name_on_the_hub_is_told_how_to_fetch_it(name: str) -> None:
    with pytest.raises(DataError, match=f"hf download {name} tokenizer.json"):
        Tokenizer.load(name)
    with pytest.raises(DataError) as error:
        Tokenizer.load("/no/such/folder")
    assert "hf download" not in str(error.value)


def test_bos_and_eos_can_be_named_where_none_is_declared(tmp_path: Path) -> None:
    source = write_kind("gaps in the ids", tmp_path / "source")
    (source / "tokenizer_config.json").unlink()
    assert Tokenizer.load(source).special_ids == {"bos": None, "eos": None, "pad": None}
    named = Tokenizer.load(source, bos_token="!", eos_token="<end>")
    bos = named.encode("!")
    assert named.special_ids == {"bos": bos[0], "eos": 999, "pad": None}
    named.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").special_ids == named.special_ids
    with pytest.raises(ConfigError, match=r"eos_token='</s>' is not a token of .*<end>"):
        Tokenizer.load(source, eos_token="</s>")


def test_a_run_ends_its_documents_with_the_eos_that_is_named(
    tmp_path: Path, corpus_file: Path
) -> None:
    source = write_kind("gaps in the ids", tmp_path / "source")
    (source / "tokenizer_config.json").unlink()
    words = ["prepare", *flags({"data_path": corpus_file, "tokenizer": source})]
    status, said = in_this_process([*words, "--out-dir", str(tmp_path / "without")])
    assert (status, "--eos-token" in said) == (0, True), said
    named = [*words, "--eos-token", "<end>", "--out-dir", str(tmp_path / "with")]
    status, said = in_this_process(named)
    assert (status, "--eos-token" in said) == (0, False), said
    manifest = json.loads((tmp_path / "with" / "dataset.json").read_text())
    assert manifest["special_ids"] == {"bos": None, "eos": 999, "pad": None}
    run = {"data_path": tmp_path / "with", "out_dir": tmp_path / "run", "steps": 1}
    status, said = in_this_process(["pretrain", *flags(run), "--eos-token", "!"])
    assert status == 2
    assert "made with the special tokens" in said
