"""The shape of the source, read from its syntax tree."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "jielong"
MODULES = sorted(SOURCE.rglob("*.py"))
# The rooms from the ground up; what each may import of ours, beside itself. docs/architecture.md
# shows the same table.
MAY_IMPORT = {
    "errors": set(),
    "config": {"errors"},
    "runtime": {"config", "errors"},
    "present": {"errors"},
    "tokenization": {"errors", "runtime"},
    "observe": {"errors", "present", "runtime"},
    "reports": {"config", "errors", "observe", "present", "runtime"},
    "model": {"config", "errors", "runtime"},
    "data": {"config", "errors", "runtime", "tokenization"},
    "cleaning": {"config", "data", "errors", "runtime", "tokenization"},
    "checkpoint": {"config", "errors", "model", "runtime", "tokenization"},
    "generation": {"config", "errors", "model", "tokenization"},
    "evaluation": {
        *("config", "data", "errors", "generation", "model", "present", "runtime"),
        "tokenization",
    },
    "serving": {"config", "errors", "generation", "model", "tokenization"},
    "interop": {"checkpoint", "config", "errors", "model", "runtime", "tokenization"},
    "training": {
        *("checkpoint", "config", "data", "errors", "evaluation", "generation"),
        *("interop", "model", "observe", "present", "reports", "runtime"),
        "tokenization",
    },
    "insight": {
        *("checkpoint", "config", "data", "errors", "model", "present", "runtime"),
        *("tokenization", "training"),
    },
    "ui": {
        *("checkpoint", "config", "errors", "generation", "insight", "model", "present"),
        *("reports", "runtime", "serving", "tokenization"),
    },
    "api": {
        *("checkpoint", "cleaning", "config", "data", "errors", "evaluation", "generation"),
        *("insight", "interop", "model", "reports", "runtime", "tokenization", "training"),
    },
}
DOORS = {"cli", "__main__", "__init__"}  # may import anything; nothing imports them


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def imported_parts(tree: ast.Module) -> set[str]:
    """Parts of ours that a module imports, anywhere in it."""
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "jielong":
                parts |= {alias.name for alias in node.names}
            elif node.module and node.module.startswith("jielong."):
                parts.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            parts |= {n[1] if len(n) > 1 else "__init__" for n in names if n[0] == "jielong"}
    return parts


def test_every_part_has_its_place() -> None:
    parts = {part_of(path) for path in MODULES}
    assert parts - DOORS == MAY_IMPORT.keys()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    imported = imported_parts(ast.parse(path.read_text(encoding="utf-8"))) - {part}
    if part in DOORS:
        return
    assert imported <= MAY_IMPORT[part], f"{part} must not import {imported - MAY_IMPORT[part]}"


def test_the_order_of_imports_has_no_circle() -> None:
    left = {part: set(allowed) for part, allowed in MAY_IMPORT.items()}
    while left:
        free = {part for part, needs in left.items() if not needs & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {part: needs for part, needs in left.items() if part not in free}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_can_be_read_in_one_go(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 320
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 70, node.name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text or ast.get_docstring(ast.parse(text))


def test_the_story_is_short() -> None:
    assert (SOURCE / "training" / "pretrain.py").read_text(encoding="utf-8").count("\n") <= 250


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_unpickles(path: Path) -> None:
    """Pickles run code; where torch.load must be, it reads weights only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in ("pickle.load", "pickle.loads", "pickle.Unpickler"), node.lineno
        if called == "torch.load":
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("weights_only") == "True"
