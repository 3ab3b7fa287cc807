"""Text that is not UTF-8: read in the encoding given, or refused with it; never learnt as it is."""

import codecs
import gzip
import json
import random

import pytest

from jielong.config.encodings import codec_name
from jielong.config.load import load_config
from jielong.data.sources.documents import Document, Remark, expand_sources, read_documents
from jielong.data.sources.encodings import BLOCK_BYTES
from jielong.data.sources.losses import Losses
from jielong.errors import ConfigError, DataError

CHINESE = "第一章 春天来了。\n他说：“今天的天气真好，我们去公园散步吧。”她没有回答。\n" * 20
FRENCH = "Où est le garçon ? Près de la forêt, où les élèves étudiaient le français.\n" * 20
RUSSIAN = """Все счастливые семьи похожи друг на друга, каждая несчастлива по-своему.
Дом был полон гостей. Она молча смотрела в окно и ждала письма из Москвы.
Вечером пошёл снег, и дорога исчезла.
"""
ENGLISH = "The quick brown fox jumps over the lazy dog.\n" * 20
JAPANESE = """吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。
何でも薄暗いじめじめした所でニャーニャー泣いていた事だけは記憶している。
"""
ENCODED = [
    (CHINESE, "gb18030"),
    ("今天的天氣真好，我們去公園散步吧。她沒有回答。\n" * 20, "big5"),
    (FRENCH, "latin-1"),
    (RUSSIAN, "cp1251"),
    (JAPANESE * 20, "cp932"),
    ("나는 오늘 학교에 갔다. 날씨가 매우 좋았다.\n" * 20, "cp949"),
    *(
        (text, f"utf-16-{end}")
        for text in (CHINESE, FRENCH, RUSSIAN, ENGLISH)
        for end in ("le", "be")
    ),
    (ENGLISH, "utf-32-le"),
    (CHINESE, "utf-32-be"),
]


def as_jsonl(text):
    rows = ({"text": line} for line in text.splitlines())
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def read(tmp_path):
    """Writes a file and reads it; returns what it yields."""

    def read(content, encoding=None, name="a.txt"):
        path = tmp_path / name
        path.write_bytes(content)
        return list(read_documents(expand_sources([str(path)]), "text", encoding))

    return read


def lines(items):
    """The lines of the documents; where a text is cut, no line break is left."""
    return [line for item in texts(items) for line in item.split("\n") if line]


def texts(items):
    return [item.text for item in items if isinstance(item, Document)]


def remarks(items):
    return [item.text for item in items if isinstance(item, Remark)]


@pytest.mark.parametrize(("text", "encoding"), ENCODED)
def test_text_in_another_encoding_is_refused_with_the_flag_that_reads_it(read, text, encoding):
    for name, content in (("a.txt", text), ("a.jsonl", as_jsonl(text))):
        with pytest.raises(DataError, match="read it with --encoding") as error:
            read(content.encode(encoding), name=name)
        flag = str(error.value).rpartition(" ")[2]
        assert codec_name(flag) == codec_name(encoding)
        items = read(content.encode(encoding), flag, name)
        assert lines(items) == text.splitlines()
        assert remarks(items) == [f"read as {flag}"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_names_the_encoding(read, encoding):
    assert texts(read(CHINESE.encode(encoding))) == [CHINESE]
    packed = gzip.compress(as_jsonl(CHINESE).encode(encoding))
    assert texts(read(packed, name="a.jsonl.gz")) == CHINESE.splitlines()
    big = codecs.BOM_UTF16_BE + CHINESE.encode("utf-16-be")
    assert texts(read(big, "gb18030")) == [CHINESE]


def test_utf16_without_a_byte_order_shows_it(read):
    for order in ("le", "be"):
        assert texts(read(FRENCH.encode(f"utf-16-{order}"), "utf-16")) == [FRENCH]


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "latin-1"])
@pytest.mark.parametrize("text", [CHINESE, FRENCH, ENGLISH, ENGLISH * 400 + CHINESE])
def test_what_is_utf8_stays_so_whatever_encoding_the_others_have(read, text, encoding):
    items = read(text.encode(), encoding)
    assert lines(items) == text.splitlines()
    told = [f"read as UTF-8, which it is, not as {encoding}"]
    assert remarks(items) == ([] if text.isascii() or encoding == "utf-16" else told)


