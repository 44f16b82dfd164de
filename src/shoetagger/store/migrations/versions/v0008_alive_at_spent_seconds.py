"""When a run last showed that it goes on, and how much of its time is spent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tagging_runs", sa.Column("alive_at", sa.DateTime(timezone=True)))
    op.add_column(
        "handed_out", sa.Column("spent_seconds", sa.Float, nullable=False, server_default="0")
    )
