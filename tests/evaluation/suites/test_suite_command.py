"""`jielong evaluate --suite` and `jielong.evaluate_suites`: results, comparisons, faults."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import rich.console
import torch

import jielong
from jielong.config.suites import SuiteRequest, suite_requests
from jielong.errors import CheckpointError, ConfigError, DataError
from jielong.evaluation.suites.results import shown
from jielong.evaluation.suites.run import MODULES
from jielong.present.blocks import Note, Table
from jielong.present.terminal import print_page
from jielong.present.words import sayer
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


def test_the_tables_are_in_chinese_and_a_picture(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = ("cloze", "copying", "writing", "memorising", "text")
    report = jielong.evaluate_suites(run, names, limit=4, device="cpu", checkpoint="last")
    page = report.page(sayer("zh"))
    for block in page.blocks:
        words = [block.text] if isinstance(block, Note) else []
        if isinstance(block, Table):
            words = [w for w in (*block.columns[:-1], *(r[0] for r in block.rows)) if w]
        assert all(any("一" <= char <= "鿿" for char in word) for word in words), words
    picture = tmp_path / "suites.png"
    words = ["--suite", "copying", "--limit", "2", "--lang", "zh", "--png", str(picture)]
    assert evaluate(str(run), *words)[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_no_number_is_cut_where_the_terminal_is_narrow(run: Path) -> None:
    report = jielong.evaluate_suites(run, ["copying"], limit=4, device="cpu", checkpoint="last")
    out = io.StringIO()
    console = rich.console.Console(file=out, width=60, force_terminal=True, color_system=None)
    print_page(report.page(sayer("en")), console)
    assert all(len(line) <= 60 for line in out.getvalue().splitlines())
    for measure in report["copying"].measures:
        for number in shown(measure.value, measure.unit, measure.error).split():
            assert number in out.getvalue().split()
    assert "…" not in out.getvalue()


def test_zhoblimp_reads_from_its_own_files_and_longer_sentences_are_not_held_against_it(
    run: Path, tmp_path: Path
) -> None:
    pairs = [
        ("他把书放在桌子上了。", "他把书放在桌子上。了"),
        ("这三本书我都看过。", "这三书我都看过。"),
        ("妹妹昨天没有去学校。", "妹妹昨天没去学校有。"),
        ("他一句话也没说。", "他一句话也说。"),
    ]
    lines = [
        json.dumps(
            {
                "phenomenon": "classifier",
                "UID": "of_our_own",
                "sentence_good": good,
                "sentence_bad": bad,
                "pairID": number,
            },
            ensure_ascii=number % 2 == 0,
        )
        for number, (good, bad) in enumerate(pairs)
    ]
    (tmp_path / "of_our_own.jsonl").write_text("\n".join(lines), encoding="utf-8")
    report = jielong.evaluate_suites(run, ["grammar"], tmp_path, device="cpu", against="none")
    found = report["grammar"]["of_our_own"]
    assert found.items == 4
    model, tokenizer = jielong.load(run, "cpu")

    def nats_and_length(text: str) -> tuple[float, int]:
        ends = (tokenizer.bos_id,), (tokenizer.eos_id,)
        ids = torch.tensor([[*ends[0], *tokenizer.encode(text), *ends[1]]])
        logits = model(ids[:, :-1]).logits.log_softmax(-1)
        nats = -logits.gather(-1, ids[:, 1:, None]).sum().item()
        return nats, ids.shape[1] - 1

    right = []
    for pair in pairs:
        (good, n), (bad, m) = map(nats_and_length, pair)
        right.append(good / n**0.5 < bad / m**0.5)
    assert found.beside["÷ √length"] == sum(right) / len(right)
    assert any("÷ √length, which corrects for it" in note for note in report["grammar"].notes)


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
        (["--suite", "cloze", "--lang", "fr"], "lang='fr' is not one of"),
        (["--suite", "cloze", "--html", "no/such/page.html"], "there is no folder no/such"),
        (["--png", "x.png"], "--png is for suites"),
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
