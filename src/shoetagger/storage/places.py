"""The storage at a place."""

from __future__ import annotations

from ..config.places import Bucket, Place
from .bucket import BucketStorage
from .folder import FolderStorage
from .storage import Storage


def published_at(place: Place) -> Storage:
    """Return what is published at a place; nothing there is looked at yet."""
    if isinstance(place, Bucket):
        return BucketStorage(place)
    return FolderStorage(place)
