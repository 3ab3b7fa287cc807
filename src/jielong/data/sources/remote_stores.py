"""Object stores, read by obstore, and what else fsspec knows.

What a library says of an error may hold an address with its signature, or a key. So messages here
are our own, by the status that the server answered.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from jielong.data.sources.remote import (
    Info,
    PassingError,
    RefusedError,
    refusal,
    shown_address,
)
from jielong.data.sources.remote_credentials import opening_fault, settings_of
from jielong.errors import DataError

CONNECT_S, REQUEST_S = 10, 120
STATUS = re.compile(r"status code: (\d{3})")
# it asked the machine, or Azure's command, for credentials
NO_CREDENTIALS = ("169.254.169.254", "metadata.google.internal", "az account get-access-token")


class ObjectStore:
    """A bucket of S3, Google Cloud Storage, Azure or what has the same API.

    Args:
        bucket: its address.
    """

    def __init__(self, bucket: str) -> None:
        from obstore.store import from_url

        self._bucket, self._scheme = bucket, bucket.partition(":")[0]
        options: dict[str, Any] = {
            "client_options": {
                "timeout": timedelta(seconds=REQUEST_S),
                "connect_timeout": timedelta(seconds=CONNECT_S),
                "allow_http": True,  # for an endpoint whose address says so
            },
            "retry_config": {"max_retries": 0, "retry_timeout": timedelta(seconds=CONNECT_S)},
        }
        config: Any = settings_of(self._scheme)
        try:
            self._store: Any = from_url(bucket, config=config, **options)
        except Exception as error:  # of its own kinds, and ValueError
            raise DataError(f"{bucket}: {opening_fault(error, self._scheme)}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectStore, (self._bucket,)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        from obstore import exceptions

        try:
            yield
        except FileNotFoundError:
            raise
        except exceptions.PreconditionError:
            raise RefusedError("has changed while it was read: prepare it again") from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
            raise refusal(403, self._scheme) from None
        except (exceptions.BaseError, ValueError, OSError) as error:
            said = str(error)
            status = STATUS.search(said)
            if any(sign in said for sign in NO_CREDENTIALS):
                raise refusal(401, self._scheme) from None
            if "NoSuchBucket" in said or "ContainerNotFound" in said:
                raise RefusedError("there is no such bucket") from None
            if "invalid list response" in said:
                reason = "what answers is no such store: is the address of the service right?"
                raise RefusedError(reason) from None
            if status is not None:
                is_login = "token request" in said and status[1] == "400"  # one that has ended
                raise refusal(401 if is_login else int(status[1]), self._scheme) from None
            raise PassingError("no connection") from None

    def info(self, key: str, again: bool = False) -> Info | None:
        import obstore

        del again  # it always asks
        if not key or key.endswith("/"):
            return None
        try:
            with self._errors():
                return _object_info(obstore.head(self._store, key))
        except FileNotFoundError:
            return None

    def find(self, folder: str) -> Iterator[Info]:
        import obstore

        with self._errors():
            for batch in obstore.list(self._store, folder or None):
                for meta in batch if isinstance(batch, list) else [batch]:
                    yield _object_info(meta)

    def read(self, info: Info, start: int, end: int) -> bytes:
        import obstore

        options: Any = {"range": (start, end)}
        if info.version and info.version.startswith('"'):
            options["if_match"] = info.version
        parts: list[bytes] = []
        try:
            with self._errors():
                answer = obstore.get(self._store, info.key, options=options)
                for part in answer.stream(min_chunk_size=2**18):
                    parts.append(bytes(part))
        except FileNotFoundError:
            raise RefusedError("is gone") from None
        except PassingError:
            if not parts:
                raise
        return b"".join(parts)


def _object_info(meta: Any) -> Info:
    tag = meta["e_tag"]
    if tag and not tag.endswith('"'):  # so lists of Azure have it
        tag = f'"{tag}"'
    return Info(meta["path"], meta["size"], tag or str(meta["last_modified"]))


class FsspecStore:
    """Files of any other kind of address that fsspec knows, such as hf:// (of Hugging Face).

    Args:
        address: one of them.

    Attributes:
        key: of the file or folder at that address.

    Raises:
        DataError: fsspec does not know it, or the library for it is missing.
    """

    def __init__(self, address: str) -> None:
        import fsspec

        self._address, self._scheme = address, address.partition(":")[0]
        # huggingface_hub would read 5 MB more each time, and throw them away
        self._reading = {"cache_type": "none"} if self._scheme == "hf" else {}
        shown = shown_address(address)
        try:
            self._fs, path = fsspec.url_to_fs(address)
        except ImportError:
            fix = f"pip install 'jielong[remote]', or what fsspec reads {self._scheme}:// with"
            raise DataError(f"{shown}: to read it: {fix}") from None
        except ValueError:
            known = "s3://, gs://, az://, hf://datasets/…, http:// and https://"
            raise DataError(f"{shown}: no known kind of address: give {known}") from None
        except Exception as error:  # of many libraries, some of which connect at once
            raise DataError(f"{shown}: cannot be opened ({type(error).__name__})") from None
        self._root = "/" if path.startswith("/") else ""
        self.key = path.lstrip("/") + ("/" if address.endswith("/") else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return FsspecStore, (self._address,)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            raise refusal(403, self._scheme) from None
        except Exception as error:  # of many libraries
            status = getattr(getattr(error, "response", None), "status_code", None)
            if type(error).__name__ == "OfflineModeIsEnabled":  # of huggingface_hub
                raise RefusedError(
                    "HF_HUB_OFFLINE is set: unset it, or download the files"
                ) from None
            if status in (401, 403):
                raise refusal(status, self._scheme) from None
            if isinstance(error, FileNotFoundError) or status == 404:
                raise FileNotFoundError from None
            if isinstance(status, int):
                raise refusal(status, self._scheme) from None
            raise PassingError(f"cannot be read ({type(error).__name__})") from None

    def info(self, key: str, again: bool = False) -> Info | None:
        try:
            with self._errors():
                if again:  # it keeps the listing of a folder for as long as the process runs
                    self._fs.invalidate_cache(self._fs._parent(self._root + key))
                found = self._fs.info(self._root + key)
        except FileNotFoundError:
            return None
        return _fsspec_info(found, key) if found["type"] == "file" else None

    def find(self, folder: str) -> Iterator[Info]:
        try:
            with self._errors():
                found = self._fs.find(self._root + folder, detail=True)
        except FileNotFoundError:
            return
        root = self._fs._strip_protocol(self._root + folder).rstrip("/")
        for name, entry in found.items():
            yield _fsspec_info(entry, folder + name.removeprefix(root).lstrip("/"))

    def read(self, info: Info, start: int, end: int) -> bytes:
        try:
            with self._errors():
                span = {"start": start, "end": end}
                data: bytes = self._fs.cat_file(self._root + info.key, **span, **self._reading)
                return data
        except FileNotFoundError:
            raise RefusedError("is gone") from None


def _fsspec_info(found: dict[str, Any], key: str) -> Info:
    names = ("ETag", "etag", "e_tag", "blob_id", "checksum", "sha256", "LastModified", "mtime")
    version = next((str(found[name]) for name in (*names, "created") if found.get(name)), None)
    return Info(key, found.get("size"), version)
