"""`jielong clean` as a whole: its folder, its report, its settings, and what reads the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import jielong
from cleaned_texts import clean_texts, dropped, edited, kept, prose, write_texts
from jielong.cleaning import writing
from jielong.cli.main import main
from jielong.config.cleaning import DEFAULT, FILTERS, make_cleaning
from jielong.data.shards import open_dataset
from jielong.data.sources.documents import find_sources
from jielong.errors import ConfigError, DataError
from jielong.tokenization.tokenizer import Tokenizer
from tiny import jielong as jielong_process

pytest.importorskip("rensa")
TEXTS = [prose(1), prose(2), prose(1), prose(3), edited(prose(2), 1), prose(4)]


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_only_duplicates_are_dropped_by_default_and_all_of_it_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert DEFAULT == ("exact", "near")
    corpus, out = write_texts(tmp_path, TEXTS), tmp_path / "out"
    assert main(["clean", "--data-path", str(corpus), "--out-dir", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert sorted(p.name for p in out.iterdir()) == ["00000.jsonl", "cleaning.json", "dropped"]
    assert sorted(p.name for p in (out / "dropped").iterdir()) == ["exact.jsonl", "near.jsonl"]
    rows = [json.loads(line) for line in (out / "00000.jsonl").open()]
    assert [row["text"] for row in rows] == [TEXTS[i] for i in (0, 1, 3, 5)]
    assert [row["source"] for row in rows] == [f"{corpus}:{line}" for line in (1, 2, 4, 6)]
    for words in (
        f"cleaned {out}",
        "  read           6 texts",
        "  exact          dropped 1 text,",
        "  near           dropped 1 text,",
        f"    {corpus}:5: 9",
        f"    all of them: {out / 'dropped' / 'near.jsonl'}",
        "  kept           4 texts",
        "  off            personal, quality, repetition, web, language, contamination, lines",
    ):
        assert any(line.startswith(words) for line in said), (words, said)


def test_json_prints_one_object_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data-path", str(write_texts(tmp_path, TEXTS)), "--out-dir", str(tmp_path / "out")]
    assert main(["clean", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["read"]["texts"] == 6 and found["kept"]["texts"] == 4
    assert found["filters"]["near"]["dropped"] == 1 and found["filters"]["near"]["examples"]


def test_nothing_dropped_gives_the_same_dataset(tmp_path: Path, tokenizer_dir: Path) -> None:
    texts = [prose(number, 40) for number in range(40)]
    report = clean_texts(tmp_path, texts)
    assert kept(report) == texts and not (report.folder / "dropped").exists()
    fingerprints = set()
    for name, path in (("before", tmp_path / "corpus.jsonl"), ("after", report.folder)):
        jielong.prepare(path, tokenizer_dir, tmp_path / name)
        fingerprints.add(open_dataset(tmp_path / name).fingerprint)
    assert len(fingerprints) == 1


def test_what_was_dropped_is_no_text_for_what_reads_the_folder(tmp_path: Path) -> None:
    report = clean_texts(tmp_path, TEXTS)
    for path in (str(report.folder), str(tmp_path / "o*"), str(tmp_path / "**" / "0*.jsonl")):
        sources, not_read = find_sources([path])
        assert [Path(source.name).name for source in sources] == ["00000.jsonl"]
    sources, not_read = find_sources([str(report.folder)])
    assert {(left.path.name, left.reason) for left in not_read} == {
        ("dropped", "dropped by jielong clean"),
        ("cleaning.json", "of a program, not text"),
    }
    again = jielong.clean(report.folder, tmp_path / "again")
    assert kept(again) == kept(report)


def test_the_same_again_is_reused_and_anything_else_refused(tmp_path: Path) -> None:
    first = clean_texts(tmp_path, TEXTS)
    before = content(first.folder)
    corpus = tmp_path / "corpus.jsonl"
    report = jielong.clean(corpus, first.folder)
    assert report.reused and "(already cleaned: reused)" in report.lines()[0]
    assert report.lines()[1:] == first.lines()[1:]
    with pytest.raises(DataError, match=r"its cleaning.near_similarity is 0.8, not 0.9"):
        jielong.clean(corpus, first.folder, near_similarity=0.9)
    with pytest.raises(DataError, match=r"its cleaning.filters is exact near, not exact"):
        jielong.clean(corpus, first.folder, without="near")
    other = write_texts(tmp_path / "other", TEXTS)
    with pytest.raises(DataError, match="it was made without"):
        jielong.clean(other, first.folder)
    assert content(first.folder) == before
    (first.folder / "00000.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"00000.jsonl: has changed since it was cleaned"):
        jielong.clean(corpus, first.folder)
    (first.folder / "cleaning.json").write_text('{"made_from": 3}')
    with pytest.raises(DataError, match="are damaged"):
        jielong.clean(corpus, first.folder)
    for name, message in (("notes", "exists but is no cleaned text"), ("file", "exists but is no")):
        path = tmp_path / name
        path.mkdir() if name == "notes" else path.write_text("x")
        if name == "notes":
            (path / "a.txt").write_text("mine")
        with pytest.raises(DataError, match=message):
            jielong.clean(corpus, path)


def test_the_same_text_gives_the_same_bytes_and_long_output_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing.TextWriter.__init__, "__defaults__", (500,))
    settings: dict[str, Any] = {"filters": ("default", "lines", "personal"), "line_documents": 2}
    report = clean_texts(tmp_path, TEXTS, **settings)
    assert len(report.files) > 1 and len(kept(report)) == 4
    again = jielong.clean(tmp_path / "corpus.jsonl", tmp_path / "again", **settings)
    assert content(report.folder) == content(again.folder)


def test_lines_of_many_texts_are_taken_out(tmp_path: Path) -> None:
    menu = ["Home | News | Contact", "  关注我们的公众号  ", "----", "HAMLET.", "else:"]
    stays = "\n".join(menu[2:])
    texts = [f"{menu[0]}\n{prose(n)}\n{menu[1]}\n\n{stays}\n" for n in range(5)]
    texts += [f"{menu[0]}\n{menu[1].strip()}\n", prose(9)]
    settings: dict[str, Any] = {"filters": "lines", "line_documents": 5}
    report = clean_texts(tmp_path, texts, **settings)
    others = [f"{prose(n)}\n\n{stays}\n" for n in range(1, 5)]
    assert kept(report) == [texts[0], *others, prose(9)]
    rows = dropped(report, "lines")
    assert [row.get("removed") for row in rows] == [menu[:2]] * 4 + [None]
    assert rows[4]["text"] == texts[5]
    account = report.accounts["lines"]
    assert (account.changed, account.dropped, account.rules["lines"]) == (4, 1, 8)
    assert account.removed_bytes == 4 * sum(len(line.encode()) + 1 for line in menu[:2])


def test_near_duplicates_do_not_make_their_lines_repeated_ones(tmp_path: Path) -> None:
    texts = [prose(1), *(edited(prose(1), 1, seed) for seed in range(20)), prose(2)]
    report = clean_texts(tmp_path, texts, filters=("default", "lines"), line_documents=3)
    assert kept(report) == [prose(1), prose(2)]


def test_copies_in_different_frames_are_found_without_them(tmp_path: Path) -> None:
    frames = [f"frame {n}: {' '.join(f'{word}{n}' for word in 'abcdefghij')}" for n in range(4)]
    texts = [
        f"{frame}\n{prose(n, 40)}" for i, frame in enumerate(frames) for n in (10 + i, *range(5))
    ]
    report = clean_texts(tmp_path, texts, filters=("default", "lines"), line_documents=5)
    plain = [prose(n, 40) for n in range(5)]
    assert kept(report) == [texts[0], *plain, texts[6], texts[12], texts[18]]
    assert clean_texts(tmp_path / "alone", texts).kept_texts == len(texts)


def test_a_text_that_is_there_often_is_not_lost_with_its_lines(tmp_path: Path) -> None:
    frames = [f"frame {n}: {' '.join(f'{word}{n}' for word in 'abcdefghij')}" for n in range(9)]
    texts = [f"{frame}\n{prose(1, 40)}" for frame in frames]
    report = clean_texts(tmp_path, texts, filters=("default", "lines"), line_documents=3)
    assert kept(report)[0] == texts[0]
    assert "".join(kept(report)).count(prose(1, 40)) == 1


def test_lengths_in_characters_and_tokens(tmp_path: Path, tokenizer_dir: Path) -> None:
    texts = ["ab", "abcd", "abcdefgh", "十二個字"]
    report = clean_texts(tmp_path / "chars", texts, filters="none", min_chars=4, max_chars=7)
    assert kept(report) == ["abcd", "十二個字"]
    assert report.accounts["length"].rules == {"few characters": 1, "many characters": 1}
    tokenizer = Tokenizer.load(tokenizer_dir)
    counts = [len(tokenizer.encode(text, special=False)) for text in texts]
    bounds: dict[str, Any] = {"min_tokens": 3, "max_tokens": 8, "tokenizer": str(tokenizer_dir)}
    report = clean_texts(tmp_path / "tokens", texts, filters="none", **bounds)
    assert kept(report) == [t for t, n in zip(texts, counts, strict=True) if 3 <= n <= 8]
    with pytest.raises(ConfigError, match=r"min_tokens counts tokens: give the --tokenizer"):
        clean_texts(tmp_path / "none", texts, min_tokens=3)


@pytest.mark.parametrize(
    ("settings", "active"),
    [
        ({}, ["exact", "near"]),
        ({"filters": ("default", "quality")}, ["quality", "exact", "near"]),
        ({"filters": "exact", "languages": "en"}, ["language", "exact"]),
        ({"without": ("near",), "max_chars": 9}, ["exact", "length"]),
        (
            {"filters": "all", "without": ("web", "lines")},
            ["personal", "quality", "repetition", "exact", "near"],
        ),
        ({"filters": "all", "languages": "en", "against": "x", "min_chars": 1}, list(FILTERS)),
    ],
)
def test_filters_are_on_or_off_by_name(settings: dict[str, Any], active: list[str]) -> None:
    assert list(make_cleaning(**settings).active) == active


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": "qualty"}, "'qualty' is not one of .*did you mean quality"),
        ({"without": "neer"}, "without='neer' is not one of .*did you mean near"),
        ({"filters": "none"}, "no filter is left to run"),
        ({"without": ("exact", "near")}, "no filter is left to run"),
        ({"filters": "language"}, "language needs to be told .*--languages"),
        ({"filters": "length"}, "give --min-chars or --max-chars"),
        ({"languages": "en", "without": "language"}, "without=language, but --languages asks"),
        ({"min_chars": 9, "max_chars": 8}, "min_chars=9 is above cleaning.max_chars=8"),
        ({"near_similarity": 0.2}, "near_similarity=0.2 is below its least value 0.5"),
        ({"near_similarty": 0.9}, "unknown setting cleaning.near_similarty.*near_similarity"),
        ({"overlap": "many"}, "overlap='many' is not a valid int"),
    ],
)
def test_mistakes_name_the_setting_and_the_fix(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_cleaning(**settings)


def test_a_mistyped_flag_is_told_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--data-path", "x", "--out-dir", "y", "--filter", "near"]) == 2
    assert "did you mean --filters?" in capsys.readouterr().err


def test_a_filter_that_drops_most_of_the_text_is_warned_of_and_all_of_it_is_an_error(
    tmp_path: Path,
) -> None:
    poems = ["床前明月光，疑是地上霜。", "春眠不覺曉，處處聞啼鳥。", prose(1, 40) * 2]
    report = clean_texts(tmp_path / "most", [*poems[:2] * 30, poems[2]], filters="quality")
    assert kept(report) == poems[2:]
    assert any(
        line.startswith("  WARNING        quality dropped more than half")
        for line in report.lines()
    )
    with pytest.raises(DataError, match=r"no text of 2 is left: quality dropped 2; .*few|fewer"):
        clean_texts(tmp_path / "all", poems[:2], filters="quality")
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["corpus.jsonl"]


def test_standard_input_is_cleaned(tmp_path: Path) -> None:
    with write_texts(tmp_path, TEXTS).open("rb") as stream:
        process = jielong_process(
            "clean", "--data-path", "-", "--out-dir", "out", stdin=stream, cwd=tmp_path
        )
        said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "kept           4 texts" in said
    assert len((tmp_path / "out" / "00000.jsonl").read_bytes().splitlines()) == 4
