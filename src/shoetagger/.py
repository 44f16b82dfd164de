"""Many small image-tagging models, kept in step with labels, pictures and each other."""

from __future__ import annotations
