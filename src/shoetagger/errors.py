"""The base classes of the errors that a user can cause and can mend."""

from __future__ import annotations


class ShoetaggerError(Exception):
    """What went wrong, where, and what to do next, in words for the person at the keyboard."""


class TransientError(ShoetaggerError):
    """A fault that may pass by itself, such as a database that restarts: worth another try."""
