"""The store: files, images, predictions, and the bundles that count.

This package is the only one that uses SQL, with one module per subject. Every method is one or a
few short transactions, can be called again, and is safe in any number of processes; threads do not
share a Store.
"""

from __future__ import annotations

import sqlalchemy as sa

from .cleaning import Cleaning
from .comparisons import Comparisons
from .corrections import Corrections
from .current import CurrentTags
from .database import Database
from .days import Days
from .files import Files
from .ledger import Ledger
from .predictions import Predictions
from .runs import TaggingRuns
from .skips import Skips
from .tables import files, versions
from .turns import Turns
from .vectors import Vectors


class Store:
    """The store behind a SQLAlchemy URL: a SQLite file or a PostgreSQL database.

    Every method but `migrate` raises StoreError, which names the command to run, where the tables
    are missing or of another version.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self.files = Files(self._database)
        self.predictions = Predictions(self._database)
        self.ledger = Ledger(self._database)
        self.corrections = Corrections(self._database)
        self.current = CurrentTags(self._database)
        self.runs = TaggingRuns(self._database)
        self.days = Days(self._database)
        self.cleaning = Cleaning(self._database)
        self.vectors = Vectors(self._database)
        self.comparisons = Comparisons(self._database)
        self.skips = Skips(self._database)
        self.turns = Turns(self._database)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def migrate(self) -> None:
        """Create the tables, or upgrade those of an older version; safe in processes at once.

        Raises StoreError where the store is of a newer version than this code.
        """
        self._database.migrate()

    def is_empty(self) -> bool:
        """Return whether there are neither files nor versions; without tables there are none."""
        if not self._database.is_migrated():
            return True
        with self._database.reading() as connection:
            return not any(
                connection.execute(sa.select(table).limit(1)).first() for table in (files, versions)
            )

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._database.close()
