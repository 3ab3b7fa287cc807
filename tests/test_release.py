"""What a release says of itself is the same wherever it stands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import jielong

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert jielong.__version__ == project["version"]
    assert re.findall(r"^version: (.*)$", citation, re.M) == [project["version"]]
    first = re.search(r"^## (\S+) \((?:unreleased|\d{4}-\d\d-\d\d)\)$", changes, re.M)
    assert first and first[1] == project["version"]
    assert f"license: {project['license']}\n" in citation


def test_the_page_of_licences_names_every_package_that_an_installation_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    for needed in project["dependencies"]:
        name = re.split(r"[^\w-]", needed)[0]
        assert re.search(rf"\b{name}\b", page), name


def test_nothing_of_others_is_loaded_by_the_pages_that_are_bundled() -> None:
    for path in (ROOT / "src/jielong/ui/static").iterdir():
        text = path.read_text(encoding="utf-8")
        for address in re.findall(r"https?://[^\s\"'`)]+", text):
            assert "www.w3.org" in address, (path.name, address)  # names of formats, not loaded
