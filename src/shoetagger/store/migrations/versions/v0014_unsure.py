"""Whether an image is far from all that a bundle has learned from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("unsure", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("predictions", column)
