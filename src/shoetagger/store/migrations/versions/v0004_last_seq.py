"""The last `seq` given is remembered: that of an image erased since is never given again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "last_seq",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO last_seq (seq) SELECT coalesce(max(seq), 0) FROM "
        "(SELECT seq FROM images UNION ALL SELECT seq FROM coverage) AS given"
    )
    # What was given twice may be covered without its prediction: so count once more.
    op.execute("DELETE FROM coverage")
