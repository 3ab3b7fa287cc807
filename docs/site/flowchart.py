"""Draws the flowcharts of the pages when the site is built, so that it needs no script for them.

GitHub draws mermaid's blocks itself. Here those that are a chain become SVG within the page: nodes
from left to right in rows, edges to the next node, and back within a row or to the one above.
Anything else of mermaid's language is an error, not left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from unicodedata import east_asian_width

NODE = re.compile(r'(?P<name>\w+)(?:\["(?P<quoted>[^"]*)"\]|\[(?P<plain>[^\]"]*)\])?')
EDGE = re.compile(r"\s*(?P<arrow>-->|-\.->)(?:\|(?P<label>[^|]*)\|)?\s*")
WIDTH = 700  # of a row, in pixels; furo's text is 46em wide
LINE, PADDING, LEAST_GAP, UNDER = 17, 11, 34, 15
STYLE = """\
.flowchart { --line: var(--color-foreground-secondary, #666) }
.flowchart text { font-size: 13px; text-anchor: middle }
.flowchart text { fill: var(--color-foreground-primary, #333) }
.flowchart .label { font-size: 12px; fill: var(--line) }
.flowchart rect { fill: var(--color-background-secondary, #f5f5f5) }
.flowchart rect { stroke: var(--color-brand-primary, #37c) }
.flowchart path { fill: none; stroke: var(--line); stroke-width: 1.4 }
.flowchart .head { fill: var(--line); stroke: none }"""


@dataclass
class Node:
    """A box: its lines of text, and where it stands, in pixels."""

    lines: list[str]
    x: float = 0  # of the centre
    y: float = 0
    row: int = 0
    place: int = 0  # within the row

    @property
    def width(self) -> float:
        return max(map(text_width, self.lines)) + 2 * PADDING

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + 2 * PADDING - 6

    @property
    def top(self) -> float:
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True)
class Edge:
    """An arrow between two nodes, by their names."""

    start: str
    end: str
    label: str
    dashed: bool


def text_width(text: str) -> float:
    """Return about how wide a text is in pixels: a Chinese character as two of the others."""
    return sum(13 if east_asian_width(c) in "WF" else 7 for c in text)


def parse(source: str) -> tuple[dict[str, Node], list[Edge]]:
    """Return the nodes and edges of a flowchart, in their order.

    Raises:
        ValueError: a line is none that is drawn here.
    """
    first, *lines = source.strip().splitlines()
    if first.strip() != "flowchart LR":
        raise ValueError(f"a diagram that is not drawn: {first.strip()!r}; known: 'flowchart LR'")
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    for line in lines:
        text, at, before = line.strip(), 0, None
        while node := NODE.match(text, at):
            name, shown = node["name"], node["quoted"] or node["plain"]
            if name not in nodes or shown:
                nodes[name] = Node((shown or name).split("\\n"))
            if before:
                start, edge = before
                edges.append(Edge(start, name, edge["label"] or "", edge["arrow"] == "-.->"))
            at, before = node.end(), None
            if edge := EDGE.match(text, at):
                at, before = edge.end(), (name, edge)
        if at != len(text) or before:
            raise ValueError(f"a line of a flowchart that is not drawn: {text!r}")
    return nodes, edges


def rows_of(nodes: dict[str, Node], edges: list[Edge], width: float) -> list[list[str]]:
    """Give the nodes their rows and places across; return the names in each row."""
    labels = {(edge.start, edge.end): edge.label for edge in edges}
    rows: list[list[str]] = [[]]
    right, before = 0.0, ""
    for name, node in nodes.items():
        gap = max(LEAST_GAP, text_width(labels.get((before, name), "")) + 22) if before else 0
        if before and right + gap + node.width > width:
            rows.append([])
            right, gap = 0, 0
        node.row, node.place = len(rows) - 1, len(rows[-1])
        node.x = right + gap + node.width / 2
        right, before = right + gap + node.width, name
        rows[-1].append(name)
    return rows


def arrange(nodes: dict[str, Node], edges: list[Edge]) -> float:
    """Give the nodes their places, in as few rows as fit; return the height of all."""
    fewest = len(rows_of(nodes, edges, WIDTH))
    widths = range(200, WIDTH + 1, 10)  # the least of them makes rows of about one length
    fitting = next(w for w in widths if len(rows_of(nodes, edges, w)) == fewest)
    top = 1.0
    for row in rows_of(nodes, edges, fitting):
        height = max(nodes[name].height for name in row)
        for name in row:
            nodes[name].y = top + height / 2
        top += height + 3.4 * UNDER
    return top - 1.8 * UNDER


def path_of(edge: Edge, nodes: dict[str, Node]) -> tuple[str, float, float]:
    """Return an edge's path, and where its label stands.

    Raises:
        ValueError: it leads neither to the next node nor back to the row above.
    """
    a, b = nodes[edge.start], nodes[edge.end]
    beside = [node for node in nodes.values() if node.row == a.row]
    under = max(node.bottom for node in beside)
    if (b.row, b.place) == (a.row, a.place + 1):
        left, right = a.x + a.width / 2, b.x - b.width / 2
        return f"M{left:.1f},{a.y:.1f}H{right - 7:.1f}", (left + right) / 2 - 2, a.y - 6
    if b.row == a.row and b.place < a.place:
        x, y = a.x - 14, under + UNDER
        return f"M{x:.1f},{a.bottom:.1f}V{y:.1f}H{b.x:.1f}V{b.bottom + 7:.1f}", (x + b.x) / 2, y - 5
    if (b.row, b.place) == (a.row + 1, 0) and a is beside[-1]:
        y = under + 1.7 * UNDER
        return (
            f"M{a.x:.1f},{a.bottom:.1f}V{y:.1f}H{b.x:.1f}V{b.top - 7:.1f}",
            (a.x + b.x) / 2,
            y - 5,
        )
    if b.row == a.row - 1:
        above = max(node.bottom for node in nodes.values() if node.row == b.row)
        start, end, y = a.x + 14, b.x + 14, above + 2.4 * UNDER  # beside the edges that lead on
        path = f"M{start:.1f},{a.top:.1f}V{y:.1f}H{end:.1f}V{b.bottom + 7:.1f}"
        return path, (start + end) / 2, y - 5
    raise ValueError(f"an edge that is not drawn: {edge.start} to {edge.end}")


def svg(source: str) -> str:
    """Return the picture of a flowchart in mermaid's language.

    Raises:
        ValueError: something in it is not drawn here.
    """
    nodes, edges = parse(source)
    height = arrange(nodes, edges)
    right = max(node.x + node.width / 2 for node in nodes.values())
    spoken = escape(" → ".join(" ".join(node.lines) for node in nodes.values()))
    out = [
        f'<svg class="flowchart" role="img" viewBox="-1 0 {right + 2:.0f} {height:.0f}" '
        f'style="max-width: {right + 2:.0f}px; width: 100%" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{spoken}</title><style>{STYLE}</style>",
        '<marker id="flowchart-head" orient="auto" markerUnits="userSpaceOnUse" viewBox="0 0 8 8" '
        'refX="1" refY="4" markerWidth="8" markerHeight="8">'
        '<path class="head" d="M0,0L8,4L0,8z"/></marker>',
    ]
    for edge in edges:
        path, x, y = path_of(edge, nodes)
        dashes = ' stroke-dasharray="5 4"' if edge.dashed else ""
        out.append(f'<path d="{path}"{dashes} marker-end="url(#flowchart-head)"/>')
        if edge.label:
            out.append(f'<text class="label" x="{x:.1f}" y="{y:.1f}">{escape(edge.label)}</text>')
    for node in nodes.values():
        out.append(
            f'<rect x="{node.x - node.width / 2:.1f}" y="{node.top:.1f}" width="{node.width:.1f}" '
            f'height="{node.height:.1f}" rx="5"/>'
        )
        first = node.y + 4.5 - LINE * (len(node.lines) - 1) / 2
        for number, line in enumerate(node.lines):
            at = first + LINE * number
            out.append(f'<text x="{node.x:.1f}" y="{at:.1f}">{escape(line)}</text>')
    return "\n".join([*out, "</svg>"])
