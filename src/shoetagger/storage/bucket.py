"""Files in a bucket of an object store: S3 and what speaks its protocol, Google, Azure.

An object is written in one request, so that its ETag is, where the store encrypts by no key of its
own, the MD5 of its bytes: by that an unchanged one is known, and not written again.
"""

from __future__ import annotations

import hashlib
import io
import mimetypes
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, TypeVar

from ..config.places import Bucket
from .client import client_of, error_code, what_is_wrong
from .storage import Stamp, StorageError

if TYPE_CHECKING:
    from obstore import ReadableFile
    from obstore.store import ObjectStore

T = TypeVar("T")
R = TypeVar("R")

_PAGE = 1000  # keys per response, the most that S3 gives
_PART = 1 << 16  # bytes read at a time of a file that is opened
_SETTING = "SHOETAGGER_PUBLISHED to the one that others read"
_USE = "list, read, write and delete in"
_TYPES = {".parquet": "application/vnd.apache.parquet", ".csv": "text/csv; charset=utf-8"}


class BucketStorage:
    """Files below the prefix of a bucket, which SHOETAGGER_PUBLISHED names."""

    at_once = 16

    def __init__(self, bucket: Bucket) -> None:
        """Asks the store nothing yet; raises PlaceError where the environment cannot be right."""
        self._bucket = bucket
        self._root = f"{bucket.prefix}/" if bucket.prefix else ""
        self._store = client_of(bucket)

    def __str__(self) -> str:
        return str(self._bucket)

    def listed(self, folder: str) -> dict[str, Stamp]:
        import obstore

        def pages(store: ObjectStore) -> list[Mapping[str, Any]]:
            prefix = f"{self._root}{folder}".rstrip("/") or None
            listing = obstore.list(store, prefix, chunk_size=_PAGE)
            return [meta for page in listing for meta in page]

        found = {meta["path"].removeprefix(self._root): _stamp(meta) for meta in self._ask(pages)}
        return {name: stamp for name, stamp in found.items() if "/." not in f"/{name}"}

    def stamps(self, names: Iterable[str]) -> dict[str, Stamp]:
        names = list(names)
        found = self._each(names, self._stamp)
        return {n: s for n, s in zip(names, found, strict=True) if s is not None and s.size}

    def read(self, name: str) -> bytes | None:
        return self._unless_gone(lambda store: store.get(self._root + name).bytes().to_bytes())

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        import obstore

        found = self._unless_gone(
            lambda store: obstore.open_reader(store, self._root + name, buffer_size=_PART)
        )
        if found is None:
            raise FileNotFoundError(f"{self._bucket}/{name}")
        with io.BufferedReader(_Reader(found, self._error), _PART) as file:
            yield file

    def put(self, files: Sequence[tuple[Path, str]]) -> None:
        def put(file: tuple[Path, str]) -> None:
            data, before = file[0].read_bytes(), self._stamp(file[1])
            digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if before is None or (before.size, before.tag) != (len(data), digest):
                self.write(file[1], data)

        self._each(files, put)

    def write(self, name: str, data: bytes) -> None:
        suffix = PurePosixPath(name).suffix
        kind = _TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")
        self._ask(
            lambda store: store.put(
                self._root + name, data, attributes={"Content-Type": kind}, use_multipart=False
            )
        )

    def remove(self, names: Iterable[str]) -> None:
        paths = [self._root + name for name in names]
        if self._bucket.scheme != "s3":  # given many, their clients end at one that is gone
            self._each(paths, lambda path: self._unless_gone(lambda store: store.delete(path)))
        elif paths:
            self._unless_gone(lambda store: store.delete(paths))

    def remove_folder(self, folder: str) -> None:
        self.remove(self.listed(folder))

    @contextmanager
    def staging(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix="shoetagger-publish-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def tidy(self) -> None:
        """Nothing is left: an object appears when its last byte is there."""

    def _stamp(self, name: str) -> Stamp | None:
        meta = self._unless_gone(lambda store: store.head(self._root + name))
        return None if meta is None else _stamp(meta)

    def _each(self, items: Sequence[T], action: Callable[[T], R]) -> list[R]:
        if len(items) < 2:
            return [action(item) for item in items]
        with ThreadPoolExecutor(self.at_once) as threads:
            return list(threads.map(action, items))

    def _unless_gone(self, question: Callable[[ObjectStore], R]) -> R | None:
        """Return the answer to a question; None where there is no such object."""
        try:
            return self._ask(question)
        except FileNotFoundError:
            return None

    def _ask(self, question: Callable[[ObjectStore], R]) -> R:
        try:
            return question(self._store)
        except FileNotFoundError as error:
            if error_code(error) != "NoSuchBucket":
                raise
            raise self._error(error) from None
        except Exception as error:
            raise self._error(error) from None

    def _error(self, error: Exception) -> StorageError:
        what = what_is_wrong(self._bucket, error, _SETTING, _USE)
        return StorageError(f"SHOETAGGER_PUBLISHED cannot be used: {what}")


class _Reader(io.RawIOBase):
    """An object as a file that pyarrow reads parts of."""

    def __init__(self, source: ReadableFile, fault: Callable[[Exception], StorageError]) -> None:
        self._source, self._fault = source, fault

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def readinto(self, buffer: Any) -> int:
        try:
            data = bytes(self._source.read(len(buffer)))
        except Exception as error:
            raise self._fault(error) from None
        buffer[: len(data)] = data
        return len(data)


def _stamp(meta: Mapping[str, Any]) -> Stamp:
    tag = (meta["e_tag"] or meta["version"] or "").strip('"')
    return Stamp(meta["size"], meta["last_modified"].timestamp(), tag)
