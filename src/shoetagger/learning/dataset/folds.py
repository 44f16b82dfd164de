"""Folds of a cross-validation by a hash of seed and image id: new rows move no others."""

from __future__ import annotations

import hashlib

from ...config import recipe


def fold(image_id: str, split: recipe.Split, repeat: int = 0) -> int:
    """Return the picture's fold, 0..folds-1, independent of its side; 0 where there are none.

    Each `repeat` of the cross-validation, from 0, divides the pictures anew; equal files share a
    fold in all of them.
    """
    purpose = f"fold {repeat}" if repeat else "fold"
    return int(fraction(split.seed, purpose, image_id) * split.folds)


def fraction(seed: int, purpose: str, image_id: str) -> float:
    """Return a number in [0, 1) that only these three determine."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{image_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # 53 bits: never rounds up to 1