def test_a_file_of_both_encodings_keeps_both(read):
    content = CHINESE.encode() * 400 + CHINESE.encode("gbk") * 400
    kept = lines(read(content, "gbk"))
    assert set(kept) == set(CHINESE.splitlines())  # nothing garbled
    assert len(kept) > 0.96 * 800 * CHINESE.count("\n")


def test_quotes_of_windows_are_read_in_what_calls_itself_latin1(read):
    text = "“Café” – 5 €\n"
    assert texts(read(text.encode("cp1252"), "latin-1")) == [text]


POLISH = "Zażółć gęślą jaźń, łódź płynie przez świat; źródło i ćma.\n"
GREEK = "Μια φορά κι έναν καιρό ήταν ένας βασιλιάς που είχε τρεις κόρες.\n"
GERMAN = "Über die Straße ging ein großer, müder Bär; fünf Mädchen hörten süße Töne.\n"


@pytest.mark.parametrize("given", ["latin-1", "cp1252", "koi8-r", "cp1251", "mac-roman"])
@pytest.mark.parametrize(
    "text,encoding", [(CHINESE, "gbk"), (RUSSIAN, "cp1251"), (GREEK, "cp1253")]
)
def test_a_single_byte_encoding_given_for_another_script_is_refused(read, text, encoding, given):
    if not encoding.startswith("gb") and given in ("koi8-r", "cp1251"):
        return  # no telling, or what it is
    with pytest.raises(DataError, match=rf"a\.txt: is not {given} but probably (\S+): ") as error:
        read((text * 9).encode(encoding), given)
    assert f"iconv -f {given} -t UTF-8" in str(error.value)
    assert encoding == "cp1253" or "--encoding" in str(error.value)


@pytest.mark.parametrize(
    "text,encoding",
    [
        *((FRENCH, "latin-1"), (GERMAN, "iso8859-15"), (POLISH, "cp1250"), (POLISH, "iso8859-2")),
        *((GREEK, "cp1253"), (RUSSIAN, "koi8-r"), (RUSSIAN, "cp1251"), (GERMAN, "mac-roman")),
    ],
)
@pytest.mark.parametrize("times", [1, 40])
def test_what_is_in_the_single_byte_encoding_given_is_read(read, text, encoding, times):
    items = read((text * times).encode(encoding), encoding)
    assert lines(items) == (text * times).splitlines()
    assert remarks(items)[0].startswith(f"read as {encoding}")


def test_another_encoding_of_its_kind_is_doubted(read):
    (remark,) = remarks(read((CHINESE * 9).encode("gbk"), "euc_kr"))
    assert remark == "read as euc_kr, though it looks like gb18030"


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16-le"])
def test_a_stray_byte_in_another_encoding_costs_a_line(read, encoding):
    stray = b"\xff" if encoding == "gb18030" else b"\x00\xdc"
    content = CHINESE.encode(encoding) + stray + "\n".encode(encoding) + CHINESE.encode(encoding)
    items = read(content, encoding)
    assert lines(items) == (CHINESE * 2).splitlines()
    (bad,) = (i for i in items if not isinstance(i, Document | Remark))
    assert bad.line == CHINESE.count("\n") + 1


NOISE = random.Random(0).randbytes(5000)


@pytest.mark.parametrize("content", [NOISE, b"\x89PNG\r\n\x1a\n" + NOISE, bytes(5000)])
def test_binary_data_is_no_text(read, content):
    for name in ("a.txt", "a.jsonl"):
        with pytest.raises(DataError, match="holds binary data, not text"):
            read(content, name=name)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "latin-1", "gb18030"])
def test_an_encoding_given_for_others_does_not_garble_what_cannot_be_in_it(read, encoding):
    others = [NOISE]
    if encoding.startswith("utf"):
        others += [FRENCH.encode("utf-16-le" if encoding != "utf-16" else "utf-32-le")]
        others += [CHINESE.encode("gbk"), RUSSIAN.encode("cp1251")]
    else:
        others += [FRENCH.encode("utf-16-be"), CHINESE.encode("utf-32-le")]
    for content in others:
        with pytest.raises(DataError, match=r"(is not UTF-8 but probably|holds binary data)"):
            read(content, encoding)
    plain = "A plain line.\n" * 100
    stray = (plain + "A café.\n").encode("latin-1")
    assert lines(read(stray, encoding))[:100] == plain.splitlines()


