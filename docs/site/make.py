"""Build the documentation site: `make site` writes it to build/site/html.

The pages are the Markdown of the repository, as GitHub shows it. This script copies them, points
links to code to pages that show the code, draws flowcharts, adds pages of the API, calls Sphinx so
that each warning is an error, and then follows each link of the result. A built site needs no
network: what a page would load from elsewhere is an error too.
"""

from __future__ import annotations

import argparse
import os
import posixpath
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from flowchart import svg  # noqa: E402
from links import broken_links, loaded_from_elsewhere  # noqa: E402
from sources import ROOT, files_of, page_of, source_page  # noqa: E402

# functions of `jielong` by what they are for
API = {
    "Train": ["pretrain", "plan", "clean", "train_tokenizer", "prepare", "prepare_mixture"],
    "Continue texts": ["load", "generate", "TextGenerator"],
    "Measure": ["evaluate", "evaluate_suites", "report", "runs"],
    "Look inside": [
        *("inspect_data", "inspect_tokenizer", "inspect_model", "inspect_schedule"),
        *("inspect_predictions", "inspect_layers", "inspect_attention", "inspect_experts"),
        "inspect_embeddings",
    ],
    "Exchange": ["export", "import_minimind"],
}
RESULTS = {  # what these functions return and raise
    "jielong.training.result": ["RunResult"],
    "jielong.evaluation.sums": ["Likelihood"],
    "jielong.data.prepare.report": ["PrepareReport"],
    "jielong.cleaning.report": ["CleanReport"],
    "jielong.model.transformer": ["Transformer"],
    "jielong.tokenization.tokenizer": ["Tokenizer"],
    "jielong.errors": ["JielongError", "ConfigError", "DataError", "CheckpointError"],
}
VIEWS = {  # what the others return: values to read, which notebooks show
    "jielong.present.result": ["Result"],
    "jielong.insight.plan": ["PlanView", "TimeByKind"],
    "jielong.insight.plan_memory": ["MemoryByKind"],
    "jielong.reports.results": ["RunReport", "ReportedRun", "HeldOut", "RunsTable"],
    "jielong.reports.overview": ["RunRow"],
    "jielong.evaluation.suites.results": ["SuiteReport", "SuiteResult", "Measure"],
    "jielong.insight.data": ["DataView", "WindowView", "Position"],
    "jielong.insight.tokenizer": ["TokenizerView", "Split"],
    "jielong.insight.model": ["ModelView", "Passage"],
    "jielong.insight.arithmetic": ["Part"],
    "jielong.insight.schedule": ["ScheduleView", "SchedulePoint"],
    "jielong.insight.reading": ["Reading"],
    "jielong.insight.predictions": ["PredictionsView", "Prediction", "Guess"],
    "jielong.insight.layers": ["LayersView", "LensLayer", "LayerGuess"],
    "jielong.insight.attention": ["AttentionView", "Head"],
    "jielong.insight.experts": ["ExpertsView", "RoutedLayer"],
    "jielong.insight.embeddings": ["EmbeddingsView", "TokenNeighbours", "Neighbour"],
    "jielong.interop.minimind_config": ["ImportedArchitecture"],
}
USE = (
    "see-inside",
    "watch-a-run",
    "evaluate",
    "use-your-model",
    "serve",
    "ui",
    "gpu",
    "scaling",
    "ray",
)
BOTH = ("which-model", "cleaning", *USE, "from-minimind", "faq")
CHAPTERS = sorted(path.stem for path in (ROOT / "docs/guide/en").glob("[0-9]*.md"))
CONTENTS = {
    "How pretraining works": [
        f"docs/guide/en/{n}" for n in ("README", *CHAPTERS, "reading-curves")
    ],
    "How to": [f"docs/{name}" for name in BOTH],
    "Reference": ["docs/commands/README", "api/README", "docs/formats", "docs/glossary"],
    "The project": [
        *(f"docs/{name}" for name in ("architecture", "decisions", "experiments")),
        *("CONTRIBUTING", "CHANGELOG", "SECURITY", "docs/licences"),
    ],
    "中文": ["README.zh-CN", *(f"docs/{name}.zh-CN" for name in (*BOTH, "formats"))],
    "预训练教程": [f"docs/guide/zh/{n}" for n in ("README", *CHAPTERS, "reading-curves")],
}
# [text](target), with code or one more pair of brackets in the text; code alone is left as it is
LINK_OR_CODE = re.compile(
    r"(?P<head>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<target>[^)\s]+)\)|`[^`\n]*`"
)
FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2 *$", re.MULTILINE | re.DOTALL)


