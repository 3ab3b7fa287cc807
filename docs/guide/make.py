"""Fill the guide's chapters with what their commands and code really print and draw.

A chapter is written by hand, with marks where something is inserted:

    <!-- run: jielong inspect schedule runs/guide -->       what the command prints
    <!-- run keep=1-6: jielong plan … -->                   those of its lines alone
    <!-- run fails: jielong prepare … -->                   a command that must end with an error
    <!-- run resumes: jielong pretrain … -->                a run that goes on; others are run once
    <!-- output -->                                         what the Python block above prints
    <!-- figure: learning_rate -->                          the picture of that name in figures.py

    68<!-- = README.md: perplexity ([\\d.]+) -->            a number of the prose that was printed

Below a mark the script writes a fenced block in place of the last one. A number of the prose is
what its pattern finds in the blocks of the same page in English, or of the one that it names,
rounded as it was.
A command with `--png NAME.png` writes a picture, and so do figures: into `pictures/`, for Chinese
pages as `NAME.zh-CN.png`. Links to lines of the source and its quotations are those of
source_lines.py.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from source_lines import with_lines  # noqa: E402

LANGUAGES = {"en": "en_GB.UTF-8", "zh": "zh_CN.UTF-8"}
COLUMNS = "92"
MOST_BYTES = 100_000  # of a picture
MARK = re.compile(
    r"^<!-- (?P<kind>run|output|figure)(?P<options>[^:>\n]*?)(?:: (?P<what>[^\n]*?))? -->\n"
    r"(?:```(?:console|text)\n.*?^```\n)?",
    re.MULTILINE | re.DOTALL,
)
VALUE = re.compile(r"(?P<shown>\d[\d.,]*)<!-- = (?:(?P<page>[\w./-]+\.md): )?(?P<pattern>.+?) -->")
BLOCK = re.compile(r"^```(?:console|text)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def chapters(language: str) -> list[Path]:
    """Return the chapters of a language, in their order."""
    folder = HERE / language
    return [*folder.glob("README.md"), *sorted(folder.glob("[0-9]*.md"))]


def with_values(text: str, path: Path) -> str:
    """Give each number of the prose that names its origin the value that is printed there now.

    Raises:
        LookupError: a pattern finds nothing.
    """

    def value(found: re.Match[str]) -> str:
        page = (path.parents[1] / "en" / (found["page"] or path.name)).resolve()
        source = page.read_text(encoding="utf-8")
        if page.is_relative_to(HERE):  # what was printed there, not the prose
            source = "".join(BLOCK.findall(source))
        there = re.search(found["pattern"], source, re.DOTALL)
        if there is None:
            raise LookupError(f"{path}: nothing printed matches {found['pattern']}")
        number, shown = float(there[1].replace(",", "")), found["shown"]
        decimals = len(shown.partition(".")[2])
        return f"{number:{',' if ',' in shown else ''}.{decimals}f}" + found[0][len(shown) :]

    return VALUE.sub(value, text)


class Chapter:
    """A chapter while it is filled: its language and the names that its Python code has made."""

    def __init__(self, path: Path, work: Path) -> None:
        self.path, self.work, self.language = path, work, path.parent.name
        self.names: dict[str, Any] = {}
        self.printed = ""  # by the latest Python block

    def filled(self) -> str:
        text, done, result = self.path.read_text(encoding="utf-8"), 0, []
        for mark in MARK.finditer(text):
            before = text[done : mark.start()]
            result.append(before)
            for code in PYTHON.findall(before):
                self.printed = self.execute(code)
            head = mark[0].split("\n", 1)[0]
            made = self.make(mark["kind"], mark["options"].split(), mark["what"])
            result.append(f"{head}\n{made}")
            done = mark.end()
        return with_lines("".join([*result, text[done:]]))

    def make(self, kind: str, options: list[str], what: str | None) -> str:
        """Return the block below a mark."""
        if kind == "figure":
            assert what is not None
            self.draw(what)
            return ""
        if kind == "output":
            return f"```text\n{self.printed}\n```\n"
        assert what is not None
        said = kept(self.run(what, options), options)
        return "```console\n$ " + "\n".join([what, *([said] if said else [])]) + "\n```\n"

    def run(self, command: str, options: list[str]) -> str:
        """Run a command in the work folder; return what it says.

        Training is done once, unless it `resumes`: in Chinese it says the same.
        """
        key = hashlib.sha256(command.encode()).hexdigest()[:16]
        memory = self.work / "said" / f"{key}.txt"
        once = " pretrain " in command and "resumes" not in options
        if once and memory.exists():
            said = memory.read_text(encoding="utf-8")
            return said if self.language == "en" else said_in_chinese(said)
        from jielong.present.plotting import NO_CHINESE_FONT

        print(f"  $ {command}", flush=True)
        status, said = run_command(shlex.split(command), self.work)
        if (status != 0) != ("fails" in options):
            raise SystemExit(f"{self.path.name}: {command}: status {status}\n{said}")
        for name in re.findall(r"--png (\S+)", command):
            if NO_CHINESE_FONT in said:
                raise SystemExit(f"{self.path.name}: {command}\n{said}")
            self.save_picture(Path(name).stem, (self.work / name).read_bytes())
            said = ""
        if once:
            memory.parent.mkdir(exist_ok=True)
            memory.write_text(said, encoding="utf-8")
        return said

    def execute(self, code: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, self.path.name, "exec"), self.names)
        return tidy(out.getvalue())

    def draw(self, name: str) -> None:
        import figures

        print(f"  figure {name}", flush=True)
        self.save_picture(name, getattr(figures, name)(self.work, self.language))

    def save_picture(self, name: str, data: bytes) -> None:
        suffix = ".zh-CN" if self.language == "zh" else ""
        (HERE / "pictures" / f"{name}{suffix}.png").write_bytes(small_png(data))


def run_command(words: list[str], work: Path) -> tuple[int, str]:
    """Run `jielong …` here, anything else as a process; return its status and what it said."""
    if words[0] == "jielong":
        from jielong.cli.main import main

        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            status = main(words[1:])
        return status, tidy(out.getvalue())
    if words[0] == "torchrun":
        words = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
    done = subprocess.run(words, cwd=work, capture_output=True, text=True, check=False)
    return done.returncode, tidy(done.stdout + (done.stderr if done.returncode else ""))


def said_in_chinese(said: str) -> str:
    """Return what training printed, with the sentences that it has where the locale is Chinese."""
    from rich.cells import cell_len

    from jielong.observe.chinese import CHINESE as PRINTED
    from jielong.present.chinese import CHINESE
    from jielong.present.finished import in_chinese

    def plain(form: str) -> str:  # a finished number has its digits
        return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", form)

    words = {plain(form): plain(chinese) for form, chinese in CHINESE.items()}

    def line_in_chinese(line: str) -> str:
        if (sentence := in_chinese(line, PRINTED)) != line:
            return sentence
        row = re.fullmatch(r"(?=\S)(.{11}) (\S.*)", line)
        if row and (label := words.get(row[1].rstrip())):
            value, more, rest = row[2].partition(" (")  # which may be a remark in brackets
            said = in_chinese(row[2], words)
            said = value + in_chinese(more + rest, words) if said == row[2] else said
            return f"{label}{' ' * (12 - cell_len(label))}{said}"
        if step := re.fullmatch(r"(  jielong .*? {2,})(\S.*)", line):
            return step[1] + in_chinese(step[2], words)
        return in_chinese(line, words)

    return "\n".join(map(line_in_chinese, said.splitlines()))


def tidy(said: str) -> str:
    """Without spaces at the ends of lines and without the home folder."""
    said = said.replace(str(Path.home()), "~")
    return "\n".join(line.rstrip() for line in said.strip("\n").splitlines())


def kept(said: str, options: list[str]) -> str:
    """Return the lines that `keep=3-8,12-14` names, with … for what lies between; else all."""
    ranges = [o.removeprefix("keep=") for o in options if o.startswith("keep=")]
    if not ranges or not said:
        return said
    lines, result, end = said.splitlines(), [], 0
    for part in ranges[0].split(","):
        found = re.fullmatch(r"(-?\d+)(?:-(-?\d+))?", part)
        assert found, part
        start, stop = int(found[1]), int(found[2] or found[1])
        start, stop = (n if n > 0 else len(lines) + 1 + n for n in (start, stop))
        result += (["…"] if start > end + 1 else []) + lines[start - 1 : stop]
        end = stop
    return "\n".join(result + (["…"] if end < len(lines) else []))


def small_png(data: bytes) -> bytes:
    """Return a picture with at most 64 colours, which takes a third of the space."""
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB")
    for colours in (64, 32, 16):
        out = io.BytesIO()
        image.quantize(colours).save(out, format="PNG", optimize=True)
        if out.tell() <= MOST_BYTES:
            return out.getvalue()
    raise SystemExit(f"a picture has {out.tell()} bytes, more than {MOST_BYTES}")


def fill(language: str, only: list[str], work: Path) -> None:
    os.environ |= {"LC_ALL": LANGUAGES[language], "COLUMNS": COLUMNS, "NO_COLOR": "1"}
    os.environ.pop("LANGUAGE", None)
    for made in ("datasets", "exported"):  # of what chapters make anew
        shutil.rmtree(work / made, ignore_errors=True)
    for path in chapters(language):
        if only and not any(path.name.startswith(number) for number in only):
            continue
        print(f"{language}/{path.name}", flush=True)
        text = Chapter(path, work).filled()
        path.write_text(text, encoding="utf-8")
    for path in chapters(language):  # whose numbers may come from later ones
        path.write_text(with_values(path.read_text(encoding="utf-8"), path), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", metavar="DIR", help="keep the runs there, and use those there")
    parser.add_argument("--lines", action="store_true", help="only the line numbers of links")
    parser.add_argument("--only", nargs="*", default=[], help="numbers of chapters: 01 07")
    arguments = parser.parse_args()
    if arguments.lines:
        for path in HERE.glob("*/*.md"):
            text = path.read_text(encoding="utf-8")
            path.write_text(with_lines(text), encoding="utf-8")
        return
    import torch

    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        folder = arguments.work or stack.enter_context(tempfile.TemporaryDirectory())
        work = Path(folder).resolve()
        work.mkdir(parents=True, exist_ok=True)
        stack.enter_context(contextlib.chdir(work))
        for language in (name for name in LANGUAGES if chapters(name)):
            fill(language, arguments.only, work)


if __name__ == "__main__":
    main()
