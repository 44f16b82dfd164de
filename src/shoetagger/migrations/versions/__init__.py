"""One module a migration, `v<revision>_<what>.py`; none is changed once it was released."""
