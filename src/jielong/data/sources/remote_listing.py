"""Remote addresses → the files of text that they name, chosen by the rules of local folders."""

from __future__ import annotations

import importlib.util
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from jielong.data.sources.file_kinds import KINDS, READABLE, kind_of
from jielong.data.sources.listing import DATASET, NotRead, are_of_dataset, matches, refuse
from jielong.data.sources.names_read import MemberRules, choose
from jielong.data.sources.remote import (
    OBJECT_STORES,
    Info,
    RemotePath,
    Store,
    patiently,
    shown_address,
)
from jielong.data.sources.remote_http import HttpStore
from jielong.data.sources.remote_stores import FsspecStore, ObjectStore
from jielong.errors import DataError

FORMATS = tuple(dict.fromkeys(KINDS.values()))


def store_of(address: str) -> tuple[Store, str]:
    """Return the store of an address, and the key of the file or folder there.

    Raises:
        DataError: the library for it is missing, or the address holds a password.
    """
    scheme, _, rest = address.partition("://")
    scheme = scheme.lower()
    try:
        urlsplit(address)
    except ValueError:
        raise DataError(f"{address}: is no address") from None
    if scheme in ("http", "https"):
        if "@" in urlsplit(address).netloc:
            fix = "leave name and password out, and put them in ~/.netrc"
            raise DataError(f"{shown_address(address)}: {fix}")
        return HttpStore(), address
    if scheme in OBJECT_STORES:
        if importlib.util.find_spec("obstore") is None:
            raise DataError(f"{address}: to read it: pip install 'jielong[remote]'")
        bucket, _, key = rest.partition("/")
        return ObjectStore(f"{'gs' if scheme == 'gcs' else scheme}://{bucket}"), key
    store = FsspecStore(address)
    return store, store.key


def list_remote(
    address: str, rules: MemberRules
) -> tuple[list[tuple[RemotePath, str]], list[NotRead]]:
    """Find the files at a remote address: a file, a folder, or, but of the web, a glob.

    Returns:
        The files and their kinds, in order; and what is not read.

    Raises:
        DataError: there is none, or none that is text; or the server refuses or fails.
    """
    store, key = store_of(address)
    shown = shown_address(address)
    is_web = isinstance(store, HttpStore)
    is_glob = not is_web and any(char in key for char in "*?[")
    if not is_glob and not key.endswith("/"):
        info = patiently(shown, lambda: store.info(key))
        name = PurePosixPath(urlsplit(address).path if is_web else key).name
        if info is not None and (kind := kind_of(PurePosixPath(name), rules.suffixes)):
            return [(RemotePath(store, info, shown), kind)], []
        if info is not None and not is_web:
            raise DataError(f"{shown}: unknown file type; supported: {READABLE}")
    parts = PurePosixPath(key).parts
    fixed = next((i for i, part in enumerate(parts) if is_glob and set(part) & set("*?[")), None)
    folder = key if fixed is None else "/".join(parts[:fixed])
    folder = folder if folder.endswith("/") or not folder else folder + "/"
    infos = patiently(shown, lambda: list(store.find(folder)))
    below = {info.key.removeprefix(folder): info for info in infos}
    below = {unquote(name) if is_web else name: info for name, info in below.items()}
    if fixed is not None:
        below = {n: i for n, i in below.items() if matches(PurePosixPath(n).parts, parts[fixed:])}
    root = "" if is_web else address.removesuffix(key)
    if isinstance(store, ObjectStore) and not root.endswith("/"):  # of a bucket alone
        root += "/"
    return _chosen(shown, root, store, below, rules)


def _chosen(
    shown: str, root: str, store: Store, below: dict[str, Info], rules: MemberRules
) -> tuple[list[tuple[RemotePath, str]], list[NotRead]]:
    """Choose what is read of the files below a folder, by their names in it."""
    names = sorted(name for name in below if name and not name.endswith("/"))
    datasets = _datasets(names)
    if PurePosixPath() in datasets:
        refuse(shown, DATASET)
    within = {name: DATASET for name in names if datasets & set(PurePosixPath(name).parents)}
    chosen = choose(((name, within.get(name, "")) for name in names), rules, FORMATS)
    if not chosen.kinds:
        reasons = dict.fromkeys(chosen.reasons.values())
        there = f" (not read: {'; '.join(reasons)})" if reasons else ""
        if not names:
            closed = ", or one that only shows itself to who may read it: run hf auth login"
            what = closed if shown.startswith("hf://") else ""
            raise DataError(f"{shown}: no such file or folder{what}")
        raise DataError(f"{shown}: no text there{there}; supported: {READABLE}")
    files = [
        (RemotePath(store, below[name], shown_address(root + below[name].key)), kind)
        for name, kind in sorted(chosen.kinds.items())
    ]
    not_read = [
        NotRead(PurePosixPath(shown_address(root + below[name].key)), reason, below[name].size or 0)
        for name, reason in chosen.reasons.items()
    ]
    return files, not_read


def _datasets(names: list[str]) -> set[PurePosixPath]:
    """Return the folders that are prepared datasets."""
    within: dict[PurePosixPath, set[str]] = {}
    for path in map(PurePosixPath, names):
        within.setdefault(path.parent, set()).add(path.name)
    return {folder for folder, files in within.items() if are_of_dataset(files)}
