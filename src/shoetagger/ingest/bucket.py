"""An inbox in a bucket of an object store: S3 and what speaks its protocol, Google, Azure.

A locator is the scheme, the bucket, and the percent-encoded key. A token is size and ETag. Reading
is one request, whose response has the ETag of the bytes that it brings.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..config.places import Bucket, PlaceError, root
from ..storage.client import client_of, endpoint_of, error_code, first_line, what_is_wrong
from .inbox import (
    ELSEWHERE,
    Arrival,
    Changed,
    Content,
    Gone,
    InboxError,
    TooLarge,
    Unreachable,
    Unreadable,
)

_PAGE = 1000  # keys per response, the most that S3 gives
_AHEAD = 64
# So many objects in a row that cannot be read are an outage, not faults of their own.
_OUTAGE = 32
_VARIABLE = "SHOETAGGER_INBOX to the one with the pictures"
# What a key may not hold if the object is to be read: the client of the store refuses it.
_NO_KEY = re.compile(r"[\x00-\x1f\x7f]|\ufffd|^/|//|(?:^|/)\.\.?(?:/|$)")


class BucketInbox:
    """The inbox below a prefix of a bucket; opening it asks the store nothing."""

    fetched_ahead = _AHEAD

    def __init__(self, bucket: Bucket) -> None:
        """Raises InboxError where the environment cannot be that of a store."""
        self._bucket = bucket
        self._root = root(bucket)
        try:
            self._store = client_of(bucket)
        except PlaceError as error:
            raise InboxError(f"the inbox cannot be reached: {error}") from None
        self._lock = threading.Lock()
        self._failures = 0  # in a row

    def scan(self, *, state: Path | None = None) -> Iterator[Arrival]:  # noqa: ARG002 - a folder's
        """Yield every object below the prefix, from one listing of all of it.

        Objects without bytes whose names have no suffix stand for folders, and are left out; others
        are refused. A key that no client can ask for is refused as well. Raises InboxError.
        """
        from obstore.exceptions import InvalidPathError

        pages = self._pages()
        while True:
            try:
                page = next(pages, None)
            except InvalidPathError as error:
                # The client gives up at a key that it cannot hold: a slower one names it.
                pages = self._pages_with_odd_keys(error)
                continue
            except InboxError:
                raise
            except Exception as error:
                raise self._fault(error) from None
            if page is None:
                return
            for key, size, tag in page:
                if (arrival := self._arrival(key, size, tag)) is not None:
                    yield arrival

    def read(self, locator: str, max_bytes: int) -> Content:
        """Return the bytes of an object; see `Inbox.read`."""
        if not locator.startswith(self._root):
            raise Unreachable(locator, ELSEWHERE)
        key = unquote(locator.split("/", 3)[3])
        if _NO_KEY.search(key):
            raise Unreadable(locator, "no object can be asked for by this key")
        try:
            found = self._store.get(key)
            size = found.meta["size"]
            if size > max_bytes:
                raise TooLarge(locator, f"too large ({size} bytes, limit {max_bytes})")
            data = found.bytes().to_bytes()
        except TooLarge:
            raise
        except FileNotFoundError as error:
            if error_code(error) == "NoSuchBucket":
                raise self._unreachable(locator, error) from None
            raise Gone(locator, "gone") from None
        except Exception as error:
            raise self._unreachable(locator, error) from None
        self._failures = 0
        if len(data) != size:
            raise Changed(locator, "changed while it was read")
        return Content(data, _token(size, _tag(found.meta)))

    def _pages(self) -> Iterator[list[tuple[str, int, str]]]:
        import obstore

        prefix = self._bucket.prefix or None
        for page in obstore.list(self._store, prefix, chunk_size=_PAGE):
            yield [(meta["path"], meta["size"], _tag(meta)) for meta in page]

    def _pages_with_odd_keys(self, error: Exception) -> Iterator[list[tuple[str, int, str]]]:
        """List again, by a client that takes any key; raises InboxError where there is none."""
        client = _any_key_client(self._bucket)
        if client is None:
            raise InboxError(
                f"{self._bucket} has an object whose key cannot be asked for: rename it "
                f"({first_line(error)})"
            )
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket.name, Prefix=f"{self._bucket.prefix}/".lstrip("/")
        )
        for page in pages:
            yield [(o["Key"], o["Size"], o["ETag"]) for o in page.get("Contents", ())]

    def _arrival(self, key: str, size: int, tag: str) -> Arrival | None:
        """Return an object as an entry; None for one that is left out."""
        locator = self._bucket.locator(key)
        if not locator.startswith(self._root) or "/." in f"/{key[len(self._bucket.prefix) :]}":
            return None
        if _NO_KEY.search(key):
            reason = "no object can be asked for by this key: rename it"
            return Arrival(locator, _token(size, tag), reason)
        if size == 0:
            is_folder = key.endswith("/") or "." not in key.rsplit("/", 1)[-1]
            return None if is_folder else Arrival(locator, _token(size, tag), "an empty file")
        return Arrival(locator, _token(size, tag))

    def _unreachable(self, locator: str, error: Exception) -> Unreachable | InboxError:
        """Return what to raise where one object, or after many of them the inbox, is away."""
        with self._lock:
            self._failures += 1
            if self._failures >= _OUTAGE:
                return self._fault(error)
        return Unreachable(locator, f"cannot be read: {first_line(error)}")

    def _fault(self, error: Exception) -> InboxError:
        """Return what is wrong with the bucket as a whole, and what to do."""
        what = what_is_wrong(self._bucket, error, _VARIABLE, "list and read")
        return InboxError(f"the inbox cannot be reached: {what}; nothing was marked as gone")


def _any_key_client(bucket: Bucket) -> Any | None:
    """Return a client that lists whatever key there is; None where none is installed."""
    if bucket.scheme != "s3":
        return None
    try:
        import botocore.session
        from botocore.config import Config
    except ImportError:
        return None
    endpoint = endpoint_of(os.environ)
    return botocore.session.get_session().create_client(
        "s3",
        region_name=os.environ.get("AWS_REGION"),
        endpoint_url=endpoint or None,
        config=Config(s3={"addressing_style": "path"} if endpoint else {}),
    )


def _tag(meta: Mapping[str, Any]) -> str:
    return str(meta["e_tag"] or meta["version"] or meta["last_modified"].isoformat())


def _token(size: int, tag: str) -> str:
    """Return what changes when an object is replaced: by the same bytes, it may stay."""
    return f"{size}-{tag.strip(chr(34))}"
