import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from jielong.errors import ConfigError, DataError
from jielong.tokenization.batch_encoding import LEAST_CHARS
from jielong.tokenization.text_pieces import PIECE_CHARS, RUN_CHARS, sample, short_runs
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

TEXTS = [
    "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 3,
    "床前明月光，疑是地上霜。\n舉頭望明月，低頭思故鄉。\n" * 3,
    "naïve café 🙂 1234 \t tabs\r\nand\x00nul",
]
TRAINED = train_tokenizer(TEXTS, 400, 2**20)
unicode_text = st.text(st.characters(exclude_categories=["Cs"]))


def sentencepiece_like() -> Tokenizer:
    """Words with ▁ for the space, and bytes for what is not in the vocabulary."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "a",
        "b",
        "▁a",
    ]
    backend = tokenizers.Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [("▁", "a")], byte_fallback=True)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(["<s>", "</s>"])
    return Tokenizer(backend, {}, {"bos": 1, "eos": 2, "pad": None})


@given(unicode_text)
def test_any_text_round_trips(text):
    assert TRAINED.decode(TRAINED.encode(text)) == text
    assert TRAINED.decode(TRAINED.encode(text, special=False)) == text


def test_every_byte_is_a_token_and_special_tokens_come_first(tmp_path):
    TRAINED.save(tmp_path)
    vocab = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= vocab.keys()
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert [TRAINED.encode(name) for name in names] == [[0], [1], [2]]
    assert (TRAINED.pad_id, TRAINED.bos_id, TRAINED.eos_id) == (0, 1, 2)


def test_same_documents_give_the_same_tokenizer_in_another_process(tmp_path):
    TRAINED.save(tmp_path / "here")
    code = (
        "from jielong.tokenization.tokenizer import train_tokenizer\n"
        f"train_tokenizer(iter({TEXTS!r}), 400, 2**20).save({str(tmp_path / 'there')!r})"
    )
    source = str(Path(__file__).parents[2] / "src")
    env = {**os.environ, "RAYON_NUM_THREADS": "1", "PYTHONPATH": source}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ConfigError, match=r"vocab_size=258.*259"):
        train_tokenizer(TEXTS, 258, 2**20)


def test_training_on_no_text_is_refused():
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(["", ""], 300, 2**20)


def test_tiny_text_gives_a_smaller_vocabulary():
    tokenizer = train_tokenizer(["ab"], 6400, 2**20)
    assert tokenizer.vocab_size == 259
    assert tokenizer.decode(tokenizer.encode("xyz")) == "xyz"


def test_sample_is_bounded_and_spread_over_the_documents():
    kept = sample((f"{i:06d} " * 20 for i in range(5000)), 50_000)
    numbers = np.array([int(text[:6]) for text in kept])
    assert 20_000 < sum(map(len, kept)) <= 50_000
    thirds = np.histogram(numbers, bins=3, range=(0, 5000))[0]
    assert thirds.min() > len(kept) / 5


def test_one_huge_document_without_spaces_is_sampled_and_learnt_from():
    tokenizer = train_tokenizer(["abcd" * 500_000], 300, 2**16)
    assert len(tokenizer.encode("abcd" * 100)) < 100


runs = st.tuples(st.sampled_from(["a", "月", " ", "\n", "\u3000"]), st.integers(1, 3 * RUN_CHARS))
runs = runs.map(lambda run: run[0] * run[1])


@given(st.lists(runs | unicode_text, max_size=8).map("".join))
def test_words_and_gaps_are_cut_for_training_only_where_they_are_long(text):
    pieces = short_runs(text)
    assert "".join(pieces) == text
    assert all(len(run) <= RUN_CHARS for piece in pieces for run in re.findall(r"\S+|\s+", piece))
    for before, after in itertools.pairwise(pieces):
        assert re.search(rf"(\S{{{RUN_CHARS}}}|\s{{{RUN_CHARS}}})$", before)
        assert before[-1].isspace() == after[0].isspace()


def test_transformers_reads_a_saved_folder_and_agrees(tmp_path):
    TRAINED.save(tmp_path, model_max_length=128)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS, "a<|im_end|>b"]:
        assert theirs(text, add_special_tokens=False)["input_ids"] == TRAINED.encode(text)
        assert theirs.decode(TRAINED.encode(text)) == text
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 0)
    assert theirs.model_max_length == 128
    assert len(theirs) == TRAINED.vocab_size


def test_loading_what_was_saved_gives_the_same_tokenizer(tmp_path):
    TRAINED.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint == TRAINED.fingerprint
    assert loaded.special_ids == TRAINED.special_ids
    assert loaded.encode(TEXTS[0]) == TRAINED.encode(TEXTS[0])


def test_one_edited_merge_changes_the_fingerprint(tmp_path):
    TRAINED.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"][:2] = content["model"]["merges"][1::-1]
    path.write_text(json.dumps(content))
    assert Tokenizer.load(tmp_path).fingerprint != TRAINED.fingerprint


def test_settings_of_a_loaded_folder_are_kept_when_saved_again(tmp_path):
    TRAINED.save(tmp_path / "a")
    path = tmp_path / "a" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
    (tmp_path / "a" / "chat_template.jinja").write_text("{{ messages }}")
    Tokenizer.load(tmp_path / "a").save(tmp_path / "b")
    assert (
        json.loads((tmp_path / "b" / "tokenizer_config.json").read_text())["padding_side"] == "left"
    )
    assert (tmp_path / "b" / "chat_template.jinja").read_text() == "{{ messages }}"


def test_truncation_and_padding_saved_in_a_tokenizer_do_not_touch_the_text(tmp_path):
    TRAINED.save(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode(TEXTS[0]) == TRAINED.encode(TEXTS[0])
    assert loaded.fingerprint == TRAINED.fingerprint


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_config.json": {"eos_token": "<|im_end|>"}}, (None, 2)),
        ({"tokenizer_config.json": {"eos_token": {"content": "<|im_end|>"}}}, (None, 2)),
        ({"special_tokens_map.json": {"bos_token": "<|im_start|>"}}, (1, None)),
        ({"config.json": {"bos_token_id": 1, "eos_token_id": [2, 0]}}, (1, 2)),
        # a tokenizer that says it has none is believed before the model's config
        (
            {"tokenizer_config.json": {"bos_token": None}, "config.json": {"bos_token_id": 1}},
            (None, None),
        ),
        ({"config.json": {"eos_token_id": 10**6}}, (None, None)),
    ],
)
def test_special_ids_come_from_the_files_of_the_folder(tmp_path, files, expected):
    TRAINED.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.bos_id, loaded.eos_id) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", "not a valid tokenizer"),
        ("tokenizer.json", '{"model": 3}', "not a valid tokenizer"),
        ("tokenizer_config.json", "[]", "no JSON object"),
        ("tokenizer_config.json", "{", "not valid JSON"),
        ("tokenizer_config.json", '{"eos_token": "</s>"}', "'</s>' is not in tokenizer.json"),
    ],
)
def test_a_broken_folder_is_named_with_the_fix(tmp_path, name, content, message):
    TRAINED.save(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as error:
        Tokenizer.load(tmp_path)
    assert str(tmp_path / name) in str(error.value)


def test_a_missing_tokenizer_is_named_with_the_fix(tmp_path):
    with pytest.raises(DataError, match="jielong tokenizer"):
        Tokenizer.load(tmp_path / "nowhere")


def test_special_names_in_the_text_can_be_taken_literally():
    text = "say <|im_end|> now"
    assert 2 in TRAINED.encode(text)
    literal = TRAINED.encode(text, special=False)
    assert 2 not in literal
    assert TRAINED.decode(literal) == text
    assert 2 in TRAINED.encode(text)  # and the switch is not left thrown


def test_a_lone_surrogate_is_an_error_with_a_reason():
    with pytest.raises(DataError, match="surrogate"):
        TRAINED.encode("a\ud800")


@given(st.lists(unicode_text, max_size=5))
def test_a_batch_encodes_as_its_texts_do(texts):
    batch = TRAINED.encode_batch(texts)
    assert [ids.tolist() for ids in batch] == [TRAINED.encode(text) for text in texts]


def test_a_text_cut_for_encoding_gives_the_same_tokens():
    rng = np.random.default_rng(0)
    parts = ["word", " word", "\n", "\n\n", "  ", "，", "明月", "\t", "12", "'s", "\r\n"]
    long = "".join(parts[i] for i in rng.integers(0, len(parts), PIECE_CHARS * 2 // 3))
    assert len(long) > 1.2 * PIECE_CHARS
    short, cut = TRAINED.encode_batch(["short", long])
    assert short.tolist() == TRAINED.encode("short")
    assert cut.tolist() == TRAINED.encode(long)


@given(unicode_text)
def test_a_stream_shows_whole_characters_only_and_all_of_them(text):
    for tokenizer in (TRAINED, sentencepiece_like()):
        ids = tokenizer.encode(text)
        stream = tokenizer.stream()
        shown = [stream.push(i) for i in ids]
        if "\ufffd" not in text:
            assert "\ufffd" not in "".join(shown)
        assert "".join(shown) + stream.flush() == tokenizer.decode(ids)


def test_a_long_stream_of_another_tokenizer_equals_its_decoding():
    tokenizer = sentencepiece_like()
    ids = tokenizer.encode("a b 明月光 a " * 50)
    stream = tokenizer.stream()
    shown = "".join(stream.push(i) for i in ids) + stream.flush()
    assert shown == tokenizer.decode(ids)


class Counting(Tokenizer):
    """Counts the ids that it decodes."""

    decoded = 0

    def decode(self, ids, skip_special=False):
        self.decoded += len(ids)
        return super().decode(ids, skip_special)


@pytest.mark.parametrize(
    "pattern",
    [b"\xff", b"\xe6", "月".encode(), "é".encode(), "🙂".encode(), b"\xff a", "月 ab".encode()],
)
def test_a_stream_decodes_a_bounded_number_of_ids_for_each(pattern):
    """Bytes that are no character too, and characters that are several tokens."""
    theirs = sentencepiece_like()
    letters = {ord(" "): "▁", ord("a"): "a", ord("b"): "b"}
    names = [letters.get(byte, f"<0x{byte:02X}>") for byte in pattern]
    ids = [theirs._backend.token_to_id(name) for name in names] * (1200 // len(names))
    counting = Counting(theirs._backend, {}, theirs.special_ids)
    stream = counting.stream()
    shown = "".join(stream.push(i) for i in ids)
    assert counting.decoded < 100 * len(ids)
    assert shown + stream.flush() == theirs.decode(ids)


@given(st.lists(st.integers(0, TRAINED.vocab_size - 1)))
def test_a_stream_of_any_tokens_equals_their_decoding(ids):
    stream = TRAINED.stream()
    assert "".join(stream.push(i) for i in ids) + stream.flush() == TRAINED.decode(ids)


def test_an_unfinished_character_is_held_back_until_the_end():
    ids = TRAINED.encode("𠮷")
    stream = TRAINED.stream()
    assert "".join(stream.push(i) for i in ids[:-1]) == ""
    assert stream.flush() == "\ufffd"


def test_a_stream_can_skip_special_tokens():
    stream = TRAINED.stream(skip_special=True)
    assert "".join(stream.push(i) for i in TRAINED.encode("a<|im_end|>b")) == "ab"


@given(unicode_text)
def test_token_bytes_add_up_to_the_text(text):
    ids = TRAINED.encode(text, special=False)
    assert TRAINED.token_bytes()[ids].sum() == len(text.encode())


def test_special_tokens_stand_for_no_bytes():
    assert TRAINED.token_bytes().shape == (TRAINED.vocab_size,)
    assert TRAINED.token_bytes()[:3].tolist() == [0, 0, 0]
    theirs = sentencepiece_like()
    assert theirs.token_bytes()[theirs.encode("a b月")].sum() == len(" a b月".encode())


def with_parts(**changes: object) -> Tokenizer:
    """TRAINED with other parts, as folders of other makers have them."""
    parts = json.loads(TRAINED._backend.to_str())
    backend = tokenizers.Tokenizer.from_str(json.dumps(parts))
    for name, value in changes.items():
        setattr(backend.model if name == "dropout" else backend, name, value)
    return Tokenizer(backend, {}, {"bos": 1, "eos": 2, "pad": 0})


GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
FAST = {
    "ours": TRAINED,
    "a space before": with_parts(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "the words of GPT-4": with_parts(
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(tokenizers.Regex(GPT4), "isolated"), BYTES]
        )
    ),
    "marks around": with_parts(
        post_processor=tokenizers.processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
        )
    ),
}
WHOLE_WORDS = with_parts()
WHOLE_WORDS._backend.add_tokens([tokenizers.AddedToken("be", single_word=True)])
SLOW = {
    "normalized": with_parts(normalizer=tokenizers.normalizers.NFC()),
    "dropout": with_parts(dropout=0.5),
    "whole words": WHOLE_WORDS,
    "words of its own": with_parts(
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(tokenizers.Regex("[a-z]+|."), "isolated"), BYTES]
        )
    ),
}
# fmt: off
BITS = [
    "<|im_end|>", "<|im_", " ", "\n", "\r\n", "\x00", "\u3000", "\u2028", "e\u0301", "'S", "'re",
    "123", "٣", "½", "The", " of", "床前", "，", "👨‍👩‍👧", "ſ", "K", "İ", "\x85", "\u180e", "ᄀ",
]
# fmt: on
odd_text = st.lists(st.sampled_from(BITS) | unicode_text, max_size=12).map("".join)


@pytest.mark.parametrize("kind", FAST)
@given(st.lists(odd_text, min_size=1, max_size=20))
def test_many_texts_at_once_give_the_ids_of_the_library(kind, texts):
    tokenizer = FAST[kind]
    filling = ["words " * (LEAST_CHARS // 5)]  # so much that the fast way is taken
    flat, lengths = tokenizer.encode_flat([*texts, *filling])
    assert tokenizer._batch_encoder._fast is not None
    assert lengths.sum() == len(flat)
    ours = np.split(flat, np.cumsum(lengths)[:-1])[: len(texts)]
    assert [list(ids) for ids in ours] == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize("kind", SLOW)
def test_what_is_not_known_to_be_encoded_alike_is_left_to_the_library(kind):
    tokenizer = SLOW[kind]
    flat, lengths = tokenizer.encode_flat(["to be or not to be " * LEAST_CHARS])
    assert tokenizer._batch_encoder._fast is None
    assert lengths[0] == len(flat)


def test_the_fast_encoder_is_renewed_as_its_memory_grows(monkeypatch):
    monkeypatch.setattr("jielong.tokenization.batch_encoding.RENEW_CHARS", 3 * LEAST_CHARS)
    tokenizer = with_parts()
    texts = [str(i) for i in range(LEAST_CHARS // 4)]
    seen = []
    for _ in range(4):
        flat, _ = tokenizer.encode_flat(texts)
        assert list(flat[:50]) == [i for text in texts for i in tokenizer.encode(text)][:50]
        seen.append(tokenizer._batch_encoder._fast)
    assert seen[0] is not seen[-1] and seen[0] is seen[1]
