"""Metrics of several cross-validations, with bootstrap intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from shoetagger.inference.decision import UNCALIBRATED, predict
from shoetagger.learning.evaluation.calibration import calibrate
from shoetagger.learning.evaluation.metrics import (
    interval,
    macro_f1,
    measurable_tags,
    most_frequent_prediction,
    rounded,
)
from shoetagger.learning.evaluation.resampling import resampled_rows

RESAMPLES = 1000

# On other backgrounds, and as smaller parts of the picture, on a ground of their border's colour.
SHOWN_OTHERWISE = ("composites", "shrunk_07", "shrunk_05")


@dataclass(frozen=True)
class Scored:
    """One cross-validation: fold (N,), scores (N, tags), NaN where a fold was not scored.

    `others` are the scores of the same pictures shown otherwise, by the names of SHOWN_OTHERWISE;
    one is all NaN where the recipe has none. `learned` are the pictures that each fold learned
    from, `seconds` of CPU what learning and scoring it took.
    """

    folds: np.ndarray
    scores: np.ndarray
    others: Mapping[str, np.ndarray]
    seconds: tuple[float, ...] = ()
    learned: tuple[int, ...] = ()

    def of(self, part: str) -> np.ndarray:
        """Return the scores of the pictures as they are ("scores"), or of one of the others."""
        return self.scores if part == "scores" else self.others[part]

    @property
    def evaluated(self) -> np.ndarray:
        return np.flatnonzero(~np.isnan(self.scores[:, 0]))


@dataclass(frozen=True)
class Rule:
    """How rows are evaluated: tags by group, and two keys of `evaluate` in params.yaml.

    Thresholds come from the other folds, or are 0.5 where `shrink` is None. A tag with fewer
    positives than `min_positives` is not measurable: means leave it out.
    """

    groups: Mapping[str, tuple[str, ...]]
    min_positives: int
    shrink: float | None

    @property
    def tags(self) -> list[str]:
        return [tag for tags in self.groups.values() for tag in tags]


def metrics(rule: Rule, truth: np.ndarray, scored: list[Scored]) -> dict[str, Any]:
    """Rule the rows of all cross-validations together; `truth` is (N, tags), tags by group.

    Intervals resample pictures, each with all its rows: the same picture in three cross-validations
    is one fact.
    """
    images = np.concatenate([one.evaluated for one in scored])
    known = truth[np.unique(images)]
    measurable = measurable_tags(known, rule.min_positives)
    true = truth[images]
    plain = np.concatenate([one.scores[one.evaluated] for one in scored])
    predicted = _predicted(rule, truth, scored, "scores")
    at_half = _predicted(dataclasses.replace(rule, shrink=None), truth, scored, "scores")
    document = {
        "evaluated": len(images),
        "pictures_evaluated": len(known),
        "support": dict(zip(rule.tags, known.sum(axis=0).tolist(), strict=True)),
        **_f1(rule.groups, true, predicted, measurable, images),
        "macro_f1_at_half": rounded(macro_f1(true, at_half, measurable)),
        "mean_average_precision": round(_average_precision(true, plain, measurable), 4),
        "exact_match": round(float((true == predicted).all(axis=1).mean()), 4),
        "most_frequent_prediction": most_frequent_prediction(predicted, rule.tags),
        "predicted": _shares(predicted, rule.tags),
    }
    for part in _others_of(scored):
        other = _predicted(rule, truth, scored, part)
        document[part] = _f1(rule.groups, true, other, measurable, images)
    return document


def differences(
    rule: Rule, truth: np.ndarray, scored: list[Scored], reference: list[Scored]
) -> dict[str, Any]:
    """Return the gain in macro F1 over a `reference` recipe on the same folds.

    Intervals are paired: each resample of pictures serves both recipes. They leave out the variance
    between draws of folds and between seeds of training.
    """
    images = np.concatenate([one.evaluated for one in scored])
    measurable = measurable_tags(truth[np.unique(images)], rule.min_positives)
    true, draws = truth[images], _resamples(images)
    document: dict[str, Any] = {}
    both = [part for part in _others_of(scored) if part in _others_of(reference)]
    for part in ("scores", *both):
        one, other = (_predicted(rule, truth, each, part) for each in (scored, reference))

        def gain(rows: np.ndarray, a: np.ndarray = one, b: np.ndarray = other) -> float | None:
            better = macro_f1(true[rows], a[rows], measurable)
            worse = macro_f1(true[rows], b[rows], measurable)
            return None if better is None or worse is None else better - worse

        document[part] = {
            "macro_f1": rounded(gain(np.arange(len(true)))),
            "macro_f1_interval": interval(gain, draws),
        }
    return document


def of_first_fold(scored: list[Scored]) -> list[Scored]:
    """Return the scores of the first fold of each cross-validation, the others NaN."""

    def alone(one: Scored, scores: np.ndarray) -> np.ndarray:
        return np.where((one.folds == 0)[:, None], scores, np.nan)

    return [
        dataclasses.replace(
            one,
            scores=alone(one, one.scores),
            others={part: alone(one, scores) for part, scores in one.others.items()},
        )
        for one in scored
    ]


def _others_of(scored: list[Scored]) -> list[str]:
    """Return in which other ways all pictures were shown to the models."""
    return [
        part
        for part in SHOWN_OTHERWISE
        if all(
            part in one.others and not np.isnan(one.others[part][one.evaluated]).any()
            for one in scored
        )
    ]


def _predicted(rule: Rule, truth: np.ndarray, scored: list[Scored], part: str) -> np.ndarray:
    """Return the predictions of all evaluated rows, one cross-validation after the other."""
    return np.concatenate([_predict(rule, one, one.of(part), truth) for one in scored])


def _predict(rule: Rule, one: Scored, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the predictions of the evaluated rows of one cross-validation, group by group."""
    predicted = np.zeros_like(truth)
    for columns in _columns(rule.groups).values():
        for number in np.unique(one.folds[one.evaluated]):
            here = one.evaluated[one.folds[one.evaluated] == number]
            others = one.evaluated[one.folds[one.evaluated] != number]
            limits = [UNCALIBRATED] * len(columns)
            if rule.shrink is not None:
                known = np.ix_(others, columns)
                limits = list(calibrate(one.scores[known], truth[known], rule.shrink)[0])
            predicted[np.ix_(here, columns)] = predict(scores[np.ix_(here, columns)], limits)
    return predicted[one.evaluated]


