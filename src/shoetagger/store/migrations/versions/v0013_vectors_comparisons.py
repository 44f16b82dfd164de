"""What heads saw of images, and what comparisons of challengers found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "vectors",
        sa.Column("image_id", sa.String(64), primary_key=True),
        sa.Column("space", sa.String(16), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "comparisons",
        sa.Column("digest", sa.String(64), sa.ForeignKey("versions.digest"), primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "changes",
        sa.Column("digest", sa.String(64), sa.ForeignKey("comparisons.digest"), primary_key=True),
        sa.Column("image_id", sa.String(64), primary_key=True),
        sa.Column("before", sa.JSON, nullable=False),
        sa.Column("after", sa.JSON, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("changes_image_id", "changes", ["image_id"])
