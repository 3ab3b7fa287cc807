"""Write a page for each command from its parser, which `--help` shows too.

    python docs/commands/make.py

A test fails when a page here is not what this script would write.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from jielong.cli.main import build_parser
from jielong.cli.options import Commands, Parser

HERE = Path(__file__).resolve().parent
MADE = "<!-- Made by docs/commands/make.py: change the help in src/jielong/cli instead. -->"
# an example and the pages that explain a command
EXAMPLES = {
    "pretrain": "jielong pretrain --data-path corpus.jsonl --minutes 10 --out-dir runs/mine",
    "plan": "jielong plan --preset base --data-path corpus.jsonl --gpu h100",
    "clean": "jielong clean --data-path corpus.jsonl --out-dir cleaned",
    "tokenizer": "jielong tokenizer --data-path corpus.jsonl --vocab-size 6400 --out-dir tokenizer",
    "prepare": "jielong prepare --data-path corpus.jsonl --tokenizer tokenizer --out-dir dataset",
    "generate": 'jielong generate runs/mine --prompt "Once upon a time" --temperature 0.8',
    "serve": "jielong serve runs/mine --port 8000",
    "ui": "jielong ui runs/mine",
    "evaluate": "jielong evaluate runs/mine --data-path other.txt",
    "inspect": 'jielong inspect predict runs/mine "Once upon a time"',
    "report": "jielong report runs/mine runs/other",
    "runs": "jielong runs runs",
    "import": "jielong import pretrain_512.pth --tokenizer model --out-dir imported",
    "export": "jielong export runs/mine --format gguf --out-dir exported",
}
EXPLAINED = {
    "pretrain": ["watch-a-run", "from-minimind", "gpu", "ray"],
    "plan": ["see-inside"],
    "clean": ["cleaning", "ray"],
    "tokenizer": ["guide/en/02-tokens", "ray"],
    "prepare": ["guide/en/01-text", "formats", "ray"],
    "generate": ["guide/en/15-sampling", "use-your-model"],
    "serve": ["serve"],
    "ui": ["ui"],
    "evaluate": ["evaluate"],
    "inspect": ["see-inside"],
    "report": ["watch-a-run"],
    "runs": ["watch-a-run"],
    "import": ["from-minimind"],
    "export": ["use-your-model"],
}


def pages() -> dict[str, str]:
    """Return the text of each page by file name."""
    commands = _commands(build_parser())
    assert commands is not None
    summaries = {action.dest: action.help or "" for action in commands._choices_actions}
    made = {
        f"{name}.md": _page(name, parser, summaries[name])
        for name, parser in commands.choices.items()
    }
    rows = [f"| [`jielong {n}`]({n}.md) | {_cell(summaries[n])} |" for n in commands.choices]
    made["README.md"] = "\n".join(
        [
            "# Commands",
            MADE,
            "",
            "A page for each command, with every flag. `jielong COMMAND --help` prints the same.",
            "In a flag's name `-` and `_` are alike. Settings of `jielong pretrain` are fields",
            "of a TOML file too (`--config FILE`).",
            "",
            "| command | what it does |",
            "|---|---|",
            *rows,
            "",
        ]
    )
    return made


def _commands(parser: Parser) -> Commands[Parser] | None:
    return next((a for a in parser._actions if isinstance(a, Commands)), None)


def _page(name: str, parser: Parser, summary: str) -> str:
    lines = [f"# jielong {name}", MADE, "", f"{_sentence(summary)}", ""]
    below = _commands(parser)
    if below is None:
        lines += _flags(parser, "##")
    else:
        help_of = {action.dest: action.help or "" for action in below._choices_actions}
        for sub, its_parser in below.choices.items():
            lines += [f"## jielong {name} {sub}", "", _sentence(help_of[sub]), ""]
            lines += _flags(its_parser, "###")
    lines += ["## Example", "", "```bash", EXAMPLES[name], "```", ""]
    links = [f"[{_title(page)}](../{page}.md)" for page in EXPLAINED[name]]
    return "\n".join([*lines, f"Explained in {', '.join(links)}.", ""])


def _title(page: str) -> str:
    first = (HERE.parent / f"{page}.md").read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _flags(parser: Parser, level: str) -> list[str]:
    """Return the usage and a table for each group of flags."""
    positional = [_values(a) for a in parser._get_positional_actions()]
    required = [_name(a) for a in parser._get_optional_actions() if a.required]
    usage = parser.usage or " ".join([parser.prog, *required, "[flags]", *positional])
    lines = ["```text", usage, "```", ""]
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if a.help != argparse.SUPPRESS]
        if not actions:
            continue
        title = "arguments" if group.title == "positional arguments" else str(group.title)
        lines += [f"{level} {title.capitalize()}", ""]
        lines += ["| | |", "|---|---|"]
        lines += [f"| `{_cell(_name(a))}` | {_cell(_help(parser, a))} |" for a in actions]
        lines.append("")
    return lines


def _name(action: argparse.Action) -> str:
    """Return how an argument is given: its flags and what stands after them."""
    if not action.option_strings:
        return _values(action)
    return " ".join(filter(None, [", ".join(action.option_strings), _values(action)]))


def _values(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    given = action.metavar or action.dest.upper()
    word = str(given if isinstance(given, str) else given[0])
    return {"?": f"[{word}]", "+": f"{word} …", "*": f"[{word} …]"}.get(str(action.nargs), word)


def _help(parser: Parser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    for file, text in pages().items():
        (HERE / file).write_text(text, encoding="utf-8")