def _columns(groups: Mapping[str, tuple[str, ...]]) -> dict[str, list[int]]:
    columns, start = {}, 0
    for name, tags in groups.items():
        columns[name] = list(range(start, start + len(tags)))
        start += len(tags)
    return columns


def _f1(
    groups: Mapping[str, tuple[str, ...]],
    true: np.ndarray,
    predicted: np.ndarray,
    measurable: np.ndarray,
    images: np.ndarray,
) -> dict[str, Any]:
    draws = _resamples(images)
    document: dict[str, Any] = _with_interval(true, predicted, measurable, draws)
    document |= {"groups_f1": {}, "tags": {}}
    for group, columns in _columns(groups).items():
        document["groups_f1"][group] = _with_interval(
            true[:, columns], predicted[:, columns], measurable[columns], draws
        )
        for tag, column in zip(groups[group], columns, strict=True):
            alone = [column]
            f1 = macro_f1(true[:, alone], predicted[:, alone], measurable[alone])
            document["tags"][tag] = rounded(f1)
    return document


def _with_interval(
    true: np.ndarray, predicted: np.ndarray, measurable: np.ndarray, draws: list[np.ndarray]
) -> dict[str, Any]:
    return {
        "macro_f1": rounded(macro_f1(true, predicted, measurable)),
        "macro_f1_interval": interval(lambda r: macro_f1(true[r], predicted[r], measurable), draws),
    }


def _average_precision(true: np.ndarray, scores: np.ndarray, measurable: np.ndarray) -> float:
    columns = np.flatnonzero(measurable)
    return float(np.mean([average_precision_score(true[:, i], scores[:, i]) for i in columns]))


def _resamples(images: np.ndarray) -> list[np.ndarray]:
    """Return RESAMPLES draws of pictures, each as the rows of all the pictures drawn."""
    rows = [np.flatnonzero(images == image) for image in np.unique(images)]
    return [
        np.concatenate([rows[image] for image in draw])
        for draw in resampled_rows(len(rows), RESAMPLES, seed=1)
    ]


def _shares(predicted: np.ndarray, tags: list[str]) -> dict[str, float]:
    return {
        tag: round(float(share), 4) for tag, share in zip(tags, predicted.mean(axis=0), strict=True)
    }
