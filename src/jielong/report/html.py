"""The parts of a page: one file that needs no network, for light and dark screens and phones.

Every text is escaped here, and the page's own policy forbids scripts and anything from elsewhere:
what a model, a corpus or a folder's name says is never markup.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
:root{--paper:#fff;--card:#f6f7f9;--ink:#1d2330;--dim:#5d6677;--grid:#a9b0bd;--line:#dfe3ea;
--good:#1a7f4b;--warn:#b35c00;--c0:#2f6fb5;--c1:#c4561c;--c2:#1f8a5b;--c3:#8a4fb0;--c4:#9a7b00;
--c5:#b8316f;--c6:#3d8f9e;--c7:#6b6f78}
@media(prefers-color-scheme:dark){:root{--paper:#14171d;--card:#1c2029;--ink:#e6e9ef;--dim:#9aa4b5;
--grid:#566072;--line:#2e3542;--good:#5fd39b;--warn:#f0a657;--c0:#6fb1f2;--c1:#f0905a;--c2:#5fd0a0;
--c3:#c596ea;--c4:#e0c14f;--c5:#f07fb0;--c6:#7cd2e0;--c7:#a9adb7}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,"Noto Sans CJK SC","PingFang SC","Microsoft YaHei",sans-serif}
main{max-width:75em;margin:0 auto;padding:1em}
h1{font-size:1.4em;margin:.2em 0}h2{font-size:1.1em;margin:1.6em 0 .5em}
h3{font-size:.95em;margin:0 0 .2em;font-weight:600}
p{margin:.3em 0}.dim{color:var(--dim)}.good{color:var(--good)}
.warn{border-left:4px solid var(--warn);padding:.1em 0 .1em .7em;margin:.5em 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5em,1fr));gap:.6em;margin:1em 0}
.tile{background:var(--card);border-radius:8px;padding:.6em .8em}
.tile b{display:block;font-size:1.25em;font-weight:600}.tile span{color:var(--dim);font-size:.85em}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25em),1fr));gap:1em}
figure{margin:0;background:var(--card);border-radius:8px;padding:.6em}
figure svg{display:block;width:100%;height:auto}
figcaption{font-size:.85em;color:var(--dim)}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .35em 0 .9em;
vertical-align:-.05em}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.93em}
th,td{padding:.2em 1.1em .2em 0;text-align:left;vertical-align:top;border-bottom:1px solid
var(--line);font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
th{color:var(--dim);font-weight:400;white-space:nowrap}
.text{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--card);border-radius:8px;
padding:.5em .8em;margin:.3em 0;font-size:.95em}
.text b{color:var(--dim);font-weight:400}
details{margin:.4em 0}summary{cursor:pointer;color:var(--dim)}
footer{margin:2em 0 1em;color:var(--dim);font-size:.85em}
"""


def text(value: object) -> str:
    """Escape a text; a character that would act instead of being seen becomes its code."""
    plain = str(value)
    if not plain.isprintable():
        plain = "".join(map(_visible, plain))
    return escape(plain)


def _visible(char: str) -> str:
    acts = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return f"<U+{ord(char):04X}>" if acts and char not in "\n\t" else char


def document(title: str, body: Iterable[str], language: str) -> str:
    """Return a whole page.

    Args:
        title: plain text.
        body: elements that the functions of this module made.
        language: en or zh.
    """
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="{language}"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{text(title)}</title><style>{STYLE}</style></head><body><main>",
            *body,
            "</main></body></html>\n",
        ]
    )


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
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def figure(title: str, svg: str, caption: str = "", keys: Sequence[tuple[int, str]] = ()) -> str:
    """A chart with its title; `keys` name its colours."""
    legend = "".join(
        f'<span class="key" style="background:var(--c{colour % 8})"></span>{text(name)}'
        for colour, name in keys
    )
    about = f"<figcaption>{text(caption)}{legend}</figcaption>" if caption or legend else ""
    return f"<figure><h3>{text(title)}</h3>{svg}{about}</figure>"


def charts(figures: Iterable[str]) -> str:
    return f'<div class="charts">{"".join(figures)}</div>'


def sample(prompt: str, continuation: str) -> str:
    """A prompt and how the model continued it."""
    return f'<div class="text"><b>{text(prompt)}</b>{text(continuation)}</div>'


def folded(summary: str, body: str, unfolded: bool = False) -> str:
    """A part that opens on a click."""
    state = " open" if unfolded else ""
    return f"<details{state}><summary>{text(summary)}</summary>{body}</details>"
