"""Texts that end before given words, against cutting the whole text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jielong.errors import ConfigError
from jielong.generation.stopping import until

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
few_letters = st.text("ab\n", min_size=1, max_size=4)


@given(st.lists(few_letters, max_size=12), st.lists(few_letters, min_size=1, max_size=3))
def test_a_text_ends_before_a_stop_and_lacks_nothing_else(
    pieces: list[str], stop: list[str]
) -> None:
    whole = "".join(pieces)
    got = list(until(pieces, stop))
    text = "".join(got)
    assert all(got)
    assert whole.startswith(text)
    assert not any(word in text for word in stop)
    assert text == whole or any(whole.startswith(word, len(text)) for word in stop)


def test_no_piece_is_read_after_the_stop() -> None:
    pieces = iter(["one st", "op two", "three"])
    assert list(until(pieces, ["stop"])) == ["one "]
    assert next(pieces) == "three"


def test_what_cannot_begin_a_stop_is_shown_at_once() -> None:
    stream = until(iter(["abc", "xs", "o", "stop"]), ["stop"])
    assert [next(stream), next(stream), next(stream)] == ["abc", "x", "so"]


def test_an_empty_stop_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="empty"):
        until(["text"], ["", "a"])
