"""Places that hold files: a folder, or a prefix within a bucket of an object store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, quote_from_bytes

from ..errors import ShoetaggerError

FILE = "file://"
# What the schemes of buckets stand for, for people.
STORES = {"s3": "S3", "gs": "Google Cloud Storage", "az": "Azure Blob Storage"}

# What S3, Google and Azure have in common is narrower; they refuse the rest by themselves.
_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")


class PlaceError(ShoetaggerError):
    """An address that names no place."""


@dataclass(frozen=True)
class Bucket:
    """The keys below `prefix` (which neither begins nor ends with a slash) of a bucket."""

    scheme: str  # of STORES
    name: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def store(self) -> str:
        """The name, for people, of the kind of store."""
        return STORES[self.scheme]

    def locator(self, key: str) -> str:
        """Return the locator of an object by its whole key."""
        return f"{self.scheme}://{self.name}/{quote(key)}"


Place = Path | Bucket


def place(address: str, variable: str) -> Place:
    """Return the place that an environment variable names: a path, or an address as `s3://bucket`.

    A prefix is taken as it is written, not percent-decoded. Raises PlaceError, which shows no
    secret that the address may hold.
    """
    scheme, separator, rest = address.partition("://")
    if not separator and address.partition(":")[0] in STORES:
        raise PlaceError(
            f"{variable}={address!r} is neither a folder nor a bucket: a bucket is written as "
            f"{address.partition(':')[0]}://bucket/prefix, with two slashes"
        )
    if not separator:
        return Path(address).absolute()
    if scheme not in STORES:
        raise PlaceError(
            f"{variable} begins with {scheme}://, which names neither a folder nor a bucket: set "
            "it to a path, or to s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
        )
    name, _, prefix = rest.partition("/")
    if "@" in name:
        raise PlaceError(
            f"{variable} holds a login before its bucket: take it out; credentials belong in "
            "variables of their own, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not _BUCKET_NAME.fullmatch(name):
        raise PlaceError(
            f"{variable}={address!r} names no bucket that can be: set it as in "
            f"{scheme}://bucket/prefix, with 3 or more letters, digits, dots and hyphens"
        )
    prefix = prefix.strip("/")
    parts = prefix.split("/") if prefix else []
    if any(part in ("", ".", "..") for part in parts) or not prefix.isprintable():
        raise PlaceError(
            f"{variable}={address!r} has a prefix with an empty part, a dot or a control "
            "character, under which no object can be read: name the objects otherwise"
        )
    return Bucket(scheme, name, prefix)


@lru_cache(maxsize=8)
def root(place: Place) -> str:
    """Return what the locators of all files of a place begin with; it ends with a slash."""
    if isinstance(place, Bucket):
        return place.locator(f"{place.prefix}/" if place.prefix else "")
    # As `folder.locator_of` writes paths.
    path = os.path.abspath(os.fsencode(place))  # noqa: PTH100 - a name may be any bytes
    return FILE + quote_from_bytes(path).rstrip("/") + "/"
