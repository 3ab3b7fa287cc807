"""Rows 20 to 28 for HTML, EPUB, DOCX, PDF and web archives (tests/faults/README.md)."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from document_samples import PICTURE, docx_of, epub_of, paragraph, pdf_of, xhtml
from jielong.config.load import load_config
from jielong.data.prepare.prepare import prepare
from jielong.data.sources.documents import BadLine, Document, expand_sources, read_documents
from jielong.errors import DataError
from jielong.tokenization.tokenizer import Tokenizer
from tiny import TEXTS, environment

pytest.importorskip("resiliparse")
pytest.importorskip("mammoth")
pytest.importorskip("pypdfium2")

ODD = ["&#0;a", "&#xD800;a", "&#xDC00;&#x10FFFF;a", "&#x1F600;a", "a\x00b", "a\ufeffb"]
PREPARE = """
import resource, sys
from jielong.config.load import load_config
from jielong.data.prepare.prepare import prepare
from jielong.tokenization.tokenizer import Tokenizer
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
tokenizer = Tokenizer.load(sys.argv[2])
before = peak()
report = prepare(load_config(data_path=(sys.argv[1],), allow_loss=True), tokenizer, sys.argv[3])
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
print(report.documents, report.bad_lines, peak() - before, children)
"""


def command(*words: Path) -> list[str]:
    return [sys.executable, "-c", PREPARE, *map(str, words)]


@pytest.mark.parametrize("odd", ODD)
def test_21_odd_characters_of_documents_become_valid_text(odd: str, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(f"<p>before {odd} after".encode())
    (tmp_path / "b.epub").write_bytes(epub_of({"1.xhtml": xhtml(f"before {odd} after")}))
    items = list(read_documents(expand_sources([str(tmp_path)]), "text"))
    texts = [item.text for item in items if isinstance(item, Document)]
    assert len(texts) == 2
    for text in texts:
        assert text.startswith("before") and text.endswith("after") and "\0" not in text
        assert text.encode().decode() == text


def test_21_a_docx_whose_characters_xml_does_not_have_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(docx_of(paragraph("a\x00b")))
    (tmp_path / "b.txt").write_text("sound")
    bad, document = read_documents(expand_sources([str(tmp_path)]), "text")
    assert isinstance(document, Document) and isinstance(bad, BadLine)
    assert "not well-formed" in bad.reason and bad.size == (tmp_path / "a.docx").stat().st_size


def test_22_empty_documents_are_no_loss_and_nothing_else_is_an_error(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.html").write_text("<title>T</title><script>x()</script>")
    (texts / "b.docx").write_bytes(docx_of("<w:p/>"))
    (texts / "c.epub").write_bytes(epub_of({"1.xhtml": xhtml("")}))
    config = load_config(data_path=(str(texts),))
    with pytest.raises(DataError, match="no usable text"):
        prepare(config, tokenizer, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    (texts / "d.pdf").write_bytes(pdf_of(TEXTS))
    report = prepare(config, tokenizer, tmp_path / "data")
    assert report.bad_lines == 3 and report.left_out["data"].lost_bytes == 0


def test_23_bombs_take_bounded_memory_and_cost_themselves(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.html.gz").write_bytes(gzip.compress(b"<i>" * 20_000_000, 1))  # 3 GB as a tree
    (texts / "b.html").write_text("<p>" + "sound " * 200)
    (texts / "c.epub").write_bytes(epub_of({"1.xhtml": bytes(2**27 + 1), "2.xhtml": xhtml("Two")}))
    done = subprocess.run(
        command(texts, tokenizer_dir, tmp_path / "data"),
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    documents, bad, grown_mib, children_mib = map(int, done.stdout.split())
    assert (documents, bad) == (2, 2)
    assert grown_mib < 300 and children_mib < 2100
    rows = list(map(json.loads, (tmp_path / "data" / "bad-lines.jsonl").open()))
    assert "takes too much memory" in rows[0]["reason"]
    assert "decompression bomb" in rows[1]["reason"]


def test_28_killed_while_documents_are_read_it_leaves_nothing_and_reruns_to_the_same_bytes(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(60):
        (texts / f"{number}.pdf").write_bytes(pdf_of([TEXTS[number], PICTURE]))
        (texts / f"{number}.html").write_text(f"<h1>{number}</h1><p>{TEXTS[number]}")
    made = []
    for name, kill_after_s in (("whole", None), ("killed", 1.5), ("again", None)):
        out = tmp_path / ("killed" if name == "again" else name)
        run = subprocess.Popen(
            command(texts, tokenizer_dir, out), env=environment(), stdout=subprocess.DEVNULL
        )
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            run.send_signal(signal.SIGKILL)
        assert run.wait(timeout=300) in (0, -signal.SIGKILL)
        if kill_after_s is None:
            made.append({path.name: path.read_bytes() for path in out.glob("*.bin")})
    assert made[0] and made[0] == made[1]
