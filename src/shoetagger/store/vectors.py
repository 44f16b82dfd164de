"""What heads saw of images, as short vectors: which images are alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .bulk import insert_rows, upsert_rows
from .database import Database
from .image_rows import Kept
from .rows import Prediction
from .sql import PAGE
from .tables import corrections, images, vectors
from .verdicts import IN_FORCE

_SPACE_BYTES = 8  # at the head of a prediction's vector; the numbers follow, int8 each

_VECTORS = sa.select(images.c.image_id, vectors.c.space, vectors.c.vector).join(
    images, images.c.image_key == vectors.c.image_key
)

# Labelled images that one image is compared with, the latest ones: 64 bytes each.
_MOST_LABELLED = 20_000


class Similar(NamedTuple):
    """An image that resembles another one; `cosine` 1 means that both look the same to a head."""

    image_id: str
    cosine: float


class Vectors:
    """One vector of 64 numbers per image: the direction of what the widest head of a night saw.

    Vectors of one space can be compared: those of bundles that share backbone and head inputs. An
    image that such a bundle has not tagged since this is kept has none.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, image_ids: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the vectors, (64,) float32 of length 1, of those images that have one.

        Their products are cosines, above 0.97 for nearly equal images. Of several spaces, as after
        a change of the backbone, the images of the most frequent one are returned.
        """
        found: dict[str, dict[str, np.ndarray]] = {}
        with self._database.reading() as connection:
            for some in chunked(image_ids, PAGE):
                query = _VECTORS.where(images.c.image_id.in_(some))
                for row in connection.execute(query):
                    found.setdefault(row.space, {})[row.image_id] = _unit(row.vector)
        return max(found.values(), key=len, default={})

    def similar_labelled(self, image_id: str, most: int) -> list[Similar]:
        """Return up to `most` other images that people edited, the most similar ones first."""
        edited = (
            sa.select(corrections.c.image_id, sa.func.max(corrections.c.id).label("last"))
            .where(IN_FORCE, corrections.c.image_id != image_id)
            .group_by(corrections.c.image_id)
            .subquery()
        )
        with self._database.reading() as connection:
            own = connection.execute(_VECTORS.where(images.c.image_id == image_id)).one_or_none()
            if own is None:
                return []
            query = (
                _VECTORS.join(edited, edited.c.image_id == images.c.image_id)
                .where(vectors.c.space == own.space)
                .order_by(edited.c.last.desc())
                .limit(_MOST_LABELLED)
            )
            rows = connection.execute(query).all()
        if not rows:
            return []
        cosines = np.stack([_unit(row.vector) for row in rows]) @ _unit(own.vector)
        order = np.argsort(-cosines, kind="stable")[:most]
        return [Similar(rows[place].image_id, float(cosines[place])) for place in order]


def write_vectors(
    connection: Connection,
    batch: Sequence[Prediction],
    known: Mapping[str, Kept],
    new: Mapping[str, Kept],
) -> None:
    """Keep the vectors among predictions, for known images; a later one replaces an earlier one.

    `new` are the images that this transaction has inserted, and so have none.
    """
    made = {p.image_id: p.vector for p in batch if p.vector}
    rows = sorted(
        (known[image_id].key, vector[:_SPACE_BYTES].hex(), vector[_SPACE_BYTES:])
        for image_id, vector in made.items()
        if image_id in known
    )
    inserted = {image.key for image in new.values()}
    columns = ("image_key", "space", "vector")
    insert_rows(connection, vectors, columns, [row for row in rows if row[0] in inserted])
    upsert_rows(connection, vectors, columns, [row for row in rows if row[0] not in inserted])


def _unit(vector: bytes) -> np.ndarray:
    numbers = np.frombuffer(vector, np.int8).astype(np.float32)
    unit: np.ndarray = numbers / max(float(np.linalg.norm(numbers)), 1e-12)
    return unit
