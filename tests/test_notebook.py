"""The notebooks run from the first cell to the last, and say the same in both languages."""

from __future__ import annotations

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
def test_the_notebook_runs_in_jupyter(
    path: Path, locale: str, corpus_file: Path, tmp_path: Path
) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if is_settings(cell):
            cell.source = smaller(corpus_file, locale)
    client = nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": tmp_path}}
    )
    client.execute(env=environment(PYTHONPATH=os.pathsep.join(filter(None, sys.path))))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [o["data"]["text/html"] for o in outputs if o["output_type"] == "execute_result"]
    assert len(shown) == 4
    trained = "".join(o["data"]["text/html"] for o in outputs if o["output_type"] == "display_data")
    for text in (trained, *shown):
        assert bool(re.search("[一-鿿]", text)) == locale.startswith("zh")
    assert "Tale 5" in "".join(o["text"] for o in outputs if o["output_type"] == "stream")


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
