"""How far the work of a run was handed out: all its shards draw from one queue, newest first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "handed_out",
        sa.Column("run_id", sa.String(32), primary_key=True),
        sa.Column("files_after", sa.String(64)),
        sa.Column("images_below", sa.BigInteger),
        sqlite_with_rowid=False,
    )
