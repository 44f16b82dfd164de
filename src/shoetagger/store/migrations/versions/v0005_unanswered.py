"""Requests to move an alias that were sent and not answered: a late one is no move by hand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ledger", sa.Column("unanswered", sa.Integer, nullable=False, server_default="0"))
