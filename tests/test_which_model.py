"""The tables of docs/which-model.md are those of the results."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_the_tables_are_those_of_the_results(
    language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    file = ROOT / "benchmarks/which_model.py"
    spec = importlib.util.spec_from_file_location("which_model_benchmark", file)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = script.page_of(language).read_text()
    assert script.with_tables(text, language) == text
    for machine in script.MINUTES:
        table = text.split(f"<!-- {machine} -->\n")[1].split("<!-- end -->")[0]
        assert len(table.splitlines()) == 2 + len(script.BYTES)
    sys.modules.pop("common", None)
