"""Scores and truth -> figures of merit a tag, a group and over all; formulas are scikit-learn's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

NOT_MEASURABLE = "not measurable"
TAG_FIGURES = ("precision", "recall", "f1", "average_precision", "f1_interval")
_REPORT_FIGURES = ("macro_f1", "macro_f1_at_half", "micro_f1", "exact_match")
_SUMMARY_FIGURES = ("macro_f1", "micro_f1", "exact_match")
_INTERVAL = (2.5, 97.5)


def report(
    truth: np.ndarray,
    scores: np.ndarray,
    decisions: np.ndarray,
    tags: Sequence[str],
    *,
    min_positives: int,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Return all figures of one set of pictures as a plain document.

    `truth` and `decisions` are (N, tags) 0/1, `scores` (N, tags) in 0..1. A tag with fewer than
    `min_positives` positives is "not measurable": its figures are that text, and means leave it
    out. Intervals are percentiles of `bootstrap` resamples of the pictures.
    """
    measurable = measurable_tags(truth, min_positives)
    draws = _resamples(len(truth), bootstrap, seed)
    document: dict[str, Any] = {
        "pictures": len(truth),
        "macro_f1": _rounded(macro_f1(truth, decisions, measurable)),
        "macro_f1_interval": interval(
            lambda rows: macro_f1(truth[rows], decisions[rows], measurable), draws
        ),
        "micro_f1": _rounded(f1_score(truth.ravel(), decisions.ravel(), zero_division=0.0))
        if len(truth)
        else NOT_MEASURABLE,
        "exact_match": _rounded((truth == decisions).all(axis=1).mean()) if len(truth) else None,
        "most_frequent_answer": most_frequent_answer(decisions, tags),
        "tags": {},
    }
    for i, tag in enumerate(tags):
        document["tags"][tag] = _tag_report(
            truth[:, i], scores[:, i], decisions[:, i], bool(measurable[i]), draws
        )
    return document


def measurable_tags(truth: np.ndarray, min_positives: int) -> np.ndarray:
    """Return for each tag whether it has enough positives, and a negative, to be measured."""
    positives = truth.sum(axis=0)
    enough: np.ndarray = (positives >= max(min_positives, 1)) & (positives < len(truth))
    return enough


def macro_f1(truth: np.ndarray, decisions: np.ndarray, measurable: np.ndarray) -> float | None:
    """Return the mean F1 of the measurable tags, None where there is none."""
    if not measurable.any():
        return None
    return float(_f1_by_tag(truth[:, measurable], decisions[:, measurable]).mean())


def frequency_macro_f1(
    training_truth: np.ndarray, truth: np.ndarray, measurable: np.ndarray
) -> float | None:
    """Return the macro F1 of answering each tag at random as often as it is true in training.

    The expected F1 of such an answer with rate p where a share q is true is 2pq / (p + q).
    """
    if not measurable.any():
        return None
    p, q = training_truth.mean(axis=0)[measurable], truth.mean(axis=0)[measurable]
    return float((2 * p * q / (p + q)).mean())


def most_frequent_answer(decisions: np.ndarray, tags: Sequence[str]) -> dict[str, Any]:
    """Return the tags most often answered together and the share of pictures that get them.

    A share near 1 is the collapse that one large network shows: "boot" for everything.
    """
    if not len(decisions):
        return {"tags": [], "share": None}
    answer, times = Counter(map(tuple, decisions.tolist())).most_common(1)[0]
    chosen = [tag for tag, on in zip(tags, answer, strict=True) if on]
    return {"tags": chosen, "share": _rounded(times / len(decisions))}


def flat_figures(document: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a metrics document under the names that MLflow shows."""
    flat = {key: document[key] for key in ("macro_f1", "frequency_macro_f1")}
    flat = {k: float(v) for k, v in flat.items() if isinstance(v, int | float)}
    for part in ("validation", "crossval"):
        flat |= flat_report(part, document[part])
    return flat


def flat_report(part: str, report: dict[str, Any] | None) -> dict[str, float]:
    """Return the numbers of one report, each name beginning with the part it judges."""
    if report is None:
        return {}
    flat = {f"{part}_{key}": report.get(key) for key in _REPORT_FIGURES}
    flat[f"{part}_most_frequent_share"] = report["most_frequent_answer"]["share"]
    for tag, figures in report["tags"].items():
        flat |= {f"{part}_{key}_{tag}": figures[key] for key in ("support", *TAG_FIGURES)}
    # Neither intervals nor what is not measurable are a number.
    return {k: float(v) for k, v in flat.items() if isinstance(v, int | float)}


def summary(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return of the reports of a metrics document the few figures that fit on one line."""
    parts = {part: document[part] for part in ("crossval", "validation")}
    return {
        part: {key: report[key] for key in _SUMMARY_FIGURES}
        for part, report in parts.items()
        if report is not None
    }


def interval(
    statistic: Callable[[np.ndarray], float | None], draws: Sequence[np.ndarray]
) -> list[float] | None:
    """Return the central 95 % of a statistic over resamples of rows; None without resamples."""
    found = [value for value in map(statistic, draws) if value is not None]
    return [_rounded(v) for v in np.percentile(found, _INTERVAL)] if found else None


def _tag_report(
    truth: np.ndarray,
    scores: np.ndarray,
    decisions: np.ndarray,
    measurable: bool,
    draws: Sequence[np.ndarray],
) -> dict[str, Any]:
    counts = {"support": int(truth.sum()), "answered": int(decisions.sum())}
    if not measurable:
        return counts | dict.fromkeys(TAG_FIGURES, NOT_MEASURABLE)
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, decisions, average="binary", zero_division=0.0
    )
    return counts | {
        "precision": _rounded(precision),
        "recall": _rounded(recall),
        "f1": _rounded(f1),
        "average_precision": _rounded(average_precision_score(truth, scores)),
        "f1_interval": interval(
            lambda rows: float(_f1_by_tag(truth[rows], decisions[rows])), draws
        ),
    }


def _f1_by_tag(truth: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    # Written out, and held against scikit-learn's by a test: a thousand resamples a tag through
    # its checks of inputs would take minutes.
    both = truth.sum(axis=0, dtype=np.int64) + decisions.sum(axis=0, dtype=np.int64)
    f1: np.ndarray = 2 * (truth & decisions).sum(axis=0, dtype=np.int64) / np.maximum(both, 1)
    return f1


def _resamples(pictures: int, times: int, seed: int) -> list[np.ndarray]:
    if not pictures:
        return []
    rng = np.random.default_rng(seed)
    return [rng.integers(0, pictures, pictures) for _ in range(times)]


def _rounded(value: float | None) -> Any:
    return NOT_MEASURABLE if value is None else round(float(value), 4)
