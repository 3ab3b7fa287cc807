import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import filelock
import numpy as np
import pytest
import tokenizers

from jielong.data.prepare import encoding
from jielong.data.prepare import report as reporting
from jielong.data.prepare.prepare import prepare
from jielong.data.prepare.provenance import Sources
from jielong.data.prepare.split import DistinctSample, text_hash
from jielong.data.shards import COUNTS, VERIFIED, Dataset, open_dataset
from jielong.errors import DataError
from jielong.tokenization.tokenizer import Tokenizer
from tiny import full_disk, kill_when

SRC = str(Path(__file__).parents[2] / "src")


def story(i):
    return f"Story {i}.\n" + " ".join(f"word{(i * j) % 97}" for j in range(20 + i % 30))


def documents_of(stream, tokenizer):
    """Texts of a split, each after checking that bos and eos enclose it."""
    bounds = [*stream.documents.tolist(), len(stream)]
    texts = []
    for start, stop in itertools.pairwise(bounds):
        ids = stream.read(start, stop).tolist()
        assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
        texts.append(tokenizer.decode(ids[1:-1]))
    return texts


def content(folder):
    """Every file but the one that has their times of change."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != VERIFIED]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_each_document_is_kept_whole_between_bos_and_eos(tmp_path, corpus, config_of, tokenizer):
    texts = [story(i) for i in range(200)] + ["床前\x00明月光 🙂\r\n"]
    report = prepare(config_of(corpus(texts)), tokenizer, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    train = documents_of(dataset.train, tokenizer)
    held = documents_of(dataset.validation, tokenizer)
    assert sorted(train + held) == sorted(texts)
    assert dataset.train.text_bytes == sum(len(text.encode()) for text in train)
    assert dataset.validation.text_bytes == sum(len(text.encode()) for text in held)
    assert dataset.manifest["tokenizer_fingerprint"] == tokenizer.fingerprint
    assert Tokenizer.load(tmp_path / "out" / "tokenizer").fingerprint == tokenizer.fingerprint
    assert (report.documents, report.bad_lines) == (201, 0)
    assert report.tokens == len(dataset.train) + len(dataset.validation)
    assert report.validation_documents == len(held)


def test_held_out_texts_do_not_depend_on_order_or_files(tmp_path, corpus, config_of, tokenizer):
    texts = [story(i) for i in range(300)]
    held = []
    orders = (texts, texts[::-1])
    paths = [(corpus(order, f"{i}.jsonl"),) for i, order in enumerate(orders)]
    paths.append((corpus(texts[:77], "a.jsonl"), corpus(texts[77:], "b.jsonl")))
    for i, sources in enumerate(paths):
        prepare(config_of(sources, validation_fraction=0.1), tokenizer, tmp_path / str(i))
        held.append(set(documents_of(open_dataset(tmp_path / str(i)).validation, tokenizer)))
    assert held[0] == held[1] == held[2]
    by_hash = sorted(texts, key=lambda text: text_hash(text.encode()))
    assert 15 < len(held[0]) < 50 and len(held[0] & set(by_hash[:40])) >= len(held[0]) - 2


def test_repeated_texts_fall_on_one_side_and_are_reported(tmp_path, corpus, config_of, tokenizer):
    texts = [story(i % 50) for i in range(200)]
    config = config_of(corpus(texts), validation_fraction=0.2)
    report = prepare(config, tokenizer, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    train = set(documents_of(dataset.train, tokenizer))
    held = set(documents_of(dataset.validation, tokenizer))
    assert not train & held
    assert len(train) + len(held) == 50
    assert (report.duplicate_share, report.duplicates_exact) == (0.75, True)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_documents_still_give_both_sides_one(tmp_path, corpus, config_of, tokenizer, count):
    for seed in range(6):
        texts = [story(1000 * seed + i) for i in range(count)] * 2
        config = config_of(corpus(texts), validation_fraction=0.5)
        prepare(config, tokenizer, tmp_path / str(seed))
        dataset = open_dataset(tmp_path / str(seed))
        train, held = (documents_of(s, tokenizer) for s in (dataset.train, dataset.validation))
        assert set(train).isdisjoint(held)
        assert sorted(train + held) == sorted(texts)
        assert train and held


@pytest.mark.parametrize(("texts", "fraction"), [(["only"], 0.3), (["same"] * 9, 0.3), (None, 0)])
def test_nothing_is_held_out_where_it_cannot_or_should_not_be(
    tmp_path, corpus, config_of, tokenizer, texts, fraction
):
    texts = texts or [story(i) for i in range(100)]
    config = config_of(corpus(texts), validation_fraction=fraction)
    prepare(config, tokenizer, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.validation is None
    assert documents_of(dataset.train, tokenizer) == texts
    assert not list((tmp_path / "out").glob("validation*"))


def test_held_out_text_of_its_own_is_used_and_overlap_reported(
    tmp_path, corpus, config_of, tokenizer
):
    texts, held = [story(i) for i in range(100)], [story(7), "another text"]
    config = config_of(corpus(texts), validation_path=(str(corpus(held, "held.jsonl")),))
    report = prepare(config, tokenizer, tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert documents_of(dataset.train, tokenizer) == texts
    assert documents_of(dataset.validation, tokenizer) == held
    assert report.shared_documents == 1
    assert any("1 training document also occurs" in line for line in report.lines())


BAD = [b"{", b'{"text": 1}', b'{"text": "\xff"}', b'{"no": "text"}', b'{"text": " "}']


def test_bad_lines_are_listed_and_leave_the_good_tokens_alone(
    tmp_path, corpus, config_of, tokenizer
):
    good = [story(i) for i in range(60)]
    mixed = [line for i, text in enumerate(good) for line in (text, *BAD[i : i + 1])]
    report = prepare(config_of(corpus(mixed, "mixed.jsonl")), tokenizer, tmp_path / "mixed")
    prepare(config_of(corpus(good, "good.jsonl")), tokenizer, tmp_path / "good")
    fingerprints = {open_dataset(tmp_path / name).fingerprint for name in ("mixed", "good")}
    assert len(fingerprints) == 1
    listed = [json.loads(row) for row in (tmp_path / "mixed" / "bad-lines.jsonl").open("rb")]
    assert [row["line"] for row in listed] == [2, 4, 6, 8, 10]
    assert {row["file"] for row in listed} == {str(tmp_path / "mixed.jsonl")}
    assert all(row["reason"] for row in listed)
    assert report.bad_lines == 5
    assert any("bad-lines.jsonl" in line for line in report.lines())
    assert not (tmp_path / "good" / "bad-lines.jsonl").exists()


def test_strict_stops_at_the_first_bad_line_and_leaves_nothing(
    tmp_path, corpus, config_of, tokenizer
):
    path = corpus(["good", b"bad", b"worse"])
    with pytest.raises(DataError, match=r"corpus\.jsonl:2: invalid JSON"):
        prepare(config_of(path, strict=True), tokenizer, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["corpus.jsonl"]
    prepare(config_of(path, allow_loss=True), tokenizer, tmp_path / "out")
    with pytest.raises(DataError, match=r"corpus\.jsonl:2: invalid JSON"):
        prepare(config_of(path, strict=True), tokenizer, tmp_path / "out")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no usable text.*every source is empty"),
        ([b'{"content": "a"}'] * 3, r"no usable text.*3 bad lines.*:1: .*fields seen: content"),
    ],
)
def test_a_corpus_without_text_is_an_error_with_the_reason(
    tmp_path, corpus, config_of, tokenizer, lines, message
):
    with pytest.raises(DataError, match=message):
        prepare(config_of(corpus(lines)), tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_text_gives_the_same_bytes(tmp_path, corpus, config_of, tokenizer):
    config = config_of(corpus([story(i) for i in range(300)] + BAD))
    prepare(config, tokenizer, tmp_path / "a")
    prepare(config, Tokenizer.load(tmp_path / "a" / "tokenizer"), tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_dataset_made_before_is_used_again(tmp_path, corpus, config_of, tokenizer):
    config = config_of(corpus([story(i) for i in range(30)]))
    made = prepare(config, tokenizer, tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    again = prepare(config.with_values(max_seq_len=16), tokenizer, tmp_path / "out")
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    assert (made.reused, again.reused) == (False, True)
    assert made.length_percentiles == again.length_percentiles
    assert again.truncated_share > made.truncated_share  # what depends on the window is new


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"validation_fraction": 0.3}, "its data.validation_fraction is unset, not 0.3"),
        ({"data_path": "other.jsonl"}, r"it was made with .*corpus\.jsonl; .* without .*other"),
        ({"validation_path": "other.jsonl"}, "made without"),
    ],
)
def test_a_dataset_made_otherwise_is_never_replaced(
    tmp_path, corpus, config_of, tokenizer, values, reason
):
    other = corpus([story(1), story(2)], "other.jsonl")
    config = config_of(corpus([story(i) for i in range(30)]))
    prepare(config, tokenizer, tmp_path / "out")
    before = content(tmp_path / "out")
    values = {k: (str(other),) if v == "other.jsonl" else v for k, v in values.items()}
    changed = config.with_values(**values)
    with pytest.raises(DataError, match=reason) as error:
        prepare(changed, tokenizer, tmp_path / "out")
    assert "choose another --out-dir, or delete it" in str(error.value)
    assert content(tmp_path / "out") == before


def test_changed_text_or_tokenizer_is_noticed(tmp_path, corpus, config_of, tokenizer):
    path = corpus([story(i) for i in range(30)])
    prepare(config_of(path), tokenizer, tmp_path / "out")
    backend = json.loads((tmp_path / "out" / "tokenizer" / "tokenizer.json").read_text())
    backend["model"]["merges"].pop()
    ids = tokenizer.special_ids
    other = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(backend)), {}, ids)
    with pytest.raises(DataError) as error:
        prepare(config_of(path), other, tmp_path / "out")
    assert tokenizer.fingerprint[:12] in str(error.value)
    assert other.fingerprint[:12] in str(error.value)
    path.write_bytes(path.read_bytes().replace(b"Story", b"Storm"))  # as long as before
    with pytest.raises(DataError, match=r"corpus\.jsonl has changed since"):
        prepare(config_of(path), tokenizer, tmp_path / "out")


def test_a_folder_with_other_things_is_left_alone(tmp_path, corpus, config_of, tokenizer):
    config = config_of(corpus([story(1)]))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    for place in (tmp_path / "mine", tmp_path / "mine" / "diary.txt"):
        with pytest.raises(DataError, match="choose another --out-dir"):
            prepare(config, tokenizer, place)
    assert content(tmp_path / "mine") == {"diary.txt": b"dear diary"}
    (tmp_path / "empty").mkdir()
    prepare(config, tokenizer, tmp_path / "empty")
    assert open_dataset(tmp_path / "empty")


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_at_any_moment_it_leaves_nothing_and_reruns_to_the_same_bytes(
    tmp_path, corpus, config_of, tokenizer
):
    path = corpus([story(i) for i in range(20_000)])
    config = config_of(path)
    prepare(config, tokenizer, tmp_path / "whole")
    code = (
        "import sys; from pathlib import Path\n"
        "from jielong.config.load import load_config\n"
        "from jielong.data.prepare.prepare import prepare\n"
        "from jielong.tokenization.tokenizer import Tokenizer\n"
        "root = Path(sys.argv[1])\n"
        "config = load_config(data_path=(str(root / 'corpus.jsonl'),))\n"
        "tokenizer = Tokenizer.load(root / 'whole' / 'tokenizer')\n"
        "prepare(config, tokenizer, root / 'killed')\n"
    )
    partial = tmp_path / ".killed.partial" / "new"
    moments = [
        lambda: partial.exists(),
        lambda: any(p.stat().st_size for p in partial.glob("train-*.bin")),
        lambda: (partial / "dataset.json").exists(),
    ]
    for moment in moments:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": SRC}
        )
        kill_when(moment, process)
        if (tmp_path / "killed").exists():  # the kill came too late
            break
    if not (tmp_path / "killed").exists():
        prepare(config, tokenizer, tmp_path / "killed")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def test_two_at_once_in_one_place_are_refused(tmp_path, corpus, config_of, tokenizer):
    config = config_of(corpus([story(1)]))
    workshop = tmp_path / ".out.partial"
    workshop.mkdir()
    with (
        filelock.FileLock(workshop / "lock"),
        pytest.raises(DataError, match="another process"),
    ):
        prepare(config, tokenizer, tmp_path / "out")
    prepare(config, tokenizer, tmp_path / "out")
    assert not workshop.exists()


def test_batches_of_any_size_give_the_same_tokens(
    tmp_path, corpus, config_of, tokenizer, monkeypatch
):
    config = config_of(corpus([story(i) for i in range(200)] + BAD), validation_fraction=0.2)
    fingerprints = set()
    for chars, documents in ((1, 99), (1000, 99), (2**20, 7), (2**20, 2**16)):
        monkeypatch.setattr(encoding, "BATCH_CHARS", chars)
        monkeypatch.setattr(encoding, "BATCH_ITEMS", documents)
        out_dir = tmp_path / f"{chars}-{documents}"
        prepare(config, tokenizer, out_dir)
        fingerprints.add(open_dataset(out_dir).fingerprint)
    assert len(fingerprints) == 1


def test_many_tiny_documents_are_not_all_held_at_once(tmp_path, corpus, config_of, tokenizer):
    class Watched(Tokenizer):
        most = 0

        def encode_flat(self, texts):
            Watched.most = max(Watched.most, len(texts))
            return super().encode_flat(texts)

    watched = Watched(tokenizer._backend, {}, tokenizer.special_ids)
    texts = [chr(97 + i % 26) for i in range(150_000)]
    report = prepare(config_of(corpus(texts)), watched, tmp_path / "out")
    assert report.documents == 150_000
    assert Watched.most == encoding.BATCH_ITEMS < 100_000


def test_the_report_of_many_documents_takes_bounded_memory(monkeypatch, tmp_path, tokenizer):
    class Many:
        documents = np.arange(0, 2 * 10**6, 2)
        text_bytes = 10**7

        def __len__(self):
            return 2 * 10**6

        def read(self, start, stop):
            return np.full(stop - start, 5)

    monkeypatch.setattr(reporting, "CHUNK", 2**12)
    counts = dict.fromkeys(COUNTS, 0)
    manifest = {"counts": counts, "vocab_size": tokenizer.vocab_size, "dtype": "<u2"}
    tracemalloc.start()
    report = reporting.describe(
        Dataset(tmp_path, manifest, Many(), None), tokenizer, 16, Sources([], [])
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.documents == 10**6 and report.length_percentiles[50] == 2
    assert peak < Many.documents.nbytes / 4


def test_marks_that_a_text_brings_are_not_doubled(tmp_path, corpus, config_of, tokenizer):
    texts = ["plain", "<|im_start|>both<|im_end|>", "<|im_start|>first", "last<|im_end|>"]
    config = config_of(corpus(texts), validation_fraction=0)
    report = prepare(config, tokenizer, tmp_path / "out")
    train = open_dataset(tmp_path / "out").train
    assert documents_of(train, tokenizer) == ["plain", "both", "first", "last"]
    assert report.marked_documents == 3


def test_a_tokenizer_without_marks_is_used_as_it_is_with_a_note(
    tmp_path, corpus, config_of, tokenizer
):
    backend = tokenizers.Tokenizer.from_str(tokenizer._backend.to_str())
    bare = Tokenizer(backend, {}, {"bos": None, "eos": None, "pad": None})
    config = config_of(corpus(["one", "two"]), validation_fraction=0)
    report = prepare(config, bare, tmp_path / "out")
    train = open_dataset(tmp_path / "out").train
    assert train.read(0, len(train)).tolist() == bare.encode("one") + bare.encode("two")
    assert any("no eos" in line for line in report.lines())


def test_the_report_counts_as_its_definitions_say(tmp_path, corpus, config_of, tokenizer):
    texts = [story(i) for i in range(101)]
    config = config_of(corpus(texts), max_seq_len=64)
    report = prepare(config, tokenizer, tmp_path / "out")
    lengths = np.array([len(tokenizer.encode(text)) + 2 for text in texts])
    assert report.tokens == lengths.sum()
    assert report.text_bytes == sum(len(text.encode()) for text in texts)
    assert report.bytes_per_token == report.text_bytes / report.tokens
    percentiles = np.percentile(lengths, [5, 50, 100], method="inverted_cdf")
    assert [report.length_percentiles[p] for p in (5, 50, 100)] == percentiles.tolist()
    assert report.padding_share == np.maximum(64 - lengths, 0).sum() / (64 * 101)
    assert report.truncated_share == np.maximum(lengths - 64, 0).sum() / lengths.sum()
    assert report.samples[0].startswith("<|im_start|>Story")
    shown = "\n".join(report.lines())
    for part in ("101", f"{report.tokens:,}", f"{report.padding_share:.1%}", "held out"):
        assert part in shown


def test_a_bounded_sample_estimates_the_share_of_repeats():
    rng = np.random.default_rng(0)
    distinct = rng.integers(0, 2**64, 20_000, dtype=np.uint64)
    sample = DistinctSample(kept=1000)
    sample.add(np.concatenate([distinct, distinct[:10_000]]))
    assert not sample.exact
    assert len(sample._counts) <= 1000
    assert abs(sample.duplicate_share - 1 / 3) < 0.05


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, corpus, config_of, tokenizer):
    config = config_of(corpus([story(i) for i in range(500)]))
    with full_disk(10_000), pytest.raises(DataError, match="cannot be written"):
        prepare(config, tokenizer, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["corpus.jsonl"]
