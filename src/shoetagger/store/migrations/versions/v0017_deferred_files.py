"""Which files a run has read and left to the next one, so that each is counted once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deferred_files",
        sa.Column("run_id", sa.String(32), primary_key=True),
        sa.Column("file_id", sa.String(64), primary_key=True),
        sqlite_with_rowid=False,
    )
