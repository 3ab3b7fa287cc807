"""The examples of CONTRIBUTING: each diff applies, and what it adds passes its test."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tiny import SOURCE, environment

ROOT = SOURCE.parent
DIFFS = sorted(ROOT.glob("examples/diffs/*.diff"))
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git applies the diffs")


def apply(diff: Path, tree: Path) -> None:
    # on a changed neighbourhood, the nearest line decides
    command = ["git", "apply", "-C1", "--whitespace=error", str(diff)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{diff.name} no longer fits the source: {done.stderr}"


def copied(tree: Path) -> Path:
    """A copy of the source and of what its tests lean on."""
    (tree / "tests").mkdir()
    for name in ("src", "configs"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", *(f"tests/{n}.py" for n in ("conftest", "forked", "tiny"))):
        shutil.copyfile(ROOT / name, tree / name)
    for path in ROOT.glob("tests/*/"):
        (tree / "tests" / path.name).mkdir()
    return tree


@pytest.mark.parametrize("diff", DIFFS, ids=lambda diff: diff.stem)
def test_each_example_applies_alone_and_brings_a_test(diff: Path, tmp_path: Path) -> None:
    apply(diff, copied(tmp_path))
    assert added(diff)
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"](examples/diffs/{diff.name})" in text


def test_all_examples_beside_each_other_pass_the_tests_that_they_add(tmp_path: Path) -> None:
    tree = copied(tmp_path)
    for diff in DIFFS:
        apply(diff, tree)
    tests = [test for diff in DIFFS for test in added(diff)]
    assert len(tests) == 4
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider"]
    env = environment(PYTHONPATH=f"{tree}/src:{tree}/tests")
    done = subprocess.run([*command, *tests], cwd=tree, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


def added(diff: Path) -> list[str]:
    return re.findall(r"^\+\+\+ b/(tests/\S+)$", diff.read_text(encoding="utf-8"), re.M)
