"""The parts of a report's page, in the frame that all our pages have.

Every text is escaped here, and the page's own policy forbids scripts and anything from elsewhere:
what a model, a corpus or a folder's name says is never markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from jielong.present.html import style, whole
from jielong.present.visible import visible
from jielong.reports.charts import Figure, draw

# beside that of all our pages
STYLE = """
.jl{--card:#f6f7f9;--grid:#a9b0bd;--c0:#2f6fb5;--c1:#c4561c;--c2:#1f8a5b;--c3:#8a4fb0;--c4:#9a7b00;
--c5:#b8316f;--c6:#3d8f9e;--c7:#6b6f78}
@media(prefers-color-scheme:dark){.jl{--card:#1c2029;--grid:#566072;--c0:#6fb1f2;--c1:#f0905a;
--c2:#5fd0a0;--c3:#c596ea;--c4:#e0c14f;--c5:#f07fb0;--c6:#7cd2e0;--c7:#a9adb7}}
.jl *{box-sizing:border-box}.jl h3{font-size:.95em;margin:0 0 .2em;font-weight:600}
.jl .warning{padding:.1em 0 .1em .7em;margin:.5em 0}
.jl .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5em,1fr));gap:.6em;
margin:1em 0}
.jl .tile{background:var(--card);border-radius:8px;padding:.6em .8em}
.jl .tile b{display:block;font-size:1.25em;font-weight:600}
.jl .tile span{color:var(--dim);font-size:.85em}
.jl .charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25em),1fr));gap:1em}
.jl figure{margin:0;background:var(--card);border-radius:8px;padding:.6em}
.jl figure svg{display:block;width:100%;height:auto}
.jl figcaption{font-size:.85em;color:var(--dim)}
.jl .key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .35em 0 .9em;
vertical-align:-.05em}
.jl .rows{font-size:.93em}.jl .rows th,.jl .rows td{text-align:left;vertical-align:top;
white-space:normal;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums;
overflow-wrap:anywhere}.jl .rows th{white-space:nowrap}
.jl .text{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--card);border-radius:8px;
padding:.5em .8em;margin:.3em 0;font-size:.95em}
.jl .text b{color:var(--dim);font-weight:400}
.jl details{margin:.4em 0}.jl summary{cursor:pointer;color:var(--dim)}
.jl footer{margin:2em 0 1em;color:var(--dim);font-size:.85em}
"""


def text(value: object) -> str:
    """Escape a text; a character that would act instead of being seen becomes its sign."""
    return escape(_plain(str(value)))


def _plain(words: str) -> str:
    return "".join(char if char in "\n\t" else visible(char) for char in words)


def document(title: str, body: Iterable[str], language: str) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        body: elements that the functions of this module made.
        language: en or zh.
    """
    return whole(_plain(title), fragment(body), language)


def fragment(body: Iterable[str]) -> str:
    """Return elements of this module with their style: what a notebook shows."""
    return "\n".join([f"<style>{style()}{STYLE}</style>", '<div class="jl">', *body, "</div>"])


def heading(words: str, level: int = 2) -> str:
    return f"<h{level}>{text(words)}</h{level}>"


def paragraph(words: str, kind: str = "") -> str:
    return f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """The few numbers that matter: label and value."""
    inner = "".join(
        f'<div class="tile"><span>{text(label)}</span><b>{text(value)}</b></div>'
        for label, value in pairs
    )
    return f'<div class="tiles">{inner}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows of text under headings; without headings the first of each row is one."""
    head = "".join(f"<th>{text(c)}</th>" for c in columns)
    lines = [f"<tr>{head}</tr>"] if columns else []
    for first, *rest in rows:
        cell = f"<td>{text(first)}</td>" if columns else f"<th>{text(first)}</th>"
        lines.append(f"<tr>{cell}{''.join(f'<td>{text(value)}</td>' for value in rest)}</tr>")
    return f'<div class="wide"><table class="rows">{"".join(lines)}</table></div>'


def charts(figures: Iterable[Figure]) -> str:
    """Charts side by side, each with its title and what its colours stand for."""
    return f'<div class="charts">{"".join(map(_figure, figures))}</div>'


def _figure(figure: Figure) -> str:
    legend = "".join(
        f'<span class="key" style="background:var(--c{colour % 8})"></span>{text(name)}'
        for colour, name in figure.keys
    )
    about = f"{text(figure.caption)}{legend}"
    below = f"<figcaption>{about}</figcaption>" if about else ""
    return f"<figure><h3>{text(figure.title)}</h3>{draw(figure.chart)}{below}</figure>"


def sample(prompt: str, continuation: str) -> str:
    """A prompt and how the model continued it."""
    return f'<div class="text"><b>{text(prompt)}</b>{text(continuation)}</div>'


def folded(summary: str, body: str, unfolded: bool = False) -> str:
    """A part that opens on a click."""
    state = " open" if unfolded else ""
    return f"<details{state}><summary>{text(summary)}</summary>{body}</details>"
