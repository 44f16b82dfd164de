"""The desk that each test gets."""

from helpers.desk import desk

__all__ = ["desk"]
