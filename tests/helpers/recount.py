"""The counts that the store keeps, against a count of what is there."""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa

from shoetagger.store import tables
from shoetagger.store.blocks import block_of
from shoetagger.store.sql import count

from .stores import stored_predictions


def check_counts(engine: sa.Engine) -> None:
    """Compare the kept counts with the rows, and each image's state with its files."""
    with engine.connect() as connection:
        files = connection.execute(sa.select(tables.files)).all()
        images = {row.image_id: row for row in connection.execute(sa.select(tables.images))}
        predictions = connection.execute(stored_predictions()).all()
        assert len(predictions) == count(connection, tables.predictions), "none without its image"
        of_files = dict(iter(connection.execute(sa.select(tables.file_counts))))
        blocks = connection.execute(sa.select(tables.blocks)).all()
        days = connection.execute(sa.select(tables.predicted_days)).all()
    assert {s: n for s, n in of_files.items() if n} == Counter(row.state for row in files)

    holders: dict[str, set[str]] = {image_id: set() for image_id in images}
    for row in files:
        if row.image_id in holders and row.state != "rejected":
            holders[row.image_id].add(row.state)
    assert {i: (row.seq > 0, row.replaced) for i, row in images.items()} == {
        i: ("tagged" in states, not states) for i, states in holders.items()
    }

    block = {i: block_of(row.seq) for i, row in images.items() if not row.replaced}
    counted = Counter(("", number) for number in block.values())
    counted += Counter((p.digest, block[p.image_id]) for p in predictions if p.image_id in block)
    assert {(row.digest, row.block): row.number for row in blocks if row.number} == counted
    per_day = Counter(
        (p.digest, images[p.image_id].day) for p in predictions if p.image_id in block
    )
    assert {(row.digest, row.day): row.number for row in days if row.number} == per_day
