"""Pictures that are not plain files on this machine: in a bucket, in an archive, on another machine; read by fsspec.

SOURCE is a URL of fsspec: `s3://bucket/photos`, `zip://::photos.zip`, `zip://images/train::s3://bucket/data.zip`. Each
picture has a URL of its own, with which any thread, and any worker of a cluster, can read it.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hefkit.errors import DataError, ToolchainError
from hefkit.pictures.find import IMAGE_SUFFIXES
from hefkit.pictures.sources import Item
from hefkit.text import one_line

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://")
NOT_OURS = ("http", "https", "file", "rtsp", "rtsps", "tcp", "udp")  # web pages and streams are not folders
# the names under which file systems keep facts that change with a file
STAMPS = ("size", "mtime", "created", "modified", "LastModified", "updated", "ETag", "CRC", "date_time")

_one_reader = threading.Lock()  # of archives: tarfile reads with one position


@dataclass(frozen=True)
class RemoteItem(Item):
    """One picture; `source` is its URL, `path` is only a name."""

    stamp: str  # changes when the picture changes, if its file system keeps sizes, times or hashes


def place_of(item: Item) -> str:
    """The text by which an item is opened: its URL, or its path."""
    return item.source if isinstance(item, RemoteItem) else str(item.path)


def is_remote(source: str) -> bool:
    """Whether SOURCE is a URL of a file system."""
    match = _URL.match(source)
    return match is not None and match[1] not in NOT_OURS


def find_remote(source: str) -> list[RemoteItem]:
    """The pictures below a URL, sorted; folders are searched, `*` is allowed.

    Raises:
        ToolchainError: fsspec, or the package that it needs for this file system, is not installed.
        DataError: it does not exist, cannot be read, or has no pictures.
    """
    try:
        files, root = _opened(source)
        found = files.glob(root, detail=True) if "*" in root else files.find(root, detail=True)
    except ToolchainError:
        raise
    except Exception as exc:  # each file system has errors of its own
        raise DataError(
            f"the source {one_line(source)} cannot be read ({_words(exc)}); expected a folder of photographs; check "
            "the URL and the credentials"
        ) from exc
    named = {path: facts for path, facts in found.items() if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES}
    if not named:
        raise DataError(f"{one_line(source)} has no pictures; expected a folder of photographs; check the URL")
    head, chained, rest = source.partition("::")
    if "*" in root:  # `a/b/*.jpg` lies in `a/b`
        root, head = (text.split("*")[0].rpartition("/")[0] for text in (root, head))
    items = []
    for path, facts in sorted(named.items()):
        below = path[len(root) :].lstrip("/")
        relative = PurePosixPath(below or PurePosixPath(path).name)
        url = _joined(head, below) + chained + rest
        stamp = " ".join(str(facts[word]) for word in STAMPS if facts.get(word) is not None)
        items.append(RemoteItem(Path(url), url, relative, stamp))
    return items


def read_remote(url: str) -> bytes:
    """The bytes of one file. Raises UnreadableImage."""
    from hefkit.pictures.header import UnreadableImage
    from hefkit.pictures.read import MAX_BYTES  # late, as below: --help works without OpenCV

    try:
        files, path = _opened(url)
        with _one_reader if "::" in url else contextlib.nullcontext():
            size = files.size(path)
            if size is not None and size > MAX_BYTES:
                raise UnreadableImage(f"{size >> 20} MB; at most {MAX_BYTES >> 20} MB are read")
            data: bytes = files.cat_file(path)
    except UnreadableImage:
        raise
    except Exception as exc:  # each file system has errors of its own
        raise UnreadableImage(_words(exc)) from exc
    return data


def label_url(url: str) -> str:
    """The URL of a picture's label file, by the rule of `label_path`."""
    from hefkit.measure.labels import label_path

    head, chained, rest = url.partition("::")
    scheme, path = head.split("://", 1)
    return f"{scheme}://{label_path(Path(path)).as_posix()}{chained}{rest}"


def _joined(head: str, below: str) -> str:
    if not below:
        return head
    return f"{head}{below}" if head.endswith("/") else f"{head}/{below}"


def _opened(url: str) -> tuple[Any, str]:
    """(file system, path in it)."""
    try:
        import fsspec
    except ImportError as exc:
        raise ToolchainError(
            f"the source {one_line(url)} needs the Python package fsspec; install it with: python3 -m pip install "
            "fsspec"
        ) from exc
    head, chained, rest = url.partition("::")
    try:
        if not chained:
            files, path = fsspec.core.url_to_fs(url)  # fsspec keeps what it has opened
            return files, path
        scheme, path = head.split("://", 1)
        return _archive(scheme, rest), path
    except ImportError as exc:
        raise ToolchainError(f"the source {one_line(url)} needs another Python package: {one_line(exc, 120)}") from exc


@functools.lru_cache(maxsize=8)
def _archive(scheme: str, rest: str) -> Any:
    """Opened once a process, because its table of contents is read then."""
    import fsspec

    return fsspec.core.url_to_fs(f"{scheme}://::{rest}")[0]


def _words(exc: Exception) -> str:
    said = "it does not exist" if isinstance(exc, FileNotFoundError) else one_line(exc, 120)
    return said or type(exc).__name__
