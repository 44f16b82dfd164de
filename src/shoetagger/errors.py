"""The one base class of the errors that a user can cause and can mend."""


class ShoetaggerError(Exception):
    """What went wrong, where, and what to do next, in words for the person at the keyboard."""
