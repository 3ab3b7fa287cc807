"""Files of the web, read by requests: in ranges, or in one go where a server knows no ranges."""

from __future__ import annotations

import contextlib
import functools
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from jielong.data.sources.remote import Info, PassingError, RefusedError, refusal

CONNECT_S, READ_S = 10, 60
INDEX_BYTES = 2**24  # of a page that lists a folder
MOST_PAGES = 10_000
MOST_WAIT_S = 600.0  # that a server may ask for


class HttpStore:
    """Files of the web. Folders are pages of links, as servers of files make them."""

    def __init__(self) -> None:
        self._running: tuple[str, int, Any] | None = None  # a whole file that is being sent

    def __reduce__(self) -> tuple[Any, ...]:
        return HttpStore, ()

    @functools.cached_property
    def _session(self) -> Any:
        import requests

        session = requests.Session()
        session.headers["Accept-Encoding"] = "identity"  # else ranges are those of another text
        return session

    def _get(self, address: str, headers: dict[str, str]) -> Any:
        import requests

        limits = {"timeout": (CONNECT_S, READ_S), "stream": True}
        try:
            return self._session.get(address, headers=headers, **limits)
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema):
            raise RefusedError("is no address") from None
        except requests.exceptions.SSLError:
            raise RefusedError("its certificate is not trusted here") from None
        except requests.exceptions.TooManyRedirects:
            raise RefusedError("leads in a circle") from None
        except requests.exceptions.RequestException as error:
            raise PassingError(f"no connection ({type(error).__name__})") from None

    def info(self, key: str, again: bool = False) -> Info | None:
        del again  # it always does
        with contextlib.closing(self._get(key, {"Range": "bytes=0-0"})) as answer:
            if answer.status_code in (404, 410):
                return None
            headers = answer.headers
            size = headers.get("Content-Length")
            if answer.status_code in (206, 416):
                size = headers.get("Content-Range", "").rpartition("/")[2]
            elif answer.status_code != 200:
                raise self._error(answer)
            version = headers.get("ETag") or headers.get("Last-Modified")
            return Info(key, int(size) if size and size.isdecimal() else None, version)

    def _error(self, answer: Any) -> Exception:
        error = refusal(answer.status_code, "http", answer.reason or "")
        wait = answer.headers.get("Retry-After", "")
        if isinstance(error, PassingError) and wait.isdecimal():
            error.wait_s = min(float(wait), MOST_WAIT_S)
        return error

    def find(self, folder: str) -> Iterator[Info]:
        """Yield the files that the folder's page of links names, and those of folders below."""
        pages, seen = [folder if folder.endswith("/") else folder + "/"], set[str]()
        while pages and len(seen) < MOST_PAGES:
            page = pages.pop(0)
            seen.add(page)
            for link in self._links(page):
                below = link.startswith(page) and link != page and "?" not in link
                if below and link.endswith("/"):
                    pages += [link] if link not in seen | set(pages) else []
                elif below and (info := self.info(link)):
                    yield info

    def _links(self, page: str) -> list[str]:
        with contextlib.closing(self._get(page, {})) as answer:
            if answer.status_code in (404, 410):
                return []
            if answer.status_code != 200:
                raise self._error(answer)
            is_html = "html" in answer.headers.get("Content-Type", "")
            html = answer.raw.read(INDEX_BYTES) if is_html else b""
            links = _Links()
            links.feed(html.decode("utf-8", "replace"))
            joined = (urllib.parse.urljoin(answer.url, link) for link in links.found)
            return sorted({link.partition("#")[0] for link in joined})

    def read(self, info: Info, start: int, end: int) -> bytes:
        running, self._running = self._running, None
        if running is not None and running[:2] == (info.key, start):
            return self._from_running(running[2], info, start, end)
        if running is not None:
            running[2].close()
        headers = {"Range": f"bytes={start}-{end - 1}"}
        if info.version and not info.version.startswith("W/"):
            headers["If-Range"] = info.version
        answer = self._get(info.key, headers)
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if answer.status_code in (200, 206) and version != info.version:
            answer.close()
            raise RefusedError("has changed while it was read: prepare it again")
        if answer.status_code == 200:  # of the whole file: it knows no ranges
            self._pass_over(answer, start)
            return self._from_running(answer, info, start, end)
        with contextlib.closing(answer):
            if answer.status_code == 416:
                return b""
            if answer.status_code != 206:
                raise self._error(answer)
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise RefusedError("the server sends another part of it than was asked for")
            return self._received(answer, end - start)[0]

    def _from_running(self, answer: Any, info: Info, start: int, end: int) -> bytes:
        data, is_lost = self._received(answer, end - start)
        if data and not is_lost:
            self._running = info.key, start + len(data), answer
        return data

    def _pass_over(self, answer: Any, left: int) -> None:
        while left:
            data, is_lost = self._received(answer, min(left, 2**20))
            if is_lost or not data:
                raise PassingError("the connection is lost before what has been read")
            left -= len(data)

    def _received(self, answer: Any, size: int) -> tuple[bytes, bool]:
        """Read what comes, up to `size`, and whether the connection was lost after that."""
        import urllib3

        parts, left, is_lost = [], size, False
        try:
            while left and (part := answer.raw.read(min(left, 2**18))):
                parts.append(part)
                left -= len(part)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            answer.close()
            if not parts:
                raise PassingError(f"the connection is lost ({type(error).__name__})") from None
            is_lost = True
        return b"".join(parts), is_lost


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and (link := dict(attrs).get("href")):
            self.found.append(link)
