"""The account of what is left out: in bytes, by kind, shown and stored; too much stops."""

import json
import re

import numpy as np
import pytest
import tokenizers

from jielong.cli.main import main
from jielong.data.prepare.prepare import prepare
from jielong.data.shards import open_dataset
from jielong.data.sources.documents import DocumentTexts, expand_sources
from jielong.data.sources.items import BadLine, Document
from jielong.data.sources.losses import Losses
from jielong.errors import DataError
from jielong.tokenization.tokenizer import Tokenizer


def sentence(rng):
    words = ["keeper", "river", "answered", "lantern", "borrowed", "salt", "winter", "ladder"]
    return "The " + " ".join(rng.choice(words, 9)) + ". "


@pytest.fixture
def book(tmp_path):
    """Writes a book of 1,000 lines, with a stray byte in some; returns its path and lines."""

    def write(damaged, name="book.txt"):
        rng = np.random.default_rng(0)
        lines = [("".join(sentence(rng) for _ in range(5)) + "\n").encode() for _ in range(1000)]
        for i in damaged:
            lines[i] = lines[i][:30] + b"\xe9" + lines[i][30:]
        path = tmp_path / name
        path.write_bytes(b"".join(lines))
        return path, lines

    return write


def text_of(dataset, tokenizer):
    streams = [dataset.train, dataset.validation]
    return "".join(tokenizer.decode(s.read(0, len(s)).tolist()) for s in streams if s)


def test_a_stray_byte_costs_its_line_and_not_the_piece(tmp_path, book, config_of, tokenizer):
    damaged = range(5, 1000, 130)
    path, lines = book(damaged)
    report = prepare(config_of(path, validation_fraction=0), tokenizer, tmp_path / "out")
    lost = sum(len(lines[i]) for i in damaged)
    account = report.left_out["data"]
    assert (account.lost_bytes, account.read_bytes) == (lost, path.stat().st_size)
    assert account.counts == {"not UTF-8": len(damaged)}
    kept = text_of(open_dataset(tmp_path / "out"), tokenizer)
    good = [line.decode().strip() for i, line in enumerate(lines) if i not in damaged]
    assert [line for line in good if line not in kept] == []
    listed = [json.loads(row) for row in (tmp_path / "out" / "bad-lines.jsonl").open()]
    assert [row["line"] for row in listed] == [i + 1 for i in damaged]
    assert sum(row["bytes"] for row in listed) == lost
    (line,) = (line for line in report.lines() if "left out" in line)
    assert f"{lost:,} bytes, {lost / path.stat().st_size:.1%} of the text (8 lines not" in line


def test_a_stray_byte_in_a_text_of_one_line_costs_little(tmp_path, config_of, tokenizer):
    text = ("word " * 20_000).encode()
    (tmp_path / "a.txt").write_bytes(text[:50_000] + b"\xff" + text[50_000:])
    report = prepare(config_of(tmp_path / "a.txt"), tokenizer, tmp_path / "out")
    assert 0 < report.left_out["data"].lost_bytes <= 1024
    assert report.text_bytes >= len(text) - 1024 - report.documents


