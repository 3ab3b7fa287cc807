"""Feeds damaged and random input to every reader; only our own errors may come out.

    python tests/faults/fuzz.py --minutes 10 [--seed N]

What is found is printed with its seed, which makes it again.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import gzip
import io
import itertools
import json
import lzma
import os
import random
import shutil
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import zstandard

from document_samples import PICTURE, docx_of, epub_of, paragraph, pdf_of, xhtml
from jielong.checkpoint import checkpoint as ckpt
from jielong.config.load import load_config
from jielong.data.prepare.prepare import prepare
from jielong.data.shards import fingerprint_of, open_dataset
from jielong.data.sources.document_files import is_installed
from jielong.data.sources.documents import expand_sources, read_documents
from jielong.data.sources.file_kinds import DOCUMENTS
from jielong.data.sources.row_text import RowText
from jielong.errors import JielongError
from jielong.interop.minimind import export_minimind, import_minimind
from jielong.tokenization.chat import Chat
from jielong.tokenization.tokenizer import Tokenizer, train_tokenizer
from tiny import TEXTS, tiny_model

torch.set_num_threads(1)
ODD = [
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"NaN", b"-1", b"0", b"1e999",
    b"9" * 40, b"[" * 20_000, b'{"a":' * 20_000, b"null", b"true", b'""', b"[]", b"{}", b"../x",
    b'"\\ud800"', b"\n", b"\r\n", b"'", b'"', b"\\", b"PK\x03\x04", b"PAR1", b"\x1f\x8b",
    b"(\xb5/\xfd", b"\x80\x02",
]  # fmt: skip
CHAT = [{"role": "user", "content": "Why?"}, {"from": "gpt", "value": "Because."}]
Reader = Callable[[Path], object]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four changes, such as disks, people and enemies make."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice([1, 1, 2, 8, 64, 1024]))
        kind = rng.randrange(6)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            del out[at:end]
        elif kind == 3:
            out[at:at] = rng.choice(ODD)
        elif kind == 4:
            out[at:end] = rng.choice(ODD)
        else:
            out[at:end] = rng.randbytes(end - at)
    return bytes(out)


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """JSON in which one value, somewhere, is another: well-formed, and wrong."""
    root = json.loads(data)
    places = []

    def walk(node: object) -> None:
        children = list(node.items()) if isinstance(node, dict) else []
        children = list(enumerate(node)) if isinstance(node, list) else children
        for key, child in children:
            places.append((node, key))
            walk(child)

    walk(root)
    if not places:
        return damaged(data, rng)
    node, key = rng.choice(places)
    if rng.random() < 0.2:
        del node[key]
    else:
        values = [None, True, 0, -1, 3.5, 1e300, 2**31, 2**70, "", "../x", "NaN", [], {}, [[]]]
        node[key] = rng.choice(values)
    return json.dumps(root).encode()


def documents() -> dict[str, bytes]:
    """HTML, EPUB, DOCX and PDF, where what reads them is installed; parts are not compressed."""
    if not all(map(is_installed, DOCUMENTS)):
        return {}
    body = "".join(f"<h2>{n}</h2><p>{text}</p>" for n, text in enumerate(TEXTS[:9]))
    chapters = {f"{n}.xhtml": xhtml(body) for n in range(3)}
    return {
        "a.html": f'<meta charset="gb2312"><title>t</title>{body}'.encode(),
        "a.epub": stored(epub_of(chapters)),
        "a.docx": stored(docx_of("".join(map(paragraph, TEXTS)))),
        "a.pdf": pdf_of([*TEXTS[:9], PICTURE]),
        "a.warc": web_archive(),
    }


def web_archive() -> bytes:
    body = gzip.compress(b"<p>" + TEXTS[9].encode())
    pages = [b"<p>" + TEXTS[0].encode(), b"5\r\n<p>On\r\n1\r\ne\r\n0\r\n\r\n", body]
    fields = [b"", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n"]
    out = b""
    for page, field in zip(pages, fields, strict=True):
        block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + field + b"\r\n" + page
        head = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n" % len(block)
        out += head + block + b"\r\n\r\n"
    return out


def stored(data: bytes) -> bytes:
    """A zip whose parts are stored as they are, so that changes reach what is in them."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    return out.getvalue()


