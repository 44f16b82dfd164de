"""What a night is judged by and what was said of it; pictures that are not to be tagged again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Empty for the runs before: they are no yardstick for later ones.
    op.add_column("runs", sa.Column("rates", sa.JSON))
    op.add_column("runs", sa.Column("alarms", sa.JSON))
    op.create_table(
        "forgotten",
        sa.Column("image_id", sa.String(64), primary_key=True),
        sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=False),
        sqlite_with_rowid=False,
    )
