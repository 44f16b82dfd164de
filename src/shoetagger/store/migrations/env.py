"""Alembic runs this; it works on the connection, and in the transaction, of `Store.migrate()`."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)


with context.begin_transaction():
    context.run_migrations()
