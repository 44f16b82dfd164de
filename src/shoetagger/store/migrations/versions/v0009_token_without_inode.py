"""Tokens of size and time alone: those of known files lose the number of the inode."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of `size-time-inode`, the last number and then the dash before it.
    op.execute(
        "UPDATE files SET token = substr(rtrim(token, '0123456789'), 1, "
        "length(rtrim(token, '0123456789')) - 1) WHERE token LIKE '%-%-%'"
    )
