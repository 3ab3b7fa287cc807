"""Whatever a text is, no filter fails on it, and each text is either kept or listed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleaned_texts import clean_texts, dropped, kept
from jielong.cleaning.outcome import Change, Drop
from jielong.cleaning.personal import KINDS, Mask
from jielong.cleaning.quality import quality
from jielong.cleaning.repetition import repetition
from jielong.cleaning.shingles import shingles
from jielong.cleaning.web import web

PARTS = st.sampled_from(
    [
        *(
            "the",
            "of",
            "word",
            "漢字",
            "的",
            "字a",
            "かな",
            "한국",
            "ไทย",
            "12",
            "#",
            "…",
            "-",
            "•",
        ),
        *("a@b.co", "13812345678", "8.8.8.8", "\u2028", "\x00", "\u0130", "😀", "lorem ipsum"),
        *("\n", "\n\n", ". ", "。", "\r\n", "\t", "All rights reserved, and more of it"),
    ]
)
# long enough for every rule to be reached
TEXTS = st.builds(
    lambda parts, space, times: space.join(parts * times),
    st.lists(PARTS | st.text(max_size=4), min_size=1, max_size=12),
    st.sampled_from([" ", "", "\n"]),
    st.sampled_from([1, 3, 60]),
)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_no_filter_fails_on_any_text(text: str) -> None:
    for judge in (quality, repetition, web):
        outcome = judge(text)
        assert outcome is None or isinstance(outcome, Drop | Change)
    values = shingles(text)
    assert (values[1:] > values[:-1]).all()
    change = Mask(tuple(KINDS))(text)
    if change is not None:
        end, rest = 0, ""
        for kind, begin, stop in change.masked:
            assert end <= begin < stop
            rest += text[end:begin] + f"<{kind.upper()}>"
            end = stop
        assert rest + text[end:] == change.text


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TEXTS.filter(lambda text: text.strip()), min_size=1, max_size=8))
def test_each_text_is_kept_or_listed(texts: list[str]) -> None:
    pytest.importorskip("rensa")
    with tempfile.TemporaryDirectory() as folder:
        sentinel = "This one is the only text of its kind. It has no copy. It stays in any case."
        report = clean_texts(
            Path(folder), [*texts, sentinel], filters=("exact", "near", "lines", "personal")
        )
        listed = {"exact": 0, "near": 0, "lines": 0}
        for name in listed:
            if (report.folder / "dropped" / f"{name}.jsonl").exists():
                listed[name] = sum("removed" not in row for row in dropped(report, name))
        counted = {name: report.accounts[name].dropped for name in listed}
        assert listed == counted
        assert len(kept(report)) + sum(listed.values()) == len(texts) + 1
        assert kept(report)[-1] == sentinel