@pytest.mark.parametrize(
    ("every", "outcome"), [(200, "silent"), (50, "warned"), (7, "warned"), (4, "stopped")]
)
def test_a_loss_of_1_percent_warns_and_one_of_20_stops(
    tmp_path, book, config_of, tokenizer, every, outcome
):
    path, _ = book(range(0, 1000, every))
    if outcome == "stopped":
        with pytest.raises(DataError, match=r"2[45]\.\d% of the text.*book\.txt:1: .*allow-loss"):
            prepare(config_of(path), tokenizer, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        report = prepare(config_of(path, allow_loss=True), tokenizer, tmp_path / "out")
        with pytest.raises(DataError, match="allow-loss"):  # as if it were made now
            prepare(config_of(path), tokenizer, tmp_path / "out")
        assert prepare(config_of(path, allow_loss=True), tokenizer, tmp_path / "out").reused
    else:
        report = prepare(config_of(path), tokenizer, tmp_path / "out")
    warnings = [line for line in report.lines() if "WARNING" in line]
    assert len(warnings) == (outcome != "silent")
    assert all("book.txt:1: " in warning for warning in warnings)


def test_the_account_is_stored_with_the_dataset(tmp_path, corpus, config_of, tokenizer):
    rows = ["good " * 99, b"{", b'{"no": "text"}', b'{"text": null}', b'{"text": "\xff"}']
    config = config_of(corpus(rows))
    made = prepare(config, tokenizer, tmp_path / "out")
    account = json.loads((tmp_path / "out" / "dataset.json").read_text())["left_out"]["data"]
    assert account["left_out"] == {
        "not JSON": {"count": 1, "bytes": 2},
        "not UTF-8": {"count": 1, "bytes": 14},
        "without text": {"count": 2, "bytes": 15},  # nothing is lost with a null
    }
    assert account["read_bytes"] == (tmp_path / "corpus.jsonl").stat().st_size - 15
    again = prepare(config, tokenizer, tmp_path / "out")
    assert again.reused and again.lines()[1:] == made.lines()[1:]


def test_other_fields_do_not_weigh_in_the_share(tmp_path, corpus, config_of, tokenizer):
    notes = "x" * 5000
    rows = [json.dumps({"text": f"text {i}", "notes": notes}).encode() for i in range(100)]
    rows[::10] = [row[:-1] for row in rows[::10]]
    report = prepare(config_of(corpus(rows), validation_fraction=0), tokenizer, tmp_path / "out")
    assert abs(report.left_out["data"].share - 0.1) < 0.001


def test_held_out_text_has_an_account_of_its_own(tmp_path, corpus, config_of, tokenizer):
    held = corpus(["held out", b"{" * 500], "held.jsonl")
    path = corpus([f"text {i} " * 99 for i in range(50)])
    values = {"validation_path": (str(held),)}
    with pytest.raises(DataError, match=r"held\.jsonl:2: invalid JSON"):
        prepare(config_of(path, **values), tokenizer, tmp_path / "out")
    report = prepare(config_of(path, allow_loss=True, **values), tokenizer, tmp_path / "out")
    assert (report.left_out["data"].count, report.left_out["validation"].count) == (0, 1)


def test_a_tokenizer_and_an_evaluation_stop_and_warn_alike(tmp_path, book):
    for every, stops in ((4, True), (50, False)):
        path, lines = book(range(0, 1000, every))
        texts = DocumentTexts(expand_sources([str(path)]), "text")
        if stops:
            with pytest.raises(DataError, match="allow-loss"), texts.checked(allow_loss=False):
                list(texts)
        with texts.checked(allow_loss=stops):
            assert sum(len(text) for text in texts) > 0
        lost = sum(len(line) for line in lines[::every])
        (line,) = texts.losses.lines()
        assert re.match(rf"left out: {lost:,} bytes.*; first .*book\.txt:1: invalid UTF-8", line)


def test_a_file_left_out_of_several_is_warned_of_however_small(tmp_path, capsys, tokenizer):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("plain words\n" * 9999)
    (tmp_path / "texts" / "b.txt").write_bytes("第一章 春天来了，公园散步。\n".encode("gbk"))
    tokenizer.save(tmp_path / "tokenizer")
    command = ["prepare", "--data-path", str(tmp_path / "texts")]
    command += ["--tokenizer", str(tmp_path / "tokenizer")]
    assert main([*command, "--out-dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"WARNING .*b\.txt: is not UTF-8 but probably \S+: read it with --enc", said)
    assert main([*command, "--out-dir", str(tmp_path / "strict"), "--strict"]) == 2
    assert "b.txt: is not UTF-8" in capsys.readouterr().err
    assert main([*command, "--out-dir", str(tmp_path / "whole"), "--encoding", "gbk"]) == 0
    said = capsys.readouterr().out
    assert "left out" not in said and "b.txt: read as gbk" in said


def long_text(bad_of_ten, kind="not JSON", rows=1000):
    """Rows of a megabyte each, of which some are left out."""
    for number in range(rows):
        if number % 10 < bad_of_ten:
            yield BadLine("a.jsonl", number, "why", kind, 10**6)
        else:
            yield Document("text", "a.jsonl", number, 10**6)


def test_a_text_that_is_mostly_unusable_stops_after_its_first_part():
    losses = Losses()
    with pytest.raises(DataError, match=r"text of the first 71 MB would be left out: 22,000,000 "):
        list(losses.documents(long_text(3)))
    assert losses.read_bytes == 71 * 10**6  # of 1,000 MB: the first bad row after 64 MiB
    assert len(list(Losses(allow_loss=True).documents(long_text(3)))) == 700
    assert len(list(Losses().documents(long_text(1)))) == 900


def test_files_that_cannot_be_read_do_not_stop_the_others_from_being_read():
    losses = Losses()
    texts = list(losses.documents(long_text(3, kind="unreadable file", rows=200)))
    assert len(texts) == 140
    with pytest.raises(DataError, match=r"would be left out: 60,000,000 bytes, 30\.0% of the text"):
        losses.check()


def test_an_account_survives_being_stored_and_refuses_damage():
    losses = Losses()
    items = [Document("text", "a", 1, 9), BadLine("a", 2, "why", "not JSON", 7)]
    assert [document.text for document in losses.documents(items)] == ["text"]
    record = json.loads(json.dumps(losses.record()))
    assert Losses.of_record(record).record() == losses.record()
    for key in record:
        with pytest.raises(DataError, match="damaged"):
            Losses.of_record(record | {key: 7 if key != "read_bytes" else None})


def test_a_text_without_tokens_counts_as_lost(tmp_path, corpus, config_of, tokenizer):
    backend = tokenizers.Tokenizer.from_str(tokenizer._backend.to_str())
    backend.normalizer = tokenizers.normalizers.Replace("z", "")
    deaf = Tokenizer(backend, {}, tokenizer.special_ids)
    path = corpus(["good " * 100, "zzz"])
    report = prepare(config_of(path), deaf, tmp_path / "out")
    account = report.left_out["data"]
    assert (account.lost_bytes, account.counts) == (
        len(b'{"text": "zzz"}\n'),
        {"without tokens": 1},
    )
    assert account.read_bytes == path.stat().st_size
