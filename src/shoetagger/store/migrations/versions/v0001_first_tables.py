"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
_DIGEST = sa.String(64)
_TIME = sa.DateTime(timezone=True)


def _partial_index(
    name: str, table: str, columns: list[str], where: str, *, unique: bool = False
) -> None:
    condition = sa.text(where)
    op.create_index(
        name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition
    )


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("file_id", _DIGEST, primary_key=True),
        sa.Column("locator", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("image_id", _DIGEST),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("first_seen", _TIME, nullable=False),
        sa.Column("last_seen", _TIME, nullable=False),
        sa.CheckConstraint("state IN ('new', 'tagged', 'rejected', 'gone')", name="files_state"),
        sqlite_with_rowid=False,
    )
    op.create_index("files_image_id", "files", ["image_id", "state"])
    _partial_index("files_new", "files", ["file_id"], "state = 'new'")
    _partial_index("files_rejected", "files", ["first_seen", "file_id"], "state = 'rejected'")
    _partial_index("files_gone", "files", ["file_id"], "state = 'gone'")
    op.create_table(
        "images",
        sa.Column("image_id", _DIGEST, primary_key=True),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("first_seen", _TIME, nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("replaced", sa.Boolean, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("images_seq", "images", ["seq"], unique=True)
    op.create_index("images_first_seen", "images", ["first_seen", "image_id"])
    _partial_index("images_replaced", "images", ["image_id"], "replaced")
    op.create_table(
        "versions",
        sa.Column("digest", _DIGEST, primary_key=True),
        sa.Column("group_name", sa.Text, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("registry_name", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("registered_at", _TIME, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "predictions",
        sa.Column("bundle_digest", _DIGEST, sa.ForeignKey("versions.digest"), primary_key=True),
        sa.Column("image_id", _DIGEST, primary_key=True),
        sa.Column("scores", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "coverage",
        sa.Column("bundle_digest", _DIGEST, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("group_name", sa.Text, nullable=False),
        sa.Column("from_digest", _DIGEST, sa.ForeignKey("versions.digest")),
        sa.Column("to_digest", _DIGEST, sa.ForeignKey("versions.digest")),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("data_revision", sa.Text),
        sa.Column("mlflow_run", sa.Text),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("done_at", _TIME),
        sa.CheckConstraint(
            "kind IN ('promote', 'rollback', 'manual', 'remove')", name="ledger_kind"
        ),
        sa.CheckConstraint("state IN ('pending', 'done', 'cancelled')", name="ledger_state"),
        sqlite_autoincrement=True,
    )
    _partial_index("ledger_one_pending", "ledger", ["group_name"], "state = 'pending'", unique=True)
    op.create_table(
        "corrections",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("image_id", _DIGEST, sa.ForeignKey("images.image_id"), nullable=False),
        sa.Column("group_name", sa.Text, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("withdrawn_at", _TIME),
        sqlite_autoincrement=True,
    )
    op.create_index("corrections_image", "corrections", ["image_id", "group_name"])
    _partial_index(
        "corrections_one_in_force",
        "corrections",
        ["group_name", "image_id"],
        "withdrawn_at IS NULL",
        unique=True,
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(32), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("pins", sa.JSON, nullable=False),
        sa.Column("counts", sa.JSON, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("runs_started_at", "runs", ["started_at"])
    op.create_table(
        "days",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("published", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
