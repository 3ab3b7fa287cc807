"""Personal data: what is masked, and the numbers that only look like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleaned_texts import clean_texts, dropped, kept
from jielong.cleaning.personal import KINDS, Mask, is_card, is_chinese_id
from jielong.errors import ConfigError

# made up; the last digit of each is its checksum
IDS = ["11010519491231002X", "440524188001010014"]
CARDS = ["4111111111111111", "5555 5555 5555 4444", "3782 822463 10005", "6011-1111-1111-1117"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to ann.lee+x@mail.example.co.uk.", "write to <EMAIL>."),
        ("邮箱：zhang_san@example.com，谢谢", "邮箱：<EMAIL>，谢谢"),
        ("from 8.8.8.8 to 2001:4860:4860::8888", "from <IP> to <IP>"),
        ("电话13812345678或138-1234-5678", "电话<PHONE>或<PHONE>"),
        ("+86 138 1234 5678, 010-62781234, (021) 62781234", "<PHONE>, <PHONE>, <PHONE>"),
        (
            "call +49 30 901820 or (415) 555-2671 or 415-555-2671",
            "call <PHONE> or <PHONE> or <PHONE>",
        ),
        (f"身份证号{IDS[0]}。", "身份证号<ID>。"),
        (f"{IDS[1]} {IDS[0].lower()}", "<ID> <ID>"),
        (", ".join(CARDS), ", ".join(["<CARD>"] * 4)),
    ],
)
def test_personal_data_is_masked_by_its_kind(text: str, masked: str) -> None:
    change = Mask(tuple(KINDS))(text)
    assert change is not None and change.text == masked
    for kind, begin, end in change.masked:
        assert change.counts[kind] and text[begin:end].strip(" ,.，。") == text[begin:end]


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3 and 10.0.0.1 and 127.0.0.1 and 300.1.1.1 and 1.2.3.4.5",
        "std::vector a::b dead::beef 12:30:45 00:1a:2b:3c:4d:5e",
        "user@host and @name and a@b and x @ y . com",
        "pi is 3.14159265358979 and 2**64 is 18446744073709551616",
        "110105194912310021 440524188013010014 00000000000000000X",  # checksum, month, first digit
        "4111111111111112 5555 5555 5555 4445 1234567890123456",
        "1990-01-01 12345678901 2024-2025 100-200-300 ISBN 978-7-302-12345-6",
        "11812345678 138123456789 1381234567",
        "def f(x): return x[1:2], 0x1F, 1e-10, 192.168.1.1",
    ],
)
def test_other_numbers_and_names_stay(text: str) -> None:
    assert Mask(tuple(KINDS))(text) is None


def test_checksums_tell_numbers_apart() -> None:
    for number in IDS:
        assert is_chinese_id(number)
        others = [d for d in "0123456789X" if d != number[-1]]
        assert not any(is_chinese_id(number[:-1] + digit) for digit in others)
    for number in CARDS:
        assert is_card(number)
        assert not any(is_card(number[:-1] + d) for d in "0123456789" if d != number[-1])


def test_masks_are_listed_by_place_and_never_by_what_they_hide(tmp_path: Path) -> None:
    secret = "zhang.san@example.com"
    texts = [f"Write to {secret} or call 13812345678.", "Nothing here."]
    report = clean_texts(tmp_path, texts, filters="personal")
    assert kept(report) == ["Write to <EMAIL> or call <PHONE>.", texts[1]]
    (row,) = dropped(report, "personal")
    first = row["masked"][0]
    assert texts[0][first["begin"] : first["end"]] == secret
    for path in report.folder.rglob("*"):
        assert path.is_dir() or secret not in path.read_text(encoding="utf-8")
    assert secret not in "\n".join(report.lines())


def test_only_the_kinds_that_are_named_are_masked(tmp_path: Path) -> None:
    text = "Write to a.b@example.com or call 13812345678."
    report = clean_texts(tmp_path, [text], filters="personal", personal="phone")
    assert kept(report) == ["Write to a.b@example.com or call <PHONE>."]
    with pytest.raises(ConfigError, match=r"'phones' is not one of email, .*did you mean phone"):
        clean_texts(tmp_path, [text], personal="phones")


@pytest.mark.parametrize("text", ["1" * 10**5, "a." * 10**5 + "@", "1 " * 10**5, ":a" * 10**5])
def test_hostile_texts_take_linear_time(text: str) -> None:
    assert Mask(tuple(KINDS))(text) is None
