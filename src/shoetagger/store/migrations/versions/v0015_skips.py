"""Who passed an image on that the queue asked about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "skips",
        sa.Column("by", sa.Text, primary_key=True),
        sa.Column("image_id", sa.String(64), primary_key=True),
        sa.Column("skipped_at", sa.DateTime(timezone=True), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("skips_image_id", "skips", ["image_id"])
