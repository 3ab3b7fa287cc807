"""`jielong evaluate --suite` and `jielong.evaluate_suites`: results, comparisons, faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import jielong
from jielong.config.suites import SuiteRequest, suite_requests
from jielong.errors import CheckpointError, ConfigError, DataError
from jielong.evaluation.suites.run import MODULES
from tiny import in_this_process

BLIMP = Path(__file__).parents[2] / "fixtures" / "blimp"


def evaluate(*words: str) -> tuple[int, str]:
    return in_this_process(["evaluate", *words])


def test_every_suite_that_can_be_asked_for_is_there() -> None:
    from jielong.config.suites import SUITES

    assert tuple(MODULES) == SUITES


def test_a_table_and_json_say_the_same(run: Path) -> None:
    words = [str(run), "--suite", "grammar", "copying", "--suite-path", str(BLIMP)]
    words += ["--limit", "8", "--checkpoint", "last"]
    status, said = evaluate(*words)
    assert status == 0
    status, given = evaluate(*words, "--json")
    report = json.loads(given)
    assert status == 0 and [s["suite"] for s in report["suites"]] == ["grammar", "copying"]
    assert report["step"] == 120 and report["tokens"] > 0
    assert report["before"].endswith("step-00000060")
    measure = report["suites"][0]["measures"][2]
    assert measure["name"] == "npi_present_2" and measure["items"] == 8
    row = next(line for line in said.splitlines() if "npi_present_2" in line)
    assert f"{100 * measure['value']:.1f} ± {100 * measure['error']:.1f} %" in row
    assert f"{100 * measure['before']:.1f} %" in row and row.split()[-1] == "8"
    assert "standard error over pairs" in said


def test_the_same_from_python(run: Path) -> None:
    report = jielong.evaluate_suites(run, ["cloze"], limit=5, device="cpu", checkpoint="last")
    again = jielong.evaluate_suites(run, ["cloze"], limit=5, device="cpu", checkpoint="last")
    measure = report["cloze"]["continuation"]
    assert measure == again["cloze"]["continuation"] and measure.items == 5
    assert measure.before is not None and measure.change_error is not None
    assert "continuation" in report._repr_html_()


def test_what_to_compare_with_can_be_chosen(run: Path) -> None:
    alone = jielong.evaluate_suites(run, ["cloze"], against="none", device="cpu")
    assert alone.before is None and alone["cloze"]["next token"].before is None
    same = jielong.evaluate_suites(run, ["cloze"], against=run, device="cpu")
    assert same["cloze"]["next token"].change == 0
    assert same["cloze"]["next token"].change_error == 0
    first = jielong.evaluate_suites(run, ["cloze"], device="cpu", checkpoint="60")
    assert first.before is None  # there is none before


def test_a_page_of_the_tables_is_written(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ["--suite", "copying", "--limit", "4", "--against", "none", "--html", str(page)]
    assert evaluate(str(run), *words)[0] == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and "16 tokens back" in text


def test_a_model_without_its_run_says_what_is_missing(run: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(run / "checkpoints" / "step-00000120", model)
    grammar = jielong.evaluate_suites(model, ["grammar"], BLIMP, device="cpu")
    assert set(grammar["grammar"].measures[0].beside) == {"chance", "÷ √length"}
    for suite in ("cloze", "writing", "memorising", "text"):
        status, said = evaluate(str(model), "--suite", suite)
        assert status == 2 and "text of" in said and "model without a run" in said
        assert len(said.splitlines()) == 1


def test_a_run_whose_text_is_gone_says_so(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("data"))
    with pytest.raises(DataError, match=r"cloze needs held-out text .*data.*no such file"):
        jielong.evaluate_suites(copy, ["cloze"], device="cpu")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "clozes"], "did you mean cloze?"),
        (["--suite", "mmlu"], "by chance"),
        (["--suite", "cloze", "cloze"], "asked for twice"),
        (["--suite", "cloze=x"], "takes no path"),
        (["--suite", "grammar="], "names no path"),
        (["--suite", "cloze", "--suite-path", "x"], "is for none of the suites"),
        (["--suite", "text", "grammar", "--suite-path", "x"], "could be for text or grammar"),
        (["--suite", "cloze", "--data-path", "x"], "--data-path is for one text"),
        (["--suite", "cloze", "--limit", "-1"], "below 0"),
        (["--suite-path", "x"], "give --suite"),
        (["--suite", "cloze", "--against", "no-such-run"], "no-such-run"),
    ],
)
def test_a_mistake_gets_one_line(words: list[str], said: str, run: Path) -> None:
    status, output = evaluate(str(run), *words)
    assert status == 2 and said in output
    assert output.count("error:") == 1 and "Traceback" not in output


def test_a_run_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="contains no model"):
        jielong.evaluate_suites(tmp_path, ["cloze"])


def test_a_suite_is_asked_for_by_other_names_and_with_a_path() -> None:
    asked = suite_requests(["recall", "BLiMP=a=b", "text"], "texts")
    assert asked == (
        SuiteRequest("copying"),
        SuiteRequest("grammar", "a=b"),
        SuiteRequest("text", "texts"),
    )
    with pytest.raises(ConfigError):
        SuiteRequest.parse("")
