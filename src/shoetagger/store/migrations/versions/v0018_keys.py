"""Short keys of images and bundles, in the order of arrival, in place of hashes.

A prediction, a vector and the row of an image are written beside those of the images that arrived
with it. These tables are written anew: while it runs, this needs as much room as they take.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    _number_the_bundles()
    if not _on_sqlite():
        op.drop_constraint("corrections_image_id_fkey", "corrections")
    _write_anew(
        "predictions",
        sa.Column("bundle_key", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("image_key", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("scores", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("unsure", sa.Boolean, nullable=False, server_default=sa.false()),
        rows="SELECT bundle_key, abs(seq), scores, predictions.tags, run_id, created_at, unsure "
        "FROM predictions JOIN versions ON digest = bundle_digest "
        "JOIN images ON images.image_id = predictions.image_id ORDER BY 1, 2",
        sqlite_with_rowid=False,
    )
    _write_anew(
        "vectors",
        sa.Column("image_key", _KEY, primary_key=True, autoincrement=False),
        sa.Column("space", sa.String(16), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        rows="SELECT abs(seq), space, vector FROM vectors "
        "JOIN images ON images.image_id = vectors.image_id ORDER BY 1",
    )
    _write_anew(
        "images",
        sa.Column("image_key", _KEY, primary_key=True, autoincrement=False),
        sa.Column("image_id", sa.String(64), nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("replaced", sa.Boolean, nullable=False),
        rows="SELECT abs(seq), image_id, width, height, first_seen, day, seq, replaced "
        "FROM images ORDER BY 1",
    )
    op.create_index("images_image_id", "images", ["image_id"], unique=True)
    op.create_index("images_seq", "images", ["seq"], unique=True)
    op.create_index("images_first_seen", "images", ["first_seen", "image_id"])
    replaced = sa.text("replaced")
    op.create_index(
        "images_replaced",
        "images",
        ["image_id"],
        sqlite_where=replaced,
        postgresql_where=replaced,
    )
    if not _on_sqlite():
        op.create_foreign_key(
            "corrections_image_id_fkey", "corrections", "images", ["image_id"], ["image_id"]
        )


def _number_the_bundles() -> None:
    op.add_column("versions", sa.Column("bundle_key", sa.Integer))
    op.execute(
        "UPDATE versions SET bundle_key = (SELECT count(*) FROM versions AS earlier "
        "WHERE (earlier.registered_at, earlier.digest) "
        "<= (versions.registered_at, versions.digest))"
    )
    with op.batch_alter_table("versions", table_kwargs={"sqlite_with_rowid": False}) as table:
        table.alter_column("bundle_key", nullable=False)
    op.create_index("versions_bundle_key", "versions", ["bundle_key"], unique=True)


def _write_anew(name: str, *columns: sa.Column[object], rows: str, **options: bool) -> None:
    new = f"{name}_0018"
    op.create_table(new, *columns, **options)
    op.execute(f"INSERT INTO {new} {rows}")
    op.drop_table(name)
    op.rename_table(new, name)
    if not _on_sqlite():
        op.execute(f"ALTER INDEX {new}_pkey RENAME TO {name}_pkey")


def _on_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"
