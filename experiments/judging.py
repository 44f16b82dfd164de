"""Scores of several cross-validations -> figures with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from shoetagger.evaluate import interval, macro_f1, most_frequent_answer
from shoetagger.thresholds import UNCALIBRATED, calibrate, decide

RESAMPLES = 1000


@dataclass(frozen=True)
class Scored:
    """One cross-validation: fold (N,), scores (N, tags), NaN where a fold was not judged.

    `composites` are the scores of the same pictures on other backgrounds, all NaN where a recipe
    gives none.
    """

    folds: np.ndarray
    scores: np.ndarray
    composites: np.ndarray

    @property
    def judged(self) -> np.ndarray:
        return np.flatnonzero(~np.isnan(self.scores[:, 0]))


def figures(
    truth: np.ndarray,
    groups: Mapping[str, tuple[str, ...]],
    found: list[Scored],
    shrink: float | None,
) -> dict[str, Any]:
    """Judge the rows of all cross-validations together; `truth` is (N, tags), tags by group.

    Thresholds come from the other folds, or are 0.5 where `shrink` is None. Intervals resample
    pictures, each with all its rows: the same picture in three cross-validations is one fact.
    """
    pictures = np.concatenate([one.judged for one in found])
    true = truth[pictures]
    plain = np.concatenate([one.scores[one.judged] for one in found])
    calibrated = np.concatenate([_decide(one, one.scores, truth, groups, shrink) for one in found])
    document = {
        "judged": len(pictures),
        **_f1(true, calibrated, groups, pictures),
        "macro_f1_at_half": _macro(
            true, np.concatenate([_decide(one, one.scores, truth, groups, None) for one in found])
        ),
        "mean_average_precision": round(
            float(
                np.mean(
                    [average_precision_score(t, s) for t, s in zip(true.T, plain.T, strict=True)]
                )
            ),
            4,
        ),
        "exact_match": round(float((true == calibrated).all(axis=1).mean()), 4),
        "most_frequent_answer": most_frequent_answer(
            calibrated, [tag for tags in groups.values() for tag in tags]
        ),
        "answered": _shares(calibrated, groups),
    }
    if all(not np.isnan(one.composites[one.judged]).any() for one in found):
        other = [_decide(one, one.composites, truth, groups, shrink) for one in found]
        document["composites"] = _f1(true, np.concatenate(other), groups, pictures)
    return document


def _decide(
    one: Scored,
    scores: np.ndarray,
    truth: np.ndarray,
    groups: Mapping[str, tuple[str, ...]],
    shrink: float | None,
) -> np.ndarray:
    """Decide the judged rows group by group; a group without a passing tag gets its best one."""
    said = np.zeros_like(truth)
    for columns in _columns(groups).values():
        for number in np.unique(one.folds[one.judged]):
            here = one.judged[one.folds[one.judged] == number]
            others = one.judged[one.folds[one.judged] != number]
            limits = [UNCALIBRATED] * len(columns)
            if shrink is not None:
                known = np.ix_(others, columns)
                limits = list(calibrate(one.scores[known], truth[known], shrink)[0])
            said[np.ix_(here, columns)] = decide(scores[np.ix_(here, columns)], limits)
    return said[one.judged]


def _columns(groups: Mapping[str, tuple[str, ...]]) -> dict[str, list[int]]:
    found, start = {}, 0
    for name, tags in groups.items():
        found[name] = list(range(start, start + len(tags)))
        start += len(tags)
    return found


def _f1(
    true: np.ndarray, said: np.ndarray, groups: Mapping[str, tuple[str, ...]], pictures: np.ndarray
) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    rows = {picture: np.flatnonzero(pictures == picture) for picture in np.unique(pictures)}
    known = list(rows)
    draws = [
        np.concatenate([rows[p] for p in rng.choice(known, len(known))]) for _ in range(RESAMPLES)
    ]
    document: dict[str, Any] = {
        "macro_f1": _macro(true, said),
        "macro_f1_interval": interval(lambda r: _macro(true[r], said[r]), draws),
        "groups_f1": {},
        "tags": {},
    }
    for group, columns in _columns(groups).items():
        document["groups_f1"][group] = {
            "macro_f1": _macro(true[:, columns], said[:, columns]),
            "macro_f1_interval": interval(
                lambda r, c=columns: _macro(true[np.ix_(r, c)], said[np.ix_(r, c)]), draws
            ),
        }
        for tag, column in zip(groups[group], columns, strict=True):
            document["tags"][tag] = _macro(true[:, [column]], said[:, [column]])
    return document


def _macro(true: np.ndarray, said: np.ndarray) -> float:
    return round(macro_f1(true, said, np.ones(true.shape[1], dtype=bool)) or 0.0, 4)


def _shares(said: np.ndarray, groups: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    tags = [tag for tags in groups.values() for tag in tags]
    return {tag: round(float(share), 4) for tag, share in zip(tags, said.mean(axis=0), strict=True)}