class Pages:
    """The Markdown that Sphinx gets, and which files of the repository it links to."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.pages = {p.relative_to(ROOT).as_posix() for p in markdown()}
        self.shown: set[str] = set()  # files that get a page of their own
        self.downloads: set[str] = set()

    def write(self) -> None:
        for page in sorted(self.pages):
            text = (ROOT / page).read_text(encoding="utf-8")
            self._put("index.md" if page == "README.md" else page, self.linked(page, text))
        self._put("index.md", contents(), append=True)
        self._put(
            "docs/commands/README.md",
            _toctree(sorted(p.stem for p in ROOT.glob("docs/commands/*.md") if p.stem != "README")),
            append=True,
        )
        for name, text in api_pages().items():
            self._put(f"api/{name}.md", text)
        for names in API.values():
            self.shown |= files_of("jielong", names)
        for module, names in (RESULTS | VIEWS).items():
            self.shown |= files_of(module, names)
        for file in sorted(self.shown):
            self._put(f"{page_of(file)}.md", source_page(file))

    def linked(self, page: str, text: str) -> str:
        """Return a page whose links to files that are no page lead to pages that show them."""
        parts, done = [], 0
        for fence in FENCE.finditer(text):
            parts += [self._with_links(page, text[done : fence.start()]), drawn(fence[0])]
            done = fence.end()
        return "".join([*parts, self._with_links(page, text[done:])])

    def _with_links(self, page: str, text: str) -> str:
        def link(found: re.Match[str]) -> str:
            target = found["target"]
            if target is None or "://" in target or target.startswith("#"):
                return found[0]
            name, _, line = target.partition("#")  # or another place
            folder = posixpath.dirname(page)
            file = posixpath.normpath(posixpath.join(folder, name))
            if file == "README.md":
                front = posixpath.relpath("index.md", folder or ".")
                return f"{found['head']}({front}{'#' + line if line else ''})"
            if file in self.pages:
                return found[0]
            if found["head"].startswith("!"):
                self._copy(file)
                return found[0]
            if file.endswith(".ipynb"):
                self.downloads.add(file)
                return f'<a href="{target}" download>{found["head"][1:-1]}</a>'
            self.shown.add(file)
            shown = posixpath.relpath(f"{page_of(file)}.html", folder or ".")
            anchor = f"#L-{line[1:].partition('-')[0]}" if line else ""  # the first of several
            return f'<a href="{shown}{anchor}">{found["head"][1:-1]}</a>'

        return LINK_OR_CODE.sub(link, text)

    def _put(self, name: str, text: str, append: bool = False) -> None:
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if append else "w", encoding="utf-8") as file:
            file.write(text)

    def _copy(self, file: str) -> None:
        (self.out / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, self.out / file)


def drawn(fence: str) -> str:
    """Return a flowchart of mermaid as a picture, any other block as it is."""
    head, _, rest = fence.partition("\n")
    if head != "```mermaid":
        return fence
    return f"~~~{{raw}} html\n{svg(rest.removesuffix('```'))}\n~~~"


def markdown() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    yield from ROOT.glob("docs/**/*.md")


def contents() -> str:
    """Return the tables of contents that make the site's sidebar."""
    return "\n" + "".join(
        _toctree([f"/{page}" for page in pages], caption) for caption, pages in CONTENTS.items()
    )


def _toctree(pages: list[str], caption: str = "") -> str:
    head = ["", "```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), ""]
    return "\n".join([*head, *pages, "```", ""])


def api_pages() -> dict[str, str]:
    """Return pages of the public functions by name, with the directives that read docstrings."""
    import jielong

    first = [
        "# Python",
        "",
        "What `import jielong` has. Losses are in nats; shapes are in brackets,",
    ]
    first += ["B rows (texts) of T tokens. Each page links to the lines that do it.", ""]
    made: dict[str, str] = {}
    for title, names in API.items():
        first += [f"## {title}", "", "| | |", "|---|---|"]
        for name in names:
            said = (getattr(jielong, name).__doc__ or "").splitlines()[0]
            first.append(f"| [`{name}`]({name}.md) | {said} |")
            kind = "class" if name[0].isupper() else "function"
            options = ":members:\n" if kind == "class" else ""
            made[name] = f"# {name}\n\n```{{eval-rst}}\n.. auto{kind}:: jielong.{name}\n"
            made[name] += f"   {options}```\n" if options else "```\n"
        first.append("")
    first += [
        "[Results and errors](results.md): what the functions return and raise.",
        "[Views](views.md): what those return that look inside, compare and measure.",
        "",
    ]
    made["results"] = classes_page("Results and errors", RESULTS, members=True)
    made["views"] = classes_page("Views", VIEWS, members=False)
    made["README"] = "\n".join(first) + _toctree([*made])
    return made


def classes_page(title: str, modules: dict[str, list[str]], members: bool) -> str:
    """Return a page of classes and exceptions, by the modules that have them."""
    lines = [f"# {title}", "", "```{eval-rst}"]
    for module, names in modules.items():
        kind = "autoexception" if module.endswith("errors") else "autoclass"
        shown = ["   :members:"] if members and kind == "autoclass" else []
        for name in names:
            lines += [f".. {kind}:: {module}.{name}", *shown, ""]
    return "\n".join([*lines, "```", ""])


def main() -> int:
    """Build the site; return 1 if Sphinx warns, a link leads nowhere or a page needs a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build/site")
    out = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    pages = Pages(out / "pages")
    pages.write()
    from sphinx.cmd.build import main as sphinx

    os.environ["LC_ALL"] = "C.UTF-8"
    words = ["-W", "--keep-going", "-q", "-b", "html", "-c", str(HERE), "-d", str(out / "doctrees")]
    status = sphinx([*words, str(out / "pages"), str(out / "html")])
    for file in pages.downloads:
        (out / "html" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, out / "html" / file)
    wrong = broken_links(out / "html") + loaded_from_elsewhere(out / "html")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    if status or wrong:
        return 1
    count = len(list((out / "html").rglob("*.html")))
    print(f"{count} pages: {out / 'html/index.html'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
