"""The store: files, pictures, what the models said of them, and which models count.

This package is the only one that speaks SQL, cut by subject. Every method is one or a few short
transactions and can be called again, from any number of processes, threads excepted: a thread has
its own Store.
"""

from __future__ import annotations

from .current import CurrentTags
from .database import Database
from .days import Days
from .files import Files
from .ledger import Ledger
from .predictions import Predictions
from .runs import Runs
from .sql import count
from .tables import files, versions


class Store:
    """The store behind a SQLAlchemy URL: a SQLite file or a PostgreSQL database.

    Except for `migrate`, every method raises StoreError, which says what to run, where the tables
    are missing or of another version.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self.files = Files(self._database)
        self.predictions = Predictions(self._database)
        self.ledger = Ledger(self._database)
        self.current = CurrentTags(self._database)
        self.runs = Runs(self._database)
        self.days = Days(self._database)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def migrate(self) -> None:
        """Make the tables, or bring those of an older version up to date; at any time, by anyone.

        Raises StoreError where the store is of a newer version than this code.
        """
        self._database.migrate()

    def is_used(self) -> bool:
        """Return whether there are any files or versions in it; a store without tables is not."""
        if not self._database.is_migrated():
            return False
        with self._database.reading() as connection:
            counted = (count(connection, table) for table in (files, versions))
            return any(counted)

    def close(self) -> None:
        """Let go of the connections; a later call opens new ones."""
        self._database.close()
