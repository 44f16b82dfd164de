"""Names that say what is meant: `files.changed_at`, `tagging_runs` and its `alerts`.

The databases' own RENAME, not Alembic's batch mode: that would copy `files`, which may be large.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("files", "last_seen", new_column_name="changed_at")
    op.drop_index("runs_started_at", "runs")
    op.rename_table("runs", "tagging_runs")
    op.alter_column("tagging_runs", "alarms", new_column_name="alerts")
    op.create_index("tagging_runs_started_at", "tagging_runs", ["started_at"])