class Targets:
    """Sound inputs of every kind, and who reads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer = train_tokenizer(TEXTS, 288, 2**20)
        self.tokenizer.save(folder / "tokenizer")
        jsonl = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
        texts = folder / "texts"
        texts.mkdir()
        for name, data in {
            "a.jsonl": jsonl,
            "a.txt": "\n\n".join(TEXTS).encode(),
            "a.csv": "\n".join(["id,text", *(f'1,"{text}"' for text in TEXTS)]).encode(),
            "a.tsv": "\n".join(["id\ttext", *(f"1\t{text}" for text in TEXTS)]).encode("utf-16"),
            "b.txt": "\n\n".join(f"第{n}章 春天来了，我们去公园散步。" for n in range(200)).encode(
                "gbk"
            ),
            "a.jsonl.gz": gzip.compress(jsonl),
            "a.jsonl.zst": zstandard.compress(jsonl),
            "a.jsonl.xz": lzma.compress(jsonl),
            "a.jsonl.bz2": bz2.compress(jsonl),
            "a.json": json.dumps([{"messages": CHAT, "body": {"text": t}} for t in TEXTS]).encode(),
        }.items():
            (texts / name).write_bytes(data)
        for name, data in documents().items():
            (texts / name).write_bytes(data)
        with zipfile.ZipFile(texts / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("a.jsonl", "a.txt", "a.csv", "a.jsonl.xz"):
                archive.write(texts / name, name)
        for form in ("", ".gz"):
            with tarfile.open(texts / f"a.tar{form}", f"w:{form[1:]}") as tar:
                for name in ("a.jsonl", "a.txt", "a.csv", "a.jsonl.xz"):
                    tar.add(texts / name, name)
        pq.write_table(pa.table({"text": TEXTS, "id": range(len(TEXTS))}), texts / "a.parquet")
        pq.write_table(pa.table({"text": TEXTS * 9}), texts / "b.parquet", compression="zstd")
        rows = pa.table({"text": pa.array(TEXTS).dictionary_encode(), "id": range(len(TEXTS))})
        for name, form, packing in (
            ("a.arrow", pa.ipc.new_file, None),
            ("b.arrow", pa.ipc.new_stream, None),
            ("a.feather", pa.ipc.new_file, "lz4"),
        ):
            options = pa.ipc.IpcWriteOptions(compression=packing)
            with form(str(texts / name), rows.schema, options=options) as writer:
                writer.write_table(rows, max_chunksize=20)
        config = load_config(data_path=(str(texts / "a.jsonl"),), validation_fraction=0.1)
        self.config = config
        prepare(config, self.tokenizer, folder / "dataset")
        model = tiny_model(vocab_size=self.tokenizer.vocab_size, qk_norm=True)
        state = ckpt.SavedState(3, {"config": config.to_tables(), "progress": {}})
        saved = ckpt.save_checkpoint(folder / "saved", model, self.tokenizer, {}, state)
        shutil.copytree(saved, folder / "model")
        (folder / "model" / ckpt.MANIFEST).unlink()  # as a folder from elsewhere has none
        export_minimind(model, self.tokenizer, folder / "minimind")
        (folder / "configs").mkdir()
        (folder / "configs" / "run.toml").write_text(config.to_toml())
        self.readers: dict[str, tuple[Path, Reader]] = {
            "text": (texts, self.read_text),
            "tokenizer": (folder / "tokenizer", self.read_tokenizer),
            "config": (folder / "configs", lambda path: load_config(file=path / "run.toml")),
            "dataset": (folder / "dataset", self.read_dataset),
            "checkpoint": (saved, self.read_checkpoint),
            "model": (folder / "model", ckpt.load_model),
            "minimind": (folder / "minimind", self.read_minimind),
        }

    def read_text(self, path: Path) -> object:
        files = [str(file) for file in sorted(path.iterdir())]
        asked = ("text", RowText("messages", chat=Chat(None)), RowText(template="{body.text} {n}"))
        read = []
        for file, text, encoding in itertools.product(files, asked, (None, "auto", "gb18030")):
            with contextlib.suppress(JielongError):
                read.append(list(read_documents(expand_sources([file]), text, encoding)))
        return read or list(read_documents(expand_sources(files), "text"))

    def read_tokenizer(self, path: Path) -> object:
        loaded = Tokenizer.load(path)
        loaded.save(self.folder / "saved again")
        return loaded.decode(loaded.encode(TEXTS[0])), loaded.fingerprint, loaded.token_bytes()

    def read_dataset(self, path: Path) -> object:
        manifest = path / "dataset.json"
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            values = json.loads(manifest.read_bytes())  # one who means harm makes it agree
            manifest.write_text(json.dumps(values | {"fingerprint": fingerprint_of(values)}))
        dataset = open_dataset(path)
        with contextlib.suppress(JielongError):
            prepare(self.config, self.tokenizer, path)
        return dataset.train.read(0, len(dataset.train))

    def read_checkpoint(self, path: Path) -> object:
        with contextlib.suppress(JielongError):
            ckpt.load_training_state(path)
        ckpt.verify(path)
        return ckpt.load_model(path)

    def read_minimind(self, path: Path) -> object:
        weights, record = next(path.glob("*.pth")), next(path.glob("pretrain*.json"))
        out = self.folder / "imported"
        shutil.rmtree(out, ignore_errors=True)
        return import_minimind(weights, self.folder / "tokenizer", out, record)


def one(targets: Targets, seed: int) -> tuple[str, str, str | None]:
    """Damages one file for one reader: the reader, what came of it, the traceback of a crash."""
    rng = random.Random(seed)
    name = rng.choice(list(targets.readers))
    source, read = targets.readers[name]
    work = targets.folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    path = rng.choice(sorted(p for p in work.rglob("*") if p.is_file()))
    data = path.read_bytes()
    change = damaged_json if path.suffix == ".json" and rng.random() < 0.7 else damaged
    while (changed := change(data, rng)) == data:
        pass
    path.write_bytes(changed)
    if name == "text":  # the reader takes all files; the others stay as they are
        for other in [p for p in work.iterdir() if p != path]:
            other.unlink()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            read(work)
    except JielongError:
        return name, "refused", None
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        shown = "".join(traceback.format_exception(error)[-3:])
        return name, "crashed", f"seed {seed}, {name}, {path.name}\n{shown[-1500:]}"
    return name, "read", None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--reader", help="only this one")
    parser.add_argument("--first", type=int, default=0, help="seed to begin at")
    chosen = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    crashes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        targets = Targets(Path(scratch))
        if chosen.reader:
            targets.readers = {chosen.reader: targets.readers[chosen.reader]}
        deadline, seed = time.monotonic() + 60 * chosen.minutes, chosen.first
        while time.monotonic() < deadline:
            name, outcome, crash = one(targets, chosen.seed if chosen.seed is not None else seed)
            counts[name, outcome] += 1
            if crash:
                crashes.setdefault(crash.strip().splitlines()[-1][:80], crash)
            seed += 1
            if chosen.seed is not None:
                break
    for crash in crashes.values():
        print(crash, end="\n\n")
    for name in sorted({name for name, _ in counts}):
        row = [f"{counts[name, outcome]:7} {outcome}" for outcome in ("refused", "read", "crashed")]
        print(f"{name:12}", *row)
    return bool(crashes)


if __name__ == "__main__":
    sys.exit(main())