def test_control_characters_in_a_text_do_not_make_it_binary(read):
    for text in (
        "\n Title\r\n\r\nBody \x00 end\n\n",
        "\x1b[31mred\x1b[0m line\n" * 50,
        "a\f\n" * 99,
    ):
        assert texts(read(text.encode())) == [text]


def test_few_accents_cost_their_lines_and_not_the_file(read):
    lines = [f"A plain line, number {i}.\n" for i in range(2000)]
    lines[7] = lines[1500] = "A café.\n"
    items = read("".join(lines).encode("latin-1"))
    assert (
        "".join(f"{text}\n" for text in texts(items)).split()
        == "".join(line for line in lines if "é" not in line).split()
    )


@pytest.mark.parametrize("encoding", ["foo", "rot13", "hz", "iso-2022-jp", "utf-7"])
def test_an_encoding_that_cannot_be_read_is_refused_at_once(encoding):
    with pytest.raises(ConfigError, match=r"data\.encoding="):
        load_config(encoding=encoding)


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16-le", "utf-32-be"])
def test_no_character_is_lost_where_a_long_text_is_read_in_blocks(read, encoding):
    for shift in range(4):
        text = "a" * shift + CHINESE * 100
        items = read(text.encode(encoding), encoding)
        assert lines(items) == text.splitlines()
        assert all(isinstance(item, Document | Remark) for item in items)


def test_an_accent_at_the_end_of_a_long_plain_text_costs_its_line(read):
    plain = "plain text line\n" * (BLOCK_BYTES // 16)  # what is read next has the accent alone
    items = read((plain + "A café.\n").encode("latin-1"))
    assert lines(items) == plain.splitlines()
    assert items[-1].line == BLOCK_BYTES // 16 + 1


@pytest.mark.parametrize("line", [CHINESE, CHINESE.replace("\n", "")])
@pytest.mark.parametrize("shift", [0, 1])
def test_a_long_text_tells_its_encoding_wherever_its_first_block_ends(read, line, shift):
    content = ("a" * shift + line * 100).encode("gb18030")
    assert len(content) > BLOCK_BYTES
    with pytest.raises(DataError, match="probably gb18030"):
        read(content)
    assert remarks(read(content, "auto")) == ["read as gb18030, as --encoding auto takes it"]


@pytest.mark.parametrize(("text", "encoding"), ENCODED)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz"])
def test_auto_reads_each_file_in_what_it_seems_to_be_in_and_says_so(read, text, encoding, name):
    content = (as_jsonl(text) if name == "a.jsonl" else text).encode(codec_name(encoding))
    items = read(gzip.compress(content) if name.endswith("gz") else content, "auto", name)
    assert lines(items) == text.splitlines()
    assert remarks(items) == [f"read as {encoding}, as --encoding auto takes it"]


def test_auto_tells_files_of_one_folder_apart_and_leaves_utf8_alone(tmp_path):
    texts = {
        "a.txt": (CHINESE, "gb18030"),
        "b.txt": (RUSSIAN, "cp1251"),
        "c.txt": (FRENCH, "utf-8"),
    }
    for name, (text, encoding) in texts.items():
        (tmp_path / name).write_bytes(text.encode(encoding))
    items = list(read_documents(expand_sources([str(tmp_path)]), "text", "auto"))
    assert sorted({i.text[:9] for i in items if isinstance(i, Document)}) == sorted(
        text[:9] for text, _ in texts.values()
    )
    said = [(item.source[-5:], item.text) for item in items if isinstance(item, Remark)]
    assert said == [
        ("a.txt", "read as gb18030, as --encoding auto takes it"),
        ("b.txt", "read as cp1251, as --encoding auto takes it"),
    ]


def test_auto_refuses_what_too_little_text_tells_and_binary_data(read):
    with pytest.raises(DataError, match=r"2 bytes are too few to tell: .* --encoding") as error:
        read((ENGLISH[:40] + "é, à").encode("latin-1"), "auto")
    assert "a.txt" in str(error.value)
    with pytest.raises(DataError, match="binary data"):
        read(random.Random(1).randbytes(5000), "auto")


def test_a_dataset_lists_every_file_that_auto_has_decided_about():
    losses = Losses()
    remarks = [Remark(f"{i}.txt", "read as gb18030, as --encoding auto takes it") for i in range(9)]
    assert not list(losses.documents(remarks))
    assert losses.notes() == [f"0.txt, 1.txt, 2.txt and 6 more: {remarks[0].text}"]
    assert losses.record()["remarks"][remarks[0].text] == (9, [r.source for r in remarks])
