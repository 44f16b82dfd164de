"""Metrics per tag, per group and over all tags; the formulas are scikit-learn's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

from .documents import NOT_MEASURABLE, TAG_METRICS
from .resampling import central_interval, f1_by_tag, resampled_rows


def report(
    truth: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
    tags: Sequence[str],
    *,
    min_positives: int,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Return all metrics of one set of pictures, ready for JSON.

    `truth` is (N, tags) 0/1; `predicted` 0/1 and `scores` in 0..1 are of the same shape, or of
    (repeats, N, tags) from as many cross-validations. Then a metric is its mean over the repeats,
    and the standard deviation of the macro F1 between them stands beside it. A tag with fewer than
    `min_positives` positives is "not measurable": its metrics are that text, means leave it out,
    and the document names it beside them. Intervals are the central 95 % over `bootstrap` resamples
    of the pictures.
    """
    scores, predicted = _repeats(scores), _repeats(predicted)
    measurable = measurable_tags(truth, min_positives)
    draws = resampled_rows(len(truth), bootstrap, seed)
    document: dict[str, Any] = {
        "pictures": len(truth),
        "repeats": len(predicted),
        "macro_f1": rounded(macro_f1(truth, predicted, measurable)),
        "macro_f1_interval": interval(
            lambda rows: macro_f1(truth[rows], predicted[:, rows], measurable), draws
        ),
        **_deviation([macro_f1(truth, each, measurable) for each in predicted]),
        "micro_f1": _mean([f1_score(truth.ravel(), p.ravel(), zero_division=0) for p in predicted])
        if len(truth)
        else NOT_MEASURABLE,
        "exact_match": rounded(exact_match(truth, predicted)) if len(truth) else None,
        "most_frequent_prediction": most_frequent_prediction(np.concatenate(predicted), tags),
        "not_measurable": [tag for tag, enough in zip(tags, measurable, strict=True) if not enough],
        "tags": {},
    }
    for i, tag in enumerate(tags):
        document["tags"][tag] = _tag_report(
            truth[:, i], scores[..., i], predicted[..., i], bool(measurable[i]), draws
        )
    return document


def measurable_tags(truth: np.ndarray, min_positives: int) -> np.ndarray:
    """Return for each tag whether it has enough positives, and a negative, to be measured."""
    positives = truth.sum(axis=0)
    enough: np.ndarray = (positives >= max(min_positives, 1)) & (positives < len(truth))
    return enough


def macro_f1(truth: np.ndarray, predicted: np.ndarray, measurable: np.ndarray) -> float | None:
    """Return the mean F1 of the measurable tags, None where there is none.

    `truth` is (N, tags); `predicted`, too, or (repeats, N, tags), over which it is the mean.
    """
    if not measurable.any():
        return None
    known = truth[:, measurable]
    return float(np.mean([f1_by_tag(known, p[:, measurable]) for p in _repeats(predicted)]))


def exact_match(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of the pictures whose tags are all right; shapes as in `macro_f1`."""
    return float((truth == predicted).all(axis=-1).mean())


def frequency_macro_f1(
    training_truth: np.ndarray, truth: np.ndarray, measurable: np.ndarray
) -> float | None:
    """Return the expected macro F1 of predicting each tag at random, as often as in training.

    A tag predicted at rate p and true of a share q has an expected F1 of 2pq / (p + q).
    """
    if not measurable.any():
        return None
    p, q = training_truth.mean(axis=0)[measurable], truth.mean(axis=0)[measurable]
    return float((2 * p * q / (p + q)).mean())


def most_frequent_prediction(predicted: np.ndarray, tags: Sequence[str]) -> dict[str, Any]:
    """Return the set of tags predicted most often and the share of the pictures that get it.

    A share near 1 is the collapse that one large network shows: "boot" for everything.
    """
    if not len(predicted):
        return {"tags": [], "share": None}
    combination, times = Counter(map(tuple, predicted.tolist())).most_common(1)[0]
    chosen = [tag for tag, on in zip(tags, combination, strict=True) if on]
    return {"tags": chosen, "share": rounded(times / len(predicted))}


def interval(
    statistic: Callable[[np.ndarray], float | None], draws: Sequence[np.ndarray]
) -> list[float] | None:
    """Return the central 95 % of a statistic over draws of rows, rounded; None without a value."""
    limits = central_interval([value for value in map(statistic, draws) if value is not None])
    return limits and [rounded(limit) for limit in limits]


def _tag_report(
    truth: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
    measurable: bool,
    draws: Sequence[np.ndarray],
) -> dict[str, Any]:
    counts = {"support": int(truth.sum()), "predicted": round(predicted.sum() / len(predicted))}
    if not measurable:
        return counts | dict.fromkeys(TAG_METRICS, NOT_MEASURABLE)
    precision, recall, f1 = np.mean(
        [
            precision_recall_fscore_support(truth, each, average="binary", zero_division=0.0)[:3]
            for each in predicted
        ],
        axis=0,
    )
    return counts | {
        "precision": rounded(precision),
        "recall": rounded(recall),
        "f1": rounded(f1),
        "average_precision": _mean([average_precision_score(truth, each) for each in scores]),
        "f1_interval": interval(
            lambda rows: float(np.mean([f1_by_tag(truth[rows], p[rows]) for p in predicted])), draws
        ),
    }


def _repeats(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 3 else values[None]


def _mean(values: Sequence[float]) -> Any:
    return rounded(float(np.mean(values)))


def _deviation(values: Sequence[float | None]) -> dict[str, Any]:
    """Return by how much the macro F1 differs between repeats; empty where there is one."""
    known = [value for value in values if value is not None]
    return {"macro_f1_deviation": rounded(float(np.std(known, ddof=1)))} if len(known) > 1 else {}


def rounded(value: float | None) -> Any:
    """Return a metric to four decimals; None, where nothing can be measured, as that text."""
    return NOT_MEASURABLE if value is None else round(float(value), 4)
