"""What `jielong.report` and `jielong.runs` return, as JSON and in notebooks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import jielong
from jielong.cli.main import main
from jielong.errors import DataError


def validations(run: Path) -> list[dict[str, float]]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [r for r in records if r["kind"] == "validation"]


@pytest.fixture
def other(run: Path, tmp_path: Path) -> Path:
    """The same run, but for the seed and for a validation less."""
    copy = tmp_path / "other"
    shutil.copytree(run, copy)
    config = copy / "config.toml"
    config.write_text(config.read_text().replace("seed = 1337", "seed = 7"))
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if json.loads(line)["kind"] == "validation")
    (copy / "metrics.jsonl").write_text("\n".join(lines[:last] + lines[last + 1 :]))
    return copy


def test_json_has_each_run_its_held_out_text_by_step_and_the_settings_that_differ(
    run: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "report.html").read_bytes()
    assert main(["report", str(run), str(other), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said) == {"runs", "settings_that_differ", "warnings"}
    first, second = said["runs"]
    ours = validations(run)
    assert [v["step"] for v in first["held_out"]] == [8, 16, 24]
    assert [v["bits_per_byte"] for v in first["held_out"]] == [r["bits_per_byte"] for r in ours]
    assert [v["step"] for v in second["held_out"]] == [8, 16]
    assert first["state"] == "finished" and first["step"] == first["total_steps"] == 24
    assert first["best"]["bits_per_byte"] == min(r["bits_per_byte"] for r in ours)
    assert first["held_out"][2]["tokens"] == first["tokens"] > first["held_out"][0]["tokens"] > 0
    assert said["settings_that_differ"] == {"seed": [1337, 7]} and said["warnings"] == []
    assert (run / "report.html").read_bytes() == before  # --json alone writes no page


def test_python_returns_what_the_commands_print(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, runs = jielong.report(run), jielong.runs(run.parent)
    assert main(["report", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report.to_json()
    assert main(["runs", str(run.parent), "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)["runs"]
    (row,) = runs
    assert said["run"] == row.run == report.runs[0].run and len(runs) == 1
    assert report.runs[0].best is not None
    assert row.best_bits_per_byte == report.runs[0].best.bits_per_byte


def test_notebooks_show_the_page_and_the_table_and_no_text_of_them_is_markup(
    run: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    single, both = jielong.report(run)._repr_html_(), jielong.report([run, other])._repr_html_()
    table = jielong.runs(run.parent)._repr_html_()
    for page in (single, both, table):
        assert "<script>" not in page and "&lt;script&gt;" in page
    assert "学习率" in single and "2 个训练的比较" in both and "已完成" in table


def test_curves_are_one_picture_and_so_are_those_of_several_runs(
    run: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    for number, runs in enumerate(([run], [run, other])):
        file = tmp_path / f"{number}.png"
        assert main(["report", *map(str, runs), "--png", str(file)]) == 0
        assert capsys.readouterr().out == f"{file}\n"
        assert file.read_bytes().startswith(b"\x89PNG")


def test_runs_are_listed_in_chinese(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(run.parent), "--lang", "zh"]) == 0
    said = capsys.readouterr().out
    assert "状态" in said and "已完成" in said


def test_a_mistake_from_python_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing: no such folder"):
        jielong.runs(tmp_path / "missing")
    with pytest.raises(DataError, match="missing: no such folder"):
        jielong.report(tmp_path / "missing")
    with pytest.raises(DataError, match="no run is named"):
        jielong.report([])
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.toml").write_text("")
    with pytest.raises(DataError, match="nothing is recorded yet"):
        jielong.report(tmp_path / "begun").png()
