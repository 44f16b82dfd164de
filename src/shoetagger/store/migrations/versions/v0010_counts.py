"""Counts of files, images and predictions, kept as they change instead of counted when asked.

They replace `coverage`. An image that no file there holds has a negative `seq` from now on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Blocks of 1,000, rounded down: SQL's division would round towards 0.
_BLOCK = "CASE WHEN seq < 0 THEN -1 - (-seq - 1) / 1000 ELSE seq / 1000 END"


def upgrade() -> None:
    op.create_table(
        "file_counts",
        sa.Column("state", sa.String(8), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "blocks",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("block", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "predicted_days",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO file_counts SELECT state, count(*) FROM files GROUP BY state")
    op.execute(
        "UPDATE images SET seq = -seq WHERE NOT EXISTS (SELECT 1 FROM files "
        "WHERE files.image_id = images.image_id AND files.state = 'tagged')"
    )
    op.execute(
        f"INSERT INTO blocks SELECT '', {_BLOCK}, count(*) FROM images "
        "WHERE NOT replaced GROUP BY 2"
    )
    op.execute(
        f"INSERT INTO blocks SELECT bundle_digest, {_BLOCK}, count(*) FROM predictions "
        "JOIN images ON images.image_id = predictions.image_id WHERE NOT replaced GROUP BY 1, 2"
    )
    op.execute(
        "INSERT INTO predicted_days SELECT bundle_digest, day, count(*) FROM predictions "
        "JOIN images ON images.image_id = predictions.image_id WHERE NOT replaced GROUP BY 1, 2"
    )
    op.drop_table("coverage")
