"""What tokens have in common by their spelling."""

from __future__ import annotations

import numpy as np

from jielong.tokenization.spelling import spelling_of

WORDS = [b"", b"come", b" Come", b"COME", b"\xe5\xa4\xa9", b" welcome", b"zq", b"7", b" ing"]


def dense(pieces: list[bytes]) -> np.ndarray:
    """The matrix of features, as a whole."""
    spelling = spelling_of(pieces)
    matrix = np.zeros((len(pieces), spelling.feature_count))
    matrix[spelling.tokens, spelling.features] = spelling.values
    return matrix


def test_one_word_shares_most_whatever_its_capitals_and_its_space() -> None:
    alike = dense(WORDS) @ dense(WORDS).T
    assert alike[1, 2] > 0.8 and alike[1, 3] > 0.8
    assert 0.3 < alike[1, 5] < alike[1, 2]  # a part of it
    assert alike[1, 5] > alike[1, 6] + 0.2  # more than what has not its letters


def test_rows_are_of_length_one_and_tokens_without_text_share_nothing() -> None:
    lengths = (dense(WORDS) ** 2).sum(1)
    assert lengths[0] == 0
    np.testing.assert_allclose(lengths[1:], 1, rtol=1e-6)


def test_what_one_token_alone_has_is_no_feature() -> None:
    shared = (dense(WORDS) > 0).sum(0)
    assert shared.min() >= 2 and shared.max() < 0.9 * (len(WORDS) - 1)


def test_nothing_is_shared_where_no_two_tokens_are_alike() -> None:
    assert spelling_of([b"", b"a"]).feature_count == 0


def test_it_is_the_same_each_time() -> None:
    """Sets of strings are in another order in each process; the order of sums must not be."""
    first, again = spelling_of(WORDS), spelling_of(list(WORDS))
    assert first.features.tolist() == again.features.tolist()
    assert first.tokens.tolist() == sorted(first.tokens)
    per_token = [first.features[first.tokens == token].tolist() for token in range(len(WORDS))]
    # columns are numbered as they come, by the text of the features: `come`, then ` Come` …
    assert per_token[1] == list(range(len(per_token[1])))
