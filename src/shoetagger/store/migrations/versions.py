"""One module a migration, `v<revision>_<what>.py`; none is changed once it was released."""

from __future__ import annotations
