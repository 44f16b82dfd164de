"""What it costs and gains that a group may say "none of these"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .metrics import exact_match, macro_f1, rounded

# What `decide: {none_below: ...}` of a group may be tried with, besides the bound it has.
_BOUNDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


def abstention(
    truth: np.ndarray,
    predict: Callable[[float | None], np.ndarray],
    measurable: np.ndarray,
    none_below: float | None,
) -> dict[str, Any]:
    """Return what the bound in use does, and what others would do, ready for JSON.

    `truth` (N, tags) is 0/1; `predict` returns the predictions (repeats, N, tags) with a bound, and
    counts are their means over the repeats. `measurable` (tags,) are the tags that the macro F1 is
    of. `none_below` None is the rule `best`.
    """

    def outcome(bound: float | None) -> dict[str, Any]:
        predicted = predict(bound)
        abstained = ~predicted.any(axis=2)
        rightly = abstained & ~truth.any(axis=1)
        return {
            "none_below": bound,
            "abstained": round(abstained.sum() / len(predicted)),
            "rightly": round(rightly.sum() / len(predicted)),
            "macro_f1": rounded(macro_f1(truth, predicted, measurable)),
            "exact_match": rounded(exact_match(truth, predicted)) if len(truth) else None,
        }

    others = [None, *(bound for bound in _BOUNDS if bound != none_below)]
    return {
        "pictures_without_tags": int((~truth.any(axis=1)).sum()),
        "in_use": outcome(none_below),
        "others": [outcome(bound) for bound in others if bound != none_below],
    }
