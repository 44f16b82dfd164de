"""What kind of edit a correction is, where it was made, what was seen, and what it replaced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("kind", sa.String(10), nullable=False, server_default="correct"),
        sa.Column("origin", sa.Text, nullable=False, server_default=""),
        sa.Column("replaces", sa.Integer),
        sa.Column("restores", sa.Integer),
        sa.Column("seen_digest", sa.String(64)),
    ):
        op.add_column("corrections", column)
