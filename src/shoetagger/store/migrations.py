"""The store's tables through time: Alembic's folder, run by `Store.migrate()`."""

from __future__ import annotations
