"""Prepared datasets of many small shards, and servers that have them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from faulty_server import Served

from jielong.data.shard_writer import ShardWriter
from jielong.data.shards import MANIFEST, VERIFIED, fingerprint_of, open_dataset

SHARD_TOKENS = 200


def reshard(source: Path, folder: Path, shard_tokens: int) -> Path:
    """Write a prepared dataset again, with shards of so many tokens; returns the new folder."""
    dataset = open_dataset(source)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.bin", VERIFIED))
    manifest = dataset.manifest | {"files": {}, "splits": {}}
    for name, stream in (("train", dataset.train), ("validation", dataset.validation)):
        if stream is None:
            continue
        writer = ShardWriter(folder, name, manifest["vocab_size"], shard_tokens)
        lengths = np.diff([*stream.documents, len(stream)])
        writer.write(stream.read(0, len(stream)).astype(np.int64), lengths, stream.text_bytes)
        manifest["splits"][name], files = writer.close()
        manifest["files"] |= files
    manifest["fingerprint"] = fingerprint_of(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def serve(web: Served, folder: Path, name: str = "set") -> str:
    """Let a server have a folder; returns its address there."""
    for file in folder.rglob("*"):
        if file.is_file():
            web.files[f"/{name}/{file.relative_to(folder)}"] = file.read_bytes()
    return f"{web.address}/{name}"


def shards_asked(web: Served) -> list[str]:
    """The shards of training text that were asked for, in order."""
    names = [path.rpartition("/")[2] for path, _ in web.asked]
    return [name for name in names if name.startswith("train-")]
