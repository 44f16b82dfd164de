"""The inbox at a place, and the locators that its files may have."""

from __future__ import annotations

import os
from urllib.parse import quote, unquote_to_bytes

from ..config.places import STORES, Bucket, Place
from .bucket import BucketInbox
from .folder import Folder, locator_of
from .inbox import Inbox


def inbox_at(place: Place) -> Inbox:
    """Return the inbox in a folder or a bucket; nothing there is looked at yet."""
    return BucketInbox(place) if isinstance(place, Bucket) else Folder(place)


def name_of(locator: str) -> str:
    """Return the last part of a file's path or key, with other bytes than text as in paths."""
    return os.fsdecode(unquote_to_bytes(locator.rsplit("/", 1)[-1]))


def locators_named(inbox: Place, name: str) -> tuple[str, ...]:
    """Return the locators of the files that a person may mean by a name, the nearest first.

    A name is a path or key below the inbox, a path from the working directory, an address such as
    `s3://bucket/folder/a b.jpg`, or a locator.
    """
    scheme, separator, rest = name.partition("://")
    if separator and scheme in (*STORES, "file"):
        return name, f"{scheme}://{quote(rest)}"
    if isinstance(inbox, Bucket):
        key = f"{inbox.prefix}/{name}".lstrip("/")
        return inbox.locator(key), locator_of(name)
    return locator_of(inbox / name), locator_of(name)
