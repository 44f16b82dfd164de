"""The tables, as the code sees them; `migrations` creates them, and a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator


# SQLAlchemy's signature has arguments that are not used here:
# ruff: noqa: ARG002
class UtcTime(TypeDecorator[datetime]):
    """A point in time: aware in Python, UTC in the database, on SQLite and PostgreSQL alike."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError(f"{value!r} has no time zone: use datetime.now(UTC)")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        # SQLite keeps no zone: a naive value was written as UTC.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(
        name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where)
    )


metadata = MetaData()
_DIGEST = String(64)
_KEY = BigInteger().with_variant(Integer, "sqlite")  # of a table that SQLite keeps in this order

# file_id is the sha256 of the locator: a key of one length, by which work is divided into shards.
files = Table(
    "files",
    metadata,
    Column("file_id", _DIGEST, primary_key=True),
    Column("locator", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("image_id", _DIGEST),
    Column("state", String(8), nullable=False),
    Column("reason", Text),
    Column("first_seen", UtcTime, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
    CheckConstraint("state IN ('new', 'tagged', 'rejected', 'gone')", name="files_state"),
    Index("files_image_id", "image_id", "state"),
    _partial("files_new", "file_id", where="state = 'new'"),
    _partial("files_rejected", "first_seen", "file_id", where="state = 'rejected'"),
    _partial("files_gone", "file_id", where="state = 'gone'"),
    sqlite_with_rowid=False,
)

# The number of files in each state.
file_counts = Table(
    "file_counts",
    metadata,
    Column("state", String(8), primary_key=True),
    Column("number", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# image_key names an image in the tables that grow with the number of images: given once, in the
# order of arrival, so that what is written about new images lies side by side. An image_id is a
# hash: under it, each row would be written to a page of its own.
# seq grows whenever an image can be tagged (again), and is negative while no file with its bytes is
# there. replaced: no file holds these bytes any more.
images = Table(
    "images",
    metadata,
    Column("image_key", _KEY, primary_key=True, autoincrement=False),
    Column("image_id", _DIGEST, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("first_seen", UtcTime, nullable=False),
    Column("day", String(10), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("replaced", Boolean, nullable=False),
    Index("images_image_id", "image_id", unique=True),
    Index("images_seq", "seq", unique=True),
    Index("images_first_seen", "first_seen", "image_id"),
    _partial("images_replaced", "image_id", where="replaced"),
)

# The last `seq` given, in one row: none is ever given twice.
last_seq = Table(
    "last_seq",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

# bundle_key names a bundle in the table `predictions`.
versions = Table(
    "versions",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("group_name", Text, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("registry_name", Text),
    Column("version", Text),
    Column("registered_at", UtcTime, nullable=False),
    Column("bundle_key", Integer, nullable=False),
    Index("versions_bundle_key", "bundle_key", unique=True),
    sqlite_with_rowid=False,
)

# The bundle comes first in the key: counting or deleting its predictions is one range, and no
# second index is needed, since a query for an image names the bundles that matter.
# No foreign keys: to look up two more rows for each one written would cost as much as writing it.
# Both keys were read in the same transaction, and neither is ever given twice.
predictions = Table(
    "predictions",
    metadata,
    Column("bundle_key", Integer, primary_key=True, autoincrement=False),
    Column("image_key", BigInteger, primary_key=True, autoincrement=False),
    Column("scores", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("unsure", Boolean, nullable=False, server_default=false()),
    sqlite_with_rowid=False,
)

# How many images that are not replaced each block of `seq` has (digest ''), and how many of them
# each bundle has predicted; see blocks.py.
blocks = Table(
    "blocks",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# unanswered: requests to move the alias, sent for this move, whose answer did not come while the
# move was its group's latest: they may still arrive, after later moves.
ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("group_name", Text, nullable=False),
    Column("from_digest", _DIGEST, ForeignKey("versions.digest")),
    Column("to_digest", _DIGEST, ForeignKey("versions.digest")),
    Column("kind", String(10), nullable=False),
    Column("state", String(10), nullable=False),
    Column("by", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("data_revision", Text),
    Column("mlflow_run", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("done_at", UtcTime),
    Column("unanswered", Integer, nullable=False, server_default="0"),
    CheckConstraint("kind IN ('promote', 'rollback', 'manual', 'remove')", name="ledger_kind"),
    CheckConstraint("state IN ('pending', 'done', 'cancelled')", name="ledger_state"),
    _partial("ledger_one_pending", "group_name", where="state = 'pending'", unique=True),
    sqlite_autoincrement=True,
)

# At most one correction per image and group is in force: the one not withdrawn. Rows are only added
# (and withdrawn), by one writer at a time, so those after an id are all that changed since.
corrections = Table(
    "corrections",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("image_id", _DIGEST, ForeignKey("images.image_id"), nullable=False),
    Column("group_name", Text, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("by", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("withdrawn_at", UtcTime),
    Column("kind", String(10), nullable=False, server_default="correct"),
    Column("origin", Text, nullable=False, server_default=""),
    Column("replaces", Integer),
    Column("restores", Integer),
    Column("seen_digest", _DIGEST),
    Column("collected_in", Text),
    Index("corrections_image", "image_id", "group_name"),
    _partial(
        "corrections_one_in_force",
        "group_name",
        "image_id",
        where="withdrawn_at IS NULL",
        unique=True,
    ),
    sqlite_autoincrement=True,
)

# What a head saw of an image, 64 bytes: those of one space can be compared. One per image.
vectors = Table(
    "vectors",
    metadata,
    Column("image_key", _KEY, primary_key=True, autoincrement=False),
    Column("space", String(16), nullable=False),
    Column("vector", LargeBinary, nullable=False),
)

# The images that a person passed on when the queue asked about them.
skips = Table(
    "skips",
    metadata,
    Column("by", Text, primary_key=True),
    Column("image_id", _DIGEST, primary_key=True),
    Column("skipped_at", UtcTime, nullable=False),
    Index("skips_image_id", "image_id"),
    sqlite_with_rowid=False,
)

# What was found when a challenger was compared, the latest per bundle, as the report has it.
comparisons = Table(
    "comparisons",
    metadata,
    Column("digest", _DIGEST, ForeignKey("versions.digest"), primary_key=True),
    Column("created_at", UtcTime, nullable=False),
    Column("document", JSON, nullable=False),
    sqlite_with_rowid=False,
)

# The arrivals whose tags the challenger would change, of those that were looked at.
changes = Table(
    "changes",
    metadata,
    Column("digest", _DIGEST, ForeignKey("comparisons.digest"), primary_key=True),
    Column("image_id", _DIGEST, primary_key=True),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    Index("changes_image_id", "image_id"),
    sqlite_with_rowid=False,
)

# How many of a day's images that are not replaced each bundle has predicted.
predicted_days = Table(
    "predicted_days",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("number", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# alive_at: when a run last showed that it goes on; one that never did is of an older version.
tagging_runs = Table(
    "tagging_runs",
    metadata,
    Column("run_id", String(32), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("state", Text, nullable=False),
    Column("pins", JSON, nullable=False),
    Column("counts", JSON, nullable=False),
    Column("rates", JSON(none_as_null=True)),
    Column("alerts", JSON(none_as_null=True)),
    Column("alive_at", UtcTime),
    Index("tagging_runs_started_at", "started_at"),
    sqlite_with_rowid=False,
)

# How far the work of a run was handed out to its shards: files in the order of file_id, then images
# from the highest seq down; and how long its shards have worked. A run that ended has no row.
handed_out = Table(
    "handed_out",
    metadata,
    Column("run_id", String(32), primary_key=True),
    Column("files_after", _DIGEST),
    Column("images_below", BigInteger),
    Column("spent_seconds", Float, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

# The files that a run has read and left to the next one, of the latest runs: each counts once.
deferred_files = Table(
    "deferred_files",
    metadata,
    Column("run_id", String(32), primary_key=True),
    Column("file_id", _DIGEST, primary_key=True),
    sqlite_with_rowid=False,
)

# Images that a person had erased: their bytes are refused, whatever the file's name.
forgotten = Table(
    "forgotten",
    metadata,
    Column("image_id", _DIGEST, primary_key=True),
    Column("forgotten_at", UtcTime, nullable=False),
    sqlite_with_rowid=False,
)

# A day whose revision is above the published one has rows that are not published yet.
days = Table(
    "days",
    metadata,
    Column("day", String(10), primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("published", Integer, nullable=False),
    sqlite_with_rowid=False,
)
