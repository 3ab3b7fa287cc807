"""The notebooks run from the first cell to the last, and say the same in both languages."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tiny import TINY_RUN, environment

FOLDER = Path(__file__).parents[1] / "docs" / "notebook"
NOTEBOOKS = [FOLDER / "pretrain.ipynb", FOLDER / "pretrain.zh-CN.ipynb"]
Cell = dict[str, Any]


def cells(path: Path, kind: str) -> list[Cell]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def is_settings(cell: Cell) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


def smaller(corpus: Path, language: str) -> str:
    """Settings with which the notebook takes seconds."""
    budget = {name: value for name, value in TINY_RUN.items() if name not in ("device", "report")}
    return (
        f"TEXT = {str(corpus)!r}\nBUDGET = {budget | {'vocab_size': 320}!r}\nRUN = 'run'\n"
        f"LOCALE = '{language}'\nPROMPTS = ['Tale 5', 'word']"
    )


@pytest.mark.parametrize(
    ("path", "locale"), [(NOTEBOOKS[0], "C.UTF-8"), (NOTEBOOKS[1], "zh_CN.UTF-8")]
)
def test_code_of_the_notebook_runs_in_its_order(
    path: Path,
    locale: str,
    corpus_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    names: dict[str, Any] = {}
    shown = []
    for cell in cells(path, "code"):
        code = smaller(corpus_file, locale) if is_settings(cell) else "".join(cell["source"])
        tree = ast.parse(code)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
            shown += [value._repr_html_()] if value is not None else []
    assert len(shown) == 4 and all("<" in html for html in shown)
    assert "Tale 5" in capsys.readouterr().out
    assert bool(re.search("[一-鿿]", shown[0])) == locale.startswith("zh")


def test_the_notebook_runs_in_jupyter(corpus_file: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat

    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    for cell in notebook.cells:
        if is_settings(cell):
            cell.source = smaller(corpus_file, "C.UTF-8")
    client = nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": tmp_path}}
    )
    client.execute(env=environment(PYTHONPATH=os.pathsep.join(filter(None, sys.path))))
    html = [o for cell in notebook.cells for o in cell.get("outputs", []) if "text/html" in str(o)]
    assert len(html) >= 4


def test_both_notebooks_have_the_same_code_but_for_settings() -> None:
    english, chinese = (
        ["".join(c["source"]) for c in cells(path, "code") if not is_settings(c)]
        for path in NOTEBOOKS
    )
    assert english == chinese
    names = [
        [re.findall(r"^(\w+) = ", "".join(c["source"]), re.M) for c in cells(path, "code")]
        for path in NOTEBOOKS
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_links_of_the_notebook_lead_somewhere(path: Path) -> None:
    for cell in cells(path, "markdown"):
        for link in re.findall(r"\]\(([^)#\s]+)\)", "".join(cell["source"])):
            assert (FOLDER / link).exists(), link


def test_notebooks_are_small_and_name_no_machine() -> None:
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        assert len(text) < 1_000_000
        assert not re.search(r"/(tmp|home|root)/", text)
