"""Standard errors against simulation and textbook formulas; tables that cannot carry markup."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jielong.evaluation.suites.results import (
    Measure,
    Ratio,
    SuiteReport,
    SuiteResult,
    in_short,
    rows,
    shown,
)


def test_the_error_of_an_accuracy_is_the_textbook_one() -> None:
    right = np.array([1.0] * 30 + [0.0] * 70)
    measure = Ratio("a", "accuracy", {"model": right}, np.ones(100)).measure()
    assert measure.value == pytest.approx(0.3)
    assert measure.error == pytest.approx(np.sqrt(0.3 * 0.7 / 99))


def test_the_errors_are_how_much_the_numbers_vary() -> None:
    """Ratios of clustered items, drawn anew many times."""
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(600):
        sizes = rng.integers(1, 40, 150).astype(float)
        clusters = np.arange(150) // 3
        of_cluster = rng.normal(2, 0.5, 50)[clusters]
        top = sizes * (of_cluster + rng.normal(0, 0.3, 150))
        measure = Ratio("a", "bits/byte", {"model": top}, sizes, clusters).measure()
        values.append(measure.value)
        errors.append(measure.error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_with_strata_the_difference_between_the_sets_is_no_error() -> None:
    right = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    strata = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert Ratio("a", "accuracy", {"model": right}, np.ones(8), strata=strata).measure().error == 0
    assert Ratio("a", "accuracy", {"model": right}, np.ones(8)).measure().error == pytest.approx(
        np.sqrt(0.25 / 7)
    )


def test_the_error_of_a_change_is_that_of_paired_items() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 1, 400)
    before = Ratio("a", "bits", {"model": hard + rng.normal(0, 0.1, 400)}, np.ones(400))
    now = Ratio("a", "bits", {"model": hard - 0.05 + rng.normal(0, 0.1, 400)}, np.ones(400))
    measure = now.measure(before)
    difference = now.tops["model"] - before.tops["model"]
    assert measure.change == pytest.approx(difference.mean())
    assert measure.change_error == pytest.approx(difference.std(ddof=1) / 20)
    assert measure.error is not None and measure.change_error < measure.error / 5


def test_one_item_has_no_error() -> None:
    measure = Ratio("a", "bits/byte", {"model": np.ones(1)}, np.ones(1)).measure()
    assert measure.error is None and shown(measure.value, measure.unit, measure.error) == "1.000"


def test_numbers_are_shown_in_their_units() -> None:
    assert shown(0.5312, "accuracy", 0.0081) == "53.1 ± 0.8 %"
    assert shown(-0.021, "bits/byte", 0.001, sign=True) == "-0.021 ± 0.001"
    assert shown(10.23, "tokens") == "10.2"


def report() -> SuiteReport:
    one = Measure("<b>a", "accuracy", 0.5, 0.1, 9, {"bigram": 0.4, "chance": 0.5})
    two = Measure("b", "bits", 0.5, None, 1, {}, 0.25, 0.25, 0.1)
    result = SuiteResult("cloze", "documents", (one, two), ("<script>",), 1.0)
    return SuiteReport("runs/<i>", 5, 700, None, (result,))


def test_a_table_has_a_column_for_whatever_stands_beside() -> None:
    heading, found = rows(report()["cloze"])
    assert heading == ["cloze", "", "value", "chance", "bigram", "before", "change", "n"]
    assert found[0] == ["<b>a", "accuracy", "50.0 ± 10.0 %", "50.0 %", "40.0 %", "", "", "9"]
    assert found[1] == ["b", "bits", "0.500", "", "", "0.250", "+0.250 ± 0.100", "1"]


def test_the_first_numbers_in_one_line() -> None:
    assert in_short(report()["cloze"]) == (
        "cloze · <b>a 50.0 ± 10.0 % (chance 50.0 %) · b 0.500 bits"
    )


def test_a_notebook_shows_names_and_notes_as_text() -> None:
    page = report()._repr_html_()
    assert "&lt;b&gt;a" in page and "&lt;script&gt;" in page and "runs/&lt;i&gt;" in page
    assert "<script>" not in page and "<b>a" not in page


def test_a_report_is_json_and_is_asked_by_name() -> None:
    again = json.loads(json.dumps(report().to_json()))
    assert again["suites"][0]["measures"][0]["beside"] == {"bigram": 0.4, "chance": 0.5}
    assert report()["cloze"]["b"].change == 0.25
    with pytest.raises(KeyError):
        report()["grammar"]
    with pytest.raises(KeyError):
        report()["cloze"]["c"]
