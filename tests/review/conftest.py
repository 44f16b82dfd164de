"""The desk that each test gets."""

from helpers.desk import desk, migrated

__all__ = ["desk", "migrated"]
