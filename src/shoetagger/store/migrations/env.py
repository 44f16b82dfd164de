"""Alembic runs this on the connection, and in the transaction, of `Store.migrate()`.

`versions` holds one module per migration, `v<revision>_<what>.py`; a released one never changes.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)


with context.begin_transaction():
    context.run_migrations()
